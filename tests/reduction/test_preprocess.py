"""From raw adu to electrons: every calibration taken off a frame whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kspecpipe.configuration.instrument_schema import Amplifier, Layout
from kspecpipe.declare import Declared
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.errors import RecipeError
from kspecpipe.frame import FrameInfo, FrameStack, Geometry, Orient, RawFrame
from kspecpipe.products.images import BadPixelMap, MasterBias, MasterDark, PixelFlat
from kspecpipe.reduction.preprocess import (
    DetectorCalibrations,
    Masters,
    calibrate_frame,
    calibrate_stack,
    refuse_constant,
    rows_of,
)
from kspecpipe.signal import DQ, Signal

SHAPE = (96, 128)
GAIN, RON, LEVEL, TIME = 2.0, 4.0, 600.0, 100.0
READOUT = ReadOut(gain=GAIN, ron=RON, saturation=60000.0)
DARK_ROWS = ((0, 30), (80, 96))
RNG = np.random.default_rng(11)


class Inputs(DetectorCalibrations):
    pass


def light(peak=500.0):
    image = np.zeros(SHAPE)
    image[40:60] = peak
    return image


def frame_of(electrons, level=LEVEL, exptime=TIME, noise=RON):
    adu = level + (electrons + RNG.normal(0, noise, SHAPE)) / GAIN
    return FrameStack.from_arrays([adu], READOUT, [FrameInfo("a.fits", exptime=exptime)])


def master_bias(level=LEVEL):
    return MasterBias(image=Signal.of(np.full(SHAPE, level), 0.01))


def calibrated(stack, rows=DARK_ROWS, lamp_off=None, **inputs):
    values = Inputs(**inputs)
    assert isinstance(values, Declared)
    masters = Masters.of(values, stack, rows, lamp_off)
    return calibrate_frame(stack.frames[0], masters)


def residual(image, truth):
    return image.value - truth


def test_bias_and_gain_give_electrons():
    image = calibrated(frame_of(light()), master_bias=master_bias())
    difference = residual(image, light())
    assert abs(difference.mean()) < 4 * RON / np.sqrt(difference.size) + 0.1
    assert difference.std() == pytest.approx(RON, rel=0.03)
    assert np.median(image.variance) == pytest.approx(RON**2, rel=0.05)
    assert not image.dq.any()


def test_a_zero_level_that_drifted_is_measured_in_the_rows_without_light():
    image = calibrated(frame_of(light(), level=LEVEL + 7), master_bias=master_bias())
    assert abs(residual(image, light()).mean()) < 0.3


def test_without_bias_the_rows_without_light_are_the_zero_level():
    image = calibrated(frame_of(light()))
    assert abs(residual(image, light()).mean()) < 0.3


def test_without_any_knowledge_of_the_zero_level_a_frame_is_refused():
    with pytest.raises(RecipeError, match=r"a\.fits: the zero level is not known.*MASTER_BIAS"):
        calibrated(frame_of(light()), rows=())


def test_the_dark_is_scaled_to_the_exposure_time_and_brings_its_noise():
    rate = np.full(SHAPE, 0.5) + np.linspace(0, 1, SHAPE[1])
    dark = MasterDark(image=Signal.of(rate, 1e-6))
    image = calibrated(
        frame_of(light() + rate * TIME), rows=(), master_bias=master_bias(), master_dark=dark
    )
    assert abs(residual(image, light()).mean()) < 1.0
    assert np.median(image.variance) == pytest.approx(RON**2 + np.median(rate) * TIME, rel=0.1)


def test_a_dark_is_nothing_for_an_exposure_of_no_time():
    dark = MasterDark(image=Signal.of(np.full(SHAPE, 5.0), 1e-6))
    stack = frame_of(light(), exptime=0.0)
    image = calibrated(stack, rows=(), master_bias=master_bias(), master_dark=dark)
    assert abs(residual(image, light()).mean()) < 0.3


def test_glow_of_another_strength_is_fitted():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    glow = np.exp(-np.hypot(y, x) / 90)
    usual = 60 * glow / TIME
    dark = MasterDark(image=Signal.of(usual, 1e-6), glow=glow[None].astype("f4"))
    stack = frame_of(light() + (60 + 80) * glow)
    rows = ((0, 38), (62, 96))
    image = calibrated(stack, rows=rows, master_bias=master_bias(), master_dark=dark)
    assert np.abs(residual(image, light())[:30].mean(axis=0)).max() < 5
    without = calibrated(stack, rows=rows, master_bias=master_bias())
    assert without.value[:30, :20].mean() > image.value[:30, :20].mean() + 10


def test_scattered_light_of_a_short_exposure_is_not_taken_for_glow():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    glow = np.exp(-np.hypot(y, x) / 90)
    dark = MasterDark(image=Signal.of(0.001 * glow, 1e-8), glow=glow[None].astype("f4"))
    veil = 200 * np.exp(-0.5 * ((y - 50) / 40) ** 2 - x / 100)
    stack = frame_of(light() + veil)
    image = calibrated(stack, rows=((0, 38), (62, 96)), master_bias=master_bias(), master_dark=dark)
    # The zero level comes from rows with veil: what is left must keep its shape.
    left = residual(image, light() + veil)
    assert np.ptp(gaussian_filter(left, 6)) < 5


def test_frames_with_the_lamp_off_replace_bias_and_dark():
    sky = np.linspace(0, 50, SHAPE[1]) * np.ones((SHAPE[0], 1))
    images = [LEVEL + (sky + RNG.normal(0, RON, SHAPE)) / GAIN for _ in range(6)]
    off = FrameStack.from_arrays(images, READOUT)
    image = calibrated(frame_of(light() + sky), rows=(), lamp_off=off)
    assert abs(residual(image, light()).mean()) < 1.0


def test_bad_pixel_maps_join():
    first, second = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    first[3, 4], second[3, 4], second[5, 6] = DQ.HOT, DQ.BAD, DQ.UNSTABLE
    maps = [BadPixelMap(dq=first), BadPixelMap(dq=second)]
    image = calibrated(frame_of(light()), master_bias=master_bias(), bad_pixels=maps)
    assert image.dq[3, 4] == DQ.HOT | DQ.BAD
    assert image.dq[5, 6] == DQ.UNSTABLE
    assert np.count_nonzero(image.dq) == 2


def test_saturated_pixels_and_their_neighbours_are_flagged():
    stack = frame_of(light())
    adu = stack.frames[0].adu.copy()
    adu[50, 60] = 65535
    stack = FrameStack.from_arrays([adu], READOUT, stack.infos)
    image = calibrated(stack, master_bias=master_bias())
    assert image.dq[50, 60] & DQ.SATURATED
    assert image.dq[49, 60] & DQ.BLEED
    assert not image.dq[50, 58]


def test_charge_bleeds_along_the_axis_of_the_instrument():
    stack = frame_of(light())
    adu = stack.frames[0].adu.copy()
    adu[50, 60] = 65535
    sideways = replace(READOUT, bleed_axis=1)
    stack = FrameStack.from_arrays([adu], sideways, stack.infos)
    image = calibrated(stack, master_bias=master_bias())
    assert image.dq[50, 58] & DQ.BLEED
    assert not image.dq[49, 60]


def test_saturation_is_judged_with_the_overscan_level():
    """A raw value of 60100 is full, even if only 59500 are left of it."""
    raw = np.full((20, 34), 600.0) + np.random.default_rng(3).normal(0, 2, (20, 34))
    raw[10, 15] = 60100
    layout = Layout(amplifiers=[Amplifier(data=(0, 20, 0, 30), overscan=(0, 20, 30, 34))])
    frame = RawFrame(
        FrameInfo("a", exptime=1.0),
        Geometry.of(layout, Orient(False, False, False)),
        READOUT,
        lambda s: raw[s[0] : s[1], s[2] : s[3]],
    ).with_overscan()
    stack = FrameStack((frame,))
    image = calibrate_frame(frame, Masters.of(Inputs(), stack, ()))
    assert image.dq[10, 15] & DQ.SATURATED
    assert abs(np.median(image.value)) < 1
    assert np.isnan(frame.unsaturated_rows(10, 11)[0, 15])
    assert np.isfinite(frame.unsaturated_rows(0, 10)).all()


def test_a_pixel_flat_takes_the_response_out():
    response = 1 + 0.05 * np.sin(np.arange(SHAPE[1]) / 3) * np.ones((SHAPE[0], 1))
    flat = PixelFlat(image=Signal.of(response, 1e-6))
    image = calibrated(frame_of(light(5000) * response), master_bias=master_bias(), pixel_flat=flat)
    assert np.std(image.value[40:60].mean(axis=0)) < 5


@pytest.mark.parametrize("cores", [1, 2])
def test_a_stack_is_calibrated_frame_by_frame_and_stays_as_it_is(cores):
    adu = [frame_of(light()).frames[0].adu for _ in range(2)]
    before = [image.copy() for image in adu]
    infos = [FrameInfo(f"{i}", exptime=TIME) for i in range(2)]
    stack = FrameStack.from_arrays(adu, READOUT, infos)
    bias = Inputs(master_bias=master_bias())
    masters = Masters.of(bias, stack, DARK_ROWS, cores=cores)
    images = calibrate_stack(stack, masters, cores=cores)
    alone = Masters.of(bias, stack, DARK_ROWS)
    for image, frame in zip(images, stack, strict=True):
        np.testing.assert_array_equal(image.value, calibrate_frame(frame, alone).value)
    assert not np.array_equal(images[0].value, images[1].value)
    np.testing.assert_array_equal(adu, before)


def test_ranges_of_rows_are_half_open_and_clipped():
    np.testing.assert_array_equal(
        np.nonzero(rows_of(((-3, 2), (4, 5), (8, 99)), 10))[0], [0, 1, 4, 8, 9]
    )
    assert not rows_of((), 5).any()


@pytest.mark.parametrize("value", [0.0, 65535.0, 612.0])
def test_constant_frames_are_refused_by_name(value):
    good = RNG.normal(600, 2, SHAPE)
    infos = [FrameInfo("good.fits"), FrameInfo("bad.fits")]
    stack = FrameStack.from_arrays([good, np.full(SHAPE, value)], READOUT, infos)
    with pytest.raises(RecipeError, match=r"every pixel of bad\.fits"):
        refuse_constant(stack)
    refuse_constant(stack.select([0]))
