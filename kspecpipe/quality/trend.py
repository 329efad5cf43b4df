"""Drifts and steps in a series of nightly values, and when a limit will be crossed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray

WINDOW = 30.0  # days that tell the present drift
HORIZON = 60.0  # days beyond which nothing is announced
#: Chance of a drift or step where there is none. Nightly looks at overlapping windows of a month
#: are some forty independent ones a year: together they stay far below the 5 % that we allow.
SIGNIFICANT = 1e-4
_SHORTEST = 5  # nights on either side of a step
_SIDE = 15  # nights on either side that tell a step from a drift
_SMALLEST_STEP = 6.0  # in errors of the difference; the best of many splits is looked at


@dataclass(frozen=True)
class Drift:
    """A straight line through the last nights.

    Parameters
    ----------
    slope : float
        Change per day, median of the slopes of all pairs.
    level : float
        Value of the line on the last night.
    chance : float
        Probability of such an order of values without any drift (Mann-Kendall).
    since : float
        First night that was used [MJD].
    """

    slope: float
    level: float
    chance: float
    since: float

    @property
    def significant(self) -> bool:
        """Whether it is more than chance."""
        return self.chance < SIGNIFICANT


@dataclass(frozen=True)
class Step:
    """A jump of the level: first night of the new level [MJD], levels before and after."""

    mjd: float
    before: float
    after: float


@dataclass(frozen=True)
class Crossing:
    """A limit that the drift will reach, in how many days; 0 when it has been reached."""

    kind: str
    limit: float
    days: float


@dataclass(frozen=True)
class Trend:
    """What a series shows; ``drift`` is None while there are too few nights."""

    steps: tuple[Step, ...]
    drift: Drift | None
    crossings: tuple[Crossing, ...]


def analyse(
    mjd: FloatArray,
    values: FloatArray,
    limits: dict[str, tuple[float, float] | None],
    *,
    horizon: float = HORIZON,
) -> Trend:
    """Look for steps, for a drift since the last one, and for limits that it will cross.

    Parameters
    ----------
    mjd : ndarray, shape (n,)
        Nights, rising [d].
    values : ndarray, shape (n,)
        One finite value a night.
    limits : dict
        Closed limits by name (``warn``, ``fail``).
    horizon : float
        Crossings later than this are not announced [d].

    Raises
    ------
    ValueError
        If the shapes disagree, a value is not finite, or the nights do not rise.
    """
    if mjd.shape != values.shape or mjd.ndim != 1:
        raise ValueError(f"{mjd.shape} nights and {values.shape} values; one value a night")
    if not (np.isfinite(mjd).all() and np.isfinite(values).all() and (np.diff(mjd) > 0).all()):
        raise ValueError("nights must rise, and values be finite")
    steps = find_steps(mjd, values)
    recent = mjd >= (mjd[-1] - WINDOW if mjd.size else 0.0)
    if steps:
        recent &= mjd >= steps[-1].mjd
    if recent.sum() < _SHORTEST:
        return Trend(steps, None, ())
    drift = fit_drift(mjd[recent], values[recent])
    return Trend(steps, drift, tuple(_crossings(drift, limits, horizon)))


def fit_drift(mjd: FloatArray, values: FloatArray) -> Drift:
    """Fit a line that half of the values may spoil, and test it.

    References
    ----------
    .. [1] Sen 1968, J. Am. Stat. Assoc. 63, 1379 (slope); Mann 1945, Econometrica 13, 245 (test).
    """
    first, second = np.triu_indices(mjd.size, 1)
    rise = values[second] - values[first]
    slope = float(np.median(rise / (mjd[second] - mjd[first])))
    level = float(np.median(values - slope * (mjd - mjd[-1])))
    n = mjd.size
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18.0
    score = float(np.sign(rise).sum())
    z = max(abs(score) - 1.0, 0.0) / math.sqrt(variance) if variance > 0 else 0.0
    return Drift(slope, level, math.erfc(z / math.sqrt(2)), float(mjd[0]))


def find_steps(mjd: FloatArray, values: FloatArray) -> tuple[Step, ...]:
    """Return the jumps of the level, the earliest first; a drift alone is none."""
    split = _best_split(mjd, values)
    if split is None:
        return ()
    before, after = values[:split], values[split:]
    here = Step(float(mjd[split]), float(np.median(before)), float(np.median(after)))
    return (
        *find_steps(mjd[:split], before),
        here,
        *find_steps(mjd[split:], after),
    )


def nightly(mjd: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return one value for each night, the median; values that are not finite are left out.

    Parameters
    ----------
    mjd : ndarray, shape (n,)
        Time of each value [d]; nights begin at whole numbers.
    values : ndarray, shape (n,)
        Values.

    Returns
    -------
    tuple of ndarray
        Nights [d], and their medians.
    """
    good = np.isfinite(mjd) & np.isfinite(values)
    nights, place = np.unique(np.floor(mjd[good]), return_inverse=True)
    sample = values[good]
    medians = np.array([np.median(sample[place == i]) for i in range(nights.size)])
    return nights, medians


