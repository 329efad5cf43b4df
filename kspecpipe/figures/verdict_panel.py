"""Is it good? All metrics of a product beside its picture, each on its limits, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from kspecpipe.figures.house_style import FLAG_MARKS, LIMIT_LINES, draw_limits, house_style
from kspecpipe.qc import BAD_FLAGS, Flag, Limits, QCRow

_WIDTH = 3.2  # inches, beside the picture
_ROW = 0.27  # inches of one metric
_THIN = 0.012  # half of the narrowest zone, of the bar's length
_ZONES = {"fail": "#E8B79A", "warn": "#F3DDA0", "ok": "#BFDDF0"}
_WORDS = {
    Flag.OK: "GOOD",
    Flag.WARN: "LOOK AT IT",
    Flag.FAIL: "NOT GOOD",
    Flag.UNMEASURED: "NOT GOOD",
    Flag.NA: "NOT JUDGED",
    Flag.UNJUDGED: "NOT JUDGED",
}


@house_style()
def add_verdict(figure: Figure, rows: Sequence[QCRow]) -> None:
    """Widen a picture and draw the verdict on the product there.

    Parameters
    ----------
    figure : Figure
        A picture of panels in fixed places; they keep their size.
    rows : sequence of QCRow
        All metrics of the product; nothing is added when there are none.
    """
    groups = _worst_first(rows)
    if not groups:
        return
    for axis in figure.axes:
        of_axis = groups.get(str(axis.get_gid()))
        if of_axis:
            draw_limits(axis, of_axis[0].limits)
            if axis.get_legend_handles_labels()[1]:
                axis.legend(loc="upper right")
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + _WIDTH, height)
    kept, margins = width / (width + _WIDTH), figure.subplotpars
    figure.subplots_adjust(left=margins.left * kept, right=margins.right * kept)
    left = (width + 0.12) / (width + _WIDTH)
    axis = figure.add_axes((left, 0.02, 0.985 - left, 0.96), label="verdict")
    axis.set_axis_off()
    room = int(0.96 * height / _ROW) - 2
    axis.set(xlim=(0, 1), ylim=(room + 2, 0))
    _headline(axis, groups)
    bars = _Bars()
    shown = list(groups.items())[: room if len(groups) <= room else room - 1]
    for place, (name, group) in enumerate(shown, start=2):
        _draw_metric(axis, bars, place, name, group)
    bars.draw(axis)
    left_out = [worst_of(group).flag for group in list(groups.values())[len(shown) :]]
    if left_out:
        flags = ", ".join(f"{left_out.count(flag)} {flag}" for flag in Flag if flag in left_out)
        axis.text(0, room + 1.4, f"and {flags}", fontsize=7, color="0.3")


def worst_of(rows: Sequence[QCRow]) -> QCRow:
    """Return the row of the worst flag, the first of several."""
    order = list(Flag)
    return max(rows, key=lambda row: order.index(row.flag))


def _worst_first(rows: Sequence[QCRow]) -> dict[str, list[QCRow]]:
    """Return the rows of each metric, those of bad metrics first, what does not apply last."""
    groups: dict[str, list[QCRow]] = {}
    for row in rows:
        groups.setdefault(row.name, []).append(row)
    order = [*reversed(BAD_FLAGS), Flag.WARN, Flag.OK, Flag.UNJUDGED, Flag.NA]
    ranked = sorted(groups, key=lambda name: order.index(worst_of(groups[name]).flag))
    return {name: groups[name] for name in ranked}


def _headline(axis: Any, groups: dict[str, list[QCRow]]) -> None:
    flags = [worst_of(group).flag for group in groups.values()]
    judged = (flag for flag in flags if flag not in (Flag.NA, Flag.UNJUDGED))
    worst = max(judged, key=list(Flag).index, default=Flag.UNJUDGED)
    colour, marker = FLAG_MARKS[worst]
    axis.plot(0.03, 0.45, marker, ms=9, color=colour, clip_on=False)
    axis.text(0.1, 0.45, _WORDS[worst], fontsize=12, fontweight="bold", va="center")
    parts = [f"{flags.count(flag)} {flag}" for flag in Flag if flag in flags]
    axis.text(0, 1.25, f"metrics: {', '.join(parts)}", fontsize=8, va="center")


def _draw_metric(axis: Any, bars: _Bars, place: int, name: str, rows: Sequence[QCRow]) -> None:
    """Write name and worst value, and place all values on a bar of the limits."""
    worst = worst_of(rows)
    bold = "bold" if worst.flag in (*BAD_FLAGS, Flag.WARN) else "normal"
    axis.text(0, place + 0.34, name, fontsize=7, fontweight=bold, va="center")
    axis.text(1, place + 0.34, _value(worst), fontsize=7, fontweight=bold, va="center", ha="right")
    values = np.array([row.value for row in rows if np.isfinite(row.value)])
    span = _span(worst.limits, values)
    if span is None:
        return
    bar = place + 0.76
    for level, (first, last) in _zones(worst.limits, span):
        bars.zones[level].append(((first, bar), (last, bar)))
        if level != "fail":
            tick = [((end, bar - 0.14), (end, bar + 0.14)) for end in (first, last) if 0 < end < 1]
            bars.ticks["fail" if level == "warn" else "warn"] += tick
    if len(values) > 1:
        bars.values += [(place_of, bar) for place_of in _place(values, span)]
    if np.isfinite(worst.value):
        bars.worst[worst.flag].append((float(_place(np.array(worst.value), span)), bar))


@dataclass
class _Bars:
    """What is drawn of all metrics, kind by kind: single artists would take ten times as long."""

    zones: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _ZONES})
    ticks: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in LIMIT_LINES})
    values: list[tuple[float, float]] = field(default_factory=list)
    worst: dict[Flag, list[tuple[float, float]]] = field(
        default_factory=lambda: {flag: [] for flag in Flag}
    )

    def draw(self, axis: Any) -> None:
        """Draw all of it: each kind over the one before."""
        for level, segments in self.zones.items():
            colour = _ZONES[level]
            axis.add_collection(LineCollection(segments, colors=colour, lw=5, capstyle="butt"))
        for level, segments in self.ticks.items():
            colour = LIMIT_LINES[level][0]
            axis.add_collection(LineCollection(segments, colors=colour, lw=1.2))
        style = {"ls": "", "zorder": 4, "clip_on": False}
        axis.plot(*np.reshape(self.values, (-1, 2)).T, marker="|", ms=5, color="0.25", **style)
        for flag, places in self.worst.items():
            colour, marker = FLAG_MARKS[flag]
            x, y = np.reshape(places, (-1, 2)).T
            axis.plot(x, y, marker=marker, ms=5, color=colour, mec="k", mew=0.5, **style)


def _value(row: QCRow) -> str:
    if row.flag in (Flag.NA, Flag.UNMEASURED):
        return "unmeasured" if row.flag == Flag.UNMEASURED else "does not apply"
    where = f"fibre {row.fibre}: " if row.fibre else ""
    return f"{where}{row.value:.4g} {row.unit}".rstrip()


def _span(limits: Limits, values: Any) -> tuple[float, float] | None:
    """Return the ends of a metric's bar; None when there is no limit to draw."""
    inner = [value for value in limits.warn or () if np.isfinite(value)]
    outer = [value for value in limits.fail or () if np.isfinite(value)]
    if not inner and not outer:
        return None
    core = np.array([*(inner or outer), *values])
    width = max(float(np.ptp(core)), 1e-9 + 0.2 * float(np.abs(core).max()))
    # A distant fail limit would shrink all else to a point: it is left outside.
    near = [v for v in outer if core.min() - 2 * width <= v <= core.max() + 2 * width]
    low, high = min(core.min(), *near, core.min()), max(core.max(), *near, core.max())
    margin = 0.08 * max(high - low, width)
    return low - margin, high + margin


def _zones(limits: Limits, span: tuple[float, float]) -> list[tuple[str, tuple[float, float]]]:
    """Return the zones on the bar, each over the one before: fail, warn, ok."""
    zones = [("fail", (0.0, 1.0))]
    outer = limits.fail or (-np.inf, np.inf)
    inner = limits.warn or outer
    ok = (max(inner[0], outer[0]), min(inner[1], outer[1]))
    for level, pair in (("warn", outer), ("ok", ok)):
        first, last = map(float, _place(np.array(pair), span))
        # Closed limits may be a single value: it is seen all the same.
        thin = _THIN if 0 <= last - first < _THIN else 0.0
        if first <= last:
            zones.append((level, (first - thin, last + thin)))
    return zones


def _place(values: Any, span: tuple[float, float]) -> Any:
    return (np.clip(values, *span) - span[0]) / (span[1] - span[0])
