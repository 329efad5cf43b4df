"""Flag wavelengths at which the Earth's atmosphere absorbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from kspecpipe.signal import DQ, DQArray, FloatArray


@dataclass(frozen=True, slots=True)
class TelluricRegion:
    """One band: limits in air wavelength [Angstrom] and the absorbing molecule."""

    start: float
    end: float
    molecule: str = ""

    def __post_init__(self) -> None:
        """Refuse an empty region."""
        if not 0 < self.start < self.end:
            raise ValueError(f"telluric region {self.start} to {self.end} is empty or not positive")


def parse_telluric_regions(text: str) -> tuple[TelluricRegion, ...]:
    """Read telluric regions from the text of an ECSV table.

    Parameters
    ----------
    text : str
        ECSV with columns ``start`` and ``end`` [Angstrom, air] and, optionally, ``molecule``.

    Raises
    ------
    ValueError
        If a column is missing or a region is empty.
    """
    table = Table.read(text.splitlines(), format="ascii.ecsv")
    missing = {"start", "end"} - set(table.colnames)
    if missing:
        raise ValueError(
            f"telluric regions have no column {sorted(missing)}; found {table.colnames}, "
            "expected start, end and optionally molecule"
        )
    molecule = table["molecule"] if "molecule" in table.colnames else [""] * len(table)
    rows = zip(table["start"], table["end"], molecule, strict=True)
    return tuple(TelluricRegion(float(start), float(end), str(name)) for start, end, name in rows)


def telluric_dq(
    wavelength: FloatArray,
    regions: Sequence[TelluricRegion],
    *,
    margin: npt.ArrayLike = 0.0,
) -> DQArray:
    """Flag samples inside telluric regions.

    Parameters
    ----------
    wavelength : ndarray, any shape
        Air wavelength [Angstrom]; NaN is not flagged.
    regions : sequence of TelluricRegion
        Bands to flag.
    margin : float or ndarray that broadcasts to ``wavelength``
        Widening on either side [Angstrom], for instance half of the LSF's FWHM.

    Returns
    -------
    ndarray of uint16, shape of ``wavelength``
        ``DQ.TELLURIC`` inside the regions, 0 elsewhere.
    """
    inside = np.zeros(np.shape(wavelength), bool)
    for region in regions:
        inside |= (wavelength >= region.start - np.asarray(margin)) & (
            wavelength <= region.end + np.asarray(margin)
        )
    return np.where(inside, np.uint16(DQ.TELLURIC), np.uint16(0))
