"""The response of each pixel relative to its neighbours, from flats of the bare detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.detector.bias import level_drift
from kspecpipe.detector.boxes import BoxGrid, box_surface
from kspecpipe.detector.planes import Planes
from kspecpipe.detector.robust import clipped_moments
from kspecpipe.detector.stack import Noise, clip_stack
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, FloatArray, Signal


@dataclass(frozen=True)
class PixelFlatOptions:
    """How a pixel flat is made.

    Parameters
    ----------
    box : int
        Size of the boxes whose means carry the illumination [pixel].
    sigma : float
        Rejection limit of the average.
    min_illumination : float
        Pixels with less than this fraction of the typical light get no response.
    min_response : float
        Pixels with less than this response are bad.
    """

    box: int = 32
    sigma: float = 5.0
    min_illumination: float = 0.1
    min_response: float = 0.5


def pixel_flat(planes: Planes, noise: Noise, options: PixelFlatOptions | None = None) -> Signal:
    """Measure the response of every pixel from evenly lit frames.

    The frames are scaled to one level and averaged without outliers; the average is divided by its
    own smooth illumination.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Flats of the detector without bias and dark, all in one unit.
    noise : Noise
        Noise of one frame in that unit, for electrons ``Noise(ron, per_unit=1)``.
    options : PixelFlatOptions, optional
        Box size and limits.

    Returns
    -------
    Signal, shape (ny, nx)
        Response, 1 = typical, and its variance. ``BAD`` where the response is too low; NaN and
        ``NO_DATA`` where there is too little light or no value.

    Raises
    ------
    RecipeError
        If a frame holds no light or the noise hides the pixels' differences.
    """
    options = options or PixelFlatOptions()
    scale = _scale_to_common_level(planes)
    average = clip_stack(planes, sigma=options.sigma, floor=noise, scale=scale).signal
    grid = BoxGrid(average.value.shape, options.box)
    illumination = box_surface(np.where(average.good, average.value, np.nan), grid)
    typical = float(clipped_moments(illumination.ravel()).mean)
    lit = illumination > options.min_illumination * typical
    response = np.where(lit, average.value / np.where(lit, illumination, 1), np.nan)
    variance = np.where(lit, average.variance / np.where(lit, illumination, 1) ** 2, np.nan)
    norm = float(clipped_moments(response.ravel()).mean)
    _check_noise(float(clipped_moments(variance.ravel()).mean))
    flat = Signal(response / norm, variance / norm**2, average.dq)
    low = flat.value < options.min_response
    return flat.flag(low, DQ.BAD).flag(~np.isfinite(flat.value), DQ.NO_DATA)


def apply_pixel_flat(image: Signal, flat: Signal) -> Signal:
    """Divide an image by the response of its pixels.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Image in electrons.
    flat : Signal, shape (ny, nx)
        Response, 1 = typical.

    Returns
    -------
    Signal, shape (ny, nx)
        Image with the response taken out; where the flat holds no response it is left alone and
        ``EXTRAPOLATED``. The other bits of both join.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if image.shape != flat.shape:
        raise ValueError(f"the pixel flat has shape {flat.shape}, the image {image.shape}")
    unknown = ~(np.isfinite(flat.value) & (flat.value > 0) & np.isfinite(flat.variance))
    keep = flat.dq & np.uint16(~np.uint16(DQ.NO_DATA))
    known = Signal(np.where(unknown, 1, flat.value), np.where(unknown, 0, flat.variance), keep)
    return image.divide(known).flag(unknown, DQ.EXTRAPOLATED)


def _scale_to_common_level(planes: Planes) -> FloatArray:
    levels = level_drift(planes)
    dark = ~(levels.levels > 5 * levels.errors)
    if dark.any():
        first = int(np.argmax(dark))
        raise RecipeError(
            f"{int(dark.sum())} of {dark.size} detector flats hold no light (frame {first + 1}: "
            f"level {levels.levels[first]:.1f}). Was the lamp on?"
        )
    factors: FloatArray = levels.levels.mean() / levels.levels
    return factors


def _check_noise(variance: float) -> None:
    """Refuse a flat that would add more noise than it removes."""
    if variance > 0.05**2:
        raise RecipeError(
            f"the pixel flat is uncertain by {np.sqrt(variance):.1%} per pixel; more than 5 % does "
            "harm. Give more or longer exposures"
        )
