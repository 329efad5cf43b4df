"""Judge stored values by the limits of today, without reducing anything."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kspecpipe.configuration.layered_settings import RecipeSettings
from kspecpipe.framework.runtime import utc_now
from kspecpipe.qc import Flag, QCRow
from kspecpipe.quality.common_metrics import COMMON_LIMITS, CommonMetrics
from kspecpipe.quality.history import (
    Row,
    Selection,
    limits_of,
    metric_of,
    past_of,
    select_metrics,
)
from kspecpipe.quality.limit_rules import judge_by_rules, references_of
from kspecpipe.quality.store import limit_values, writing

Work = tuple[str, str, str]  # recipe, instrument, mode


@dataclass(frozen=True)
class Today:
    """What is declared and set today for a recipe in one mode: units by metric, and limits."""

    units: Mapping[str, str]
    settings: RecipeSettings


@dataclass
class Rescored:
    """What came of it: how many values changed their limits, which flags, and what was left."""

    looked_at: int = 0
    limits: int = 0
    flags: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)


def rescore(
    path: Path, selection: Selection, today: Callable[[Work], Today | None], who: str, source: str
) -> Rescored:
    """Append new limits and flags for all selected values that today's limits change.

    Values in another unit than today's, of metrics that are not declared any more, and of recipes
    that are not installed keep what they have, and are counted.

    Parameters
    ----------
    path : Path
        The history.
    selection : Selection
        Which values.
    today : callable
        Returns what is set for a recipe, an instrument and a mode; None for unknown recipes.
    who, source : str
        Person, and where the limits come from, for the record.
    """
    found = Rescored()
    groups: dict[Work, list[Row]] = {}
    for row in select_metrics(path, selection):
        groups.setdefault((row["recipe"], row["instrument"], row["mode"]), []).append(row)
        found.looked_at += 1
    changed = [
        change
        for work, rows in groups.items()
        for change in _changes(path, work, rows, today(work), found)
    ]
    if changed:
        _append(path, changed, who, source)
    return found


def _changes(
    path: Path, work: Work, rows: Sequence[Row], today: Today | None, found: Rescored
) -> list[tuple[int, QCRow]]:
    if today is None:
        found.left[f"the recipe {work[0]} or the instrument {work[1]} is not known here"] += len(
            rows
        )
        return []
    usable = [(row, _as_qc(row, today)) for row in rows if _comparable(row, today, work[0], found)]
    rules = today.settings.rules
    past = past_of(path, *work, references_of(rules)) if rules else None
    judged = [new for _, new in usable]
    if past is not None:
        judged = judge_by_rules(judged, rules, past)
    changes = []
    for (row, _), new in zip(usable, judged, strict=True):
        if (limits_of(row), row["flag"], row["basis"] or "") == (new.limits, new.flag, new.basis):
            continue
        found.limits += 1
        if row["flag"] != new.flag:
            found.flags[new.name, row["flag"], str(new.flag)] += 1
        changes.append((int(row["metric"]), new))
    return changes


def _comparable(row: Row, today: Today, recipe: str, found: Rescored) -> bool:
    name = row["name"]
    if name.startswith("FRAMES ") and name not in today.units:
        return False  # the recommended number is the recipe's own
    if name not in today.units:
        found.left[f"{name} is no metric of {recipe} any more"] += 1
    elif (row["unit"] or "") != today.units[name]:
        unit, now = row["unit"] or "no unit", today.units[name] or "no unit"
        found.left[f"{name} was in {unit}, its limits are in {now}"] += 1
    else:
        return True
    return False


def _as_qc(row: Row, today: Today) -> QCRow:
    """Return a stored value judged by the fixed limits of today."""
    known = {**COMMON_LIMITS, **today.settings.limits}
    stored = dataclasses.replace(metric_of(row), basis="")
    limits = known.get(stored.name)
    if limits is None:  # nothing is set today: what cannot be judged is never green
        limits = dataclasses.replace(stored.limits, warn=None, fail=None)
    flag = stored.flag if stored.flag == Flag.NA else limits.judge(stored.value)
    return dataclasses.replace(stored, limits=limits, flag=flag)


def _append(path: Path, changed: Sequence[tuple[int, QCRow]], who: str, source: str) -> None:
    with writing(path) as connection:
        rescoring = connection.execute(
            "INSERT INTO rescorings (at, who, source) VALUES (?, ?, ?)", (utc_now(), who, source)
        ).lastrowid
        connection.executemany(
            "INSERT INTO scores (metric, rescoring, warn_lo, warn_hi, fail_lo, fail_hi, flag, "
            "basis) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (metric, rescoring, *limit_values(row.limits), str(row.flag), row.basis)
                for metric, row in changed
            ],
        )


def common_units() -> dict[str, str]:
    """Return the units of the metrics that every recipe has."""
    return {spec.label: spec.unit for spec in CommonMetrics.specs.values()}
