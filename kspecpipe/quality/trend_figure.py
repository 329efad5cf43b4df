"""The picture of a trend: values, running median, limits, steps, drift, events; fibres by night."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kspecpipe.figures.house_style import COLOURS, LIMIT_LINES, house_style
from kspecpipe.quality.trend import Trend, running_median
from kspecpipe.quality.trend_series import Event, Series

_EPOCH = date(1858, 11, 17)


@house_style()
def draw_trend(series: Series, trend: Trend, events: Sequence[Event]) -> Figure:
    """Draw a series; a metric per fibre has a map of fibre and night below."""
    rows = 2 if series.fibres.size else 1
    figure = Figure(figsize=(11.0, 5.0 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    axis = axes[0]
    what = "median of the fibres" if rows == 2 else "night"
    axis.plot(series.mjd, series.values, "o", ms=4, color=COLOURS[0], label=what)
    axis.plot(
        series.mjd,
        running_median(series.mjd, series.values),
        color=COLOURS[6],
        lw=1.5,
        label="running median, 15 days",
    )
    ahead = max((crossing.days for crossing in trend.crossings), default=1.0)
    _draw_limits(axis, series, float(series.mjd[-1]) + max(ahead, 1.0))
    _draw_trend(axis, series, trend)
    for event in events:
        if series.mjd[0] <= event.mjd <= series.mjd[-1] + 1:
            axis.axvline(event.mjd, color=COLOURS[3], lw=1, ls=":")
            axis.annotate(
                event.text,
                (event.mjd, 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 4),
                textcoords="offset points",
                rotation=90,
                va="bottom",
                fontsize=8,
            )
    axis.set(ylabel=f"{series.metric} [{series.unit}]" if series.unit else series.metric)
    axis.legend(loc="best", ncols=2)
    axis.set_title(series.title, fontsize=10)
    if rows == 2:
        _draw_map(figure, axes[1], series)
    _label_dates(axes[-1], series)
    return figure


def _draw_limits(axis: Any, series: Series, last: float) -> None:
    """Draw every limit from the night on which it began to the next, or to the last."""
    ends = [start for start, _ in series.limit_steps[1:]] + [last]
    shown = set()
    for (start, limits), end in zip(series.limit_steps, ends, strict=True):
        for kind, (colour, style) in LIMIT_LINES.items():
            for value in getattr(limits, kind) or ():
                if np.isfinite(value) and _near(value, series.values):
                    label = None if kind in shown else f"{kind} limit"
                    shown.add(kind)
                    axis.plot([start, end], [value] * 2, style, color=colour, lw=1.2, label=label)


def _near(value: float, values: Any) -> bool:
    """Leave out limits so far away that the values would shrink to a line."""
    lo, hi = float(np.min(values)), float(np.max(values))
    reach = 4 * max(hi - lo, 0.05 * max(abs(lo), abs(hi)), 1e-12)
    return lo - reach <= value <= hi + reach


def _draw_trend(axis: Any, series: Series, trend: Trend) -> None:
    for step in trend.steps:
        axis.axvline(step.mjd - 0.5, color=COLOURS[2], lw=1.2, ls="-.")
    drift = trend.drift
    if drift is None:
        return
    last = float(series.mjd[-1])
    ahead = max((crossing.days for crossing in trend.crossings), default=0.0)
    x = np.array([drift.since, last + ahead])
    significant = "drift" if drift.significant else "no significant drift"
    y = drift.level + drift.slope * (x - last)
    axis.plot(x, y, color=COLOURS[2], lw=1.5, label=f"{significant}, {drift.slope:+.3g} a day")


def _draw_map(figure: Figure, axis: Any, series: Series) -> None:
    # Nights without a run stay empty: the map has a column for each day.
    first, last = int(series.mjd[0]), int(series.mjd[-1])
    grid = np.full((series.fibres.size, last - first + 1), np.nan)
    grid[:, series.mjd.astype(int) - first] = series.per_fibre
    finite = grid[np.isfinite(grid)]
    lo, hi = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    image = axis.imshow(
        grid,
        aspect="auto",
        origin="lower",
        cmap="cividis",
        vmin=lo,
        vmax=max(hi, lo + 1e-12),
        interpolation="nearest",
        extent=(first - 0.5, last + 0.5, -0.5, series.fibres.size - 0.5),
    )
    ticks = np.unique(np.linspace(0, series.fibres.size - 1, 8).astype(int))
    axis.set_yticks(ticks, [str(series.fibres[i]) for i in ticks])
    axis.set(ylabel="FIBRE_ID")
    figure.colorbar(image, ax=axis, label=series.unit or series.metric)


def _label_dates(axis: Any, series: Series) -> None:
    lo, hi = axis.get_xlim()
    step = max(1, int(np.ceil((hi - lo) / 8)))
    ticks = np.arange(np.ceil(lo), hi, step)
    labels = [(_EPOCH + timedelta(days=int(tick))).isoformat() for tick in ticks]
    axis.set_xticks(ticks, labels, rotation=20, ha="right")
    axis.set(xlabel=f"night ({series.mjd.size} with a value)")
