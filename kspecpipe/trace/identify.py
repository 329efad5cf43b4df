"""Which light belongs to which fibre: matching with the nominal rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.errors import IdentificationError, RecipeError
from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.maxima import highest_within, local_maxima


@dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """How light is matched with fibres.

    Parameters
    ----------
    detection_sigma : float
        Significance of light [sigma].
    bright : float
        Fraction of the neighbours' brightness from which light counts fully as a fibre; ghosts
        are fainter.
    shift_cost : float
        Fibres that a shift by the whole tolerance may cost: of equal matches the nearer wins.
    ambiguity : float
        Two identifications whose scores differ by less than this many fibres are equally good.
    """

    detection_sigma: float = 6.0
    bright: float = 0.35
    shift_cost: float = 0.75
    ambiguity: float = 0.25


@dataclass(frozen=True, eq=False)
class Match:
    """An identification: rows of all fibres, which carry light, score and runner-up."""

    rows: FloatArray
    lit: BoolArray
    score: float
    runner_up: float


def identify_fibres(
    light: FloatArray, noise: FloatArray, layout: FibreLayout, options: MatchOptions
) -> Match:
    """Find shift and stretch of the nominal rows that explain the light best.

    Parameters
    ----------
    light, noise : ndarray, shape (ny,)
        Narrow light near the middle column and its error.
    layout : FibreLayout
        Nominal rows.
    options : MatchOptions
        Limits.

    Returns
    -------
    Match

    Raises
    ------
    RecipeError
        No light.
    IdentificationError
        Too few or too many traces, or two identifications that are about equally good.
    """
    peaks = _find_peaks(light, noise, layout, options)
    if peaks.size == 0:
        raise RecipeError(
            "no light: no trace stands out of the noise near the middle column. "
            "Was the lamp on and the shutter open?"
        )
    shifts, stretches, score = _score_grid(light, noise, peaks, layout, options)
    best = np.unravel_index(np.argmax(score), score.shape)
    other = np.abs(shifts - shifts[best[0]]) > 0.5 * layout.local_pitch.min()
    runner_up = float(score[other].max()) if other.any() else 0.0
    rows = _place(layout, shifts[best[0]], stretches[best[1]])
    shown: dict[str, Sequence[float]] = {f"fibres, score {score[best]:.2f}": rows.tolist()}
    if other.any():
        second = np.unravel_index(np.argmax(np.where(other[:, None], score, -np.inf)), score.shape)
        place = _place(layout, shifts[second[0]], stretches[second[1]])
        shown[f"fibres, second best, score {runner_up:.2f}"] = place.tolist()
    reason = _mismatch(peaks, score[best], runner_up, layout, options)
    if reason:
        raise IdentificationError(reason, light.tolist(), shown)
    rows, lit = _settle(rows, peaks, layout)
    reason = _wrong_number(rows, lit, peaks, light, layout, options)
    if reason:
        raise IdentificationError(reason, light.tolist(), {"fibres, identified": rows.tolist()})
    return Match(rows, lit, float(score[best]) / layout.number, runner_up / layout.number)


def _place(layout: FibreLayout, shift: float, stretch: float) -> FloatArray:
    middle = (layout.rows[0] + layout.rows[-1]) / 2
    placed: FloatArray = middle + shift + (layout.rows - middle) * (1 + stretch)
    return placed


def _reference(light: FloatArray, layout: FibreLayout) -> FloatArray:
    """Brightness of a typical lit fibre around each row: a high percentile of the peaks.

    It fades by half per pitch where the light ends, so that ghosts beyond dead fibres stay faint.
    """
    pitch = layout.pitch
    peak = ndimage.maximum_filter1d(light, max(int(pitch), 3))
    size = max(int(7 * pitch), 3)
    reference: FloatArray = ndimage.percentile_filter(peak, 85, size=size, mode="constant")
    fading = reference
    for reach in range(1, 6):
        wide = 2 * int(reach * pitch) + 1
        fading = np.maximum(fading, 0.5**reach * ndimage.maximum_filter1d(reference, wide))
    return fading


def _find_peaks(
    light: FloatArray, noise: FloatArray, layout: FibreLayout, options: MatchOptions
) -> FloatArray:
    """Rows of significant narrow light."""
    reach = max(0.5 * layout.local_pitch.min(), 1.0)
    index: IntArray = local_maxima(np.pad(light, 1, constant_values=-np.inf)) - 1
    index = index[highest_within(light[index], index, reach)]
    inner: IntArray = index[(index > 0) & (index < light.size - 1)]
    inner = inner[light[inner] > options.detection_sigma * noise[inner]]
    left, mid, right = light[inner - 1], light[inner], light[inner + 1]
    curvature = np.minimum(left - 2 * mid + right, -1e-30)
    rows: FloatArray = np.asarray(
        inner + np.clip(0.5 * (left - right) / curvature, -0.5, 0.5), float
    )
    return rows


def _score_grid(
    light: FloatArray,
    noise: FloatArray,
    peaks: FloatArray,
    layout: FibreLayout,
    options: MatchOptions,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fibres explained minus light left over, for all shifts and stretches."""
    pitch = float(layout.local_pitch.min())
    shifts = np.linspace(-1, 1, 2 * int(np.ceil(8 * layout.tolerance / pitch)) + 1)
    shifts *= layout.tolerance
    half = max(float(np.ptp(layout.rows)) / 2, pitch)
    steps = int(np.ceil(0.5 * layout.tolerance / (0.15 * pitch))) if layout.number > 1 else 0
    stretches = np.linspace(-1, 1, 2 * steps + 1) * 0.5 * layout.tolerance / half
    fibre = _fibre_likeness(light, noise, layout, options)
    bright = peaks[_brightness(light, peaks, layout) > options.bright]
    score = np.empty((shifts.size, stretches.size))
    for i, shift in enumerate(shifts):
        for j, stretch in enumerate(stretches):
            rows = _place(layout, shift, stretch)
            score[i, j] = fibre(rows) - _left_over(rows, bright, layout, light.size).size
    score -= options.shift_cost * (shifts[:, None] / layout.tolerance) ** 2
    return shifts, stretches, score


