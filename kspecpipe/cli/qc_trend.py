"""``kspec qc trend``: how a metric behaves from night to night, and what it will do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from kspecpipe import plots
from kspecpipe.atomic import write_files
from kspecpipe.cli.qc import store_path
from kspecpipe.cli.qc_table import add_selection, selection_of
from kspecpipe.errors import ExitCode, ProductError, SettingsError
from kspecpipe.provenance import sanitise
from kspecpipe.quality.history import select_metrics
from kspecpipe.quality.trend import HORIZON, WINDOW, Trend, analyse
from kspecpipe.quality.trend_figure import draw_trend
from kspecpipe.quality.trend_series import EVENTS_NAME, Event, Series, read_events, series_of

_MOST_FIBRES = 5


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Draw a metric against time with its limits, and say whether it steps or drifts, and when "
        f"it will cross a limit ({HORIZON:g} days ahead, from the last {WINDOW:g} days)."
    )
    parser.add_argument("metric", metavar="METRIC", help="name of the metric")
    add_selection(parser)
    parser.add_argument(
        "--events",
        type=Path,
        metavar="F",
        help=f"what happened to the instrument [{EVENTS_NAME} beside the history]",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="picture [trend_METRIC_MODE.png]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, and no picture")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print what the series shows and write its picture."""
    del name
    store = store_path(arguments.qc_store)
    rows = select_metrics(store, selection_of(arguments, metric=arguments.metric))
    if not rows:
        raise SettingsError(f"{arguments.metric}: no value in this selection")
    series = series_of(rows)
    if arguments.events is not None and not arguments.events.is_file():
        raise SettingsError(f"--events {arguments.events}: no such file")
    place = arguments.events or store.parent / EVENTS_NAME
    events = read_events(place, series.metric, series.mode)
    limits = {"warn": series.limits.warn, "fail": series.limits.fail}
    trend = analyse(series.mjd, series.values, limits)
    if arguments.json:
        found = as_json(series, trend)
        sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
        return int(ExitCode.OK)
    stem = sanitise("_".join(filter(None, ("trend", series.metric.lower(), series.mode))))
    picture: Path = arguments.output or Path(f"{stem}.png")
    if picture.suffix.lower() != ".png":
        raise SettingsError(f"-o {picture}: pictures are PNG; name a file that ends in .png")
    _save(draw_trend(series, trend, events), picture)
    lines = [*describe(series, trend, events), *_fibre_lines(series), f"picture: {picture}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(ExitCode.OK)


def describe(series: Series, trend: Trend, events: Sequence[Event] = ()) -> list[str]:
    """Say what a series shows, in a few lines."""
    unit = f" {series.unit}" if series.unit else ""
    lines = [
        f"{series.title}: {series.mjd.size} nights from {_day(series.mjd[0])} to "
        f"{_day(series.mjd[-1])}, last {series.values[-1]:.5g}{unit}"
    ]
    lines += [f"note: {note}" for note in series.notes]
    if series.unmeasured:
        lines.append(f"note: {series.unmeasured} values were not measured or do not apply")
    for step in trend.steps:
        near = [event.text for event in events if abs(event.mjd - step.mjd) <= 1.5]
        why = f" ({'; '.join(near)})" if near else ""
        lines.append(f"step on {_day(step.mjd)}: {step.before:.5g} -> {step.after:.5g}{unit}{why}")
    drift = trend.drift
    if drift is None:
        lines.append("drift: too few nights since the last step, or in all")
    elif not drift.significant:
        lines.append(f"drift: none that is significant (chance {drift.chance:.2g})")
    else:
        share = f", {100 * drift.slope / abs(drift.level):+.2g} %" if drift.level else ""
        lines.append(
            f"drift: {drift.slope:+.3g}{unit} a day{share} since {_day(drift.since)} "
            f"(chance {drift.chance:.1g})"
        )
    for crossing in trend.crossings:
        if crossing.days > 0:
            when = f"will cross its {crossing.kind} limit in about {crossing.days:.0f} days"
        else:
            when = f"has crossed its {crossing.kind} limit"
        lines.append(f"WARNING: {when} ({crossing.limit:g}{unit})")
    if series.limits.warn is None and series.limits.fail is None:
        lines.append("note: it has no limits, so nothing can be said of crossing them")
    return lines


def as_json(series: Series, trend: Trend) -> dict[str, Any]:
    """Return the same for a program."""
    drift = trend.drift
    return {
        "metric": series.metric,
        "recipe": series.recipe,
        "mode": series.mode,
        "instrument": series.instrument,
        "unit": series.unit,
        "nights": [_day(night) for night in series.mjd],
        "values": series.values.tolist(),
        "notes": list(series.notes),
        "steps": [
            {"night": _day(s.mjd), "before": s.before, "after": s.after} for s in trend.steps
        ],
        "drift": drift
        and {
            "per_day": drift.slope,
            "level": drift.level,
            "chance": drift.chance,
            "significant": drift.significant,
            "since": _day(drift.since),
        },
        "crossings": [
            {"kind": c.kind, "limit": c.limit, "days": round(c.days, 1)} for c in trend.crossings
        ],
    }


def _fibre_lines(series: Series) -> list[str]:
    """Name the fibres that will cross a limit, the soonest first."""
    limits = {"warn": series.limits.warn, "fail": series.limits.fail}
    soon = []
    for fibre, values in zip(series.fibres, series.per_fibre, strict=True):
        good = values == values
        if not good.any():
            continue
        for crossing in analyse(series.mjd[good], values[good], limits).crossings:
            soon.append((crossing.days, int(fibre), crossing.kind))
    lines = [
        f"WARNING: fibre {fibre} crosses its {kind} limit in about {days:.0f} days"
        for days, fibre, kind in sorted(soon)[:_MOST_FIBRES]
    ]
    more = len(soon) - len(lines)
    return [*lines, f"and {more} more"] if more > 0 else lines


def _save(figure: Any, path: Path) -> None:
    try:
        write_files([(path, lambda stream: plots.save(figure, stream))])
    except OSError as error:
        raise ProductError(f"{path}: cannot be written: {error.strerror or error}") from None


def _day(mjd: float) -> str:
    return (date(1858, 11, 17) + timedelta(days=int(mjd // 1))).isoformat()
