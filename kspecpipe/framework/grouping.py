"""Which of the input files are what, before they are opened for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.instrument import Instrument, load_instrument, shipped_instruments
from kspecpipe.sof import SofEntry


def separate(
    entries: Sequence[SofEntry], tags: Sequence[str], instrument: str | None
) -> list[list[SofEntry]]:
    """Return one list of files for each file of some tags, with all other files in each.

    Parameters
    ----------
    entries : sequence of SofEntry
        The files; those without tag are looked at.
    tags : sequence of str
        Tags of the files that are to be treated one by one.
    instrument : str or None
        Name or file of the instrument; None to recognise it.

    Raises
    ------
    SettingsError
        If the instrument file is wrong.
    """
    known = [load_instrument(instrument)] if instrument else list(shipped_instruments().values())
    kinds = [entry.tag or _tag_of(entry, known) for entry in entries]
    pairs = list(zip(entries, kinds, strict=True))
    others = [entry for entry, kind in pairs if kind not in tags]
    lone = [replace(entry, tag=kind) for entry, kind in pairs if kind in tags]
    return [[entry, *others] for entry in lone] or [list(entries)]


def _tag_of(entry: SofEntry, known: Sequence[Instrument]) -> str | None:
    """Return PRO.CATG or what the rules of the instrument say; None for what is to fail later."""
    try:
        header = io.read_header(entry.path)
        if "ESO PRO CATG" in header:
            return str(header["ESO PRO CATG"])
        named = [each for each in known if each.recognises(header)] or list(
            known[: len(known) == 1]
        )
        return named[0].describe(header, entry.path).tag if named else None
    except InputError:
        return None
