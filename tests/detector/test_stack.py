"""Clipped averages: against ccdproc, against statistics, and at the edges."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std, sigma_clip
from ccdproc import Combiner
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.detector import planes as planes_module
from kspecpipe.detector.order_statistics import sorting_network
from kspecpipe.detector.stack import ArrayPlanes, Noise, ScaledPlanes, clip_stack
from kspecpipe.signal import DQ


def frames_with_cosmics(n: int, shape: tuple[int, int], seed: int, ron: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = 612 + rng.normal(0, ron, (n, *shape)) + rng.normal(0, 3, shape[1])
    hit = rng.random(frames.shape) < 0.01
    frames[hit] += rng.exponential(400, hit.sum())
    return frames.clip(0, 65535)


def ccdproc_average(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    combiner = Combiner([CCDData(frame, unit="adu") for frame in frames])
    combiner.sigma_clipping(5, 5, func=np.ma.median, dev_func=mad_std)
    average = combiner.average_combine()
    return average.data, len(frames) - combiner.data_arr.mask.sum(axis=0)


@pytest.mark.parametrize("n", [3, 4, 5, 7, 10, 20])
@pytest.mark.parametrize("digitised", [True, False])
def test_one_iteration_is_what_ccdproc_gives(n, digitised):
    frames = frames_with_cosmics(n, (40, 60), seed=n)
    frames = np.rint(frames) if digitised else frames
    frames = frames.astype(np.float32)
    mean, count = ccdproc_average(frames)
    stacked = clip_stack(ArrayPlanes(frames), iterations=1)
    assert np.count_nonzero(count < n) > 20
    np.testing.assert_array_equal(stacked.count, count)
    np.testing.assert_allclose(stacked.mean, mean, rtol=1e-6)


def iterated_sigma_clip(frames: np.ndarray) -> np.ma.MaskedArray:
    # With functions instead of names, astropy never takes back a value that it has rejected.
    return sigma_clip(
        frames,
        sigma=5,
        cenfunc=np.nanmedian,
        stdfunc=partial(mad_std, ignore_nan=True),
        axis=0,
        maxiters=5,
    )


@pytest.mark.parametrize("n", [5, 9, 20])
def test_five_iterations_are_what_an_iterated_sigma_clip_gives(n):
    frames = np.rint(frames_with_cosmics(n, (40, 60), seed=n + 100)).astype(np.float32)
    clipped = iterated_sigma_clip(frames)
    stacked = clip_stack(ArrayPlanes(frames))
    once = clip_stack(ArrayPlanes(frames), iterations=1)
    np.testing.assert_array_equal(stacked.count, clipped.count(axis=0))
    assert np.any(stacked.count != once.count)
    np.testing.assert_allclose(stacked.mean, clipped.mean(axis=0).filled(np.nan), rtol=1e-6)
    np.testing.assert_array_equal(stacked.rejected, clipped.mask.sum(axis=(1, 2)))


def test_invalid_values_are_left_out_like_masked_ones():
    frames = frames_with_cosmics(6, (30, 40), seed=5).astype(np.float32)
    rng = np.random.default_rng(6)
    invalid = rng.random(frames.shape) < 0.1
    invalid[:, 0, 0] = True
    invalid[1:, 0, 1] = True
    spoiled = np.where(invalid, rng.choice([np.nan, np.inf, -np.inf], frames.shape), frames)
    with pytest.warns(match="invalid values"):
        clipped = iterated_sigma_clip(spoiled)
    stacked = clip_stack(ArrayPlanes(spoiled))
    np.testing.assert_array_equal(stacked.count, clipped.count(axis=0))
    np.testing.assert_allclose(stacked.mean, clipped.mean(axis=0).filled(np.nan), rtol=1e-6)
    assert stacked.signal.dq[0, 0] == DQ.NO_DATA and np.isnan(stacked.mean[0, 0])
    assert stacked.count[0, 1] == 1 and np.isnan(stacked.variance[0, 1])
    assert np.count_nonzero(stacked.signal.dq) == 1
    assert stacked.rejected.sum() == (np.isfinite(spoiled).sum() - stacked.count.sum())


def test_scatter_variance_without_outliers_is_the_textbook_one():
    frames = np.random.default_rng(2).normal(600, 5, (8, 20, 30)).astype(np.float32)
    stacked = clip_stack(ArrayPlanes(frames), floor=50.0)
    assert stacked.rejected.sum() == 0
    np.testing.assert_allclose(stacked.mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stacked.variance, frames.var(axis=0, ddof=1) / 8, rtol=1e-3)


def test_pulls_with_a_noise_model_are_standard_normal_and_cosmics_are_gone():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0, 3000, (60, 80))
    frames = rng.poisson(truth, (3, 60, 80)) + rng.normal(0, 5, (3, 60, 80))
    hit = rng.random(frames.shape) < 0.01
    frames[hit] += 3000
    stacked = clip_stack(ArrayPlanes(frames), floor=Noise(5.0, per_unit=1.0))
    single = hit.sum(axis=0) <= 1
    pull = ((stacked.mean - truth) / np.sqrt(stacked.variance))[single]
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)
    assert np.all(stacked.count[single & hit.any(axis=0)] == 2)


def test_a_floor_saves_three_equal_frames_from_a_lucky_median_deviation():
    frames = np.random.default_rng(4).normal(0, 5, (3, 100, 100))
    without = clip_stack(ArrayPlanes(frames)).rejected_fraction.sum()
    with_floor = clip_stack(ArrayPlanes(frames), floor=5.0).rejected_fraction.sum()
    assert without > 0.1
    assert with_floor < 1e-3


def test_a_floor_may_differ_from_pixel_to_pixel():
    frames = np.zeros((5, 2, 3))
    frames[0] = 10.0
    floor = np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    count = clip_stack(ArrayPlanes(frames), floor=floor).count
    np.testing.assert_array_equal(count, [[4, 4, 4], [5, 5, 5]])


def test_blocks_do_not_change_the_result(monkeypatch):
    frames = frames_with_cosmics(5, (37, 23), seed=8)
    floor = np.random.default_rng(8).uniform(1, 5, (37, 23))
    whole = clip_stack(ArrayPlanes(frames), floor=floor)
    monkeypatch.setattr(planes_module, "BLOCK_BYTES", 4 * 5 * 23 * 4)
    monkeypatch.setattr("kspecpipe.detector.stack.CHUNK", 31)
    pieces = clip_stack(ArrayPlanes(frames), floor=floor)
    np.testing.assert_array_equal(whole.mean, pieces.mean)
    np.testing.assert_array_equal(whole.count, pieces.count)
    np.testing.assert_array_equal(whole.rejected, pieces.rejected)


def test_scale_and_offset_bring_planes_together():
    rng = np.random.default_rng(9)
    shape = rng.uniform(100, 200, (20, 30))
    factors, levels = np.array([1.0, 2.0, 0.5, 4.0]), np.array([10.0, -5.0, 0.0, 3.0])
    frames = shape * factors[:, None, None] + levels[:, None, None]
    stacked = clip_stack(ArrayPlanes(frames), floor=1.0, scale=1 / factors, offset=levels)
    np.testing.assert_allclose(stacked.mean, shape, rtol=1e-5)
    assert stacked.rejected.sum() == 0


def test_noise_model_follows_the_scale():
    rng = np.random.default_rng(10)
    scale = np.array([1.0, 2.0, 1.5])
    frames = (900.0 + rng.normal(0, 6, (3, 90, 90))) / scale[:, None, None]
    frames += rng.normal(0, 1e-3, frames.shape)
    stacked = clip_stack(ArrayPlanes(frames * 1.0), floor=Noise(4.0), scale=scale)
    expected = 16 * np.mean(scale**2) / 3
    np.testing.assert_allclose(stacked.variance, expected, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_planes_are_averaged_whole(n):
    frames = frames_with_cosmics(n, (10, 12), seed=11).astype(np.float32)
    stacked = clip_stack(ArrayPlanes(frames), floor=4.0)
    np.testing.assert_allclose(stacked.mean, frames.mean(axis=0), rtol=1e-6)
    assert stacked.rejected.sum() == 0
    assert np.all(np.isnan(stacked.variance)) == (n == 1)


def test_inputs_are_not_modified():
    frames = frames_with_cosmics(4, (10, 12), seed=12).astype(np.float32)
    before = frames.copy()
    clip_stack(ArrayPlanes(frames), scale=np.full(4, 2.0), offset=np.ones(4))
    np.testing.assert_array_equal(frames, before)


@given(
    n=st.integers(1, 12),
    level=st.integers(-1000, 60000),
    factor=st.sampled_from([0.25, 2.0, 8.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_the_average_follows_level_and_factor_and_ignores_the_order(n, level, factor, seed):
    rng = np.random.default_rng(seed)
    frames = np.rint(rng.normal(0, 20, (n, 3, 5))).astype(np.float32)
    base = clip_stack(ArrayPlanes(frames))
    changed = clip_stack(ArrayPlanes(rng.permutation(frames) * factor + level))
    np.testing.assert_array_equal(changed.count, base.count)
    np.testing.assert_allclose(changed.mean, base.mean * factor + level, rtol=1e-5, atol=2e-2)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_network_sorts_every_pattern_of_zeros_and_ones(n):
    # A network that sorts all patterns of 0 and 1 sorts everything (the zero-one principle).
    patterns = np.array(list(product([0, 1], repeat=n)))
    for i, j in sorting_network(n):
        patterns[:, [i, j]] = np.sort(patterns[:, [i, j]], axis=1)
    assert len(patterns) == 2**n
    assert np.all(np.diff(patterns, axis=1) >= 0)


def test_wrong_arguments_are_named():
    planes = ArrayPlanes(np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"floor has shape \(5, 4\), the planes \(4, 5\)"):
        clip_stack(planes, floor=np.ones((5, 4)))
    with pytest.raises(ValueError, match="one value for each of 3 planes"):
        clip_stack(planes, scale=np.ones(2))
    with pytest.raises(ValueError, match="not finite for plane 1"):
        ScaledPlanes(planes, offset=np.array([0, np.nan, 0]))
    with pytest.raises(ValueError, match="must be above 0"):
        clip_stack(planes, sigma=0)
    with pytest.raises(ValueError, match="not negative"):
        clip_stack(planes, floor=-1.0)
    with pytest.raises(ValueError, match=r"shape \(n, ny, nx\)"):
        ArrayPlanes(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="at least one plane"):
        clip_stack(ArrayPlanes(np.zeros((0, 4, 5))))
