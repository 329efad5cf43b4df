"""The series of one metric from the history, and the events that may explain it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from kspecpipe.configuration.schema import build, key
from kspecpipe.configuration.yaml_source import read_yaml
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Limits
from kspecpipe.quality.history import Row, limits_of, value_of
from kspecpipe.quality.trend import nightly
from kspecpipe.signal import FloatArray

EVENTS_NAME = "events.yaml"
_EPOCH = date(1858, 11, 17).toordinal()  # of the modified Julian date


@dataclass(frozen=True)
class Event:
    """Something that happened to the instrument."""

    date: str = key(doc="UTC date, ISO")
    text: str = key(doc="what happened")
    mode: str | None = key(None, doc="only for this mode")
    metric: str | None = key(None, doc="only for this metric")

    @property
    def mjd(self) -> float:
        """The date as modified Julian date."""
        return float(date.fromisoformat(self.date).toordinal() - _EPOCH)


@dataclass(frozen=True)
class Series:
    """One metric of one recipe in one mode of one instrument.

    Parameters
    ----------
    metric, recipe, mode, instrument, unit : str
        What it is.
    mjd, values : ndarray, shape (n,)
        Nights [MJD of 0 h of the evening's date], and the median of each.
    limits : Limits
        Those of the last value.
    limit_steps : tuple of (mjd, Limits)
        All limits that values were judged by, each from the night on which it began.
    fibres : ndarray of int, shape (nfib,)
        FIBRE_ID of a metric per fibre; empty for others.
    per_fibre : ndarray, shape (nfib, n)
        Value of each fibre and night; NaN where there is none.
    unmeasured : int
        Values that could not be measured, or do not apply.
    notes : tuple of str
        What was left out.
    """

    metric: str
    recipe: str
    mode: str
    instrument: str
    unit: str
    mjd: FloatArray
    values: FloatArray
    limits: Limits
    limit_steps: tuple[tuple[float, Limits], ...]
    fibres: FloatArray
    per_fibre: FloatArray
    unmeasured: int
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        """What it is, in one line."""
        return f"{self.metric} of {self.recipe}, {self.instrument} {self.mode}".strip()


def series_of(rows: Sequence[Row]) -> Series:
    """Turn stored values of one metric into a series.

    Raises
    ------
    SettingsError
        If they are of several recipes, modes or instruments, or none can be used.
    """
    groups = Counter((row["recipe"], row["mode"], row["instrument"]) for row in rows)
    if len(groups) != 1:
        options = ", ".join(
            f"--recipe {recipe} --mode {mode} --instrument {instrument}"
            for recipe, mode, instrument in sorted(groups)
        )
        raise SettingsError(f"the metric is measured in {len(groups)} ways; choose of: {options}")
    last = rows[-1]
    unit = last["unit"] or ""
    same = [row for row in rows if (row["unit"] or "") == unit]
    usable = [row for row in same if row["value"] is not None and row["mjd"] is not None]
    if not usable:
        raise SettingsError(f"{last['name']}: none of {len(rows)} values was measured")
    mjd = np.array([_night(row) for row in usable])
    values = np.array([value_of(row) for row in usable])
    nights, medians = nightly(mjd, values)
    fibres, per_fibre = _by_fibre(usable, nights)
    return Series(
        metric=last["name"],
        recipe=last["recipe"],
        mode=last["mode"] or "",
        instrument=last["instrument"] or "",
        unit=unit,
        mjd=nights,
        values=medians,
        limits=limits_of(last),
        limit_steps=_limit_steps(usable),
        fibres=fibres,
        per_fibre=per_fibre,
        unmeasured=len(same) - len(usable),
        notes=tuple(_notes(rows, unit, limits_of(last))),
    )


def read_events(path: Path, metric: str, mode: str) -> tuple[Event, ...]:
    """Read the events that concern a metric in a mode; none if there is no such file.

    Raises
    ------
    SettingsError
        If the file is wrong, with file and line.
    """
    if not path.is_file():
        return ()
    root = read_yaml(path)
    if root.value is None or root.value == {}:
        return ()
    if not isinstance(root.value, list):
        raise SettingsError(f"{root.place}: a list of events is expected: - {{date: , text: }}")
    found = []
    for node in root.value:
        event = build(Event, node, "an event")
        try:
            date.fromisoformat(event.date)
        except ValueError:
            raise SettingsError(
                f"{node.place}: date {event.date!r} is no date; write YYYY-MM-DD"
            ) from None
        if event.mode in (None, mode) and event.metric in (None, metric):
            found.append(event)
    return tuple(sorted(found, key=lambda event: event.mjd))


def _night(row: Row) -> float:
    """Return the night of a value as a day number: midnight in UTC may cut a night."""
    if row["night"]:
        return float(date.fromisoformat(row["night"]).toordinal() - _EPOCH)
    return float(np.floor(row["mjd"]))


def _by_fibre(rows: Sequence[Row], nights: FloatArray) -> tuple[FloatArray, FloatArray]:
    numbers = np.array([row["fibre"] for row in rows])
    fibres = np.unique(numbers[numbers > 0])
    table = np.full((fibres.size, nights.size), np.nan)
    if not fibres.size:
        return fibres, table
    night = np.searchsorted(nights, [_night(row) for row in rows])
    values = np.array([value_of(row) for row in rows])
    # The last value of a night stays: rows come in the order of time.
    known = numbers > 0
    table[np.searchsorted(fibres, numbers[known]), night[known]] = values[known]
    return fibres, table


def _limit_steps(rows: Sequence[Row]) -> tuple[tuple[float, Limits], ...]:
    steps: list[tuple[float, Limits]] = []
    for row in rows:
        limits = limits_of(row)
        if not steps or steps[-1][1] != limits:
            steps.append((_night(row), limits))
    return tuple(steps)


def _notes(rows: Sequence[Row], unit: str, limits: Limits) -> list[str]:
    notes = []
    for other, count in Counter(row["unit"] or "" for row in rows).items():
        if other != unit:
            was, now = other or "no unit", unit or "no unit"
            notes.append(f"{count} values in {was} are left out: the unit is {now} now")
    for kind in ("warn", "fail"):
        pair = getattr(limits, kind)
        if pair is not None and pair[0] > pair[1]:
            notes.append(f"the {kind} limits {pair[0]:g} .. {pair[1]:g} are inverted: nothing fits")
    return notes