class _fibre_likeness:  # noqa: N801  (a function with prepared arrays)
    """How many of the given rows carry the light of a fibre."""

    def __init__(
        self, light: FloatArray, noise: FloatArray, layout: FibreLayout, options: MatchOptions
    ) -> None:
        pitch = layout.local_pitch.min()
        wide = ndimage.maximum_filter1d(light, 2 * int(round(0.12 * pitch)) + 1)
        reference = np.maximum(options.bright * _reference(light, layout), 1e-30)
        like = np.clip(wide / reference, 0, 1)
        like[wide < options.detection_sigma * noise] = 0
        # a small reward for the very middle of the light decides between neighbouring shifts
        self.like = like + 0.02 * np.clip(light / np.maximum(wide, 1e-30), 0, 1) * like
        self.like = np.append(self.like, 0.0)

    def __call__(self, rows: FloatArray) -> float:
        index = np.round(rows).astype(int)
        index = np.where((index >= 0) & (index < self.like.size - 1), index, -1)
        return float(self.like[index].sum())


def _brightness(light: FloatArray, peaks: FloatArray, layout: FibreLayout) -> FloatArray:
    """Peak brightness relative to the typical fibre near it."""
    index = np.round(peaks).astype(int)
    relative: FloatArray = light[index] / np.maximum(_reference(light, layout)[index], 1e-30)
    return relative


def _left_over(rows: FloatArray, peaks: FloatArray, layout: FibreLayout, n_row: int) -> FloatArray:
    """Peaks near the fibres (within 2.6 pitches) that belong to none of them."""
    nearest = np.argmin(np.abs(peaks[:, None] - rows), axis=1)
    distance = np.abs(peaks - rows[nearest]) / layout.local_pitch[nearest]
    edge = 0.3 * layout.pitch
    inside = (peaks > edge) & (peaks < n_row - 1 - edge)
    left: FloatArray = peaks[(distance > 0.35) & (distance < 2.6) & inside]
    return left


def _mismatch(
    peaks: FloatArray, best: float, runner_up: float, layout: FibreLayout, options: MatchOptions
) -> str:
    """Say why the best identification is not to be trusted; empty if it is."""
    if best < layout.number / 2 - options.shift_cost:
        return (
            f"only {max(best, 0):.0f} of {layout.number} fibres found within {layout.tolerance:g} "
            f"pixel of their nominal rows ({peaks.size} traces of any kind in the frame). "
            "Is this a flat of this instrument, and was the lamp on?"
        )
    if best - runner_up < options.ambiguity:
        return (
            f"two identifications of the fibres are about equally good (scores {best:.2f} and "
            f"{runner_up:.2f} of {layout.number}). Give nearer nominal rows or a smaller "
            "tolerance in the instrument file."
        )
    return ""


def _wrong_number(  # noqa: PLR0913  (all that the message needs)
    rows: FloatArray,
    lit: BoolArray,
    peaks: FloatArray,
    light: FloatArray,
    layout: FibreLayout,
    options: MatchOptions,
) -> str:
    """Say what is wrong if there are more traces than fibres, or too few; else empty."""
    bright = peaks[_brightness(light, peaks, layout) > options.bright]
    left = _left_over(rows, bright, layout, light.size)
    if left.size:
        listed = ", ".join(f"{row:.1f}" for row in left[:5])
        return (
            f"{int(lit.sum()) + left.size} traces found, {layout.number} fibres expected; light "
            f"without a fibre at rows {listed}. Does the instrument file describe this instrument?"
        )
    if lit.sum() < layout.number / 2:
        return f"only {int(lit.sum())} of {layout.number} fibres carry light. Was the lamp on?"
    return ""


def _settle(
    rows: FloatArray, peaks: FloatArray, layout: FibreLayout
) -> tuple[FloatArray, BoolArray]:
    """Move each fibre to its peak; a fibre without one goes along with the others."""
    for _ in range(3):
        nearest = peaks[np.argmin(np.abs(rows[:, None] - peaks), axis=1)]
        lit = np.abs(nearest - rows) < 0.35 * layout.local_pitch
        if not lit.any():
            break
        order = min(2, int(lit.sum()) // 5)
        middle, half = layout.rows.mean(), max(float(np.ptp(layout.rows)) / 2, 1.0)
        unit = (layout.rows - middle) / half
        distance = nearest - layout.rows
        curve = np.polynomial.Polynomial.fit(unit[lit], distance[lit], order)
        rows = layout.rows + curve(unit)
    return np.where(lit, nearest, rows), lit
