import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.extraction.slabs import lay_slabs
from kspecpipe.extraction.solve import (
    ExtractionOptions,
    extract_fibres,
    extract_sum,
    model_image,
)
from kspecpipe.signal import DQ, Signal
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.profile import measure_profile, sample_profile

PLAIN = ExtractionOptions(reject_sigma=0)


def flagged(frame, where, bit, value=np.nan):
    return Signal(
        np.where(where, value, frame.value),
        frame.variance,
        (frame.dq | where * np.uint16(bit)).astype(np.uint16),
    )


@pytest.fixture(scope="module")
def close(frames):
    """Fibres 8.15 pixels apart, as in K-SPEC."""
    return frames.Bench(n_row=130, rows=25 + 8.15 * np.arange(10), fwhm=3.0, ron=6.9)


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(1, 1e5), seed=st.integers(0, 2**32 - 1))
def test_noiseless_spectra_come_back_exactly(bench, scale, seed):
    flux = scale * np.random.default_rng(seed).uniform(0.1, 2, bench.y.shape)
    window, weights = bench.windows(22)
    found = extract_fibres(bench.exact(flux), window, weights, options=PLAIN)
    np.testing.assert_allclose(found.spectra.value, flux, rtol=1e-6, atol=1e-6 * scale)
    assert not found.spectra.dq.any()


@pytest.mark.parametrize("level", [0.0, 30.0, 500.0, 5000.0, 50000.0])
def test_pulls_are_standard_normal(close, level):
    window, weights = close.windows(11)
    flux = np.full(close.y.shape, level)
    found = extract_fibres(
        close.expose(flux, np.random.default_rng(1)), window, weights, options=PLAIN
    )
    pull = (found.spectra.value - flux) / found.spectra.error
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size) + 0.01
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size) + 0.01


def test_the_poisson_noise_of_an_average_is_that_of_all_its_frames(close):
    window, weights = close.windows(11)
    flux, rng = np.full(close.y.shape, 5000.0), np.random.default_rng(7)
    images = [close.expose(flux, rng) for _ in range(4)]
    mean = Signal(np.mean([i.value for i in images], axis=0), images[0].variance / 4, images[0].dq)
    options = ExtractionOptions(reject_sigma=0, frames=4)
    found = extract_fibres(mean, window, weights, options=options)
    pull = (found.spectra.value - flux) / found.spectra.error
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size) + 0.01


def best_error(bench, window, weights, flux):
    """Smallest standard deviation of any unbiased estimate, from dense matrices."""
    variance = bench.ron**2 + bench.image(flux)
    best = np.empty(flux.shape)
    for x in range(flux.shape[1]):
        design = np.zeros((bench.n_row, bench.n_fibre))
        for f in range(bench.n_fibre):
            design[window[f, x] : window[f, x] + weights.shape[1], f] = weights[f, :, x]
        fisher = design.T @ (design / variance[:, x, None])
        best[:, x] = np.sqrt(np.diag(np.linalg.inv(fisher)))
    return best


@pytest.mark.parametrize("level", [30.0, 5000.0])
def test_noise_is_that_of_the_best_estimate(close, level):
    window, weights = close.windows(11)
    flux = np.full(close.y.shape, level)
    best = best_error(close, window, weights, flux)
    rng = np.random.default_rng(2)
    off = [
        (extract_fibres(close.expose(flux, rng), window, weights, options=PLAIN).spectra.value)
        - flux
        for _ in range(6)
    ]
    ratio = np.sqrt(np.mean((np.array(off) / best) ** 2))
    assert ratio < 1.01 + 4 / np.sqrt(2 * 6 * flux.size)


def test_pixel_response_enters_the_error(bench):
    rng = np.random.default_rng(3)
    flux = np.full(bench.y.shape, 5e4)
    frame = bench.expose(flux, rng)
    uneven = Signal(frame.value * rng.normal(1, 0.02, frame.shape), frame.variance, frame.dq)
    window, weights = bench.windows(11)
    options = ExtractionOptions(prnu=0.02, reject_sigma=0)
    found = extract_fibres(uneven, window, weights, options=options)
    pull = (found.spectra.value - flux) / found.spectra.error
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size) + 0.02


