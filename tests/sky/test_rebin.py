from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.signal import DQ, UNUSABLE, Signal
from kspecpipe.sky.rebin import Grid, inflate_errors, pixel_widths, rebin, rebin_back

NX = 400
KERNELS = ["cubic", "overlap"]


def edges_of_fibres(nfib: int = 5, nx: int = NX) -> np.ndarray:
    """Pixel edges from the grating equation, every fibre shifted by a fraction of a pixel."""
    x = np.arange(nx + 1) - 0.5 - nx / 2
    angle = 0.18 + np.arctan((x[None, :] + 0.37 * np.arange(nfib)[:, None]) * 0.02 / 320)
    return 1e7 / 600 * (np.sin(angle) + 0.16)


def centres(edges: np.ndarray) -> np.ndarray:
    """Wavelength half a pixel from the edges, exactly."""
    nfib, nx = edges.shape[0], edges.shape[1] - 1
    x = np.arange(nx) - nx / 2
    angle = 0.18 + np.arctan((x[None, :] + 0.37 * np.arange(nfib)[:, None]) * 0.02 / 320)
    return 1e7 / 600 * (np.sin(angle) + 0.16)


def cumulative(wavelength: np.ndarray) -> np.ndarray:
    """Integral of a spectrum with a skewed line, a Gaussian and a sloping continuum."""
    from scipy.stats import exponnorm, norm

    continuum = 3.0 * wavelength + 0.002 * (wavelength - 5600) ** 2
    skewed = 4000 * exponnorm(0.8, loc=5600, scale=1.5).cdf(wavelength)
    return continuum + skewed + 2500 * norm(5670, 1.7).cdf(wavelength)


def spectra() -> tuple[Signal, np.ndarray, np.ndarray]:
    edges = edges_of_fibres()
    value = np.diff(cumulative(edges), axis=1)
    return Signal.of(value, value), centres(edges), edges


def inner(grid: Grid, wavelength: np.ndarray) -> np.ndarray:
    low, high = wavelength[:, 0].max(), wavelength[:, -1].min()
    return (grid.wavelength > low + 5 * grid.step) & (grid.wavelength < high - 5 * grid.step)


@pytest.mark.parametrize("kernel", KERNELS)
def test_flux_is_conserved_to_rounding(kernel):
    signal, wavelength, edges = spectra()
    # A grid that reaches beyond the spectra takes all of their flux.
    grid = Grid(edges.min() - 3, 0.7, int(np.ptp(edges) / 0.7) + 10)
    line = np.where(np.abs(wavelength - 5620) < 80, signal.value, 0.0)
    new = rebin(Signal.of(line, 1.0), wavelength, grid, kernel=kernel).signal
    assert np.nansum(new.value, axis=1) == pytest.approx(line.sum(axis=1), rel=1e-12)


