"""From raw frames to images in electrons: the step that all recipes but the first two share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kspecpipe.beside import beside, spread
from kspecpipe.declare import Declared, calibration
from kspecpipe.detector.badpixels import combine_bad_pixels
from kspecpipe.detector.bias import smooth_bias
from kspecpipe.detector.calibrate import Calibrations, calibrate_image, take_off
from kspecpipe.detector.dark import smooth_dark
from kspecpipe.detector.glow import GlowOptions, fit_glow
from kspecpipe.detector.saturation import saturation_dq
from kspecpipe.detector.stack import Noise, clip_stack
from kspecpipe.detector.structure import SmoothOptions, smooth_structure
from kspecpipe.errors import RecipeError
from kspecpipe.frame import ElectronPlanes, FrameStack, RawFrame
from kspecpipe.products.images import BadPixelMap, MasterBias, MasterDark, PixelFlat
from kspecpipe.signal import BoolArray, FloatArray, Signal


class DetectorCalibrations(Declared):
    """The calibrations of the detector, which all recipes after mdark can take."""

    master_bias: MasterBias | None = calibration(
        "MASTER_BIAS",
        default=None,
        match=("shape", "layout", "readmode"),
        on_demand=True,
        doc="zero level",
    )
    master_dark: MasterDark | None = calibration(
        "MASTER_DARK",
        default=None,
        match=("shape", "readmode"),
        several="nearest_exptime",
        on_demand=True,
        doc="dark rate, and shapes of varying glow",
    )
    bad_pixels: list[BadPixelMap] = calibration(
        "BAD_PIXEL_MAP",
        default=None,
        match=("shape",),
        several="list",
        doc="bad pixels; maps are combined",
    )
    pixel_flat: PixelFlat | None = calibration(
        "PIXEL_FLAT", default=None, match=("shape",), doc="response of each pixel"
    )


@dataclass(frozen=True)
class Masters:
    """Calibration images, smoothed so that their noise does not enter the science.

    Parameters
    ----------
    calibrations : Calibrations
        What is taken off every frame.
    glow : ndarray of shape (k, ny, nx) or None
        Shapes of varying glow, fitted to each frame in the rows without light.
    glow_rate : float
        Largest rate by which the glow of a frame can differ from that of the dark [electron/s].
    dark_rows : ndarray of bool, shape (ny,)
        Rows without light; none if not known.
    """

    calibrations: Calibrations
    glow: FloatArray | None
    glow_rate: float
    dark_rows: BoolArray

    @classmethod
    def of(
        cls,
        inputs: Any,
        stack: FrameStack,
        rows_without_light: tuple[tuple[int, int], ...],
        lamp_off: FrameStack | None = None,
        *,
        cores: int = 1,
    ) -> Masters:
        """Prepare the calibrations among a recipe's inputs for the frames of a stack.

        Parameters
        ----------
        inputs : DetectorCalibrations
            Inputs of the recipe.
        stack : FrameStack
            Frames to be calibrated.
        rows_without_light : tuple of (int, int)
            Half-open ranges of rows.
        lamp_off : FrameStack, optional
            Frames with the lamp off, which replace the dark (and the bias, if there is none).
        cores : int
            Cores that may be used.
        """
        sections = SmoothOptions(sections=stack.amplifier_sections)
        with beside(lambda: _zero_level(inputs.master_bias, sections), cores) as zero_level:
            dark = None if lamp_off else inputs.master_dark
            smooth = smooth_dark(dark.image) if dark else None
            zero = zero_level()
        flat = inputs.pixel_flat
        maps = [stack.bad_pixels, *(product.dq for product in inputs.bad_pixels)]
        calibrations = Calibrations(
            bias=zero,
            dark=smooth,
            background=_background(lamp_off, zero, sections) if lamp_off else None,
            pixel_flat=flat.image if flat else None,
            bad=combine_bad_pixels(maps),
        )
        rows = rows_of(rows_without_light, stack.shape[1])
        glow = dark.glow if dark else None
        rate = _glow_rate(dark.image, glow) if dark and glow is not None else 0.0
        return cls(calibrations, glow, rate, rows)


def _zero_level(bias: MasterBias | None, sections: SmoothOptions) -> Signal | None:
    """Smooth a master bias, if there is one."""
    return smooth_bias(bias.image, sections) if bias else None


def _glow_rate(dark: Signal, glow: FloatArray, most: float = 3.0) -> float:
    """Return how much the glow can differ from the dark's, which varies by less than its size."""
    if not len(glow):
        return 0.0
    good = dark.good & np.isfinite(glow[0])
    shape = glow[0][good] - np.mean(glow[0][good])
    own = abs(float(shape @ dark.value[good]) / max(float(shape @ shape), 1e-30))
    return most * own


