"""The one style of all figures: ``kspec.mplstyle``, and how verdicts and limits look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np

from kspecpipe.qc import Flag, Limits

_STYLE = matplotlib.rc_params_from_file(
    str(files("kspecpipe.figures") / "kspec.mplstyle"), use_default_template=False
)
#: Colours of lines and points, from the style file.
COLOURS: tuple[str, ...] = tuple(
    f"#{colour.removeprefix('#')}" for colour in _STYLE["axes.prop_cycle"].by_key()["color"]
)
#: Colour and marker of a verdict: nobody needs to tell them apart by the colour alone.
FLAG_MARKS = {
    Flag.OK: (COLOURS[0], "o"),
    Flag.WARN: (COLOURS[4], "^"),
    Flag.FAIL: (COLOURS[1], "X"),
    Flag.UNMEASURED: (COLOURS[1], "s"),
    Flag.NA: ("0.6", "|"),
    Flag.UNJUDGED: ("0.6", "d"),
}
#: Colour and dashes of the limits of each level.
LIMIT_LINES = {"warn": (COLOURS[4], "--"), "fail": (COLOURS[1], "-")}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style; as a decorator, of all that a function draws."""
    with matplotlib.rc_context(_STYLE):
        yield


def draw_limits(axis: Any, limits: Limits, span: tuple[float, float] | None = None) -> None:
    """Draw limits of the y axis as lines, of those near enough to leave the data their room.

    Parameters
    ----------
    axis : matplotlib axes
        Axes with data.
    limits : Limits
        In the unit of the y axis.
    span : tuple of float, optional
        Ends of the lines on the x axis; default: all of it.
    """
    low, high = sorted(axis.get_ylim())
    reach = high - low
    known = axis.get_legend_handles_labels()[1]
    for level, (colour, dashes) in LIMIT_LINES.items():
        for value in getattr(limits, level) or ():
            if not (np.isfinite(value) and low - reach <= value <= high + reach):
                continue
            label = None if f"{level} limit" in known else f"{level} limit"
            known.append(f"{level} limit")
            style = {"color": colour, "ls": dashes, "lw": 1.2, "label": label}
            if span is None:
                axis.axhline(value, **style)
            else:
                axis.plot(span, (value, value), **style)
