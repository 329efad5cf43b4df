"""Dark rates, hot and unstable pixels, and glow that varies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.detector.dark import (
    DarkOptions,
    _weighted_median,
    dark_rate,
    group_exposures,
    smooth_dark,
)
from kspecpipe.detector.glow import GlowOptions, fit_glow, glow_components
from kspecpipe.detector.planes import ArrayPlanes
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal

SHAPE = (128, 160)
RON = 4.5


def glow_shape() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 1 / (1 + (y / 40.0) ** 2 + ((x - 150) / 50.0) ** 2) ** 1.5


def expose(
    rate: np.ndarray, times: list[float], seed: int, glow: list[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Darks with a level of their own each, glow and cosmic rays; and where the latter are."""
    rng = np.random.default_rng(seed)
    frames, hits = [], []
    for number, time in enumerate(times):
        strength = glow[number] if glow else 0.0
        hit = rng.random(SHAPE) < 0.004
        frame = rng.poisson(rate * time + strength * glow_shape()) + rng.normal(0, RON, SHAPE)
        frame[hit] += 200 + rng.exponential(800, hit.sum())
        frames.append(frame)
        hits.append(hit)
    return np.array(frames), np.array(hits)


@pytest.mark.parametrize(
    "times",
    [[2400.0] * 2, [2400.0] * 5, [600.0, 600.0, 2400.0, 2400.0, 2400.0], [300, 600, 1200, 2400]],
)
def test_rates_have_honest_pulls_with_and_without_cosmic_rays(times):
    rate = np.full(SHAPE, 0.004)
    frames, hits = expose(rate, times, seed=len(times))
    result = dark_rate(ArrayPlanes(frames), np.array(times), RON)
    once = hits.sum(axis=0) == 1
    pull = (result.rate.value - rate) / result.rate.error
    for where in (hits.sum(axis=0) == 0, once):
        assert where.sum() > 30
        # The smooth differences between darks are fitted too: an error shared by a box.
        shared = 4 / np.sqrt(where.sum()) + 0.05
        assert abs(np.median(pull[where])) < 1.25 * shared
        assert abs(pull[where].std() - 1) < 4 / np.sqrt(2 * where.sum()) + 0.05
    assert np.all(np.abs(pull[once]) < 6)
    np.testing.assert_allclose(result.rejected, hits.sum(axis=(1, 2)), atol=5)


def test_a_single_dark_is_freed_of_cosmic_rays_by_its_surroundings():
    rate = np.full(SHAPE, 0.004)
    frames, hits = expose(rate, [2400.0], seed=3)
    result = dark_rate(ArrayPlanes(frames), np.array([2400.0]), RON)
    pull = (result.rate.value - rate) / result.rate.error
    assert np.all((result.rate.dq[hits[0]] & DQ.UNSTABLE) > 0)
    assert np.all(np.abs(pull[hits[0]]) < 5)
    assert np.all(result.rate.error[hits[0]] * 2400 > 100)
    assert not np.any(result.rate.dq & (DQ.HOT | DQ.BAD))


def test_hot_unstable_and_dead_pixels_have_their_own_bits():
    rate = np.full(SHAPE, 0.002)
    rate[30, 40] = 0.2
    times = [1200.0] * 7
    frames, _ = expose(rate, times, seed=4)
    frames[::2, 60, 70] += 300
    frames[:, 80, 90] -= 300
    frames[:, 100, 110] = np.nan
    dq = dark_rate(ArrayPlanes(frames), np.array(times), RON).rate.dq
    assert dq[30, 40] == DQ.HOT
    assert dq[60, 70] & DQ.UNSTABLE
    assert dq[80, 90] == DQ.BAD
    assert dq[100, 110] == DQ.NO_DATA
    assert np.count_nonzero(dq) < 4 + 2


def test_glow_of_varying_strength_is_not_taken_for_cosmic_rays_or_unstable_pixels():
    times, strengths = [2400.0] * 6, [10.0, 60.0, 20.0, 90.0, 40.0, 30.0]
    frames, hits = expose(np.full(SHAPE, 0.002), times, seed=5, glow=strengths)
    result = dark_rate(ArrayPlanes(frames), np.array(times), RON)
    np.testing.assert_allclose(result.rejected, hits.sum(axis=(1, 2)), atol=6)
    unstable = (result.rate.dq & DQ.UNSTABLE) > 0
    assert np.count_nonzero(unstable & (hits.sum(axis=0) < 2)) < 4
    glow = result.rate.value * 2400 - 0.002 * 2400
    strength = np.sum(glow * glow_shape()) / np.sum(glow_shape() ** 2)
    assert 20 < strength < 50


