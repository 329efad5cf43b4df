"""Which calibration a job takes: the nearest valid one, and why not the others."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kspecpipe.declare import InputSpec

#: Candidates that are kept for each input: the best, and those to fall back to.
MOST_CANDIDATES = 6


class Level(IntEnum):
    """How far in time a calibration is from the frames that take it."""

    SAME_NIGHT = 0
    DAYS_3 = 1
    DAYS_30 = 2
    ANY = 3

    def __str__(self) -> str:
        """Return the level in words."""
        return ("same night", "3 days", "30 days", "any")[self]


_REACH = {Level.DAYS_3: 3.0, Level.DAYS_30: 30.0}


@dataclass(frozen=True)
class Candidate:
    """A product that exists, or that a planned job will make.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    path : Path
        Where it is or will be.
    recipe : str
        Recipe that makes it.
    values : mapping
        Attributes by which recipes match: instrument, mode, readmode, shape, layout, exptime,
        target.
    mjd : float
        Date of its first raw frame.
    night : str
        Evening date.
    job : str
        Job that makes it; empty when it exists already.
    given : bool
        The user named it: it comes before all others.
    lacking : int
        Raw frames fewer than recommended.
    fault : str
        Why it may not be used: failed or rejected; empty when it is good or certified.
    certified : bool
        A person has certified it although it failed.
    """

    catg: str
    path: Path
    recipe: str
    values: Mapping[str, Any]
    mjd: float
    night: str
    job: str = ""
    given: bool = False
    lacking: int = 0
    fault: str = ""
    certified: bool = False


@dataclass(frozen=True)
class Wish:
    """What a job's frames ask of their calibrations."""

    values: Mapping[str, Any]
    mjd: float
    night: str

    def level(self, candidate: Candidate) -> Level:
        """Return how near a candidate is in time."""
        if candidate.night == self.night:
            return Level.SAME_NIGHT
        age = abs(candidate.mjd - self.mjd)
        if age > _REACH[Level.DAYS_30]:
            return Level.ANY
        return Level.DAYS_3 if age <= _REACH[Level.DAYS_3] else Level.DAYS_30


@dataclass(frozen=True)
class Choice:
    """A candidate that matches, with its distance in time."""

    candidate: Candidate
    level: Level
    age: float  # [d]

    @property
    def reason(self) -> str:
        """Say why it is where it is in the ranking."""
        who = "given by the user, " if self.candidate.given else ""
        return f"{who}{self.level}, {self.age:.2f} days"


@dataclass(frozen=True)
class Slot:
    """One file that a job takes for one input: candidates, the best first."""

    spec: InputSpec
    ranked: tuple[Choice, ...]


@dataclass
class _Row:
    """Candidates of equal attributes: those of the user, and the others by time."""

    given: list[Candidate] = field(default_factory=list)
    times: list[Candidate] = field(default_factory=list)