def running_median(mjd: FloatArray, values: FloatArray, days: float = 15.0) -> FloatArray:
    """Return the median of the values within half of ``days`` of each, shape (n,)."""
    near = np.abs(mjd[:, None] - mjd[None, :]) <= days / 2
    return np.array([np.median(values[row]) for row in near])


def _best_split(mjd: FloatArray, values: FloatArray) -> int | None:
    """Return where the level jumps most, if it does so clearly and a line fits worse."""
    n = values.size
    if n < 2 * _SHORTEST:
        return None
    # Only the nights around count: further away there may be another step.
    splits = np.arange(_SHORTEST, n - _SHORTEST + 1)
    first, last = np.maximum(splits - _SIDE, 0), np.minimum(splits + _SIDE, n)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    before = (sums[splits] - sums[first]) / (splits - first)
    after = (sums[last] - sums[splits]) / (last - splits)
    weight = np.sqrt((splits - first) * (last - splits) / (last - first))
    split = int(splits[np.argmax(np.abs(after - before) * weight)])
    left, right = values[max(0, split - _SIDE) : split], values[split : split + _SIDE]
    rest = np.concatenate([left - np.median(left), right - np.median(right)])
    scatter = 1.4826 * float(np.median(np.abs(rest)))
    jump = abs(float(np.median(right) - np.median(left)))
    if jump <= _SMALLEST_STEP * 1.2533 * scatter * math.sqrt(1 / left.size + 1 / right.size):
        return None
    gap, error = _gap(mjd, values, split)
    return split if gap > max(_SMALLEST_STEP * error, 0.5 * jump) else None


def _gap(mjd: FloatArray, values: FloatArray, split: int) -> tuple[float, float]:
    """Return by how much the lines through the nights on either side miss each other.

    A level that begins to fall has two different halves, but no gap between them.
    """
    sides = slice(max(0, split - _SIDE), split), slice(split, split + _SIDE)
    middle = 0.5 * (mjd[split - 1] + mjd[split])
    ends, variance = [], 0.0
    for side in sides:
        drift = fit_drift(mjd[side], values[side])
        line = drift.level + drift.slope * (mjd[side] - mjd[side][-1])
        ends.append(drift.level + drift.slope * (middle - mjd[side][-1]))
        scatter = 1.4826 * float(np.median(np.abs(values[side] - line)))
        variance += scatter**2 * 4 / line.size  # of the end of a line through n values
    return abs(ends[1] - ends[0]), 1.2533 * math.sqrt(variance)


def _crossings(
    drift: Drift, limits: dict[str, tuple[float, float] | None], horizon: float
) -> Sequence[Crossing]:
    found = []
    for kind, pair in limits.items():
        if pair is None or not drift.significant or drift.slope == 0:
            continue
        limit = pair[1] if drift.slope > 0 else pair[0]
        days = (limit - drift.level) / drift.slope
        if math.isfinite(limit) and days <= horizon:
            found.append(Crossing(kind, limit, max(days, 0.0)))
    return found
