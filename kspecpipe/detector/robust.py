"""Mean and scatter of many values of which a few are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.detector.order_statistics import MAD_TO_SIGMA
from kspecpipe.signal import FloatArray, IntArray

#: Values used for the first guess of centre and scatter: a twentieth of a sigma is good enough.
FIRST_GUESS = 512

#: Standard deviation of a normal distribution in units of its mean absolute deviation.
MEAN_DEVIATION_TO_SIGMA = 1.2533141373155001


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and number of the values kept, reduced along one axis."""

    mean: FloatArray
    std: FloatArray
    count: IntArray

    @property
    def error(self) -> FloatArray:
        """Standard error of the mean; infinite where nothing was kept."""
        return np.where(self.count > 0, self.std / np.sqrt(np.maximum(self.count, 1)), np.inf)


def clipped_moments(
    values: FloatArray, *, axis: int = -1, sigma: float = 5.0, iterations: int = 2
) -> Moments:
    """Mean and standard deviation along an axis without outliers, NaN and Inf.

    The first limits come from the median absolute deviation, later ones from the standard
    deviation: of whole numbers the former is a whole number too, and could be wrong by 10 %.

    Parameters
    ----------
    values : ndarray
        Any shape.
    axis : int
        Axis that is reduced.
    sigma : float
        Rejection limit.
    iterations : int
        Number of rejections.

    Returns
    -------
    Moments
        Arrays of the shape of ``values`` without that axis; NaN where nothing is finite.
    """
    values = np.moveaxis(np.asarray(values), axis, -1)
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    center, scatter = _first_guess(values, finite)
    for _ in range(iterations):
        # Single precision is enough for what is left after the centre is off.
        reference = center.astype(values.dtype)
        deviation = values - reference[..., None]
        keep = np.abs(deviation) <= (sigma * scatter[..., None]).astype(values.dtype)
        keep &= finite
        deviation *= keep
        count = np.count_nonzero(keep, axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = deviation.sum(axis=-1, dtype=np.float64) / count
            deviation *= deviation
            squares = deviation.sum(axis=-1).astype(np.float64) - count * shift**2
            spread = np.sqrt(np.maximum(squares, 0) / np.maximum(count - 1, 1))
        center = reference + shift
        scatter = np.where(count > 0, spread, np.nan)
    return Moments(center, scatter, count)


def _first_guess(values: FloatArray, finite: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Median and scatter of some of the values along the last axis."""
    # An odd step meets odd and even columns, which may have levels of their own.
    step = values.shape[-1] // FIRST_GUESS | 1
    sample = values[..., ::step]
    known = finite[..., ::step]
    median = median_of_known(sample, known)
    deviation = np.abs(sample - median[..., None])
    scatter = MAD_TO_SIGMA * median_of_known(deviation, known)
    # More than half of the values are equal: the others still tell a scatter.
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(known, deviation, 0).sum(axis=-1, dtype=np.float64)
        mean = total / known.sum(axis=-1)
    return median, np.where(scatter > 0, scatter, MEAN_DEVIATION_TO_SIGMA * mean)


def median_of_known(values: FloatArray, known: np.ndarray) -> FloatArray:
    """Median along the last axis of the known values; NaN where there are none."""
    if known.all():
        return np.median(values, axis=-1)
    count = known.sum(axis=-1)
    ranked = np.sort(np.where(known, values, np.inf), axis=-1)
    low = np.take_along_axis(ranked, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)
    last = values.shape[-1] - 1
    high = np.take_along_axis(ranked, np.minimum(count // 2, last)[..., None], axis=-1)
    middle: FloatArray = np.where(count > 0, 0.5 * (low + high)[..., 0], np.nan)
    return middle
