import numpy as np
import pytest

from kspecpipe.extraction.cosmic import model_error
from kspecpipe.extraction.slabs import lay_slabs
from kspecpipe.extraction.solve import ExtractionOptions, extract_fibres
from kspecpipe.signal import Signal
from kspecpipe.trace.profile import sample_profile


def lines(bench, rng, background=40.0):
    """Sky: continuum and narrow lines up to 30 000 electrons."""
    spectra = np.full(bench.y.shape, background)
    x = np.arange(bench.n_x)
    for centre, power in zip(rng.uniform(10, 390, 15), rng.uniform(2.5, 4.5, 15), strict=True):
        place = centre + 0.2 * np.arange(bench.n_fibre)[:, None]
        spectra += 10**power * np.exp(-0.5 * ((x - place) / 1.7) ** 2) / 4.3
    return spectra


@pytest.fixture(scope="module")
def sampled(measured):
    return sample_profile(measured[0], measured[1].y)


def test_rays_of_ten_sigma_are_found(bench, sampled):
    flux = np.full(bench.y.shape, 100.0)
    noise = np.sqrt(bench.ron**2 + bench.image(flux))
    seen, pulls = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        frame = bench.expose(flux, rng)
        column = np.arange(5, 400, 13)  # rays strike one fibre at a time
        fibre = rng.integers(0, bench.n_fibre, column.size)
        row = np.round(bench.y[fibre, column]).astype(int) + rng.integers(-3, 4, column.size)
        value = frame.value.copy()
        value[row, column] += rng.uniform(11, 300, column.size) * noise[row, column]
        found = extract_fibres(Signal(value, frame.variance, frame.dq), *sampled)
        seen += found.cosmic[row, column].tolist()
        pulls.append((found.spectra.value - flux) / found.spectra.error)
    assert len(seen) > 300
    assert np.mean(seen) > 0.98
    assert np.nanstd(pulls) < 1.05
    assert np.isfinite(pulls).mean() > 0.99


def test_lines_survive(bench, sampled):
    lost = total = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found = extract_fibres(bench.expose(lines(bench, rng), rng), *sampled)
        lost += int(found.cosmic.sum())
        total += found.spectra.value.size
    assert lost <= 1e-4 * total + 4 * np.sqrt(1e-4 * total)


def test_tracks_over_several_pixels_are_taken_whole(bench, sampled):
    rng = np.random.default_rng(2)
    frame = bench.expose(np.full(bench.y.shape, 60.0), rng)
    value = frame.value.copy()
    row = int(round(bench.y[3, 150]))
    for step in range(3):
        value[row + 2 + step, 150 + step] += 900
    found = extract_fibres(Signal(value, frame.variance, frame.dq), *sampled)
    assert all(found.cosmic[row + 2 + step, 150 + step] for step in range(2))
    assert found.cosmic.sum() < 12


def test_standing_light_is_no_cosmic_ray(bench, sampled):
    rng = np.random.default_rng(3)
    flux = np.full(bench.y.shape, 300.0)
    ghost = bench.image(np.full((1, bench.n_x), 600.0), bench.y[-1:] + 9.0)
    frame = bench.expose(flux, rng, background=0.0)
    frame = Signal(frame.value + ghost, frame.variance, frame.dq)
    assert extract_fibres(frame, *sampled).cosmic.sum() <= 3


def test_rejection_can_be_switched_off(bench, sampled):
    frame = bench.expose(100.0, np.random.default_rng(4))
    value = frame.value.copy()
    value[60, 200] += 1e5
    hot = Signal(value, frame.variance, frame.dq)
    off = extract_fibres(hot, *sampled, options=ExtractionOptions(reject_sigma=0))
    assert not off.cosmic.any()
    assert extract_fibres(hot, *sampled).cosmic[60, 200]


def test_rays_among_the_lines_of_an_arc_are_found(bench, sampled):
    seen = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        flux = lines(bench, rng, background=150.0)
        clean = bench.image(flux)
        frame = bench.expose(flux, rng)
        column = np.arange(7, 395, 24)
        fibre = rng.integers(0, bench.n_fibre, column.size)
        row = np.round(bench.y[fibre, column]).astype(int)
        value = frame.value.copy()
        value[row, column] += 40 * np.sqrt(bench.ron**2 + clean[row, column])
        found = extract_fibres(Signal(value, frame.variance, frame.dq), *sampled)
        seen += found.cosmic[row, column].tolist()
    assert np.mean(seen) > 0.8


def test_long_tracks_along_the_dispersion_are_no_standing_light(bench, sampled):
    rng = np.random.default_rng(5)
    frame = bench.expose(np.full(bench.y.shape, 60.0), rng)
    value = frame.value.copy()
    row = int(round(bench.y[4, 200])) + 1
    value[row, 195:206] += 700
    found = extract_fibres(Signal(value, frame.variance, frame.dq), *sampled)
    assert found.cosmic[row, 195:206].all()


def test_smooth_light_beside_a_fibre_does_not_trigger_rejections(bench, sampled):
    rng = np.random.default_rng(6)
    glow = 40 * np.exp(-0.5 * ((np.arange(bench.n_x) - 200) / 40) ** 2)
    frame = bench.expose(np.full(bench.y.shape, 80.0), rng)
    noisy = rng.poisson(np.broadcast_to(glow, frame.shape)) + frame.value
    found = extract_fibres(Signal(noisy, frame.variance, frame.dq), *sampled)
    assert found.cosmic.sum() < 0.02 * found.spectra.value.size


def test_noise_is_no_error_of_the_model(bench, sampled):
    rng = np.random.default_rng(7)
    flux = np.full((bench.n_fibre, bench.n_x), 600.0)
    frame = bench.expose(flux, rng)
    slabs = lay_slabs(*sampled, bench.n_row)
    left = frame.value - bench.image(flux)
    error = model_error(left, frame.variance, slabs, flux, 0.02)
    assert np.median(error) == 0.02
    assert error.mean() < 0.03
