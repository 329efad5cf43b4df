"""Scan folders: each header is read once and remembered by path, size and time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kspecpipe import io
from kspecpipe._version import __version__
from kspecpipe.errors import InputError
from kspecpipe.frame import FrameInfo
from kspecpipe.instrument import Instrument, load_instrument, shipped_instruments
from kspecpipe.night.frames import FoundProduct, Listing, NightFrame, Problem
from kspecpipe.qc import BAD_FLAGS
from kspecpipe.sof import FITS_NAME

#: The form of what is remembered; raised when it changes.
_FORM = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS headers (rules TEXT, path TEXT, size INTEGER, mtime INTEGER, "
    "content TEXT, PRIMARY KEY (rules, path))"
)
_PRODUCT_CARDS = frozenset(
    {"INSTRUME", "INSMODE", "READMODE", "DATE-OBS", "MJD-OBS", "EXPTIME", "OBJECT", "DATAMD5"}
)
#: Folders that are one input, with more files than anyone wants to look at.
_LIBRARIES = ("templates", "bosz")
_CLOCK_STARTS = 47892.0  # MJD of 1990: earlier dates are those of a clock that was not set
_CLOCK_ENDS = 88069.0  # MJD of 2100

Record = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """By which instruments frames are understood, and which cards that takes."""

    instruments: Mapping[str, Instrument]
    named: bool = False
    digest: str = ""
    cards: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, instrument: str | None) -> Rules:
        """Return the rules of a named instrument, or of all that are shipped."""
        known = shipped_instruments()
        if instrument:
            known = {instrument: load_instrument(instrument)}
        text = json.dumps([_FORM, __version__, *(one.digest for one in known.values())])
        return cls(
            instruments=known,
            named=instrument is not None,
            digest=hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
            cards=frozenset().union(*map(_cards, known.values())),
        )

    def wanted(self, keyword: str) -> bool:
        """Return whether the value of a card is needed."""
        if keyword.startswith("ESO "):
            return keyword.startswith("ESO PRO ") or keyword.endswith(" FLAG")
        return keyword in self.cards or keyword in _PRODUCT_CARDS


class Memory:
    """What earlier scans found, in a file of the user's cache; without it all is read again."""

    def __init__(self, path: Path | None) -> None:
        """Remember the place; None: remember nothing."""
        self.path = path

    def recall(self, rules: str, folder: Path) -> dict[str, tuple[tuple[int, int], Record]]:
        """Return size, time and content of all known files below a folder."""
        query = (
            "SELECT path, size, mtime, content FROM headers "
            "WHERE rules = ? AND path >= ? AND path < ?"
        )
        try:
            with contextlib.closing(self._open()) as connection:
                # "0" follows "/": everything below the folder, by the primary key.
                rows = connection.execute(query, (rules, f"{folder}/", f"{folder}0")).fetchall()
            return {path: ((size, mtime), json.loads(text)) for path, size, mtime, text in rows}
        except (OSError, sqlite3.Error, ValueError):
            return {}

    def keep(self, rules: str, found: Mapping[str, tuple[tuple[int, int], Record]]) -> None:
        """Add what a scan read; a cache that cannot be written is no reason to stop."""
        rows = [
            (rules, path, *stamp, json.dumps(content)) for path, (stamp, content) in found.items()
        ]
        with (
            contextlib.suppress(OSError, sqlite3.Error),
            contextlib.closing(self._open()) as connection,
            connection,
        ):
            connection.executemany("INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            raise FileNotFoundError("no cache is wanted")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=5.0)
        try:
            connection.execute(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def cache_file() -> Path:
    """Return the place of the memory of headers."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "kspecpipe" / "headers.sqlite"


def scan(
    folder: Path, rules: Rules, memory: Memory, *, skip: Sequence[Path] = (), deep: bool = True
) -> Listing:
    """Look at every file below a folder; nothing is moved, changed or read twice.

    Parameters
    ----------
    folder : Path
        The folder, with its sub-folders.
    rules : Rules
        Which instruments there are.
    memory : Memory
        What earlier scans found.
    skip : sequence of Path
        Folders to leave alone, such as that of the products.
    deep : bool
        Look into sub-folders.

    Raises
    ------
    InputError
        If the folder is none, or cannot be read.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a folder of raw frames is expected")
    known = memory.recall(rules.digest, folder)
    fresh: dict[str, tuple[tuple[int, int], Record]] = {}
    items: list[NightFrame | FoundProduct | Problem] = []
    texts: dict[str, list[Path]] = {}
    closed: list[OSError] = []
    for path in _files(folder, [place.resolve() for place in skip], deep, closed.append):
        if not FITS_NAME.search(path.name):
            texts.setdefault(path.name.lower(), []).append(path)
            continue
        stamp = _stamp(path)
        found = known.get(str(path))
        if found and found[0] == stamp:
            items.append(_restored(path, stamp, found[1]))
            continue
        item, lasting = _look(path, stamp, rules)
        items.append(item)
        if lasting:
            fresh[str(path)] = (stamp, _record(item))
    for error in closed:
        place, reason = Path(error.filename), f"the folder cannot be read: {error.strerror}"
        if place == folder:
            raise InputError(f"{folder}: {reason}")
        items.append(Problem(place, reason))
    if fresh:
        memory.keep(rules.digest, fresh)
    return _listing(folder, items, texts, len(fresh))


def scan_file(path: Path, rules: Rules) -> NightFrame | FoundProduct | Problem:
    """Look at one file."""
    return _look(path, _stamp(path), rules)[0]


def _listing(
    folder: Path,
    items: Iterable[NightFrame | FoundProduct | Problem],
    texts: Mapping[str, Sequence[Path]],
    read: int,
) -> Listing:
    problems = [item for item in items if isinstance(item, Problem)]
    frames = [item for item in items if isinstance(item, NightFrame)]
    return Listing(
        folder=folder,
        frames=tuple(sorted(frames, key=lambda frame: (frame.mjd, str(frame.path)))),
        products=tuple(item for item in items if isinstance(item, FoundProduct)),
        unknown=tuple(item for item in problems if item.unknown),
        broken=tuple(item for item in problems if not item.unknown),
        texts={name: tuple(paths) for name, paths in texts.items()},
        read=read,
    )


def _files(
    folder: Path, skip: Sequence[Path], deep: bool, fail: Callable[[OSError], None]
) -> Iterator[Path]:
    for place, below, names in os.walk(folder, onerror=fail):
        here = Path(place)
        libraries = [name for name in below if name.lower().startswith(_LIBRARIES)]
        yield from (here / name for name in libraries)
        below[:] = sorted(
            name
            for name in below
            if deep
            and not name.startswith(".")
            and name not in libraries
            and here / name not in skip
        )
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a dangling link, or it has just gone: reading it will say so
        return (0, 0)
    return status.st_size, status.st_mtime_ns


def _look(
    path: Path, stamp: tuple[int, int], rules: Rules
) -> tuple[NightFrame | FoundProduct | Problem, bool]:
    """Read a header; the flag tells whether the result holds for as long as the file stays."""
    try:
        values, planes, shape = io.scan_file(path, rules.wanted)
        if "ESO PRO CATG" in values:
            return _product(path, values, stamp), True
        instrument = _recognise(values, rules)
        if instrument is None:
            names = ", ".join(one.facts.name for one in rules.instruments.values())
            return Problem(path, f"the header is not of {names}", unknown=True), True
        info = rules.instruments[instrument].describe(values, path)
        if not planes:
            return Problem(path, "holds no image"), False
        geometry = rules.instruments[instrument].geometry(shape, info)
    except (InputError, OSError, ValueError) as error:
        return Problem(path, _short(error, path)), False
    if info.tag is None:
        return Problem(path, "no rule tells what it is", unknown=True), True
    if not _CLOCK_STARTS < info.mjd < _CLOCK_ENDS:
        reason = f"its DATE-OBS is {info.date_obs}: the clock was wrong; mend it in a copy"
        return Problem(path, reason), False
    info = replace(info, layout="x".join(map(str, shape)))
    name = rules.instruments[instrument].facts.name
    shown = "x".join(map(str, geometry.shape))
    return NightFrame(path, info, shown, planes, name, stamp=stamp), True


def _short(error: Exception, path: Path) -> str:
    """Return the first line of a message without the file's name, which is told anyway."""
    return str(error).splitlines()[0].removeprefix(f"{path.name}: ")


def _recognise(values: Mapping[str, Any], rules: Rules) -> str | None:
    for name, instrument in rules.instruments.items():
        if instrument.recognises(values) or (rules.named and not instrument.facts.recognise):
            return name
    return None


def _product(path: Path, values: Mapping[str, Any], stamp: tuple[int, int]) -> FoundProduct:
    flags = [card for card in values if card.startswith("ESO QC ") and card.endswith(" FLAG")]
    return FoundProduct(
        path=path,
        catg=str(values["ESO PRO CATG"]),
        recipe=str(values.get("ESO PRO REC1 ID", "")),
        values={
            "instrument": str(values.get("INSTRUME", "")),
            "mode": str(values.get("INSMODE", "")),
            "readmode": str(values.get("READMODE", "")),
            "shape": str(values.get("ESO PRO SHAPE", "")),
            "layout": str(values.get("ESO PRO LAYOUT", "")),
            "exptime": float(values.get("EXPTIME", 0.0)),
            "target": str(values.get("OBJECT", "")),
            "date_obs": str(values.get("DATE-OBS", "")),
        },
        mjd=float(values.get("MJD-OBS", 0.0)),
        md5=str(values.get("DATAMD5", "")),
        failed=tuple(card[7:-5] for card in flags if values[card] in BAD_FLAGS),
        stamp=stamp,
    )


def _record(item: NightFrame | FoundProduct | Problem) -> Record:
    """Return what is remembered of a file."""
    if isinstance(item, NightFrame):
        parts = {"info": asdict(item.info), "shape": item.shape, "planes": item.planes}
        return {"kind": "frame", "instrument": item.instrument, **parts}
    if isinstance(item, FoundProduct):
        names = ("catg", "recipe", "values", "mjd", "md5", "failed")
        return {"kind": "product", **{name: getattr(item, name) for name in names}}
    return {"kind": "unknown", "reason": item.reason}


def _restored(
    path: Path, stamp: tuple[int, int], record: Record
) -> NightFrame | FoundProduct | Problem:
    """Return a file from what is remembered of it."""
    values = {name: value for name, value in record.items() if name != "kind"}
    if record["kind"] == "frame":
        info = values["info"]
        info["flips"] = tuple(info["flips"])
        return NightFrame(path, **(values | {"info": FrameInfo(**info)}), stamp=stamp)
    if record["kind"] == "product":
        return FoundProduct(path, **(values | {"failed": tuple(values["failed"])}), stamp=stamp)
    return Problem(path, values["reason"], unknown=True)


def _cards(instrument: Instrument) -> frozenset[str]:
    """Return the cards that an instrument's file asks for, in upper case."""
    facts = instrument.facts
    names = [card for rule in facts.keywords.values() for card in rule.cards]
    names += [*facts.recognise, *facts.orientation.flip.cards]
    names += [card for rule in facts.classify for card in rule.keywords]
    return frozenset(name.upper() for name in names)
