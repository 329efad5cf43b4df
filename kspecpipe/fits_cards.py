"""Single cards of a FITS header, without parsing all others: pure functions on bytes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from astropy.io import fits

BLOCK = 2880
CARD = 80
_STRUCTURE = frozenset({"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3"})


def header_length(content: bytes) -> int | None:
    """Return the length of the header's blocks, or None when its end is not in ``content``."""
    for at in range(0, len(content) - CARD + 1, CARD):
        if content[at : at + 8] == b"END     ":
            return math.ceil((at + CARD) / BLOCK) * BLOCK
    return None


def some_cards(content: bytes, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Return the values of those cards whose keyword is wanted, and of those for the shape.

    Broken cards are left out, and of several with the same keyword the first counts, as in
    `kspecpipe.io.header_values`.

    Parameters
    ----------
    content : bytes
        The blocks of one header.
    wanted : callable
        Tells for a keyword in upper case, without HIERARCH, whether its value is needed.
    """
    values: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, image in _images(content):
            if keyword not in _STRUCTURE and not wanted(keyword):
                continue
            try:
                card = fits.Card.fromstring(image)
                name, value = card.keyword, card.value
            except (fits.VerifyError, ValueError, IndexError, KeyError, TypeError):
                continue
            if name and not isinstance(value, fits.card.Undefined):
                values.setdefault(name, value)
    return values


def data_size(values: Mapping[str, Any]) -> int:
    """Return the number of bytes of the image that a header announces."""
    axes = [int(values[f"NAXIS{i}"]) for i in range(1, int(values["NAXIS"]) + 1)]
    return abs(int(values["BITPIX"])) // 8 * math.prod(axes) if axes else 0


def _images(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield keyword and text of each card; a long string comes with its continuations."""
    cards = [content[at : at + CARD] for at in range(0, len(content) - CARD + 1, CARD)]
    for number, card in enumerate(cards):
        if card[:8] == b"END     ":
            return
        name = card[9:].split(b"=", 1)[0] if card[:9] == b"HIERARCH " else card[:8]
        if name == b"CONTINUE":
            continue
        last = number + 1
        while last < len(cards) and cards[last][:8] == b"CONTINUE":
            last += 1
        yield name.decode("latin-1").strip().upper(), b"".join(cards[number:last])
