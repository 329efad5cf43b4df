"""The smooth part of a calibration image, so that its noise stays out of the science.

Subtracting an average of a few frames pixel by pixel adds its noise to every spectrum. What a bias
or dark really has is a slow surface, a pattern of rows and columns, and single pixels that differ;
these are known a hundred times better than a pixel is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kspecpipe.detector.boxes import BoxGrid, box_surface
from kspecpipe.detector.robust import clipped_moments
from kspecpipe.errors import RecipeError
from kspecpipe.signal import FloatArray, Signal

Section = tuple[slice, slice]


@dataclass(frozen=True)
class SmoothOptions:
    """How the smooth part of a calibration image is found.

    Parameters
    ----------
    significance : float
        Pixels that differ by more than this many sigma keep their own value.
    box : int
        Size of the boxes whose means carry the surface [pixel].
    rows, columns : bool
        Whether each row and each column has a level of its own.
    sections : tuple of (slice, slice)
        Parts of the image read by different amplifiers; by default the image is one part.
    """

    significance: float = 5.0
    box: int = 32
    rows: bool = True
    columns: bool = True
    sections: tuple[Section, ...] = ()


def smooth_structure(master: Signal, options: SmoothOptions | None = None) -> Signal:
    """Replace a calibration image by its smooth structure and the pixels that differ from it.

    The structure is a surface through the means of boxes plus a level for every row and column.
    Pixels in general get the fraction P / (P + V) of their deviation from it, where V is their
    variance and P that of the true pixel-to-pixel pattern, measured as the excess of the scatter
    over V: without a pattern nothing of a pixel's own noise is left.

    Parameters
    ----------
    master : Signal, shape (ny, nx)
        Average of several calibration frames. Unusable pixels do not take part.
    options : SmoothOptions, optional
        Box size, significance, amplifiers.

    Returns
    -------
    Signal, shape (ny, nx)
        Value everywhere, also in pixels without data; the variance that is left, in which a pattern
        too weak to be measured is included; DQ as before.

    Raises
    ------
    RecipeError
        If no pixel of the image or of a section is usable.
    """
    options = options or SmoothOptions()
    if len(options.sections) == 0:
        return _smooth_section(master, options)
    value, variance = master.value.copy(), master.variance.copy()
    for section in options.sections:
        smooth = _smooth_section(master.select(section), options)
        value[section], variance[section] = smooth.value, smooth.variance
    return replace(master, value=value, variance=variance)


def _smooth_section(master: Signal, options: SmoothOptions) -> Signal:
    good = master.good
    if not good.any():
        raise RecipeError(
            f"none of the {good.size} pixels of a calibration image of shape {master.shape} is "
            "usable; are its frames saturated or empty?"
        )
    structure, gain = _structure(np.where(good, master.value, np.nan), options)
    typical = float(clipped_moments(master.variance[good]).mean)
    noise = np.where(good, np.maximum(master.variance, typical), np.inf)
    deviation = np.where(good, np.where(good, master.value, 0) - structure, 0)
    pattern = _pattern_variance(deviation[good], typical)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.where(pattern > 0, pattern / (pattern + noise), 0.0)
        own = good & (np.abs(deviation) > options.significance * np.sqrt(pattern + noise))
    value = structure + np.where(own, 1.0, weight) * deviation
    left = pattern * (1 - weight) + gain * (typical + pattern)
    variance = np.where(own, master.variance, left)
    kind = master.value.dtype
    return Signal(value.astype(kind, copy=False), variance.astype(kind, copy=False), master.dq)


def _pattern_variance(deviation: FloatArray, noise: float) -> float:
    """Scatter beyond the noise, if it is more than chance."""
    scatter = clipped_moments(deviation)
    variance = float(scatter.std) ** 2
    chance = 4 * variance * np.sqrt(2 / max(int(scatter.count), 1))
    return variance - noise if variance - noise > chance else 0.0


def _structure(image: FloatArray, options: SmoothOptions) -> tuple[FloatArray, FloatArray]:
    """Surface plus row and column levels, and the variance of the sum for unit pixel variance."""
    # Single precision is a thousand times finer than what is known of any pixel.
    grid = BoxGrid(image.shape, options.box)
    structure = box_surface(image, grid).astype(image.dtype)
    gain = grid.noise_gain().astype(image.dtype)
    for wanted, axis in ((options.columns, 0), (options.rows, 1)):
        if wanted:
            levels = clipped_moments(image - structure, axis=axis)
            known = levels.count > 0
            level = np.where(known, levels.mean, 0).astype(image.dtype)
            structure += np.expand_dims(level, axis)
            # Slow changes of the levels are in the surface, and their noise is in its.
            fast = 1 - 1 / options.box
            share = (fast / np.maximum(levels.count, 1)).astype(image.dtype)
            gain += np.expand_dims(share, axis)
    return structure, gain
