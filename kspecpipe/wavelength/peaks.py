"""Emission lines of an arc before anybody knows which they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    gaussian_filter1d,
    maximum_filter1d,
    percentile_filter,
    uniform_filter1d,
)

from kspecpipe.signal import BoolArray, FloatArray

#: Standard deviation of a normal distribution over its median absolute deviation.
_MAD = 1.4826


@dataclass(frozen=True)
class Peaks:
    """Emission peaks of one spectrum, sorted by x.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Position of the maximum [pixel].
    height : ndarray, shape (n,)
        Height above the continuum [electron].
    snr : ndarray, shape (n,)
        Height over its error, after matched filtering.
    fwhm : ndarray, shape (n,)
        Full width at half maximum [pixel].
    blur : ndarray, shape (n,)
        By how much the position may be wrong, for the saturated ones [pixel].
    """

    x: FloatArray
    height: FloatArray
    snr: FloatArray
    fwhm: FloatArray
    blur: FloatArray

    def select(self, keep: BoolArray) -> Peaks:
        """Return the peaks where ``keep`` is True."""
        columns = (self.x, self.height, self.snr, self.fwhm, self.blur)
        return Peaks(*(column[keep] for column in columns))

    def join(self, other: Peaks, distance: float = 2.5) -> Peaks:
        """Add peaks of another exposure; of two within ``distance`` the sharper, then brighter."""
        both = Peaks(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in ("x", "height", "snr", "fwhm", "blur")
            )
        )
        rank = np.lexsort((-both.snr, both.blur))
        keep = np.ones(len(both), bool)
        for n, i in enumerate(rank):
            better = rank[:n][keep[rank[:n]]]
            keep[i] = not np.any(np.abs(both.x[better] - both.x[i]) < distance + both.blur[i])
        kept = both.select(keep)
        order = np.argsort(kept.x)
        return Peaks(*(getattr(kept, n)[order] for n in ("x", "height", "snr", "fwhm", "blur")))

    def __len__(self) -> int:
        """Count the peaks."""
        return int(self.x.size)


def subtract_continuum(value: FloatArray, window: int = 81) -> FloatArray:
    """Remove what is smooth: a running low percentile, itself smoothed.

    Parameters
    ----------
    value : ndarray, shape (..., nx)
        Spectra without NaN.
    window : int
        Length of the running window [pixel]; several line widths.

    Returns
    -------
    ndarray, shape (..., nx)
        Spectra in which the continuum is about 0.
    """
    smooth = gaussian_filter1d(value, 1.5, axis=-1, mode="nearest")
    # scipy filters single rows ten times faster than rows of an image
    rows = [
        percentile_filter(row, 30, size=window, mode="nearest")
        for row in smooth.reshape(-1, value.shape[-1])
    ]
    floor = np.reshape(rows, smooth.shape)
    return np.asarray(value - uniform_filter1d(floor, window // 2, axis=-1, mode="nearest"))


def line_noise(lines: FloatArray, variance: FloatArray) -> FloatArray:
    """Noise of a continuum-free spectrum: what its variance says, or its quiet half, if larger.

    Parameters
    ----------
    lines, variance : ndarray, shape (nx,)
        Spectrum without continuum, and its variance.

    Returns
    -------
    ndarray, shape (nx,)
        Standard deviation of one sample.
    """
    expected = np.sqrt(np.maximum(variance, 1e-12 + 1e-12 * np.max(np.abs(lines))))
    step = np.diff(lines) / np.hypot(expected[1:], expected[:-1])
    quiet = np.abs(step) < np.quantile(np.abs(step), 0.6)
    if not quiet.any():
        return np.asarray(expected)
    # The smaller 60 % of normal deviates have an rms of 0.465 sigma.
    excess = np.sqrt(np.mean(step[quiet] ** 2)) / 0.465
    return np.asarray(expected * max(1.0, float(excess)))


def find_peaks(
    value: FloatArray,
    variance: FloatArray,
    saturated: BoolArray | None = None,
    threshold: float = 6.0,
) -> Peaks:
    """Find emission peaks in a spectrum.

    Parameters
    ----------
    value, variance : ndarray, shape (nx,)
        Spectrum without NaN, and its variance.
    saturated : ndarray of bool, shape (nx,), optional
        Samples which were lost under bright lines: each run of them is one peak.
    threshold : float
        Smallest S/N after smoothing.

    Returns
    -------
    Peaks
        Maxima which stand out of their surroundings; spikes narrower than any line are left out.
    """
    lines = subtract_continuum(value)
    noise = line_noise(lines, variance)
    kernel_sigma = 1.2
    smooth = gaussian_filter1d(lines, kernel_sigma)
    smooth_noise = np.sqrt(
        gaussian_filter1d(noise**2, kernel_sigma / np.sqrt(2)) / (2 * kernel_sigma * np.sqrt(np.pi))
    )
    top = maximum_filter1d(smooth, 5) == smooth
    top &= smooth > threshold * smooth_noise
    top[:2] = top[-2:] = False
    index = np.flatnonzero(top)
    index = index[_prominence(smooth, index) > np.maximum(threshold * smooth_noise, 0)[index]]
    if not index.size:
        return Peaks(*(np.zeros(0) for _ in range(5)))
    fwhm = _widths(smooth, index)
    peaks = Peaks(
        _vertex(smooth, index),
        smooth[index],
        (smooth / smooth_noise)[index],
        fwhm,
        np.zeros(index.size),
    )
    # A single hot sample comes out of the filter with its width: 2.355 * 1.2 = 2.8 pixels.
    spike = lines[index] > 2.2 * np.maximum(lines[index - 1], lines[index + 1])
    peaks = peaks.select(~spike)
    return peaks if saturated is None else _merge_saturated(peaks, saturated)


def _merge_saturated(peaks: Peaks, saturated: BoolArray) -> Peaks:
    """Replace the peaks at each run of lost samples by one at its middle."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], saturated.astype(int), [0]])))
    for first, end in edges.reshape(-1, 2):
        touched = (peaks.x > first - 3) & (peaks.x < end + 2)
        if not touched.any() or end - first < 2:
            continue
        top = int(np.flatnonzero(touched)[np.argmax(peaks.height[touched])])
        keep = ~touched
        keep[top] = True
        columns = [peaks.x, peaks.height, peaks.snr, peaks.fwhm, peaks.blur]
        x, height, snr, fwhm, blur = (column.copy() for column in columns)
        x[top], fwhm[top], blur[top] = (first + end - 1) / 2, end - first, (end - first) / 3
        peaks = Peaks(x, height, snr, fwhm, blur).select(keep)
    return peaks


