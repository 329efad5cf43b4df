"""FITS files as cameras write them, byte by byte: long HIERARCH cards, and broken cards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kspecpipe.simulate.arrays import RawArray

CardValue = str | int | float | bool
_BLOCK = 2880
_CARD = 80


def format_card(keyword: str, value: CardValue, comment: str = "") -> list[str]:
    """Return the 80-character cards of a keyword; long strings go on in CONTINUE cards."""
    start = f"{keyword:<8}= " if len(keyword) <= 8 else f"HIERARCH {keyword} = "
    if isinstance(value, str):
        return _string_cards(start, value.replace("'", "''"))
    text = ("T" if value else "F") if isinstance(value, bool) else repr(value)
    tail = f" / {comment}" if comment else ""
    return [f"{start}{text:>20}{tail}"[:_CARD].ljust(_CARD)]


def write_raw(path: Path, planes: RawArray, cards: Iterable[str], *, cube: bool) -> None:
    """Write unsigned 16-bit planes under a primary header.

    Parameters
    ----------
    path : Path
        File to write.
    planes : ndarray of uint16, shape (nframes, ny, nx)
        Raw planes [adu].
    cards : iterable of str
        Cards of 80 characters after the mandatory ones; they need not be valid.
    cube : bool
        Whether a single plane keeps its third axis.
    """
    shape = planes.shape if cube or planes.shape[0] > 1 else planes.shape[1:]
    mandatory = [("SIMPLE", True), ("BITPIX", 16), ("NAXIS", len(shape))]
    mandatory += [(f"NAXIS{i}", int(n)) for i, n in enumerate(reversed(shape), start=1)]
    mandatory += [("EXTEND", True), ("BZERO", 32768), ("BSCALE", 1)]
    text = "".join(card for key, value in mandatory for card in format_card(key, value))
    text += "".join(cards) + "END".ljust(_CARD)
    header = text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")
    # Flipping the top bit of an unsigned number is the same as subtracting BZERO.
    data = (planes ^ 0x8000).astype(">u2").tobytes()
    path.write_bytes(header + data + b"\0" * (-len(data) % _BLOCK))


def _string_cards(start: str, text: str) -> list[str]:
    """Split a quoted string over as many cards as it needs."""
    if len(start) + len(text) + 2 <= _CARD:
        return [f"{start}'{text}'".ljust(_CARD)]
    cards, room = [], _CARD - len(start) - 3
    while len(text) > room:
        # A quote is written twice; the pair must stay on one card.
        quotes = room - len(text[:room].rstrip("'"))
        cut = room - quotes % 2
        cards.append(f"{start}'{text[:cut]}&'".ljust(_CARD))
        text, start = text[cut:], "CONTINUE  "
        room = _CARD - len(start) - 3
    return [*cards, f"{start}'{text}'".ljust(_CARD)]
