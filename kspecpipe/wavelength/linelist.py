"""Lists of emission lines: arc lamps and night sky."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kspecpipe.ecsv import ecsv_cells
from kspecpipe.signal import BoolArray, FloatArray

StrArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class LineList:
    """Emission lines, sorted by wavelength.

    Parameters
    ----------
    wavelength : ndarray of float, shape (n,)
        Air wavelength [Angstrom].
    species : ndarray of str, shape (n,)
        Chemical element or molecule; empty when unknown.
    intensity : ndarray of float, shape (n,)
        Relative strength in electrons; NaN when unknown.

    Raises
    ------
    ValueError
        If the shapes differ, or a wavelength is not positive and finite.
    """

    wavelength: FloatArray
    species: StrArray
    intensity: FloatArray

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        shapes = {self.wavelength.shape, self.species.shape, self.intensity.shape}
        if len(shapes) > 1 or self.wavelength.ndim != 1:
            raise ValueError(f"columns of a line list must have one length, not {sorted(shapes)}")
        if not np.all(np.isfinite(self.wavelength) & (self.wavelength > 0)):
            raise ValueError("wavelengths of a line list must be positive and finite")

    def __len__(self) -> int:
        """Count the lines."""
        return int(self.wavelength.size)

    def select(self, keep: BoolArray) -> LineList:
        """Return the lines where ``keep`` is True."""
        return LineList(self.wavelength[keep], self.species[keep], self.intensity[keep])

    def between(self, low: float, high: float) -> LineList:
        """Return the lines with low <= wavelength <= high."""
        return self.select((self.wavelength >= low) & (self.wavelength <= high))

    def of_species(self, species: Iterable[str]) -> LineList:
        """Return the lines of the named species; case does not matter."""
        wanted = [name.lower() for name in species]
        return self.select(np.isin(np.char.lower(self.species), wanted))


def parse_line_list(text: str, default_species: str = "") -> LineList:
    """Read a line list from text: our ECSV, or the 2dfdr ``.arc`` form.

    Parameters
    ----------
    text : str
        The contents of the file. ECSV has columns ``wavelength``, ``species``, ``intensity``.
        The ``.arc`` form has ``wavelength [intensity [label]]`` on each line; ``#`` and ``*``
        start comments. Of a label such as ``Hg I`` the first word is the species.
    default_species : str
        Species of lines without a label.

    Returns
    -------
    LineList
        Sorted by wavelength; an intensity that is absent or not positive is NaN.

    Raises
    ------
    ValueError
        If a line cannot be read (its number is named), or if there is no line at all.
    """
    is_ecsv = text.lstrip().startswith("# %ECSV")
    rows = list(_ecsv_rows(text) if is_ecsv else _arc_rows(text))
    if not rows:
        raise ValueError(
            "the line list holds no line; expected rows of 'wavelength intensity label'"
        )
    rows.sort(key=lambda row: row[0])
    wavelength, intensity, species = zip(*rows, strict=True)
    return LineList(
        np.array(wavelength, float),
        np.array([name or default_species for name in species], np.str_),
        np.array(intensity, float),
    )


def _arc_rows(text: str) -> Iterator[tuple[float, float, str]]:
    """Yield wavelength, intensity and species of the 2dfdr form."""
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.split(r"[#*]", line, maxsplit=1)[0].replace(",", " ").split()
        if words:
            label = words[2] if len(words) > 2 else ""
            yield _row(number, line, words[0], words[1] if len(words) > 1 else "nan", label)


def _ecsv_rows(text: str) -> Iterator[tuple[float, float, str]]:
    """Yield wavelength, intensity and species of an ECSV table."""
    names, rows = ecsv_cells(text)
    if "wavelength" not in names:
        raise ValueError(
            f"the line list has columns {names}; expected wavelength, species, intensity"
        )
    for number, line, values in rows:
        row = dict(zip(names, values, strict=False))
        yield _row(
            number, line, row["wavelength"], row.get("intensity", ""), row.get("species", "")
        )


def _row(
    number: int, line: str, wavelength: str, intensity: str, species: str
) -> tuple[float, float, str]:
    """Convert the words of one line, or name the line that is wrong."""
    try:
        position, strength = float(wavelength), float(intensity or "nan")
    except ValueError:
        raise ValueError(
            f"line {number} of the line list is {line.strip()!r}; "
            "expected 'wavelength intensity label'"
        ) from None
    if not (math.isfinite(position) and position > 0):
        raise ValueError(f"line {number} of the line list has wavelength {wavelength}")
    return position, strength if strength > 0 else math.nan, species.strip()
