"""The zero level that a frame brings along: its overscan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kspecpipe.detector.robust import clipped_moments
from kspecpipe.errors import RecipeError
from kspecpipe.signal import FloatArray


@dataclass(frozen=True)
class OverscanLevel:
    """Level of the overscan of one amplifier in one frame [adu].

    Parameters
    ----------
    level, level_error : float
        Level in the middle of the fitted axis and its standard error.
    slope, slope_error : float
        Change per pixel along the axis and its standard error.
    middle : float
        Pixel at which the level is that.
    noise : float
        Standard deviation of one overscan pixel: the read noise.
    """

    level: float
    level_error: float
    slope: float
    slope_error: float
    middle: float
    noise: float

    def at(self, pixel: FloatArray, *, significance: float = 3.0) -> FloatArray:
        """Level at these pixels of the axis; a slope within its noise is taken as none."""
        real = abs(self.slope) > significance * self.slope_error
        return self.level + (self.slope if real else 0.0) * (np.asarray(pixel) - self.middle)

    def variance_at(self, pixel: FloatArray, *, significance: float = 3.0) -> FloatArray:
        """Variance of `at`."""
        real = abs(self.slope) > significance * self.slope_error
        lever = (np.asarray(pixel) - self.middle) * (self.slope_error if real else 0.0)
        return self.level_error**2 + lever**2


def overscan_level(
    pixels: FloatArray, axis: Literal[0, 1] = 0, *, sigma: float = 5.0
) -> OverscanLevel:
    """Fit a robust straight line to the overscan of one amplifier in one frame.

    Pixels are averaged across the axis without outliers, and a line is fitted along it.

    Parameters
    ----------
    pixels : ndarray, shape (ny, nx)
        Overscan pixels [adu]; NaN and Inf are left out. Give no pixels next to the image if
        charge trails into them.
    axis : {0, 1}
        Axis along which the level may change: 0 for a strip of columns beside the image, 1 for a
        strip of rows above or below it.
    sigma : float
        Rejection limit.

    Returns
    -------
    OverscanLevel
        Level, slope, their errors and the noise of a pixel.

    Raises
    ------
    ValueError
        If ``pixels`` is not an image or ``axis`` neither 0 nor 1.
    RecipeError
        If fewer than two rows (columns) of the overscan hold finite values.
    """
    if pixels.ndim != 2 or axis not in (0, 1):
        raise ValueError(f"an overscan (ny, nx) and axis 0 or 1 are needed, not {pixels.shape}")
    across = clipped_moments(pixels, axis=1 - axis, sigma=sigma)
    position = np.arange(pixels.shape[axis], dtype=float)
    keep = across.count > 0
    if keep.sum() < 2:
        raise RecipeError(
            f"{int(keep.sum())} of {keep.size} overscan lines hold finite values; at least 2 are "
            "needed. Is the overscan section of the instrument file right?"
        )
    noise = float(np.sqrt(np.mean(across.std[keep] ** 2)))
    for _ in range(3):
        middle = float(position[keep].mean())
        lever = position - middle
        weight = np.where(keep, across.count, 0)
        slope = _weighted_slope(lever, across.mean, weight)
        level = float(np.average(across.mean[keep] - slope * lever[keep], weights=weight[keep]))
        residual = across.mean - level - slope * lever
        typical = clipped_moments(residual[keep]).std
        keep &= np.abs(residual) <= sigma * max(float(typical), noise / np.sqrt(pixels.size))
    scatter = max(float(np.std(residual[keep])), noise / np.sqrt(across.count[keep].mean()))
    return OverscanLevel(
        level,
        scatter / np.sqrt(keep.sum()),
        slope,
        scatter / np.sqrt(np.sum(lever[keep] ** 2)),
        middle,
        noise,
    )


def _weighted_slope(lever: FloatArray, level: FloatArray, weight: FloatArray) -> float:
    use = weight > 0
    x, y, w = lever[use], level[use], weight[use]
    x = x - np.average(x, weights=w)
    spread = float(np.sum(w * x * x))
    return float(np.sum(w * x * y) / spread) if spread > 0 else 0.0