def test_a_hot_pixel_needs_the_rate_that_is_asked_for():
    rate = np.full(SHAPE, 0.002)
    rate[30, 40] = 0.1
    frames, _ = expose(rate, [1200.0] * 5, seed=6)
    planes, times = ArrayPlanes(frames), np.full(5, 1200.0)
    assert dark_rate(planes, times, RON, DarkOptions(hot_rate=0.05)).rate.dq[30, 40] == DQ.HOT
    assert dark_rate(planes, times, RON, DarkOptions(hot_rate=0.5)).rate.dq[30, 40] == 0


def test_a_smooth_dark_has_less_noise_and_keeps_hot_pixels():
    rate = 0.002 + 0.02 * glow_shape()
    rate[30, 40] = 0.3
    frames, _ = expose(rate, [2400.0] * 3, seed=7)
    dark = dark_rate(ArrayPlanes(frames), np.full(3, 2400.0), RON).rate
    smooth = smooth_dark(dark)
    cool = np.ones(SHAPE, bool)
    cool[30, 40] = False
    assert (smooth.value - rate)[cool].std() < 0.35 * (dark.value - rate)[cool].std()
    assert smooth.value[30, 40] == pytest.approx(dark.value[30, 40])
    assert smooth.dq[30, 40] == DQ.HOT


def test_exposures_are_grouped_by_time():
    groups = group_exposures(np.array([2400.0, 60.0, 2401.0, 61.0, 600.0]))
    assert [group.tolist() for group in groups] == [[1, 3], [4], [0, 2]]
    with pytest.raises(RecipeError, match=r"found \[0.0\]"):
        group_exposures(np.array([0.0, 60.0]))


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=20), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_every_exposure_is_in_one_group_of_like_times(times, tolerance):
    groups = group_exposures(np.array(times), tolerance)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(times)))
    for group in groups:
        values = np.array(times)[group]
        assert values.max() <= values.min() * (1 + tolerance) * (1 + 1e-12)


@given(n=st.integers(2, 9), seed=st.integers(0, 2**32 - 1))
def test_darks_of_equal_weight_have_the_median_of_almost_equal_ones(n, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (n, 40)).astype(np.float32)
    values[rng.uniform(size=values.shape) < 0.3] = np.nan
    almost = np.full(n, 4.0)
    almost[-1] += 1e-12  # the general way
    np.testing.assert_array_equal(
        _weighted_median(values, np.full(n, 4.0)), _weighted_median(values, almost)
    )


