"""Read noise, structure, drift, light leak and the smooth bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.detector.bias import level_drift, light_leak, read_noise, smooth_bias, structure
from kspecpipe.detector.planes import ArrayPlanes
from kspecpipe.detector.structure import SmoothOptions
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal

SHAPE = (160, 200)


def bias_pattern() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(77)
    corner = 6 / (1 + ((y - 150) / 60) ** 2 + ((x - 190) / 80) ** 2)
    return 612 + corner + rng.normal(0, 1.5, SHAPE[1]) + rng.normal(0, 0.8, SHAPE[0])[:, None]


def bias_frames(n: int, ron: float, seed: int, drift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = bias_pattern() + rng.normal(0, ron, (n, *SHAPE))
    return frames + drift * np.arange(n)[:, None, None]


def master_of(frames: np.ndarray, ron: float) -> Signal:
    return Signal.of(frames.mean(axis=0), ron**2 / len(frames))


@pytest.mark.parametrize("ron", [0.9, 4.0, 12.0])
def test_read_noise_is_right_for_whole_numbers_with_drift_and_cosmics(ron):
    frames = bias_frames(6, ron, seed=1, drift=1.7)
    hit = np.random.default_rng(2).random(frames.shape) < 0.002
    frames[hit] += 500
    measured = read_noise(ArrayPlanes(np.rint(frames).astype(np.uint16)))
    expected = np.sqrt(ron**2 + 1 / 12)  # digitising adds the variance of a uniform distribution
    assert abs(measured.ron - expected) < 4 * measured.error
    assert measured.error < 0.01 * ron
    assert measured.pairs.shape == (5,)


def test_read_noise_error_is_the_scatter_of_repeated_measurements():
    results = [
        read_noise(ArrayPlanes(np.random.default_rng(s).normal(0, 3, (4, 20, 50))))
        for s in range(150)
    ]
    pulls = np.array([(result.ron - 3) / result.error for result in results])
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * pulls.size)
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size)


def test_read_noise_of_one_amplifier():
    frames = np.random.default_rng(3).normal(0, 1, (4, 60, 80))
    frames[:, :, 40:] *= 5
    section = (slice(None), slice(40, 80))
    right = read_noise(ArrayPlanes(frames), section=section)
    assert abs(right.ron - 5) < 4 * right.error
    with pytest.raises(ValueError, match="none of the 60 rows"):
        read_noise(ArrayPlanes(frames), section=(slice(70, 80), slice(None)))


@pytest.mark.parametrize("value", [0, 612, 65535])
def test_equal_frames_have_no_read_noise_and_say_so(value):
    with pytest.raises(RecipeError, match="frames 1 and 2 have no noise between them"):
        read_noise(ArrayPlanes(np.full((3, 20, 30), value, np.uint16)))
    with pytest.raises(RecipeError, match="at least 2"):
        read_noise(ArrayPlanes(np.zeros((1, 20, 30))))


def test_one_copied_frame_is_named():
    frames = bias_frames(4, 4.0, seed=4)
    frames[3] = frames[2]
    with pytest.raises(RecipeError, match="frames 3 and 4"):
        read_noise(ArrayPlanes(frames))


def test_structure_rms_is_that_of_the_pattern_without_its_noise():
    rng = np.random.default_rng(5)
    rows, columns = rng.normal(0, 1.0, SHAPE[0]), rng.normal(0, 2.0, SHAPE[1])
    image = 600 + rows[:, None] + columns + rng.normal(0, 8, SHAPE)
    found = structure(Signal.of(image, 64.0))
    noise_of_row, noise_of_column = 8 / np.sqrt(SHAPE[1]), 8 / np.sqrt(SHAPE[0])
    assert abs(found.row_rms - rows.std()) < 4 * noise_of_row / np.sqrt(SHAPE[0])
    assert abs(found.column_rms - columns.std()) < 4 * noise_of_column / np.sqrt(SHAPE[1])
    assert abs(found.level - 600) < 1


def test_noise_alone_is_no_structure():
    image = np.random.default_rng(6).normal(600, 8, SHAPE)
    found = structure(Signal.of(image, 64.0))
    assert found.row_rms < 8 / np.sqrt(SHAPE[1]) * 0.5
    assert found.column_rms < 8 / np.sqrt(SHAPE[0]) * 0.5


def test_drift_is_the_level_of_each_frame():
    frames = bias_frames(7, 4.0, seed=7, drift=-0.5)
    frames[:, 5, :20] += 4000
    drift = level_drift(ArrayPlanes(frames))
    expected = -0.5 * np.arange(7)
    relative = drift.levels - drift.levels[0] - expected
    assert np.all(np.abs(relative) < 4 * np.sqrt(2) * 4.0 / np.sqrt(frames[0].size))
    assert drift.slope == pytest.approx(-0.5, abs=0.02)
    assert drift.peak_to_peak == pytest.approx(3.0, abs=0.2)


def test_a_light_leak_stands_out_of_the_noise():
    rng = np.random.default_rng(8)
    dark = 600 + rng.normal(0, 2, SHAPE)
    lit = dark.copy()
    lit[40:60] += 15
    assert abs(light_leak(Signal.of(dark, 4.0)).excess) < 0.15
    assert light_leak(Signal.of(lit, 4.0)).excess > 8


def test_smooth_bias_is_the_pattern_with_little_noise_and_honest_pulls():
    truth = bias_pattern()
    master = master_of(bias_frames(7, 4.0, seed=9), 4.0)
    smooth = smooth_bias(master)
    error = smooth.value - truth
    assert error.std() < 0.2 * (master.value - truth).std()
    pull = error / smooth.error
    # Neighbours share their noise: the number of independent pulls is that of rows and columns.
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * sum(SHAPE))


def test_a_pattern_without_noise_comes_back_exactly():
    truth = bias_pattern()
    truth[20, 30] += 500
    smooth = smooth_bias(Signal.of(truth))
    np.testing.assert_allclose(smooth.value, truth, atol=1e-3)


def test_pixels_that_differ_keep_their_own_value_and_variance():
    master = master_of(bias_frames(7, 4.0, seed=10), 4.0)
    value = master.value.copy()
    value[50, 60] += 40
    smooth = smooth_bias(Signal(value, master.variance, master.dq))
    assert smooth.value[50, 60] == value[50, 60]
    assert smooth.variance[50, 60] == pytest.approx(16 / 7)
    assert smooth.variance[50, 61] < 0.2 * 16 / 7


def test_a_true_pixel_pattern_is_weighted_against_its_noise():
    rng = np.random.default_rng(11)
    truth = 600 + rng.normal(0, 3, SHAPE)
    noise = 2.0
    master = Signal.of(truth + rng.normal(0, noise, SHAPE), noise**2)
    smooth = smooth_bias(master)
    error = smooth.value - truth
    best = 1 / np.sqrt(1 / 9 + 1 / 4)
    assert error.std() < 1.05 * best
    assert abs((error / smooth.error).std() - 1) < 4 / np.sqrt(2 * error.size) + 0.02


def test_unusable_pixels_take_the_value_of_the_structure():
    truth = bias_pattern()
    value, dq = truth.copy(), np.zeros(SHAPE, np.uint16)
    value[10:14, 20:24], dq[10:14, 20:24] = np.nan, DQ.NO_DATA
    value[100, :] = np.nan
    smooth = smooth_bias(Signal(value, np.ones(SHAPE), dq))
    assert np.all(np.isfinite(smooth.value))
    np.testing.assert_allclose(smooth.value[10:14, 20:24], truth[10:14, 20:24], atol=1.0)
    np.testing.assert_array_equal(smooth.dq, dq)


def test_amplifiers_are_smoothed_each_for_itself():
    truth = bias_pattern()
    truth[:, 100:] += 50
    halves = ((slice(None), slice(0, 100)), (slice(None), slice(100, 200)))
    smooth = smooth_bias(Signal.of(truth, 1e-4), SmoothOptions(sections=halves))
    np.testing.assert_allclose(smooth.value, truth, atol=0.05)


def test_a_master_without_usable_pixels_is_refused():
    empty = Signal.of(np.full(SHAPE, np.nan), 1.0)
    for measure in (smooth_bias, structure, light_leak):
        with pytest.raises(RecipeError, match="usable"):
            measure(empty)


@given(level=st.floats(-500, 60000), factor=st.floats(0.5, 4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_smooth_bias_follows_level_and_factor(level, factor, seed):
    rng = np.random.default_rng(seed)
    value = rng.normal(0, 5, (40, 60)) + rng.normal(0, 3, 60)
    base = smooth_bias(Signal.of(value, 25.0))
    changed = smooth_bias(Signal.of(value * factor + level, 25.0 * factor**2))
    np.testing.assert_allclose(changed.value, base.value * factor + level, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(changed.variance, base.variance * factor**2, rtol=1e-3)