def test_flux_with_the_measured_profile_is_right_to_one_per_cent(bench, measured):
    profile, traces = measured
    window, weights = sample_profile(profile, traces.y)
    flux = np.full(bench.y.shape, 3000.0)
    found = extract_fibres(bench.expose(flux, np.random.default_rng(4)), window, weights)
    ratio = found.spectra.value.mean(axis=1) / 3000
    assert abs(ratio.mean() - 1) < 0.003
    assert ratio.std() < 0.005


def test_a_dark_fibre_between_bright_ones_stays_dark(frames, close):
    throughput = 1 + 0.25 * np.sin(3.0 * np.arange(close.n_fibre))
    flat = close.expose(frames.lamp(close, throughput=throughput), np.random.default_rng(5))
    profile, traces = measure_profile(flat, find_traces(flat, FibreLayout(close.rows, 4.0)))
    flux = np.full(close.y.shape, 5e4)
    flux[4] = 0
    found = extract_fibres(close.exact(flux), *sample_profile(profile, traces.y), options=PLAIN)
    assert abs(found.spectra.value[4].mean()) < 0.003 * 5e4


def test_neighbours_are_anticorrelated_as_claimed(close):
    window, weights = close.windows(11)
    flux = np.full(close.y.shape, 200.0)
    rng = np.random.default_rng(6)
    runs = [
        extract_fibres(close.expose(flux, rng), window, weights, options=PLAIN) for _ in range(8)
    ]
    off = np.array([run.spectra.value for run in runs]) - flux
    claimed = np.mean([run.covariance for run in runs])
    true = np.mean(off[:, :-1] * off[:, 1:])
    spread = np.mean(runs[0].spectra.variance) / np.sqrt(off[:, :-1].size)
    assert abs(true - claimed) < 4 * spread
    assert claimed < 0


@pytest.mark.parametrize("half", [5, 13])
def test_bands_follow_the_reach_of_the_windows(close, half):
    window, weights = close.windows(half)
    weights = weights / weights.sum(axis=1, keepdims=True)
    spectra = np.random.default_rng(7).uniform(100, 200, close.y.shape)
    image = model_image(Signal.of(spectra), window, weights, close.n_row)
    found = extract_fibres(Signal.of(image, 9.0), window, weights, options=PLAIN)
    np.testing.assert_allclose(found.spectra.value, spectra, rtol=1e-9)


def test_bad_pixels_carry_no_weight(bench):
    window, weights = bench.windows(14)
    flux = np.full(bench.y.shape, 800.0)
    mask = np.random.default_rng(8).random((bench.n_row, bench.n_x)) < 0.05
    frame = flagged(bench.exact(flux), mask, DQ.BAD)
    found = extract_fibres(frame, window, weights, options=PLAIN)
    given_value = np.isfinite(found.spectra.value)
    assert given_value.mean() > 0.97
    np.testing.assert_allclose(found.spectra.value[given_value], 800, rtol=1e-3)


def test_a_lost_core_gives_no_data_and_its_reason(bench):
    window, weights = bench.windows(14)
    flux = np.full(bench.y.shape, 800.0)
    mask = np.zeros((bench.n_row, bench.n_x), dtype=bool)
    row = int(round(bench.y[2, 100]))
    mask[row - 3 : row + 4, 100] = True
    found = extract_fibres(flagged(bench.exact(flux), mask, DQ.BAD), window, weights, options=PLAIN)
    assert np.isnan(found.spectra.value[2, 100])
    assert found.spectra.dq[2, 100] == DQ.NO_DATA | DQ.BAD
    others = np.delete(np.delete(found.spectra.value, 100, axis=1), 2, axis=0)
    assert np.isfinite(others).all()


def test_a_wholly_masked_column_is_no_data(bench):
    window, weights = bench.windows(14)
    mask = np.zeros((bench.n_row, bench.n_x), dtype=bool)
    mask[:, 50] = True
    frame = flagged(bench.exact(100.0), mask, DQ.BAD)
    found = extract_fibres(frame, window, weights)
    assert (found.spectra.dq[:, 50] & DQ.NO_DATA).all()
    assert np.isfinite(np.delete(found.spectra.value, 50, axis=1)).all()


