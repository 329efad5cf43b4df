"""Limits that come from the history: statistical, relative to a reference, or to the incumbent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from kspecpipe.configuration.schema import build, key
from kspecpipe.configuration.yaml_source import Node, nearest
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Flag, QCRow

Pair = tuple[float, float]
Place = tuple[str, int]  # metric and fibre
Level = Literal["warn", "fail"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class PastValue:
    """A stored value with its unit and the product that it judged."""

    value: float
    unit: str
    product: str


@dataclass(frozen=True)
class Past:
    """What the history knows of a recipe in one mode.

    Parameters
    ----------
    certified : mapping
        Values of certified products by metric and fibre, the newest first.
    references : mapping
        Values of products that the settings name, by product, metric and fibre.
    """

    certified: Mapping[Place, Sequence[PastValue]] = field(default_factory=dict)
    references: Mapping[str, Mapping[Place, PastValue]] = field(default_factory=dict)


class Rule(Protocol):
    """How the limits of one level come from the history."""

    fixed: Pair | None

    def pair(self, row: QCRow, past: Past) -> tuple[Pair | None, str]:
        """Return the limits, or None, and in words where they come from or why there are none."""
        ...


@dataclass(frozen=True)
class Statistical:
    """Median of the last certified values plus and minus a multiple of their MAD."""

    mad: float = key(above=0, doc="multiple of the median absolute deviation")
    last: int = key(20, at_least=5, doc="number of certified values that are needed and used")
    fixed: tuple[float, float] | None = key(None, doc="limits until there are enough values")

    def __str__(self) -> str:
        """Say where the limits come from."""
        return f"median +- {self.mad:g} MAD of the last {self.last} certified"

    def pair(self, row: QCRow, past: Past) -> tuple[Pair | None, str]:
        """Return the limits around the median of what was certified."""
        values, left_out = _of_unit(past.certified.get((row.name, row.fibre), ()), row.unit)
        note = f", {left_out} in another unit left out" if left_out else ""
        if len(values) < self.last:
            return None, f"{len(values)} of {self.last} values certified{note}"
        newest = np.array([item.value for item in values[: self.last]])
        middle = float(np.median(newest))
        spread = float(np.median(np.abs(newest - middle)))
        if spread == 0:
            return None, f"the last {self.last} certified values do not scatter{note}"
        lo, hi = middle - self.mad * spread, middle + self.mad * spread
        return (lo, hi), f"median +- {self.mad:g} MAD of the last {self.last} certified{note}"


@dataclass(frozen=True)
class Reference:
    """The value of a reference product, times a ratio or plus a difference."""

    product: str = key(doc="file name of the reference product")
    ratio: tuple[float, float] | None = key(None, doc="smallest and largest ratio to it")
    difference: tuple[float, float] | None = key(None, doc="smallest and largest difference to it")
    fixed: tuple[float, float] | None = key(None, doc="limits when the reference is not known")

    def __str__(self) -> str:
        """Say where the limits come from."""
        if self.ratio is not None:
            return f"{self.ratio[0]:g} .. {self.ratio[1]:g} of {self.product}"
        lo, hi = self.difference or (0.0, 0.0)
        return f"{lo:+g} .. {hi:+g} from {self.product}"

    def pair(self, row: QCRow, past: Past) -> tuple[Pair | None, str]:
        """Return the limits around the value of the reference product."""
        known = past.references.get(self.product)
        if known is None:
            return None, f"the reference {self.product} is not in the history"
        found = known.get((row.name, row.fibre))
        if found is None or found.unit != row.unit:
            why = "has no such value" if found is None else f"has it in {found.unit or 'no unit'}"
            return None, f"the reference {self.product} {why}"
        if self.ratio is not None:
            lo, hi = sorted(factor * found.value for factor in self.ratio)
        else:
            lo, hi = (found.value + step for step in self.difference or (0.0, 0.0))
        return (lo, hi), f"relative to {self.product} ({found.value:.4g})"


@dataclass(frozen=True)
class Incumbent:
    """Not worse than the newest certified product."""

    worse: Literal["higher", "lower"] = key(doc="in which direction a value is worse")
    margin: float = key(0.0, at_least=0, doc="how much worse is allowed, as a share of its value")
    fixed: tuple[float, float] | None = key(None, doc="limits while nothing is certified")

    def __str__(self) -> str:
        """Say where the limits come from."""
        margin = f" by more than {100 * self.margin:g} %" if self.margin else ""
        return f"not {self.worse} than the newest certified{margin}"

    def pair(self, row: QCRow, past: Past) -> tuple[Pair | None, str]:
        """Return the limit on the worse side."""
        values, _ = _of_unit(past.certified.get((row.name, row.fibre), ())[:1], row.unit)
        if not values:
            return None, "no incumbent is certified in this unit"
        best = values[0].value
        slack = self.margin * abs(best)
        pair = (-np.inf, best + slack) if self.worse == "higher" else (best - slack, np.inf)
        return pair, f"not worse than {values[0].product} ({best:.4g})"


KINDS = {"statistical": Statistical, "reference": Reference, "incumbent": Incumbent}


def read_rule(node: Node, what: str) -> Rule:
    """Read a rule from settings.

    Raises
    ------
    SettingsError
        With file and line, if the kind is unknown, a key is wrong, or limits are inverted.
    """
    parts = node.mapping(what)
    kind = parts["kind"].plain if "kind" in parts else None
    if kind not in KINDS:
        raise SettingsError(
            f"{node.place}: {what}: kind is {kind!r}; write [lo, hi], or a mapping whose kind is "
            f"one of {', '.join(KINDS)}; {nearest(str(kind), KINDS)}"
        )
    rest = Node({name: child for name, child in parts.items() if name != "kind"}, node.place)
    rule: Rule = build(KINDS[str(kind)], rest, what)
    for name in ("fixed", "ratio", "difference"):
        pair = getattr(rule, name, None)
        if pair is not None and not pair[0] <= pair[1]:
            raise SettingsError(f"{parts[name].place}: {what}.{name}: {pair[0]} is above {pair[1]}")
    if isinstance(rule, Reference) and (rule.ratio is None) == (rule.difference is None):
        raise SettingsError(f"{node.place}: {what}: give either ratio or difference")
    return rule


def judge_by_rules(
    rows: Sequence[QCRow], rules: Mapping[str, Mapping[Level, Rule]], past: Past
) -> list[QCRow]:
    """Judge again the rows whose metric has limits that come from the history.

    Until the history suffices the fixed limits hold, and the row says so; without fixed limits the
    value is unjudged, never good.
    """
    return [_judge_one(row, rules[row.name], past) if row.name in rules else row for row in rows]


def references_of(rules: Mapping[str, Mapping[Level, Rule]]) -> set[str]:
    """Return the names of the reference products that rules need."""
    every = [rule for levels in rules.values() for rule in levels.values()]
    return {rule.product for rule in every if isinstance(rule, Reference)}


def _judge_one(row: QCRow, levels: Mapping[Level, Rule], past: Past) -> QCRow:
    limits, notes, open_end = row.limits, [], False
    for level, rule in levels.items():
        pair, note = rule.pair(row, past)
        if pair is None:
            pair = rule.fixed or getattr(row.limits, level)
            note = f"{'fixed' if pair else 'none'}: {note}"
            open_end |= pair is None
        limits = dataclasses.replace(limits, **{level: pair})
        notes.append(f"{level}: {note}")
    flag = row.flag if row.flag == Flag.NA else limits.judge(row.value)
    if open_end and flag == Flag.OK:
        flag = Flag.UNJUDGED
    return dataclasses.replace(row, limits=limits, flag=flag, basis="; ".join(notes))


def _of_unit(values: Sequence[PastValue], unit: str) -> tuple[list[PastValue], int]:
    same = [item for item in values if item.unit == unit]
    return same, len(values) - len(same)
