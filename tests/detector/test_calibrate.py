"""Overscan, saturation, bad pixels, pixel flats, and the calibration of an image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.detector.badpixels import combine_bad_pixels
from kspecpipe.detector.calibrate import Calibrations, ReadOut, calibrate_image, take_off
from kspecpipe.detector.overscan import overscan_level
from kspecpipe.detector.pixel_flat import apply_pixel_flat, pixel_flat
from kspecpipe.detector.planes import ArrayPlanes
from kspecpipe.detector.saturation import saturation_dq
from kspecpipe.detector.stack import Noise
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal

SHAPE = (60, 80)


def electrons(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 5000, SHAPE)


# --- overscan


@pytest.mark.parametrize("axis", [0, 1])
def test_overscan_line_without_noise_is_exact(axis):
    along = np.arange(50.0)
    strip = np.repeat((600 + 0.03 * along)[:, None], 20, axis=1)
    fit = overscan_level(strip if axis == 0 else strip.T, axis)
    np.testing.assert_allclose(fit.at(along), 600 + 0.03 * along, rtol=1e-12)
    assert fit.slope == pytest.approx(0.03)


def test_overscan_pulls_are_standard_normal_in_spite_of_cosmics():
    pulls = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        strip = rng.normal(610, 4, (30, 90)) + 0.1 * np.arange(90)
        strip[rng.integers(30), rng.integers(90)] += 3000
        fit = overscan_level(np.rint(strip), 1)
        truth = 610 + 0.1 * fit.middle
        pulls.append([(fit.level - truth) / fit.level_error, (fit.slope - 0.1) / fit.slope_error])
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.mean(axis=0)) < 4 / np.sqrt(200))
    assert np.all(np.abs(pulls.std(axis=0) - 1) < 4 / np.sqrt(400))


def test_a_slope_within_its_noise_is_not_applied():
    strip = np.random.default_rng(5).normal(610, 4, (30, 90))
    fit = overscan_level(strip, 1)
    assert abs(fit.slope) < 3 * fit.slope_error
    assert np.ptp(fit.at(np.arange(90))) == 0
    assert fit.noise == pytest.approx(4, abs=4 * 4 / np.sqrt(2 * strip.size))
    assert np.all(fit.variance_at(np.arange(90)) == fit.level_error**2)


def test_overscan_lines_without_data_are_left_out_and_an_empty_one_is_refused():
    strip = np.random.default_rng(6).normal(610, 4, (30, 90))
    strip[:, :40] = np.nan
    strip[3, 50] = np.inf
    assert abs(overscan_level(strip, 1).level - 610) < 1
    with pytest.raises(RecipeError, match="0 of 90 overscan lines hold finite values"):
        overscan_level(np.full((30, 90), np.nan), 1)
    with pytest.raises(ValueError, match="axis 0 or 1"):
        overscan_level(np.zeros(5), 0)


# --- saturation and bad pixels


def test_saturated_pixels_bleed_along_columns_only():
    adu = np.full((9, 7), 100.0)
    adu[4, 3] = 65535
    dq = saturation_dq(adu, 65535, bleed=2)
    assert dq[4, 3] == DQ.SATURATED
    np.testing.assert_array_equal(dq[[2, 3, 5, 6], 3], DQ.BLEED)
    assert np.count_nonzero(dq) == 5
    np.testing.assert_array_equal(saturation_dq(adu.T, 65535, bleed=2, axis=1), dq.T)


@given(st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_saturation_does_not_depend_on_the_direction_of_columns(bleed, seed):
    adu = np.random.default_rng(seed).uniform(0, 70000, (12, 5))
    dq = saturation_dq(adu, 65535, bleed=bleed)
    np.testing.assert_array_equal(dq[::-1], saturation_dq(adu[::-1], 65535, bleed=bleed))
    np.testing.assert_array_equal((dq & DQ.SATURATED) > 0, adu >= 65535)


def test_missing_values_are_not_saturated():
    adu = np.array([[np.nan, np.inf, -np.inf, 65535.0]])
    np.testing.assert_array_equal(saturation_dq(adu, 65535), [[0, 0, 0, DQ.SATURATED]])
    with pytest.raises(ValueError, match="number of pixels"):
        saturation_dq(adu, 65535, bleed=-1)


def test_maps_of_bad_pixels_join_bit_by_bit():
    one = np.array([[1, 0, 2]], np.uint16)
    two = np.array([[4, 0, 2]], np.uint16)
    np.testing.assert_array_equal(combine_bad_pixels([one, two]), [[5, 0, 2]])
    np.testing.assert_array_equal(combine_bad_pixels([one]), one)
    with pytest.raises(ValueError, match="one shape"):
        combine_bad_pixels([one, two.T])
    with pytest.raises(ValueError, match="none at all"):
        combine_bad_pixels([])


# --- pixel flat


def lamp_frames(response: np.ndarray, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: response.shape[0], : response.shape[1]]
    light = 20000 * (1 - ((y - 40) / 200) ** 2) * (1 + 0.2 * np.sin(x / 90))
    strength = rng.uniform(0.7, 1.3, n)[:, None, None]
    return rng.poisson(light * response * strength) + rng.normal(0, 5, (n, *response.shape))


def test_pixel_flat_pulls_are_standard_normal_and_cosmics_gone():
    rng = np.random.default_rng(9)
    response = 1 + rng.normal(0, 0.01, (96, 128))
    response[20, 30] = 0.2
    frames = lamp_frames(response, 4, seed=10)
    frames[2, 50, 60] += 40000
    flat = pixel_flat(ArrayPlanes(frames), Noise(5.0, per_unit=1.0))
    assert flat.dq[20, 30] == DQ.BAD
    good = flat.good
    pull = ((flat.value - response) / flat.error)[good]
    assert good.sum() == good.size - 1
    # The mean response of a box cannot be told from its illumination.
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size) + 0.01
    assert abs(pull[50 * 128 + 60 - 1]) < 5
    assert np.median(flat.value) == pytest.approx(1, abs=1e-3)


def test_pixel_flat_takes_the_response_out_and_leaves_unknown_pixels_alone():
    rng = np.random.default_rng(11)
    response = 1 + rng.normal(0, 0.02, SHAPE)
    image = Signal.of(electrons() * response, 9.0)
    flat = Signal.of(response, 1e-6)
    flat.value[3, 4] = np.nan
    flat.dq[3, 4] = DQ.NO_DATA
    flat.dq[5, 6] = DQ.BAD
    done = apply_pixel_flat(image, flat)
    known = np.ones(SHAPE, bool)
    known[3, 4] = False
    np.testing.assert_allclose(done.value[known], electrons()[known], rtol=1e-12)
    assert done.value[3, 4] == image.value[3, 4]
    assert done.dq[3, 4] == DQ.EXTRAPOLATED and done.dq[5, 6] == DQ.BAD
    with pytest.raises(ValueError, match=r"shape \(5, 5\), the image \(60, 80\)"):
        apply_pixel_flat(image, Signal.of(np.ones((5, 5))))


def test_flats_without_light_are_refused():
    frames = np.random.default_rng(12).normal(0, 5, (3, 64, 64))
    frames -= frames.mean(axis=(1, 2), keepdims=True)
    with pytest.raises(RecipeError, match="3 of 3 detector flats hold no light"):
        pixel_flat(ArrayPlanes(frames), Noise(5.0, per_unit=1.0))
    with pytest.raises(RecipeError, match="more than 5 % does harm"):
        pixel_flat(ArrayPlanes(frames + 20), Noise(5.0, per_unit=1.0))


# --- calibration of an image


def test_calibration_without_noise_is_exact():
    truth, bias = electrons(), 612 + np.random.default_rng(1).normal(0, 2, SHAPE)
    dark, gain = np.full(SHAPE, 0.25), np.where(np.arange(80) < 40, 1.1, 2.0) * np.ones(SHAPE)
    response = 1 + np.random.default_rng(2).normal(0, 0.01, SHAPE)
    adu = (truth * response + dark * 100) / gain + bias
    calibrations = Calibrations(
        bias=Signal.of(bias), dark=Signal.of(dark), pixel_flat=Signal.of(response)
    )
    image = calibrate_image(adu, ReadOut(gain, 4.0), calibrations, exptime=100)
    np.testing.assert_allclose(image.value, truth, atol=2e-3)
    np.testing.assert_allclose(image.variance, (16 + 25) / response**2, rtol=1e-5)
    assert not image.dq.any()


def test_pulls_of_a_dark_image_are_standard_normal():
    rng = np.random.default_rng(3)
    gain, ron, exptime, n = 1.12, 4.48, 600.0, 7
    rate = np.full(SHAPE, 0.05)
    bias = 612 + rng.normal(0, ron / gain / np.sqrt(n), SHAPE)
    adu = 612 + (rng.poisson(rate * exptime) + rng.normal(0, ron, SHAPE)) / gain
    calibrations = Calibrations(
        bias=Signal.of(bias, (ron / gain) ** 2 / n), dark=Signal.of(rate, 1e-8)
    )
    image = calibrate_image(adu, ReadOut(gain, ron), calibrations, exptime=exptime)
    pull = image.value / image.error
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)


def test_rows_without_light_give_the_level_that_is_left():
    rng = np.random.default_rng(4)
    truth = np.zeros(SHAPE)
    truth[25:35] = 3000
    adu = 615.3 + (truth + rng.normal(0, 3, SHAPE)) / 2.0
    adu[3, 3] += 30000
    rows = np.ones(SHAPE[0], bool)
    rows[20:40] = False
    for bias in (None, Signal.of(np.full(SHAPE, 612.0))):
        calibrations = Calibrations(bias=bias, level_rows=rows)
        image = calibrate_image(adu, ReadOut(2.0, 3.0), calibrations)
        empty = image.value[40:]
        assert abs(empty.mean()) < 4 * 3 * np.sqrt(1 / empty.size + 1 / (rows.sum() * 80))
        assert np.median(image.value[25:35]) == pytest.approx(3000, abs=1)
        assert image.variance[0, 0] == pytest.approx(9, rel=1e-3)


def test_a_frame_with_the_lamp_off_replaces_the_dark():
    background = Signal.of(np.full(SHAPE, 40.0), 10.0)
    calibrations = Calibrations(background=background, dark=Signal.of(np.full(SHAPE, 9.0)))
    image = calibrate_image(electrons() + 40, ReadOut(1.0, 3.0), calibrations, exptime=10)
    np.testing.assert_allclose(image.value, electrons(), atol=1e-2)
    np.testing.assert_allclose(image.variance, 9 + 10 + 40, rtol=1e-5)


def test_quality_bits_join_and_missing_values_become_nan():
    adu = electrons() + 600
    adu[0, :3] = [np.nan, np.inf, 65535]
    bad = np.zeros(SHAPE, np.uint16)
    bad[7, 7] = DQ.HOT
    bias = Signal.of(np.full(SHAPE, 600.0)).flag(np.eye(*SHAPE, dtype=bool), DQ.UNSTABLE)
    before = adu.copy(), bad.copy(), bias.value.copy()
    image = calibrate_image(
        adu, ReadOut(1.0, 3.0, saturation=65535, bleed=1), Calibrations(bias=bias, bad=bad)
    )
    assert image.dq[7, 7] == DQ.HOT | DQ.UNSTABLE
    assert image.dq[0, 1] == DQ.NO_DATA and image.dq[0, 2] == DQ.SATURATED
    assert image.dq[1, 2] == DQ.BLEED
    assert np.all(np.isnan(image.value[0, :2])) and np.isfinite(image.value[0, 2])
    for now, then in zip((adu, bad, bias.value), before, strict=True):
        np.testing.assert_array_equal(now, then)


@given(gain=st.floats(0.1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_electrons_are_adu_times_gain_in_value_and_variance(gain, seed):
    adu = np.random.default_rng(seed).uniform(1, 60000, (8, 9))
    bias = Signal.of(np.full((8, 9), 600.0), 2.0)
    image = calibrate_image(adu, ReadOut(gain, 5.0), Calibrations(bias=bias))
    np.testing.assert_allclose(image.value, (adu - 600) * gain, rtol=1e-4, atol=gain * 1e-2)
    np.testing.assert_allclose(image.variance, 25 + 2 * gain**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 adu: the frame was not read out"),
        (65535.0, "raw pixels are saturated"),
        (np.nan, "none of the 4800 raw pixels is a finite number"),
    ],
)
def test_frames_that_hold_nothing_are_refused(value, words):
    with pytest.raises(RecipeError, match=words):
        calibrate_image(np.full(SHAPE, value), ReadOut(1.0, 3.0, saturation=65535))


def test_wrong_arguments_are_named():
    readout = ReadOut(1.0, 3.0)
    wrong = Signal.of(np.ones((5, 5)))
    with pytest.raises(ValueError, match=r"bias has shape \(5, 5\), the image \(60, 80\)"):
        calibrate_image(electrons(), readout, Calibrations(bias=wrong))
    with pytest.raises(ValueError, match=r"gain has shape"):
        calibrate_image(electrons(), ReadOut(np.ones((2, 2)), 3.0))
    with pytest.raises(ValueError, match="needs an exposure time"):
        calibrate_image(electrons(), readout, Calibrations(dark=Signal.of(np.ones(SHAPE))))
    with pytest.raises(ValueError, match="level_rows must be 60 booleans"):
        calibrate_image(electrons(), readout, Calibrations(level_rows=np.ones(3, bool)))
    with pytest.raises(ValueError, match="gain must be positive"):
        calibrate_image(electrons(), ReadOut(0.0, 3.0))
    with pytest.raises(ValueError, match="two axes"):
        calibrate_image(np.ones(5), readout)
    nothing = np.where(np.arange(60)[:, None] < 5, np.nan, electrons())
    with pytest.raises(RecipeError, match="rows without light is usable"):
        calibrate_image(nothing, readout, Calibrations(level_rows=np.arange(60) < 5))


def test_taking_off_in_place_is_the_difference_of_independent_signals():
    rng = np.random.default_rng(11)
    image, other = (
        Signal.of(
            rng.normal(50, 20, (150, 9)).astype(np.float32), 4.0, rng.integers(0, 4, (150, 9))
        )
        for _ in range(2)
    )
    factor = rng.uniform(1, 2, (150, 9)).astype(np.float32)
    scaled = other.scale(factor)
    shot = np.where(scaled.value > 3 * scaled.error, scaled.value, 0)
    expected = image.subtract(Signal(scaled.value, scaled.variance + shot, scaled.dq))
    before = other.value.copy()
    take_off(image, other, factor, charge=3.0)
    np.testing.assert_allclose(image.value, expected.value, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(image.variance, expected.variance, rtol=1e-5)
    assert np.array_equal(image.dq, expected.dq)
    assert np.array_equal(other.value, before)
