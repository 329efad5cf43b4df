"""Find which lines of the list the peaks of an arc are.

Every zero point, scale and curvature that the instrument allows is tried against the compressed
spectrum; the best few are refined on the peaks and judged in both directions: peaks that the
list explains, and lines that ought to be there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.peaks import Peaks, compress
from kspecpipe.wavelength.predict import Prediction

#: Diffraction angle at the middle of the chip beyond which nobody builds a spectrograph [rad].
_STEEPEST = np.deg2rad(35.0)


@dataclass(frozen=True)
class SearchOptions:
    """How the alignments are searched.

    Parameters
    ----------
    curvature : float
        Largest departure from the prediction at the chip's edges when no geometry says it [pixel].
    candidates : int
        Alignments that are refined.
    tolerance : float
        Largest distance of a peak from its line after refinement [pixel].
    distinct : float
        Alignments closer than this, rms over the chip, are the same [pixel].
    """

    curvature: float = 6.0
    candidates: int = 60
    tolerance: float = 1.2
    distinct: float = 2.5


@dataclass(frozen=True)
class Alignment:
    """One way to lay the line list on the spectrum.

    Parameters
    ----------
    coefficients : ndarray, shape (4,)
        Shift, stretch, quadratic and cubic departure at the edge [pixel], see `alignment_columns`.
    score : float
        1 when all peaks are explained and no line is missing; chance gives about 0.2.
    explained, found : float
        Weighted fraction of the peaks that are lines; of the expected lines that are there.
    peak, line : ndarray of int, shape (n,)
        Index of each matched peak, and of its line.
    residual : ndarray, shape (n,)
        Observed minus predicted position [pixel].
    """

    coefficients: FloatArray
    score: float
    explained: float
    found: float
    peak: IntArray
    line: IntArray
    residual: FloatArray


@dataclass(frozen=True)
class Identification:
    """The best alignment, and how much better it is than any other.

    Parameters
    ----------
    best : Alignment
        The winner.
    margin : float
        1 - score of the next-best distinct alignment / score of the best.
    rival : Alignment or None
        The next best.
    """

    best: Alignment
    margin: float
    rival: Alignment | None


def alignment_columns(offset: FloatArray, half: float) -> FloatArray:
    """Columns (n, 4) whose sum, weighted with coefficients, corrects a predicted offset [pixel]."""
    u = offset / half
    return np.stack([np.ones_like(u), u, u**2, u**3 - u], axis=-1)


def predicted_offset(prediction: Prediction, wavelength: FloatArray) -> FloatArray:
    """Predicted position of wavelengths against the middle of the chip [pixel]; linear outside."""
    x = np.arange(prediction.nx) - (prediction.nx - 1) / 2
    table = prediction.wavelength
    inside = np.interp(wavelength, table, x)
    first, last = table[1] - table[0], table[-1] - table[-2]
    below = np.minimum(wavelength - table[0], 0) / first
    return np.asarray(inside + below + np.maximum(wavelength - table[-1], 0) / last)


def place_lines(
    prediction: Prediction, wavelength: FloatArray, coefficients: FloatArray
) -> FloatArray:
    """Position of wavelengths on the chip by the coefficients (4,) of an alignment [pixel]."""
    half = (prediction.nx - 1) / 2
    offset = predicted_offset(prediction, wavelength)
    return np.asarray(half + offset + alignment_columns(offset, half) @ coefficients)


def largest_curvature(prediction: Prediction, options: SearchOptions) -> float:
    """Quadratic departure at the chip's edge that the geometry allows [pixel]."""
    if prediction.measured:
        return 1.0
    if prediction.grating is None:
        return options.curvature
    half = (prediction.nx - 1) / 2
    return float(np.tan(_STEEPEST) / prediction.grating.focal_pixels * half**2 / 2)


def identify(
    spectrum: FloatArray,
    peaks: Peaks,
    lines: LineList,
    prediction: Prediction,
    options: SearchOptions | None = None,
) -> Identification | None:
    """Find the alignment of a line list with a spectrum.

    Parameters
    ----------
    spectrum : ndarray, shape (nx,)
        Compressed, continuum-free spectrum, see `kspecpipe.wavelength.peaks.compress`.
    peaks : Peaks
        Its peaks.
    lines : LineList
        Lines which may be there.
    prediction : Prediction
        Where the instrument expects them, and how wrong it may be.
    options : SearchOptions, optional
        How to search.

    Returns
    -------
    Identification or None
        None when there is no alignment with three matched lines.
    """
    chosen = options or SearchOptions()
    lines_near = _reachable(lines, prediction)
    if len(lines_near) < 3 or len(peaks) < 3:
        return None
    index = np.searchsorted(lines.wavelength, lines_near.wavelength)
    weight = line_weights(lines_near, peaks)
    starts = search_alignments(spectrum, lines_near, weight, prediction, chosen)
    found = [_refine(start, peaks, lines_near, weight, prediction, chosen) for start in starts]
    ranked = sorted((a for a in found if a is not None), key=lambda a: -a.score)
    if not ranked:
        return None
    best = ranked[0]
    rivals = [a for a in ranked[1:] if _distance(a, best, prediction) > chosen.distinct]
    rival = rivals[0] if rivals else None
    margin = 1 - rival.score / best.score if rival is not None and best.score > 0 else 1.0
    return Identification(_reindex(best, index), margin, rival and _reindex(rival, index))


