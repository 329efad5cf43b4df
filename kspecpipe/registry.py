"""Which recipes are installed: the entry points, without importing any of them."""

from __future__ import annotations

from importlib.metadata import entry_points

ENTRY_POINTS = "kspecpipe.recipes"


def recipe_names() -> list[str]:
    """Return the names of all installed recipes."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})