def test_rebinned_lines_match_their_integral_on_the_grid():
    signal, wavelength, _ = spectra()
    grid = Grid.from_wavelength(wavelength)
    truth = np.diff(cumulative(grid.edges))
    use = inner(grid, wavelength)
    cubic = rebin(signal, wavelength, grid).signal.value[:, use] - truth[use]
    overlap = rebin(signal, wavelength, grid, kernel="overlap").signal.value[:, use] - truth[use]
    assert np.abs(cubic).max() < 0.02 * truth.max()
    assert np.abs(cubic).max() < 0.4 * np.abs(overlap).max()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_flat_density_stays_flat(kernel):
    _, wavelength, edges = spectra()
    grid = Grid(wavelength.min() + 20, 1.3, 60)
    new = rebin(Signal.of(7.0 * np.diff(edges, axis=1), 1.0), wavelength, grid, kernel=kernel)
    assert new.signal.value == pytest.approx(7.0 * 1.3, rel=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_pulls_and_correlation_of_noise_are_as_stated(kernel):
    _, wavelength, _ = spectra()
    rng = np.random.default_rng(4)
    grid = Grid(wavelength.min() + 20, 0.31, 300)
    variance = np.linspace(1.0, 4.0, NX)[None, :] * np.ones((5, 1))
    pulls = []
    for _ in range(60):
        noise = Signal.of(rng.normal(0, np.sqrt(variance)), variance)
        new = rebin(noise, wavelength, grid, kernel=kernel)
        pulls.append(new.signal.value / new.signal.error)
    z = np.array(pulls)
    assert abs(z.std() - 1) < 4 * 1.5 / np.sqrt(2 * z.size)
    for lag in (1, 2, 3):
        measured = (z[:, :, lag:] * z[:, :, :-lag]).mean(axis=(0, 2))
        assert np.abs(measured - new.correlation[:, lag - 1]).max() < 5 * 2 / np.sqrt(z[:, 0].size)


def test_correlation_of_the_input_is_propagated():
    _, wavelength, _ = spectra()
    rng = np.random.default_rng(5)
    grid = Grid(wavelength.min() + 20, 0.31, 300)
    white = rng.normal(size=(60, 5, NX + 1))
    noise = (white[..., 1:] + 0.5 * white[..., :-1]) / np.sqrt(1.25)
    from kspecpipe.sky.rebin import plan_rebin

    plan = plan_rebin(wavelength, grid, np.ones((5, NX), bool))
    rho = np.full((5, 1), 0.4)
    z = []
    for sample in noise:
        new = plan.apply(Signal.of(sample, 1.0), rho)
        z.append(new.signal.value / new.signal.error)
    pulls = np.array(z)
    assert abs(pulls.std() - 1) < 0.015
    measured = (pulls[:, :, 1:] * pulls[:, :, :-1]).mean(axis=(0, 2))
    assert np.abs(measured - new.correlation[:, 0]).max() < 0.04


def test_inflated_errors_describe_a_smoothed_spectrum():
    _, wavelength, _ = spectra()
    rng = np.random.default_rng(6)
    grid = Grid(wavelength.min() + 20, 0.31, 300)
    kernel = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    smooth, given_variance = [], []
    for _ in range(100):
        new = rebin(Signal.of(rng.normal(size=(5, NX)), 1.0), wavelength, grid)
        smooth.append([np.convolve(s, kernel, "valid") for s in new.signal.value])
        naive = np.array([np.convolve(v, kernel**2, "valid") for v in new.signal.variance])
        given_variance.append(inflate_errors(naive, new.correlation, kernel))
    pulls = np.array(smooth) / np.sqrt(given_variance)
    assert abs(pulls.std() - 1) < 0.02


def test_inflation_by_a_width_is_that_of_a_box():
    rho = np.array([[0.3, 0.1, 0.0]])
    variance = np.ones((1, 7))
    assert inflate_errors(variance, rho, 1) == pytest.approx(variance)
    expected = 1 + 2 * (0.3 * 2 + 0.1 * 1) / 3
    assert inflate_errors(variance, rho, 3) == pytest.approx(expected * variance)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bad_samples_cost_variance_but_bias_no_continuum(kernel):
    _, wavelength, edges = spectra()
    density = 10.0 * np.diff(edges, axis=1)
    bad = np.zeros(density.shape, np.uint16)
    bad[:, 100] = DQ.COSMIC
    bad[:, 200:210] = DQ.SATURATED
    value = np.where(bad > 0, np.nan, density)
    grid = Grid.from_wavelength(wavelength)
    new = rebin(Signal(value, density.copy(), bad), wavelength, grid, kernel=kernel).signal
    whole = rebin(Signal.of(density, density), wavelength, grid, kernel=kernel).signal
    finite = np.isfinite(new.value)
    middle = inner(grid, wavelength)
    assert new.value[:, middle][finite[:, middle]] == pytest.approx(10 * grid.step, rel=3e-4)
    assert (new.variance[finite] >= whole.variance[finite] * 0.75).all()
    lost = ~finite & middle
    assert (lost.sum(axis=1) >= 8).all()
    assert (lost.sum(axis=1) <= 11).all()
    assert (new.dq[lost] & DQ.SATURATED).any()
    assert not (new.dq[finite] & np.uint16(UNUSABLE)).any()


def test_nan_exactly_where_an_unusable_bit_is_set():
    signal, wavelength, _ = spectra()
    dq = np.zeros(signal.shape, np.uint16)
    dq[1, 50:54] = DQ.BAD
    dq[2, 70] = DQ.HOT
    grid = Grid(wavelength.min() - 10, 0.3, 500)
    new = rebin(Signal(signal.value, signal.variance, dq), wavelength, grid).signal
    unusable = (new.dq & np.uint16(UNUSABLE)) != 0
    assert np.array_equal(np.isnan(new.value), unusable)
    assert np.array_equal(np.isnan(new.variance), unusable)
    assert 3 <= ((new.dq[2] & DQ.HOT) != 0).sum() <= 5
    assert (new.dq[:, 0] == DQ.NO_DATA).all()


def test_a_fibre_without_wavelengths_is_empty_and_harms_nobody():
    signal, wavelength, _ = spectra()
    wavelength[3] = np.nan
    grid = Grid.from_wavelength(wavelength)
    new = rebin(signal, wavelength, grid)
    alone = rebin(signal.select([0, 1, 2, 4]), wavelength[[0, 1, 2, 4]], grid)
    assert np.isnan(new.signal.value[3]).all()
    assert (new.signal.dq[3] & DQ.NO_DATA).all()
    assert np.isnan(new.correlation[3]).all()
    assert np.array_equal(new.signal.value[[0, 1, 2, 4]], alone.signal.value, equal_nan=True)
    assert np.isnan(pixel_widths(wavelength)[3]).all()


def test_there_and_back_again_returns_smooth_spectra():
    signal, wavelength, _ = spectra()
    grid = Grid.from_wavelength(wavelength)
    back = rebin_back(rebin(signal, wavelength, grid).signal, grid, wavelength).signal
    use = slice(10, -10)
    difference = back.value[:, use] - signal.value[:, use]
    assert np.abs(difference).max() < 0.02 * signal.value.max()
    assert back.value[:, use].sum() == pytest.approx(signal.value[:, use].sum(), rel=1e-4)


def test_pixel_widths_are_the_distance_of_the_edges():
    edges = edges_of_fibres()
    assert pixel_widths(centres(edges)) == pytest.approx(np.diff(edges, axis=1), rel=1e-5)


def test_a_derived_grid_covers_all_fibres_at_their_dispersion():
    wavelength = centres(edges_of_fibres())
    grid = Grid.from_wavelength(wavelength)
    assert abs(grid.wavelength[0] - wavelength.min()) < grid.step
    assert abs(grid.wavelength[-1] - wavelength.max()) < grid.step
    assert grid.step == pytest.approx(np.median(np.diff(wavelength)), rel=1e-3)


def test_a_shifted_night_keeps_its_grid():
    wavelength = centres(edges_of_fibres())
    assert Grid.from_wavelength(wavelength + 1e-3) == Grid.from_wavelength(wavelength)


@settings(max_examples=25, deadline=None)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5), seed=st.integers(0, 1000), step=st.floats(0.2, 2.5))
def test_rebinning_is_linear_in_flux(a, b, seed, step):
    rng = np.random.default_rng(seed)
    wavelength = centres(edges_of_fibres(2, 60))
    grid = Grid(wavelength.min() + 1, step, int(np.ptp(wavelength) / step))
    first, second = rng.normal(size=(2, 2, 60))
    both = rebin(Signal.of(a * first + b * second, 1.0), wavelength, grid).signal.value
    separate = [rebin(Signal.of(s, 1.0), wavelength, grid).signal.value for s in (first, second)]
    assert both == pytest.approx(a * separate[0] + b * separate[1], abs=1e-10, nan_ok=True)


def test_wrong_shapes_and_falling_wavelengths_are_refused():
    signal, wavelength, _ = spectra()
    grid = Grid.from_wavelength(wavelength)
    with pytest.raises(ValueError, match=r"\(5, 399\) and spectra \(5, 400\)"):
        rebin(signal, wavelength[:, 1:], grid)
    with pytest.raises(ValueError, match="do not rise"):
        rebin(signal, wavelength[:, ::-1], grid)
    partly = wavelength.copy()
    partly[2, 7] = np.nan
    with pytest.raises(ValueError, match=r"fibres \[2\] are partly NaN"):
        rebin(signal, partly, grid)
    with pytest.raises(ValueError, match="must be positive"):
        Grid(5000, -1.0, 10)
    with pytest.raises(ValueError, match="do not fit"):
        rebin_back(signal, grid, wavelength[:3])
    with pytest.raises(ValueError, match="neither a positive width"):
        inflate_errors(np.ones((2, 3)), np.zeros((2, 3)), 0)