def line_weights(lines: LineList, peaks: Peaks) -> FloatArray:
    """Compressed strength that is expected of each line; unknown strengths count little."""
    strength = np.where(np.isfinite(lines.intensity), lines.intensity, np.nan)
    known = np.isfinite(strength)
    if not known.any():
        return np.ones(len(lines))
    faint = np.nanquantile(strength, 0.1)
    scale = np.max(peaks.snr) / np.nanmax(strength)
    return compress(np.where(known, strength, faint) * scale) + 0.05


def search_alignments(
    spectrum: FloatArray,
    lines: LineList,
    weight: FloatArray,
    prediction: Prediction,
    options: SearchOptions,
) -> FloatArray:
    """Score all shifts, scales and curvatures; return the best local maxima, shape (n, 4)."""
    half = (prediction.nx - 1) / 2
    offset = predicted_offset(prediction, lines.wavelength)
    target = gaussian_filter1d(maximum_filter1d(spectrum, 3), 1.2)
    target = target - target.mean()
    low, high = prediction.scale_range
    scales = np.linspace(1 / high, 1 / low, 1 + int(np.ceil(half * (1 / low - 1 / high) / 2)))
    bend = largest_curvature(prediction, options)
    bends = np.linspace(-bend, bend, 1 + 2 * int(np.ceil(bend / 2)))
    reach = int(np.ceil(prediction.shift_range))
    correlate = _Correlator(target, weight, lines, reach)
    scores = np.stack(
        [
            [correlate(half + offset * a + b * (offset * a / half) ** 2) for b in bends]
            for a in scales
        ]
    )
    padded = maximum_filter1d(maximum_filter1d(scores, 3, axis=0), 5, axis=2)
    peak = (scores == maximum_filter1d(padded, 3, axis=1)) & (scores > 0)
    at = np.argwhere(peak)
    order = np.argsort(-scores[tuple(at.T)], kind="stable")[: options.candidates]
    scale_i, bend_i, shift_i = at[order].T
    zero = np.zeros(order.size)
    return np.stack(
        [shift_i - float(reach), (scales[scale_i] - 1) * half, bends[bend_i], zero], axis=1
    )


class _Correlator:
    """Overlap of line positions with a spectrum, for all shifts; each species scaled freely."""

    def __init__(self, target: FloatArray, weight: FloatArray, lines: LineList, reach: int) -> None:
        self._pad = reach + target.size
        spectrum = np.pad(target, self._pad)
        chip = np.pad(np.ones(target.size), self._pad)
        window = 2 * reach + 1
        self._start = self._pad - reach
        self._spectrum = np.lib.stride_tricks.sliding_window_view(spectrum, window)
        self._chip = np.lib.stride_tricks.sliding_window_view(chip, window)
        names, code = np.unique(lines.species, return_inverse=True)
        member = code[None, :] == np.arange(names.size)[:, None]
        self._weight = member * weight
        self._power = member * weight**2
        self._floor = 0.25 * float(np.max(weight)) ** 2

    def __call__(self, position: FloatArray) -> FloatArray:
        """Score (2 reach + 1,) of lines at ``position`` under all shifts."""
        first = np.clip(np.rint(position).astype(int) + self._start, 0, len(self._spectrum) - 1)
        overlap = self._weight @ self._spectrum[first]
        power = self._power @ self._chip[first]
        score: FloatArray = np.sum(np.maximum(overlap, 0) ** 2 / (power + self._floor), axis=0)
        return score


def _reachable(lines: LineList, prediction: Prediction) -> LineList:
    """Lines that some allowed alignment puts on the chip."""
    half = (prediction.nx - 1) / 2
    reach = prediction.scale_range[1] * (half + prediction.shift_range) + 5
    return lines.select(np.abs(predicted_offset(prediction, lines.wavelength)) < reach)


