"""Fibre-to-fibre throughput from the twilight sky or from the night-sky lines of the exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.sky.lines import FittedScale, fit_line_scale, has_lines, lines_only
from kspecpipe.sky.spline import PixelAxis

#: Part of a fibre's samples that must be usable.
_MIN_USABLE = 0.2
#: Lines tell nothing about a fibre in which they are fainter than this many errors.
_MIN_SIGNIFICANCE = 3.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Throughput of each fibre relative to the median live fibre.

    Parameters
    ----------
    value : ndarray, shape (nfib,)
        Throughput; NaN where it could not be measured.
    error : ndarray, shape (nfib,)
        Its standard deviation, statistical and from the scatter along the spectrum.
    scatter : ndarray, shape (nfib,)
        Robust relative scatter along the spectrum (of lines: of the fit in units of its noise).
    """

    value: FloatArray
    error: FloatArray
    scatter: FloatArray


@dataclass(frozen=True, slots=True)
class ThroughputComparison:
    """How two throughputs differ, relatively.

    Parameters
    ----------
    rms : float
        Robust scatter of the ratios.
    worst : float
        Largest deviation of a ratio from their median.
    worst_fibre : int
        Index of that fibre; -1 without common fibres.
    pull : float
        Robust width of the deviations in units of their errors.
    """

    rms: float
    worst: float
    worst_fibre: int
    pull: float


def throughput_from_skyflat(spectra: Signal, wavelength: FloatArray, live: BoolArray) -> Throughput:
    """Measure throughput from a twilight exposure, which lights all fibres alike.

    Each fibre is divided by the median of all fibres at the same wavelength.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted twilight spectra divided by the fibre flat [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom].
    live : ndarray of bool, shape (nfib,)
        Fibres that are not dead.

    Returns
    -------
    Throughput
        NaN for dead fibres.

    Raises
    ------
    ValueError
        If shapes disagree.
    RecipeError
        If a live fibre's throughput is not positive or fewer than two fibres are usable.
    """
    value, variance, fibres = _on_common_pixels(spectra, wavelength, live)
    scale = np.nanmedian(value, axis=1)
    _refuse_negative(scale, fibres, "twilight spectrum")
    for _ in range(3):
        template = _median(value / scale[:, None])
        bright = template > 0.1 * np.nanmedian(template)
        ratio = np.where(bright, value / template, np.nan)
        scale = np.nanmedian(ratio, axis=1)
    _refuse_negative(scale, fibres, "twilight spectrum")
    used = np.isfinite(ratio)
    spread = 1.4826 * np.nanmedian(np.abs(ratio - scale[:, None]), axis=1)
    noise = np.sqrt(np.nanmedian(np.where(used, variance / template**2, np.nan), axis=1))
    error = 1.2533 * np.maximum(spread, noise) / np.sqrt(np.maximum(used.sum(axis=1), 1))
    return _spread_out(scale, error, spread / scale, fibres, len(live))


def throughput_from_sky_lines(
    spectra: Signal, wavelength: FloatArray, live: BoolArray
) -> Throughput:
    """Measure throughput from the night-sky lines of an exposure, whatever the fibres point at.

    Continua are removed; the lines of each fibre are compared with the median of all fibres, with
    shift and width of the lines fitted along.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted spectra divided by the fibre flat, not by throughput [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom].
    live : ndarray of bool, shape (nfib,)
        Fibres that are not dead.

    Returns
    -------
    Throughput
        NaN for dead fibres and for those in which the lines are not significant or negative.

    Raises
    ------
    ValueError
        If shapes disagree.
    RecipeError
        If no sky line stands out, or fewer than two fibres are usable.
    """
    value, variance, fibres = _on_common_pixels(spectra, wavelength, live)
    good = np.isfinite(value)
    lines = np.stack([lines_only(v, g) for v, g in zip(value, good, strict=True)])
    scale = np.ones(len(fibres))
    fits: list[FittedScale] = []
    for _ in range(4):
        template = _median(np.where(good, lines, np.nan) / scale[:, None])
        if not has_lines(template, _median(variance / scale[:, None] ** 2)):
            raise RecipeError(
                f"no sky line stands out of the noise in {len(fibres)} fibres; throughput cannot "
                "be measured from sky lines. Give a SKYFLAT or use that of the flat"
            )
        fits = [
            fit_line_scale(v, s, template, g) for v, s, g in zip(lines, variance, good, strict=True)
        ]
        measured = np.array([fit.scale for fit in fits])
        scale = np.where(measured > 0.01, measured / np.median(measured), 0.01)
    error = np.array([fit.error for fit in fits]) / np.median(measured)
    value_of = measured / np.median(measured)
    known = value_of > _MIN_SIGNIFICANCE * error
    excess = np.array([fit.excess for fit in fits])
    return _spread_out(np.where(known, value_of, np.nan), error, excess, fibres, len(live))


