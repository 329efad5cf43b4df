"""Set-of-files lists: one frame a line, ``path TAG``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import InputError, ProductError

RAW_TAGS = ("BIAS", "DARK", "FLAT", "FLATOFF", "LFLAT", "SKYFLAT", "ARC", "OBJECT")
CALIBRATION_TAGS = (
    "MASTER_BIAS",
    "MASTER_DARK",
    "BAD_PIXEL_MAP",
    "PIXEL_FLAT",
    "TRAMLINE_MAP",
    "FIBRE_FLAT",
    "WAVE_SOLUTION",
    "EXTRACTED",
    "REDUCED",
    "RESPONSE",
    "CALIBRATED",
    "COADDED",
    "SPLICED",
)
USER_TAGS = ("ASSIGN", "STD_CATALOG", "TEMPLATES", "ARC_LINES", "TELLURIC")
TAGS = RAW_TAGS + CALIBRATION_TAGS + USER_TAGS
FITS_NAME = re.compile(r"\.(fits?|fts)(\.(gz|fz|bz2))?$", re.IGNORECASE)
_TAG = re.compile(r"[A-Z][A-Z0-9_]*(:[\w+-]+)?")


@dataclass(frozen=True)
class SofEntry:
    """One input file.

    Parameters
    ----------
    path : Path
        The file, absolute.
    tag : str or None
        Tag without the lamp; None when the instrument's rules are to tell.
    lamp : str or None
        Lamp of ``FLAT:QTH`` or ``ARC:NE``.
    place : str
        ``name.sof, line n`` or where else the entry came from.
    """

    path: Path
    tag: str | None
    lamp: str | None
    place: str

    @property
    def label(self) -> str:
        """Place and file, for messages."""
        return f"{self.place}: {self.path.name}"


def read_inputs(source: str | Path | Sequence[str | Path]) -> list[SofEntry]:
    """Return the entries of a SOF, a folder, FITS files, or a list of these.

    Raises
    ------
    InputError
        With all problems of all lines at once.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise InputError("no input frames were named; give a SOF, a folder or FITS files")
    entries: list[SofEntry] = []
    problems: list[str] = []
    for item in sources:
        path = _expanded(str(item))
        if _exists(path) and path.is_dir():
            entries += _folder(path)
        elif FITS_NAME.search(path.name):
            entries.append(SofEntry(path.absolute(), None, None, "command line"))
        else:
            found, wrong = parse_sof(_text(path), path)
            entries += found
            problems += wrong
    problems += _duplicates(entries)
    if problems:
        raise InputError("\n".join(problems))
    if not entries:
        raise InputError(f"{', '.join(str(item) for item in sources)}: names no frames")
    return entries


def parse_sof(text: str, path: Path) -> tuple[list[SofEntry], list[str]]:
    """Parse the text of a SOF; returns the entries and what is wrong with the other lines."""
    entries: list[SofEntry] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{path.name}, line {number}"
        content = _strip_comment(line).strip()
        if not content:
            continue
        name, word = _split(content, path.parent)
        tag, _, lamp = (word or "").partition(":")
        if word and tag not in TAGS:
            problems.append(f"{place}: unknown tag {word!r}; {nearest(tag, TAGS)}")
            continue
        full = _absolute(name, path.parent)
        if word is None and not FITS_NAME.search(full.name):
            problems.append(f"{place}: {name!r} has no tag; write `path TAG`")
            continue
        entries.append(SofEntry(full, tag or None, lamp or None, place))
    return entries, problems


def format_entry(path: Path, tag: str, base: Path) -> str:
    """Return the SOF line of a file, relative to the folder of the SOF where that is short."""
    try:
        shown = path.resolve().relative_to(base.resolve())
    except ValueError:
        shown = path.resolve()
    text = f'"{shown}"' if "#" in str(shown) else str(shown)
    return f"{text} {tag}"


def append_to_sof(sof: Path, products: Iterable[tuple[Path, str]]) -> None:
    """Add product lines to a SOF, one per path; existing lines of the same path are replaced.

    Raises
    ------
    ProductError
        If the SOF cannot be read or written.
    """
    products = list(products)
    lines = _text(sof).rstrip("\n").split("\n") if _exists(sof) else []
    replaced = {path.resolve() for path, _ in products}
    entries, _ = parse_sof("\n".join(lines), sof)
    stale = {int(e.place.rsplit(" ", 1)[1]) for e in entries if e.path.resolve() in replaced}
    kept = [line for number, line in enumerate(lines, start=1) if number not in stale]
    kept += [format_entry(path, tag, sof.parent) for path, tag in products]
    scratch = sof.with_name(f".{sof.name}.{os.getpid()}.part")
    try:
        scratch.write_text("\n".join(kept) + "\n", encoding="utf-8")
        scratch.replace(sof)
    except OSError as error:
        raise ProductError(f"{sof}: cannot be written: {error}") from None
    finally:
        if _exists(scratch):
            scratch.unlink()


def _text(path: Path) -> str:
    if not _exists(path):
        raise InputError(f"{path}: no such file; a SOF, a folder or FITS files are expected")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a set-of-files list: {error}") from None


def _folder(path: Path) -> list[SofEntry]:
    try:
        names = sorted(child for child in path.iterdir() if FITS_NAME.search(child.name))
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be read: {error}") from None
    return [SofEntry(name.absolute(), None, None, f"folder {path.name}") for name in names]


def _strip_comment(line: str) -> str:
    """Cut a comment: a ``#`` at the start or after a blank, outside quotes."""
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not line[:i].strip():
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def _split(content: str, base: Path) -> tuple[str, str | None]:
    """Split a line into path and tag; the tag is None when the line is a path alone."""
    quoted = re.fullmatch(r"([\"'])(.+?)\1(?:\s+(\S+))?", content)
    if quoted:
        return quoted[2], quoted[3]
    parts = content.rsplit(None, 1)
    head, last = (parts[0], parts[1]) if len(parts) == 2 else ("", content)
    if not head:
        return content, None
    alone = FITS_NAME.search(content) or _exists(_absolute(content, base))
    if alone and not _TAG.fullmatch(last):
        return content, None
    return head.strip("\"'"), last


def _absolute(name: str, base: Path) -> Path:
    path = _expanded(name)
    return path if path.is_absolute() else (base / path).absolute()


def _expanded(name: str) -> Path:
    """Expand variables and ``~``; a ``~name`` that is no user stays as it is."""
    return Path(os.path.expanduser(os.path.expandvars(name)))  # noqa: PTH111 - Path's own raises


def _exists(path: Path) -> bool:
    """Return whether there is such a file; also for names that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 - Path's own raises for long names


def _duplicates(entries: Sequence[SofEntry]) -> list[str]:
    first: dict[Path, SofEntry] = {}
    problems = []
    for entry in entries:
        key = Path(os.path.normpath(entry.path))
        if key in first:
            problems.append(f"{entry.label}: stands twice (first at {first[key].place})")
        first.setdefault(key, entry)
    return problems
