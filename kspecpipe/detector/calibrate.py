"""From raw counts to electrons with their variance and data quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kspecpipe.detector.pixel_flat import apply_pixel_flat
from kspecpipe.detector.robust import clipped_moments
from kspecpipe.detector.saturation import saturation_dq
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, BoolArray, DQArray, FloatArray, Signal

#: Rows that are worked on at a time.
_ROWS = 16


@dataclass(frozen=True)
class ReadOut:
    """What the readout mode does to the charge.

    Parameters
    ----------
    gain : float or ndarray of shape (ny, nx)
        Electrons per adu.
    ron : float or ndarray of shape (ny, nx)
        Read noise [electron].
    saturation : float
        Raw values at or above this are saturated [adu].
    prnu : float
        Relative scatter of the pixels' response. It belongs into the variance of the model, as
        Poisson noise does, unless a pixel flat was applied; `calibrate_image` leaves it alone.
    bleed : int
        Pixels on either side of a saturated one that charge can reach.
    bleed_axis : {0, 1}
        Axis of the image along which it does.
    """

    gain: float | FloatArray
    ron: float | FloatArray
    saturation: float = np.inf
    prnu: float = 0.0
    bleed: int = 2
    bleed_axis: Literal[0, 1] = 0


@dataclass(frozen=True)
class Calibrations:
    """What is taken off a raw image; all shapes are (ny, nx), and all are optional.

    Parameters
    ----------
    bias : Signal
        Zero level [adu].
    dark : Signal
        Dark rate [electron/s].
    background : Signal
        A frame with the lamp off [electron], of the same exposure time; it replaces the dark.
    pixel_flat : Signal
        Response of the pixels, 1 = typical.
    bad : ndarray of uint16
        Data-quality bits that join those of the image.
    level_rows : ndarray of bool, shape (ny,)
        Rows without light. The level that is left there after bias and dark is taken off, which
        follows a bias that drifts between frames. Without a bias it is the whole zero level.
    """

    bias: Signal | None = None
    dark: Signal | None = None
    background: Signal | None = None
    pixel_flat: Signal | None = None
    bad: DQArray | None = None
    level_rows: BoolArray | None = None


def calibrate_image(
    adu: FloatArray,
    readout: ReadOut,
    calibrations: Calibrations | None = None,
    *,
    exptime: float = 0.0,
) -> Signal:
    """Turn a raw image into electrons, without bias, dark and background.

    Without bias and ``level_rows`` the image must have its zero level off already, for example that
    of its overscan.

    Parameters
    ----------
    adu : ndarray, shape (ny, nx)
        Raw values [adu]. If a level was taken off before, find the saturated pixels first
        (`saturation_dq`), give them as ``bad`` and no ``readout.saturation``.
    readout : ReadOut
        Gain, read noise and saturation.
    calibrations : Calibrations, optional
        What to take off and to divide by.
    exptime : float
        Exposure time that the dark is scaled to [s].

    Returns
    -------
    Signal, shape (ny, nx)
        Electrons. The variance holds read noise, the calibrations' own and the shot noise of dark
        or background; that of the light comes from the model of the light. DQ joins all inputs;
        NaN and Inf become NaN and ``NO_DATA``.

    Raises
    ------
    ValueError
        If shapes differ, the gain is not positive, or a dark comes without exposure time.
    RecipeError
        If no pixel holds a value that could be used, or the rows without light hold none.
    """
    calibrations = calibrations or Calibrations()
    _check(adu, readout, calibrations, exptime)
    # These arrays are nobody else's: they are changed in place, because new ones take longer.
    image = _electrons(adu, readout)
    _refuse_empty(adu, image)
    gain = np.asarray(readout.gain, np.float32)
    if calibrations.bias is not None:
        take_off(image, calibrations.bias, gain)
    if calibrations.background is not None:
        take_off(image, calibrations.background, charge=3.0)
    elif calibrations.dark is not None:
        take_off(image, calibrations.dark, exptime, charge=3.0)
    if calibrations.level_rows is not None:
        _take_off_level(image, calibrations.level_rows, gain)
    if calibrations.bad is not None:
        np.bitwise_or(image.dq, calibrations.bad, out=image.dq)
    if calibrations.pixel_flat is not None:
        image = apply_pixel_flat(image, calibrations.pixel_flat)
    return image


def _electrons(adu: FloatArray, readout: ReadOut) -> Signal:
    """Raw image in electrons, with read noise, saturation and missing values."""
    adu = np.ascontiguousarray(adu)  # of a turned detector it is a view: slow in all that follows
    finite = np.isfinite(adu)
    value = np.where(finite, adu, np.nan).astype(np.float32) * np.asarray(readout.gain, np.float32)
    variance = np.broadcast_to(np.asarray(readout.ron, np.float32) ** 2, value.shape).copy()
    dq = saturation_dq(adu, readout.saturation, bleed=readout.bleed, axis=readout.bleed_axis)
    return Signal(value, variance, dq).flag(~finite, DQ.NO_DATA)


def take_off(
    image: Signal, other: Signal, factor: float | FloatArray = 1.0, *, charge: float | None = None
) -> None:
    """Subtract an independent signal times a factor from an image, in place.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Its arrays are changed.
    other : Signal, shape (ny, nx)
        What is subtracted, before the factor.
    factor : float or ndarray of shape (ny, nx)
        Known without error.
    charge : float, optional
        The other signal is electrons which were in the image too, and brought their shot noise
        along. Only charge that stands out of its own noise by this many sigma counts: the positive
        half of pure noise is none.
    """
    factor = np.asarray(factor, np.float32)
    # A few rows at a time stay in the processor's cache.
    for start in range(0, image.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        scale = factor[rows] if factor.ndim else factor
        value, variance = other.value[rows] * scale, other.variance[rows] * scale**2
        if charge is not None:
            variance += np.where(value > charge * np.sqrt(variance), np.maximum(value, 0), 0)
        image.value[rows] -= value
        image.variance[rows] += variance
        image.dq[rows] |= other.dq[rows]


def _take_off_level(image: Signal, rows: BoolArray, gain: FloatArray) -> None:
    """Take off the level that rows without light still have: the same number of adu everywhere."""
    dark = image.select(rows)
    counts = np.where(dark.good, dark.value, np.nan)
    counts = counts / (gain[rows] if gain.ndim else gain)
    level = clipped_moments(counts.ravel())
    if level.count == 0:
        raise RecipeError(
            f"none of the {counts.size} pixels in {int(rows.sum())} rows without light is usable; "
            "the zero level cannot be measured. Give a MASTER_BIAS"
        )
    image.value[:] -= np.float32(level.mean) * gain
    image.variance[:] += np.float32(level.error) ** 2 * gain**2


def _refuse_empty(adu: FloatArray, image: Signal) -> None:
    finite = int(np.isfinite(adu).sum())
    if finite == 0:
        raise RecipeError(f"none of the {adu.size} raw pixels is a finite number")
    if not image.good.any():
        raise RecipeError(f"all {finite} finite raw pixels are saturated; nothing can be measured")
    if not np.any(np.where(np.isfinite(adu), adu, 0)):
        raise RecipeError(f"all {finite} raw pixels are 0 adu: the frame was not read out")


def _check(adu: FloatArray, readout: ReadOut, calibrations: Calibrations, exptime: float) -> None:
    if adu.ndim != 2:
        raise ValueError(f"a raw image has two axes, not shape {adu.shape}")
    parts = {
        "gain": readout.gain,
        "ron": readout.ron,
        "bias": calibrations.bias,
        "dark": calibrations.dark,
        "background": calibrations.background,
        "pixel_flat": calibrations.pixel_flat,
        "bad": calibrations.bad,
    }
    for name, part in parts.items():
        shape = () if part is None or isinstance(part, float | int) else part.shape
        if shape not in ((), adu.shape):
            raise ValueError(f"{name} has shape {shape}, the image {adu.shape}")
    rows = calibrations.level_rows
    if rows is not None and (rows.shape != adu.shape[:1] or rows.dtype != bool):
        raise ValueError(f"level_rows must be {adu.shape[0]} booleans, not shape {rows.shape}")
    if not np.all(np.asarray(readout.gain) > 0):
        raise ValueError("the gain must be positive [electron/adu]")
    if calibrations.dark is not None and calibrations.background is None and not exptime > 0:
        raise ValueError(f"a dark rate needs an exposure time above 0 s, not {exptime}")