def compare_throughputs(first: Throughput, second: Throughput) -> ThroughputComparison:
    """Compare two measurements of throughput; only ratios count, both are relative.

    Parameters
    ----------
    first, second : Throughput
        Of the same fibres.

    Returns
    -------
    ThroughputComparison
        NaN where fewer than two fibres are in both.

    Raises
    ------
    ValueError
        If the numbers of fibres differ.
    """
    if first.value.shape != second.value.shape:
        raise ValueError(f"{len(first.value)} fibres cannot be compared with {len(second.value)}")
    both = np.isfinite(first.value) & np.isfinite(second.value)
    fibres = np.flatnonzero(both & (first.value > 0) & (second.value > 0))
    if len(fibres) < 2:
        return ThroughputComparison(np.nan, np.nan, -1, np.nan)
    ratio = first.value[fibres] / second.value[fibres]
    deviation = ratio / np.median(ratio) - 1
    error = np.hypot(
        first.error[fibres] / first.value[fibres], second.error[fibres] / second.value[fibres]
    )
    worst = int(np.argmax(np.abs(deviation)))
    pull = 1.4826 * float(np.median(np.abs(deviation / np.maximum(error, 1e-12))))
    rms = 1.4826 * float(np.median(np.abs(deviation)))
    return ThroughputComparison(rms, float(abs(deviation[worst])), int(fibres[worst]), pull)


def flag_low_throughput(spectra: Signal, throughput: FloatArray, minimum: float) -> Signal:
    """Flag all samples of fibres that pass too little light.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Spectra.
    throughput : ndarray, shape (nfib,)
        Throughput relative to the median fibre; NaN (unknown, dead) and negative count as low.
    minimum : float
        Throughput below which a fibre is flagged.

    Returns
    -------
    Signal
        With LOW_THROUGHPUT in every sample of those fibres.
    """
    low = ~(throughput >= minimum)
    return spectra.flag(np.broadcast_to(low[:, None], spectra.shape), DQ.LOW_THROUGHPUT)


def _on_common_pixels(
    spectra: Signal, wavelength: FloatArray, live: BoolArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Densities and variances of the usable fibres on pixels of the mean fibre; NaN where bad."""
    if spectra.shape != wavelength.shape or live.shape != (len(wavelength),):
        raise ValueError(
            f"spectra {spectra.shape}, wavelength {wavelength.shape} and live {live.shape} "
            "do not belong together"
        )
    good = spectra.good & np.isfinite(wavelength)
    fibres = np.flatnonzero(live & (good.mean(axis=1) > _MIN_USABLE))
    if len(fibres) < 2:
        raise RecipeError(
            f"{len(fibres)} of {live.sum()} live fibres have usable spectra; throughput is "
            "relative and needs at least 2. Do spectra and WAVE_SOLUTION belong together?"
        )
    axis = PixelAxis.of(wavelength[fibres])
    position, width = axis.sample(wavelength[fibres])
    whole = np.arange(wavelength.shape[1], dtype=float)
    rows = []
    for fibre, at, size in zip(fibres, position, width, strict=True):
        pair = (spectra.value[fibre] / size, spectra.variance[fibre] / size**2)
        masked = [np.where(good[fibre], row, np.nan) for row in pair]
        rows.append([np.interp(whole, at, row, left=np.nan, right=np.nan) for row in masked])
    both = np.array(rows)
    return both[:, 0], both[:, 1], fibres


def _median(value: FloatArray) -> FloatArray:
    """Median over fibres; NaN where none is usable."""
    known = np.isfinite(value).any(axis=0)
    median = np.full(value.shape[1], np.nan)
    median[known] = np.nanmedian(value[:, known], axis=0)
    return median


def _refuse_negative(scale: FloatArray, fibres: IntArray, what: str) -> None:
    wrong = fibres[~(scale > 0)]
    if wrong.size:
        raise RecipeError(
            f"the {what} of {wrong.size} live fibres (first: {wrong[:5].tolist()}) is not "
            "positive; expected light in all of them. Are they dead, or was a background "
            "subtracted twice?"
        )


def _spread_out(
    value: FloatArray, error: FloatArray, scatter: FloatArray, fibres: IntArray, nfib: int
) -> Throughput:
    """All fibres, normalised to the median of those measured."""
    result = np.full((3, nfib), np.nan)
    norm = float(np.nanmedian(value))
    result[:, fibres] = value / norm, error / norm, scatter
    result[1] = np.where(np.isfinite(result[0]), result[1], np.nan)
    return Throughput(*result)