def compress(snr: FloatArray) -> FloatArray:
    """Map strengths which span decades to weights which span a few units."""
    return np.log1p(np.maximum(snr, 0) / 3.0)


def _vertex(smooth: FloatArray, index: np.ndarray) -> FloatArray:
    """Place maxima between pixels with a parabola through the logarithm."""
    left, middle, right = (
        np.log(np.maximum(smooth[index + k], 1e-3 * smooth[index])) for k in (-1, 0, 1)
    )
    curvature = np.minimum(left - 2 * middle + right, -1e-6)
    return np.asarray(index + np.clip(0.5 * (left - right) / curvature, -0.5, 0.5))


def _prominence(smooth: FloatArray, index: np.ndarray) -> FloatArray:
    """Height of maxima over the higher of the two valleys next to them, within 8 pixels."""
    reach = 8
    padded = np.pad(smooth, reach, mode="edge")
    left = np.lib.stride_tricks.sliding_window_view(padded, reach + 1)[index].min(axis=1)
    right = np.lib.stride_tricks.sliding_window_view(padded, reach + 1)[index + reach].min(axis=1)
    return np.asarray(smooth[index] - np.maximum(left, right))


def _widths(smooth: FloatArray, index: np.ndarray) -> FloatArray:
    """FWHM of maxima: twice the distance to half height on the steeper side."""
    steps = np.arange(1, 16)
    widths = []
    for sign in (-1, 1):
        at = np.clip(index[:, None] + sign * steps, 0, smooth.size - 1)
        below = smooth[at] < 0.5 * smooth[index][:, None]
        first = np.where(below.any(axis=1), below.argmax(axis=1), steps.size - 1)
        row = np.arange(index.size)
        inner = np.where(first > 0, smooth[at[row, np.maximum(first - 1, 0)]], smooth[index])
        outer = smooth[at[row, first]]
        drop = np.maximum(inner - outer, 1e-12)
        widths.append(first + np.clip((inner - 0.5 * smooth[index]) / drop, 0, 1))
    fwhm: FloatArray = 2 * np.minimum(*widths)
    return fwhm


def robust_sigma(value: FloatArray) -> float:
    """Scatter from the median absolute deviation; NaN without values."""
    finite = value[np.isfinite(value)]
    if not finite.size:
        return float("nan")
    return float(_MAD * np.median(np.abs(finite - np.median(finite))))
