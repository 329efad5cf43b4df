"""File names of single spectra: sanitised, and each of its own."""

from __future__ import annotations

from collections.abc import Sequence

from kspecpipe.provenance import sanitise

_LONGEST = 60


def unique_names(names: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """Return one file name part for each name, all different.

    Parameters
    ----------
    names : sequence of str
        Names of targets; any characters.
    numbers : sequence of int
        Numbers that are unique; they tell equal names apart, and stand for empty ones.
    """
    plain = [sanitise(name, _LONGEST) for name in names]
    taken: set[str] = set()
    unique = []
    for name, number in zip(plain, numbers, strict=True):
        common = plain.count(name) > 1 or not name
        own = f"{name or 'fibre'}_{number:03d}" if common else name
        while own in taken:
            own = f"{own}_{number:03d}"
        taken.add(own)
        unique.append(own)
    return unique