def refuse_constant(stack: FrameStack) -> None:
    """Refuse frames without any signal, such as those of a failed read-out.

    Raises
    ------
    RecipeError
        If all pixels of a frame have one value, or are saturated, in its middle rows.
    """
    ny = stack.shape[1]
    for frame in stack:
        rows = frame.rows(ny // 2, min(ny, ny // 2 + 16))
        if np.isfinite(rows).any() and np.nanmin(rows) == np.nanmax(rows):
            raise RecipeError(
                f"every pixel of {frame.info.name} in the middle rows has the same value; a real "
                "frame has read noise. Was the detector read out, and was it not saturated?"
            )


def rows_of(ranges: tuple[tuple[int, int], ...], ny: int) -> BoolArray:
    """Return True for the rows of an image that lie in half-open ranges."""
    rows = np.zeros(ny, dtype=bool)
    for a, b in ranges:
        rows[max(a, 0) : max(b, 0)] = True
    return rows


def _background(stack: FrameStack, zero: Signal | None, sections: SmoothOptions) -> Signal:
    """Average frames with the lamp off [electron], with noise only where pixels differ."""
    planes = ElectronPlanes(stack, zero.value if zero else None)
    average = clip_stack(planes, floor=Noise(ron=stack.readout.ron, per_unit=1.0)).signal
    return smooth_structure(average, sections)


def calibrate_frame(frame: RawFrame, masters: Masters) -> Signal:
    """Turn a raw frame into electrons without bias, dark and glow.

    The zero level drifts from frame to frame; it comes from the overscan, else from the rows
    without light.

    Returns
    -------
    Signal, shape (ny, nx)
        Electrons; variance of read noise and calibrations, without Poisson noise.

    Raises
    ------
    RecipeError
        If no pixel is usable, or the zero level cannot be known.
    """
    readout = frame.readout
    saturated = saturation_dq(
        frame.raw_adu, readout.saturation, bleed=readout.bleed, axis=readout.bleed_axis
    )
    masters = replace(masters, calibrations=_levelled(frame, masters, saturated))
    image = calibrate_image(
        frame.adu,
        replace(readout, saturation=np.inf),
        masters.calibrations,
        exptime=frame.info.exptime,
    )
    if masters.glow is None or not len(masters.glow) or not masters.dark_rows.any():
        return image
    # No slopes are taken off: light that fibres scatter into these rows has its own model.
    limit = masters.glow_rate * frame.info.exptime
    glow = fit_glow(image, masters.glow, masters.dark_rows, GlowOptions(limit=limit)).glow
    # More glow than in the dark brings its shot noise along.
    take_off(image, glow, charge=0.0)
    return image


def calibrate_stack(stack: FrameStack, masters: Masters, *, cores: int = 1) -> list[Signal]:
    """Calibrate every frame of a stack, several at a time where there are cores for it."""
    return spread(lambda frame: calibrate_frame(frame, masters), list(stack), cores)


def _levelled(frame: RawFrame, masters: Masters, saturated: Any) -> Calibrations:
    known = masters.calibrations
    has_overscan = any(level is not None for level in frame.levels or ())
    level_known = known.bias is not None or known.background is not None or has_overscan
    if not level_known and not masters.dark_rows.any():
        raise RecipeError(
            f"{frame.info.name}: the zero level is not known: there is no MASTER_BIAS, no overscan "
            "and the instrument names no rows without light. Give a MASTER_BIAS"
        )
    rows = masters.dark_rows if masters.dark_rows.any() and not has_overscan else None
    dark = known.dark if frame.info.exptime > 0 else None
    return replace(known, dark=dark, level_rows=rows, bad=known.bad | saturated)
