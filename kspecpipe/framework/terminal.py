"""What a run prints: coloured QC and product tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from kspecpipe.framework.outcome import Outcome
from kspecpipe.qc import Flag, QCRow, worst

FLAG_COLOURS = {
    Flag.OK: "green",
    Flag.NA: "bright_black",
    Flag.UNJUDGED: "bright_black",
    Flag.WARN: "yellow",
    Flag.FAIL: "bold red",
    Flag.UNMEASURED: "bold red",
}


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the tables of a run and one line that says how it ended."""
    if outcome.qc:
        console.print(qc_table(outcome, wide=console.width >= 120))
        for name, mark in _marks(outcome).items():
            console.print(Text(f"  {mark}  {name}", style="bright_black"), soft_wrap=True)
    for path, tag in outcome.products:
        console.print(Text(f"{tag:<14} {short_path(path)}"), soft_wrap=True)
    for path in outcome.pictures:
        line = Text(f"{'picture':<14} {short_path(path)}", style="bright_black")
        console.print(line, soft_wrap=True)
    colour = "green" if outcome.exit_code == 0 else "red"
    seconds = outcome.timing.get("total", 0.0)
    note = ", nothing to do" if outcome.unchanged else ""
    text = (
        f"{outcome.recipe}: {outcome.status}{note} (exit {int(outcome.exit_code)}), {seconds:.1f} s"
    )
    console.print(Text(text, style=colour))


def qc_table(outcome: Outcome, *, wide: bool = False) -> Table:
    """Return the QC table; metrics of single fibres are summed up in one line each."""
    table = Table(title=f"QC {outcome.recipe}", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("metric", "value", "unit", "warn", "fail", "flag"):
        side: JustifyMethod = "right" if name == "value" else "left"
        table.add_column(name, justify=side, no_wrap=name in ("metric", "flag"))
    if wide:
        table.add_column("meaning", style="bright_black", overflow="ellipsis", no_wrap=True)
    marks = _marks(outcome)
    groups: dict[tuple[str, str], list[QCRow]] = {}
    for row in outcome.qc:
        exposure = row.exposure if row.scope == "exposure" else ""
        groups.setdefault((row.name, marks.get(exposure, "")), []).append(row)
    for (name, mark), rows in groups.items():
        flag = _verdict(rows)
        table.add_row(
            Text.assemble(name, (f"  {mark}" if mark else "", "bright_black")),
            values_text(rows),
            rows[0].unit,
            interval(rows[0].limits.warn),
            interval(rows[0].limits.fail),
            Text(flag.value, style=FLAG_COLOURS[flag]),
            *([rows[0].doc] if wide else []),
        )
    return table


def _marks(outcome: Outcome) -> dict[str, str]:
    """Return a number for each exposure, whose name is too long for the table."""
    names = dict.fromkeys(row.exposure for row in outcome.qc if row.scope == "exposure")
    names.pop("", None)
    return {name: f"#{i}" for i, name in enumerate(names, start=1)} if len(names) > 1 else {}


def _verdict(rows: Sequence[QCRow]) -> Flag:
    """Return the worst flag of those values that apply: a dead fibre does not hide the others."""
    return worst([row for row in rows if row.flag != Flag.NA] or rows)


def interval(pair: tuple[float, float] | None) -> str:
    """Return closed limits in words; empty when there are none."""
    if pair is None:
        return ""
    lo, hi = pair
    if math.isinf(lo):
        return f"<= {hi:g}"
    return f">= {lo:g}" if math.isinf(hi) else f"{lo:g} .. {hi:g}"


def short_path(path: Path) -> str:
    """Return a path as it is written from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def values_text(rows: Sequence[QCRow]) -> str:
    """Return one value, or the median and the range of several."""
    if len(rows) == 1:
        return _number(rows[0].value)
    values = np.array([row.value for row in rows])
    if not np.isfinite(values).any():
        return _number(math.nan)
    middle, low, high = (float(f(values)) for f in (np.nanmedian, np.nanmin, np.nanmax))
    return f"{_number(middle)} ({_number(low)} .. {_number(high)})"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