def _refine(
    start: FloatArray,
    peaks: Peaks,
    lines: LineList,
    weight: FloatArray,
    prediction: Prediction,
    options: SearchOptions,
) -> Alignment | None:
    """Fit an alignment to the peaks that it explains, with a shrinking tolerance."""
    half = (prediction.nx - 1) / 2
    offset = predicted_offset(prediction, lines.wavelength)
    columns = alignment_columns(offset, half)
    coefficients = start
    prior = np.array([0.0, 0.0, 1 / 6.0, 1 / 0.7]) ** 2
    strength = compress(peaks.snr)
    for tolerance in (4.0, 3.0, 2.0, 1.5, options.tolerance, options.tolerance):
        position = half + offset + columns @ coefficients
        peak, line = _match(peaks, position, weight, tolerance)
        if peak.size < 3:
            return None
        a, w = columns[line], strength[peak] / (0.3**2 + peaks.blur[peak] ** 2)
        normal = a.T @ (w[:, None] * a) + np.diag(prior + 1e-9)
        value = peaks.x[peak] - half - offset[line]
        coefficients = np.linalg.solve(normal, a.T @ (w * value))
    if not _allowed(coefficients, prediction):
        return None
    position = half + offset + columns @ coefficients
    return _judge(coefficients, position, peaks, lines, prediction.nx, options.tolerance)


def _allowed(coefficients: FloatArray, prediction: Prediction) -> bool:
    """Tell if the alignment is inside the instrument's ranges, with a little slack."""
    half = (prediction.nx - 1) / 2
    low, high = prediction.scale_range
    scale = 1 / (1 + (coefficients[1] - coefficients[3]) / half)
    inside = low - 0.01 <= scale <= high + 0.01
    return bool(inside and abs(coefficients[0]) <= prediction.shift_range + 3)


def _match(
    peaks: Peaks, position: FloatArray, weight: FloatArray, tolerance: float
) -> tuple[IntArray, IntArray]:
    """Give each peak the line that is near and strong; each line goes to one peak."""
    distance = (peaks.x[:, None] - position) / (tolerance + peaks.blur)[:, None]
    merit = np.where(np.abs(distance) < 1, weight * (1 - distance**2), 0.0)
    line = merit.argmax(axis=1)
    peak = np.arange(len(peaks))
    mutual = (merit[peak, line] > 0) & (merit.argmax(axis=0)[line] == peak)
    return peak[mutual], line[mutual]


def _judge(
    coefficients: FloatArray,
    position: FloatArray,
    peaks: Peaks,
    lines: LineList,
    nx: int,
    tolerance: float,
) -> Alignment | None:
    """Score an alignment in both directions, each species with the strength that it shows."""
    strength = np.where(np.isfinite(lines.intensity), lines.intensity, np.nan)
    weight = line_weights(lines, peaks)
    peak, line = _match(peaks, position, weight, tolerance)
    if peak.size < 3:
        return None
    residual = peaks.x[peak] - position[line]
    log_ratio = np.log(peaks.height[peak]) - np.log(strength[line])
    factor = _species_factors(lines.species, line, log_ratio)
    excess = np.nan_to_num(log_ratio - factor[line], nan=1.0)
    quality = (1 - (residual / (tolerance + peaks.blur[peak])) ** 2) * np.exp(
        -0.5 * (excess / 1.5) ** 2
    )
    peak_weight = compress(peaks.snr)
    explained = float(np.sum(quality * peak_weight[peak]) / np.sum(peak_weight))
    height = np.exp(factor) * np.nan_to_num(strength)
    snr = height / np.sqrt(np.quantile(peaks.height / peaks.snr, 0.2) ** 2 + 0.25 * height)
    on_chip = (position > 2) & (position < nx - 3)
    expected = np.where(on_chip & (snr > 15), compress(snr), 0.0)
    near = np.min(np.abs(position[:, None] - peaks.x[None, :]), axis=1) < 2 * tolerance
    found = float(np.sum(expected * near) / max(np.sum(expected), 1e-9))
    return Alignment(coefficients, explained * found, explained, found, peak, line, residual)


def _species_factors(species: np.ndarray, line: IntArray, log_ratio: FloatArray) -> FloatArray:
    """Logarithm of observed over listed strength for each line's species; -inf when unseen."""
    factor = np.full(species.size, -np.inf)
    for name in np.unique(species):
        seen = log_ratio[(species[line] == name) & np.isfinite(log_ratio)]
        if seen.size:
            factor[species == name] = np.median(seen)
    return factor


def _distance(one: Alignment, other: Alignment, prediction: Prediction) -> float:
    """Distance of two alignments, rms over the chip [pixel]."""
    half = (prediction.nx - 1) / 2
    columns = alignment_columns(np.linspace(-half, half, 41), half)
    return float(np.sqrt(np.mean((columns @ (one.coefficients - other.coefficients)) ** 2)))


def _reindex(alignment: Alignment, index: IntArray) -> Alignment:
    """Let the lines of an alignment count in the whole list."""
    return replace(alignment, line=index[alignment.line])
