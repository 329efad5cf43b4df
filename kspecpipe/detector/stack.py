"""Averages of several frames without their outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.detector.order_statistics import (
    MAD_TO_SIGMA,
    mad_of_deviations,
    mad_of_even_deviations,
    masked_median_and_mad,
    median_of_sorted,
    sort_planes,
)
from kspecpipe.detector.planes import ArrayPlanes, Planes, ScaledPlanes, row_blocks
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal

__all__ = ["ArrayPlanes", "Noise", "Planes", "ScaledPlanes", "Stacked", "clip_stack"]

#: Pixels worked on at a time: all planes of such a chunk stay in the processor's cache.
CHUNK = 49_152


@dataclass(frozen=True)
class Noise:
    """Expected noise of one pixel of one plane, in the unit of the planes.

    The variance of a value v is ``ron**2 + per_unit * max(v, 0) + (relative * v)**2``.

    Parameters
    ----------
    ron : float or ndarray of shape (ny, nx)
        Read noise.
    per_unit : float
        Poisson variance per unit of signal: 1 for electrons, 1 / gain for adu.
    relative : float
        Scatter proportional to the signal, for example of a lamp.
    """

    ron: float | FloatArray
    per_unit: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True)
class Stacked:
    """The average of a set of planes and what was left out of it.

    Parameters
    ----------
    mean, variance : ndarray of float32, shape (ny, nx)
        Average of the values kept and the variance of that average; NaN where none was kept. The
        variance is NaN as well where a single value was kept and no `Noise` was given.
    count : ndarray of int, shape (ny, nx)
        Number of values kept.
    rejected : ndarray of int, shape (n,)
        Values of each plane that were rejected as outliers; NaN and Inf are not counted.
    """

    mean: FloatArray
    variance: FloatArray
    count: IntArray
    rejected: IntArray

    @property
    def rejected_fraction(self) -> FloatArray:
        """Fraction of the pixels of each plane that were rejected, shape (n,)."""
        return self.rejected / self.mean.size

    @property
    def signal(self) -> Signal:
        """The average as a signal; ``NO_DATA`` where no value was kept."""
        empty = self.count == 0
        return Signal(self.mean, self.variance, np.where(empty, DQ.NO_DATA, 0).astype(np.uint16))


def clip_stack(
    planes: Planes,
    *,
    sigma: float = 5.0,
    iterations: int = 5,
    floor: float | FloatArray | Noise = 0.0,
    scale: FloatArray | None = None,
    offset: FloatArray | None = None,
) -> Stacked:
    """Average planes pixel by pixel without the values far from their median.

    A value is rejected when it is more than ``sigma`` times the scatter away from the median of the
    pixel's values. The scatter is 1.4826 times their median absolute deviation, but not less than
    the floor: of three values two can be equal by luck, and the third is then no outlier.
    Of one or two planes nothing is ever rejected.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Frames; NaN and Inf are left out. They are read a few rows at a time.
    sigma : float
        Rejection limit.
    iterations : int
        How often the limits are computed anew for pixels that lost values.
    floor : float, ndarray of shape (ny, nx) or Noise
        Least scatter, in the unit of the (scaled) planes. With a `Noise` the floor follows the
        signal, and the variance of the average comes from it instead of the values' scatter.
    scale, offset : ndarray of shape (n,), optional
        The average is that of ``(plane - offset) * scale``. `Noise` describes unscaled planes.

    Returns
    -------
    Stacked
        Average, its variance, the number of values in it, and the outliers per plane.

    Raises
    ------
    ValueError
        If there is no plane, an option makes no sense, or shapes disagree.
    """
    _check_options(planes.shape, sigma, iterations, floor)
    noise = floor if isinstance(floor, Noise) else None
    if scale is not None or offset is not None:
        noise = noise and _scaled_noise(noise, scale)
        planes = ScaledPlanes(planes, scale=scale, offset=offset)
    n, ny, nx = planes.shape
    clip = _Clip(sigma, iterations, noise is not None, n, ny * nx)
    for a, b in row_blocks(planes):
        block = planes.rows(a, b).reshape(n, -1)
        least = _Floor.of_rows(noise or floor, a, b, nx)
        for start in range(0, block.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            clip.average(block[:, part], a * nx + start, least.select(part))
    return clip.result((ny, nx))


@dataclass(frozen=True)
class _Floor:
    """Least scatter of some pixels: a variance (m,) and what the signal adds to it."""

    variance: FloatArray
    per_unit: float
    relative: float

    @classmethod
    def of_rows(cls, floor: float | FloatArray | Noise, a: int, b: int, nx: int) -> _Floor:
        """Read the floor of all pixels of rows ``a`` to ``b``."""
        noise = floor if isinstance(floor, Noise) else Noise(floor)
        ron = np.asarray(noise.ron, np.float32)
        pixels = ron[a:b].reshape(-1) if ron.ndim else np.full((b - a) * nx, ron)
        return cls(pixels**2, noise.per_unit, noise.relative)

    def select(self, index: slice | IntArray) -> _Floor:
        """Keep some of the pixels."""
        return _Floor(self.variance[index], self.per_unit, self.relative)

    def variance_of(self, value: FloatArray) -> FloatArray:
        """Least variance of pixels with these values."""
        variance = self.variance
        if self.per_unit:
            variance = variance + np.float32(self.per_unit) * np.maximum(value, np.float32(0))
        if self.relative:
            variance = variance + np.float32(self.relative**2) * value * value
        return variance


class _Clip:
    """Clipped averages of chunks of pixels, gathered into whole images."""

    def __init__(self, sigma: float, iterations: int, model: bool, n: int, size: int) -> None:
        self._limit = np.float32(sigma)
        self._iterations = iterations
        self._model = model
        self._mean = np.empty(size, np.float32)
        self._variance = np.empty(size, np.float32)
        self._count = np.full(size, n, np.int16)
        self._rejected = np.zeros(n, np.int64)

    def result(self, shape: tuple[int, int]) -> Stacked:
        """Everything averaged so far, as images."""
        return Stacked(
            self._mean.reshape(shape),
            self._variance.reshape(shape),
            self._count.reshape(shape),
            self._rejected,
        )

    def average(self, block: FloatArray, start: int, least: _Floor) -> None:
        """Average a chunk (n, m) whose first pixel is number ``start``."""
        n, m = block.shape
        span = slice(start, start + m)
        with np.errstate(invalid="ignore", over="ignore"):
            ranks = sort_planes(block)
            median = median_of_sorted(ranks)
            below, above = _deviations(ranks, median)
            floor = least.variance_of(median)
            limit = np.maximum(_mad(below, above, n) * np.float32(MAD_TO_SIGMA), np.sqrt(floor))
            limit *= self._limit
            mean, variance = _moments(below, above, median, n)
            # The negation finds NaN too: such columns need the masked treatment.
            clipped = ~((median - ranks[0] <= limit) & (ranks[-1] - median <= limit))
            clipped |= ~np.isfinite(mean)
        self._mean[span] = mean
        self._variance[span] = floor / np.float32(n) if self._model else variance
        (odd,) = np.nonzero(clipped)
        if odd.size:
            self._average_with_outliers(block[:, odd], start + odd, least.select(odd))

    def _average_with_outliers(self, values: FloatArray, where: IntArray, least: _Floor) -> None:
        """Iterate the rejection for the few pixels that need it."""
        finite = np.isfinite(values)
        values = np.where(finite, values, np.float32(0))
        keep = finite.copy()
        active = np.arange(values.shape[1])
        for _ in range(self._iterations):
            kept = self._within_limits(values[:, active], keep[:, active], least.select(active))
            changed = np.any(kept != keep[:, active], axis=0)
            active = active[changed]
            if not active.size:
                break
            keep[:, active] = kept[:, changed]
        self._store(values, keep, where, least)
        self._rejected += (finite & ~keep).sum(axis=1)

    def _within_limits(self, values: FloatArray, keep: BoolArray, least: _Floor) -> BoolArray:
        median, mad = masked_median_and_mad(values, keep)
        scatter = np.maximum(mad * np.float32(MAD_TO_SIGMA), np.sqrt(least.variance_of(median)))
        within: BoolArray = keep & (np.abs(values - median) <= self._limit * scatter)
        return within

    def _store(self, values: FloatArray, keep: BoolArray, where: IntArray, least: _Floor) -> None:
        count = keep.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (np.where(keep, values, 0).sum(axis=0, dtype=np.float64) / count).astype("f4")
            if self._model:
                variance = least.variance_of(mean) / count
            else:
                squares = np.where(keep, (values - mean) ** 2, 0).sum(axis=0)
                variance = np.where(count > 1, squares / (count - 1) / count, np.nan)
        self._count[where] = count
        self._mean[where] = mean
        self._variance[where] = np.where(count > 0, variance, np.nan)


def _deviations(
    ranks: list[FloatArray], median: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Deviations below and above the median, each rising; the middle one of an odd number not."""
    n = len(ranks)
    below: list[FloatArray] = [median - ranks[i] for i in range(n // 2 - 1, -1, -1)]
    above: list[FloatArray] = [ranks[i] - median for i in range((n + 1) // 2, n)]
    return below, above


def _mad(below: list[FloatArray], above: list[FloatArray], n: int) -> FloatArray:
    if n == 1:
        return np.zeros(1, np.float32)
    return mad_of_deviations(below, above) if n % 2 else mad_of_even_deviations(below, above)


def _moments(
    below: list[FloatArray], above: list[FloatArray], median: FloatArray, n: int
) -> tuple[FloatArray, FloatArray]:
    """Mean of all values and its variance, from the deviations: no digits are lost to the level."""
    total = np.zeros_like(median)
    squares = np.zeros_like(median)
    for low, high in zip(below, above, strict=True):
        total += high
        total -= low
        squares += high * high
        squares += low * low
    total /= np.float32(n)
    if n == 1:
        return median, np.full_like(median, np.nan)
    squares -= np.float32(n) * total * total
    squares /= np.float32(n * (n - 1))
    return median + total, np.maximum(squares, 0)


def _scaled_noise(noise: Noise, scale: FloatArray | None) -> Noise:
    """Noise of scaled planes, the same for all: that of their mean square."""
    if scale is None:
        return noise
    scale = np.asarray(scale)
    root = float(np.sqrt(np.mean(scale**2)))
    return Noise(noise.ron * root, noise.per_unit * float(np.mean(scale)), noise.relative)


def _check_options(
    shape: tuple[int, int, int], sigma: float, iterations: int, floor: float | FloatArray | Noise
) -> None:
    n, ny, nx = shape
    ron = np.asarray(floor.ron if isinstance(floor, Noise) else floor)
    if n < 1:
        raise ValueError("a stack needs at least one plane, not 0")
    if not sigma > 0 or iterations < 1:
        raise ValueError(
            f"sigma {sigma} and iterations {iterations} must be above 0 and at least 1"
        )
    if ron.ndim and ron.shape != (ny, nx):
        raise ValueError(f"the floor has shape {ron.shape}, the planes ({ny}, {nx})")
    if not (np.all(np.isfinite(ron)) and np.all(ron >= 0)):
        raise ValueError("the floor of the scatter must be finite and not negative")
