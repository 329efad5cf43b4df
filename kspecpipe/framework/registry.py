"""Which recipes are installed: the entry points, without importing any of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

ENTRY_POINTS = "kspecpipe.recipes"


def recipe_points() -> Mapping[str, EntryPoint]:
    """Return where each installed recipe is to be imported from, by name."""
    return _points(tuple(sys.path))


def recipe_names() -> list[str]:
    """Return the names of all installed recipes."""
    return sorted(recipe_points())


@cache
def _points(places: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Read the entry points once for each search path: that opens a file of every package."""
    del places
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