def test_saturated_and_informing_bits_reach_the_sample(bench):
    window, weights = bench.windows(14)
    frame = bench.exact(800.0)
    where = np.zeros(frame.shape, dtype=bool)
    where[int(round(bench.y[1, 30])), 30] = True
    saturated = extract_fibres(flagged(frame, where, DQ.SATURATED, 6e4), window, weights)
    assert saturated.spectra.dq[1, 30] & DQ.SATURATED
    bleeding = extract_fibres(flagged(frame, where, DQ.BLEED, 6e4), window, weights, options=PLAIN)
    assert bleeding.spectra.dq[1, 30] == DQ.BLEED
    assert bleeding.spectra.dq.astype(bool).sum() == 1


def test_a_trace_that_leaves_the_frame_is_no_data_only_there(frames):
    bench = frames.Bench(n_row=60, rows=np.array([6.0, 18.0, 30.0]), tilt=-24.0)
    window, weights = bench.windows(14)
    found = extract_fibres(bench.exact(500.0), window, weights, options=PLAIN)
    gone = bench.y[0] < -3
    assert gone.any()
    assert np.isnan(found.spectra.value[0, gone]).all()
    assert np.isfinite(found.spectra.value[1:]).all()


def test_inputs_are_left_alone(flat, bench):
    window, weights = bench.windows(14)
    before = flat.value.copy(), weights.copy()
    extract_fibres(flat, window, weights)
    np.testing.assert_array_equal(flat.value, before[0])
    np.testing.assert_array_equal(weights, before[1])


def test_a_local_background_is_taken_out(bench):
    window, weights = bench.windows(12)
    flux = np.full(bench.y.shape, 300.0)
    frame = bench.expose(flux, np.random.default_rng(9), background=12.0)
    with_it = extract_fibres(
        frame, window, weights, options=ExtractionOptions(background="local", iterations=3)
    )
    without = extract_fibres(frame, window, weights)
    assert abs(with_it.spectra.value.mean() - 300) < 0.15 * abs(without.spectra.value.mean() - 300)
    assert abs(with_it.background.mean() - 12) < 2


@pytest.mark.parametrize(
    ("window", "weights"),
    [((8, 399), (8, 9, 399)), ((8, 400), (7, 9, 400)), ((8, 400), (8, 9))],
)
def test_wrong_shapes_say_so(flat, window, weights):
    with pytest.raises(ValueError, match="differ in columns|do not fit"):
        extract_fibres(flat, np.zeros(window, dtype=int), np.zeros(weights))


def test_sums_hold_the_light_of_their_aperture(bench):
    flux = np.full(bench.y.shape, 1000.0)
    summed = extract_sum(bench.exact(flux), bench.y, 10.0)
    assert 0.95 < summed.value.mean() / 1000 < 1.0
    np.testing.assert_allclose(summed.variance, bench.ron**2 * 10, rtol=0.1)
    mask = np.zeros((bench.n_row, bench.n_x), dtype=bool)
    mask[int(bench.y[3, 200]), 200] = True
    lost = extract_sum(flagged(bench.exact(flux), mask, DQ.BAD), bench.y, 10.0)
    assert np.isnan(lost.value[3, 200])
    assert np.isnan(lost.value).sum() == 1
    with pytest.raises(ValueError, match="differ in columns"):
        extract_sum(bench.exact(flux), bench.y[:, :10], 10.0)


def test_a_pixel_belongs_to_the_samples_around_it():
    window = np.repeat(np.array([[2], [8], [20]]), 5, axis=1)
    slabs = lay_slabs(window, np.full((3, 8, 5), 1 / 8), 40)
    found = slabs.samples_at(np.array([9, 22, 35]), np.array([1, 4, 2]), 5)
    # row 9 lies in the slabs of the first two fibres; the reach of slabs is one neighbour
    assert found.T.tolist() == [
        [False] * 3,
        [True] * 3,
        [False] * 3,
        [False] * 3,
        [False, True, True],
    ]