@given(factor=st.sampled_from([2.0, 8.0, 0.5]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_rates_scale_with_the_inverse_of_time(factor, seed):
    frames, _ = expose(np.full(SHAPE, 0.004), [1200.0] * 3, seed=seed)
    times = np.full(3, 1200.0)
    base = dark_rate(ArrayPlanes(frames), times, RON)
    other = dark_rate(ArrayPlanes(frames), times * factor, RON)
    np.testing.assert_allclose(other.rate.value * factor, base.rate.value, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(other.rejected, base.rejected)


def test_darks_that_tell_nothing_are_refused():
    planes = ArrayPlanes(np.full((2, *SHAPE), np.nan))
    with pytest.raises(RecipeError, match="no(ne| pixel)"):
        dark_rate(planes, np.array([10.0, 10.0]), RON)
    with pytest.raises(RecipeError, match="bias frames among the darks"):
        dark_rate(planes, np.array([10.0, 0.0]), RON)
    with pytest.raises(ValueError, match="2 darks need 2 times"):
        dark_rate(planes, np.array([10.0]), RON)


# --- glow


def test_one_component_is_found_and_has_the_shape_of_the_glow():
    strengths = [10.0, 60.0, 20.0, 90.0, 40.0]
    frames, _ = expose(np.full(SHAPE, 0.002), [2400.0] * 5, seed=8, glow=strengths)
    glow = glow_components(ArrayPlanes(frames), np.full(5, 2400.0), box=16)
    assert glow.components.shape == (1, *SHAPE)
    shape = glow_shape() - np.median(glow_shape())
    found = glow.components[0] - np.median(glow.components[0])
    assert np.corrcoef(found.ravel(), shape.ravel())[0, 1] > 0.98
    relative = np.array(strengths) - np.mean(strengths)
    assert np.corrcoef(glow.amplitudes[:, 0], relative)[0, 1] > 0.995


def test_darks_that_differ_by_noise_and_level_only_have_no_glow():
    frames, _ = expose(np.full(SHAPE, 0.002), [2400.0] * 5, seed=9)
    frames += np.arange(5)[:, None, None] * 3
    glow = glow_components(ArrayPlanes(frames), np.full(5, 2400.0), box=16)
    assert glow.components.shape == (0, *SHAPE)
    assert glow.amplitudes.shape == (5, 0)


def test_a_single_dark_gives_its_own_shape():
    frames, _ = expose(np.full(SHAPE, 0.002), [2400.0], seed=10, glow=[80.0])
    glow = glow_components(ArrayPlanes(frames), np.array([2400.0]), box=16)
    assert glow.components.shape == (1, *SHAPE)
    with pytest.raises(ValueError, match="1 darks need 1 positive exposure times"):
        glow_components(ArrayPlanes(frames), np.array([1.0, 2.0]))


def science(amplitude: float, level: float, seed: int) -> tuple[Signal, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = amplitude * glow_shape() + level + 0.02 * np.arange(SHAPE[1])
    image = truth + rng.normal(0, RON, SHAPE)
    image[60:90] += 500
    rows = np.ones(SHAPE[0], bool)
    rows[55:95] = False
    return Signal.of(image, RON**2), rows, truth


def test_fitted_glow_and_background_have_honest_pulls():
    components = glow_shape()[None].astype(np.float32)
    options = GlowOptions(box=16)
    pulls = []
    for seed in range(60):
        image, rows, truth = science(30.0, 5.0, seed)
        fit = fit_glow(image, components, rows, options)
        model_pull = (fit.model.value - truth)[75, 80] / fit.model.error[75, 80]
        pulls.append([(fit.amplitudes[0] - 30) / np.sqrt(fit.variance[0]), model_pull])
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.mean(axis=0)) < 4 / np.sqrt(60))
    assert np.all(np.abs(pulls.std(axis=0) - 1) < 4 / np.sqrt(120))


def test_a_ghost_and_cosmic_rays_in_the_dark_rows_do_no_harm():
    image, rows, truth = science(30.0, 5.0, seed=99)
    value = image.value.copy()
    value[100:112] += 60
    value[np.random.default_rng(1).random(SHAPE) < 0.01] += 1000
    fit = fit_glow(
        Signal(value, image.variance, image.dq),
        glow_shape()[None].astype(np.float32),
        rows,
        GlowOptions(box=12),
    )
    assert np.abs(fit.model.value - truth).max() < 2.0
    assert fit.used < 1


def test_glow_beyond_its_limit_is_cut_back_and_the_background_fitted_without_it():
    image, rows, truth = science(30.0, 5.0, seed=97)
    components = glow_shape()[None].astype(np.float32)
    free = fit_glow(image, components, rows, GlowOptions(box=16, limit=60.0))
    assert abs(free.amplitudes[0] - 30) < 4 * np.sqrt(free.variance[0])
    slopes = truth - 30 * glow_shape()
    assert np.abs(free.model.value - free.glow.value - (slopes - slopes.mean())).max() < 2.0
    bound = fit_glow(image, components, rows, GlowOptions(box=16, limit=10.0))
    assert bound.amplitudes[0] == 10
    assert np.ptp(bound.glow.value - 10 * components[0]) < 1e-3
    off = image.value[rows] - bound.model.value[rows]
    assert abs(np.median(off)) < 2


def test_without_components_the_background_alone_is_fitted():
    image, rows, truth = science(0.0, 5.0, seed=98)
    fit = fit_glow(image, np.empty((0, *SHAPE)), rows, GlowOptions(box=16))
    assert fit.amplitudes.shape == (0,)
    assert np.abs(fit.model.value - truth).max() < 0.8


def test_too_few_dark_rows_are_refused():
    image, _, _ = science(0.0, 5.0, seed=97)
    rows = np.zeros(SHAPE[0], bool)
    components = glow_shape()[None]
    with pytest.raises(RecipeError, match="none of the 0 pixels in 0 rows without light"):
        fit_glow(image, components, rows)
    rows[:20] = True
    with pytest.raises(RecipeError, match="7 boxes of 24 pixels lie in the 20 rows without light"):
        fit_glow(image, components, rows)
    with pytest.raises(ValueError, match="do not fit an image"):
        fit_glow(image, components, rows[:5])