@dataclass
class Shelf:
    """All candidates, sorted by time, so that the nearest are found at once."""

    _items: dict[str, list[Candidate]] = field(default_factory=dict)
    _sorted: dict[tuple[str, ...], dict[tuple[Any, ...], _Row]] = field(default_factory=dict)

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Add candidates; what was looked up before of the same category is forgotten."""
        for candidate in candidates:
            self._items.setdefault(candidate.catg, []).append(candidate)
            for key in [key for key in self._sorted if key[0] == candidate.catg]:
                del self._sorted[key]

    def of(self, catg: str) -> list[Candidate]:
        """Return all candidates of a category."""
        return self._items.get(catg, [])

    def slots(self, spec: InputSpec, wish: Wish, without: Collection[str] = ()) -> list[Slot]:
        """Return what a job can take for an input: one slot, or one for each maker of a list.

        Parameters
        ----------
        spec : InputSpec
            The declared input.
        wish : Wish
            What the frames ask for.
        without : collection of str
            Recipes whose products are not taken unless the user gave them.
        """
        found = [
            choice
            for choice in self._nearest(spec, wish)
            if choice.candidate.given or choice.candidate.recipe not in without
        ]
        if spec.several != "list":
            return [Slot(spec, tuple(found[:MOST_CANDIDATES]))]
        makers = sorted({choice.candidate.recipe for choice in found})
        return [
            Slot(spec, tuple(c for c in found if c.candidate.recipe == maker)[:MOST_CANDIDATES])
            for maker in makers
        ]

    def near_misses(self, spec: InputSpec, wish: Wish, most: int = 5) -> list[tuple[str, str]]:
        """Return name and reason of the nearest candidates that may not be taken."""
        everything = self._by_value(spec.tag, ()).get((), _Row())
        by_time = heapq.merge(
            sorted(everything.given, key=lambda one: abs(one.mjd - wish.mjd)),
            _outwards(everything.times, wish.mjd),
            key=lambda one: abs(one.mjd - wish.mjd),
        )
        misses = ((one.path.name, unfit(one, spec, wish)) for one in by_time)
        return list(islice((miss for miss in misses if miss[1]), most))

    def _nearest(self, spec: InputSpec, wish: Wish) -> list[Choice]:
        """Return the matching candidates in order of preference."""
        names = tuple(dict.fromkeys(("instrument", *spec.match)))
        wanted = tuple(wish.values.get(name) for name in names)
        row = self._by_value(spec.tag, names).get(wanted, _Row())
        enough = MOST_CANDIDATES * (2 if spec.several == "list" else 1)
        ranked: list[Choice] = []
        seen: set[int] = set()
        # A wider window adds only what is of a farther level: it never changes what is before.
        for part in chain((row.given,), _windows(row.times, wish.mjd)):
            new = [one for one in part if id(one) not in seen]
            seen |= {id(one) for one in new}
            found = [
                Choice(one, wish.level(one), age)
                for one in new
                if not (age_fault(age := abs(one.mjd - wish.mjd), spec) or one.fault)
            ]
            found.sort(key=lambda choice: _preference(choice, spec, wish))
            ranked += found
            if len(ranked) >= enough:
                break
        return ranked

    def _by_value(self, catg: str, names: tuple[str, ...]) -> dict[tuple[Any, ...], _Row]:
        key = (catg, *names)
        if key not in self._sorted:
            rows: dict[tuple[Any, ...], _Row] = {}
            for one in sorted(self.of(catg), key=lambda one: one.mjd):
                row = rows.setdefault(tuple(one.values.get(name) for name in names), _Row())
                (row.given if one.given else row.times).append(one)
            self._sorted[key] = rows
        return self._sorted[key]


def unfit(candidate: Candidate, spec: InputSpec, wish: Wish) -> str:
    """Say why a candidate may not be taken; empty when it may."""
    for name in dict.fromkeys(("instrument", *spec.match)):
        found, expected = candidate.values.get(name), wish.values.get(name)
        if found != expected:
            return f"{name} is {found or 'unknown'}, {expected or 'unknown'} is needed"
    return age_fault(abs(candidate.mjd - wish.mjd), spec) or candidate.fault


def age_fault(age: float, spec: InputSpec) -> str:
    """Say why a calibration of an age [d] is too old; empty when it is not."""
    if spec.maximum_age is not None and age > spec.maximum_age:
        return f"{age:.1f} days away, at most {spec.maximum_age:g} are allowed"
    return ""


def _preference(choice: Choice, spec: InputSpec, wish: Wish) -> tuple[Any, ...]:
    """Sort: the user's own, the nearest in time, the same set-up, the best exposed."""
    candidate = choice.candidate
    ours, theirs = wish.values, candidate.values
    seconds = 0.0
    if spec.several == "nearest_exptime":
        seconds = abs(theirs.get("exptime", 0.0) - ours.get("exptime", 0.0))
    return (
        not candidate.given,
        choice.level,
        (theirs.get("mode") != ours.get("mode")) + (theirs.get("readmode") != ours.get("readmode")),
        seconds,
        candidate.lacking,
        choice.age,
        candidate.path.name,
    )


def _outwards(times: Sequence[Candidate], mjd: float) -> Iterator[Candidate]:
    """Yield candidates in the order of their distance in time."""
    middle = bisect_left(times, mjd, key=lambda one: one.mjd)
    before, after = (times[i] for i in range(middle - 1, -1, -1)), islice(times, middle, None)
    return heapq.merge(before, after, key=lambda one: abs(one.mjd - mjd))


def _windows(times: Sequence[Candidate], mjd: float) -> Iterator[Sequence[Candidate]]:
    """Yield the candidates of ever wider spans of time."""
    for days in _REACH.values():
        yield _between(times, mjd - days, mjd + days)
    middle = bisect_left(times, mjd, key=lambda one: one.mjd)
    yield times[max(0, middle - 3 * MOST_CANDIDATES) : middle + 3 * MOST_CANDIDATES]


def _between(times: Sequence[Candidate], first: float, last: float) -> Sequence[Candidate]:
    a = bisect_left(times, first, key=lambda one: one.mjd)
    b = bisect_left(times, last, key=lambda one: one.mjd)
    return times[a:b]
