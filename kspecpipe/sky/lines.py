"""Strength of the sky lines of one spectrum relative to another, whatever the continuum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from kspecpipe.signal import BoolArray, FloatArray, IntArray

#: Moving averages that calm the noise of lines, and that follow the continuum [pixel].
BLUR, _WINDOW = 5, 61
#: Height at which a line counts, in units of the blurred noise.
_LINE_SIGNIFICANCE = 5.0
#: Errors of interpolation and LSF on steep lines, relative to their height.
LINE_TOLERANCE = 0.1
_CLIP = 4.0
_BLOCKS = 12


@dataclass(frozen=True, slots=True)
class FittedScale:
    """Strength of lines, its error, and the scatter in units of the noise.

    ``shift`` and ``width`` are the factors of the template's first and second derivative which
    make it look like the fibre [pixel, pixel²].
    """

    scale: float
    error: float
    excess: float
    shift: float
    width: float

    def reshape(self, spectrum: FloatArray) -> FloatArray:
        """Turn a spectrum like the template into what the fibre would see of it, shape (nx,)."""
        slope = np.gradient(spectrum)
        curvature = np.gradient(slope)
        return np.asarray(self.scale * spectrum + self.shift * slope + self.width * curvature)


def moving_average(samples: FloatArray, good: BoolArray, size: int) -> FloatArray:
    """Mean of the good samples around each one, shape (nx,)."""
    total = uniform_filter1d(np.where(good, samples, 0.0), size, mode="constant")
    count = uniform_filter1d(good.astype(float), size, mode="constant")
    mean: FloatArray = np.divide(total, count, out=np.zeros_like(total), where=count > 1e-9)
    return mean


def lines_only(samples: FloatArray, good: BoolArray) -> FloatArray:
    """Blurred spectrum without its continuum, shape (nx,); 0 where bad."""
    narrow, wide = (moving_average(samples, good, size) for size in (BLUR, _WINDOW))
    return np.where(good, narrow - wide, 0.0)


def has_lines(lines: FloatArray, variance: FloatArray) -> bool:
    """Whether some samples of a template stand out of its noise."""
    return bool(np.nansum(_on_line(lines, variance)) >= 3)


def fit_line_scale(
    lines: FloatArray,
    variance: FloatArray,
    template: FloatArray,
    good: BoolArray,
    *,
    prior: float = np.inf,
) -> FittedScale:
    """Fit a template of lines to those of a fibre, shift and width along with the strength.

    A sharper LSF makes lines higher, not stronger. Samples that no combination explains
    are clipped.

    Parameters
    ----------
    lines, template : ndarray, shape (nx,)
        From `lines_only`; the template may be NaN where it is unknown.
    variance : ndarray, shape (nx,)
        Variance of the fibre's samples before blurring.
    good : ndarray of bool, shape (nx,)
        Usable samples.
    prior : float
        Standard deviation of the strength around 1 that is expected beforehand.

    Returns
    -------
    FittedScale
        1 within its prior (or 0 within infinity) where there are no lines.
    """
    known = np.isfinite(template)
    shape = np.where(known, template, 0.0)
    use = good & known & np.isfinite(variance) & (variance > 0)
    spread = np.where(use, variance, 1.0)
    # Off the lines the template is noise, on which a fit would pull the strength down.
    use &= _on_line(shape, spread)
    at = np.flatnonzero(use)
    terms = np.stack([shape, np.gradient(shape), np.gradient(np.gradient(shape))])[:, at]
    weight = 1 / (spread + (LINE_TOLERANCE * shape) ** 2)[at]
    regular = np.diag([prior**-2.0, 1e-12, 1e-12]) + 1e-30 * np.eye(3)
    rest, keep = (lines - shape)[at], np.ones(at.size, dtype=bool)
    for _ in range(3):
        weighted = terms * (weight * keep)
        precision = weighted @ terms.T + regular
        correction = np.linalg.solve(precision, weighted @ rest)
        pull = np.abs((rest - correction @ terms) * np.sqrt(weight))
        sigma = 1.4826 * float(np.median(pull[keep])) if keep.any() else 1.0
        keep &= pull < max(_CLIP * sigma, 1e-12)
    # With few lines the blocks may agree by chance: a part of the weights' own error is the floor.
    floor = 0.3 * float(np.sqrt(np.linalg.inv(precision)[0, 0]))
    edges = np.searchsorted(at, block_edges(shape.size, _BLOCKS))
    block = _block_error(terms, terms * (weight * keep), rest, regular, edges)
    scale, shift, width = (float(part) for part in correction)
    return FittedScale(1 + scale, max(floor, block), sigma * np.sqrt(BLUR), shift, width)


def block_edges(number: int, blocks: int) -> IntArray:
    """First sample of each of some nearly equal blocks, and the end, shape (blocks + 1,)."""
    count = np.arange(blocks + 1)
    edges: IntArray = count * (number // blocks) + np.minimum(count, number % blocks)
    return edges


def _block_error(
    terms: FloatArray, weighted: FloatArray, rest: FloatArray, regular: FloatArray, edges: IntArray
) -> float:
    """Jackknife error of the first coefficient over blocks of the spectrum.

    It includes what no variance knows: structure of the object, profiles that differ otherwise.
    """
    products = np.concatenate([(weighted[:, None] * terms).reshape(9, -1), weighted * rest])
    sums = np.diff(np.pad(np.cumsum(products, axis=1), [(0, 0), (1, 0)])[:, edges], axis=1).T
    left = sums.sum(axis=0) - sums
    normal = left[:, :9].reshape(-1, 3, 3) + regular
    coefficient = np.linalg.solve(normal, left[:, 9:, None])[:, 0, 0]
    return float(np.sqrt((_BLOCKS - 1) * coefficient.var()))


def _on_line(lines: FloatArray, variance: FloatArray) -> BoolArray:
    significant: BoolArray = lines**2 > _LINE_SIGNIFICANCE**2 * variance / BLUR
    return significant
