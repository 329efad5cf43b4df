"""Regions of wavelength that are flagged or left out: telluric bands, strong stellar lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kspecpipe.ecsv import ecsv_cells
from kspecpipe.signal import BoolArray, FloatArray

_LIGHT = 299792.458


@dataclass(frozen=True, slots=True)
class WavelengthRegion:
    """Limits in air wavelength [Angstrom] and what lies there: a molecule, a line."""

    start: float
    end: float
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse an empty region."""
        if not 0 < self.start < self.end:
            raise ValueError(f"region {self.start} to {self.end} is empty or not positive")


def parse_regions(text: str) -> tuple[WavelengthRegion, ...]:
    """Read regions from the text of an ECSV table with columns ``start``, ``end`` [Angstrom, air].

    The first further column, if there is one, names the regions.

    Raises
    ------
    ValueError
        If a column is missing or a region is empty.
    """
    names, lines = ecsv_cells(text)
    missing = {"start", "end"} - set(names)
    if missing:
        raise ValueError(
            f"regions have no column {sorted(missing)}; found {names}, expected start, "
            "end and optionally a name"
        )
    label = next((name for name in names if name not in ("start", "end")), "")
    rows = (dict(zip(names, cells, strict=True)) for _, _, cells in lines)
    return tuple(
        WavelengthRegion(float(row["start"]), float(row["end"]), row.get(label, "")) for row in rows
    )


def combine_regions(*lists: Sequence[WavelengthRegion]) -> tuple[WavelengthRegion, ...]:
    """Join lists of regions, sorted; overlapping ones become one whose name joins theirs."""
    merged: list[WavelengthRegion] = []
    for region in sorted((r for part in lists for r in part), key=lambda r: (r.start, r.end)):
        if merged and region.start <= merged[-1].end:
            last = merged[-1]
            names = dict.fromkeys(filter(None, [*last.name.split("+"), *region.name.split("+")]))
            merged[-1] = WavelengthRegion(last.start, max(last.end, region.end), "+".join(names))
        else:
            merged.append(region)
    return tuple(merged)


def inside_regions(
    wavelength: FloatArray,
    regions: Sequence[WavelengthRegion],
    *,
    margin: npt.ArrayLike = 0.0,
    velocity: float = 0.0,
) -> BoolArray:
    """Tell which samples lie in a region.

    Parameters
    ----------
    wavelength : ndarray, any shape
        Air wavelength [Angstrom]; NaN lies in none.
    regions : sequence of WavelengthRegion
        At rest.
    margin : float or ndarray that broadcasts to ``wavelength``
        Widening on either side [Angstrom], for instance half of the LSF's FWHM.
    velocity : float
        Radial velocity by which the regions move [km/s].

    Returns
    -------
    ndarray of bool, shape of ``wavelength``
    """
    inside = np.zeros(np.shape(wavelength), bool)
    shift = 1 + velocity / _LIGHT
    width = np.asarray(margin)
    for region in regions:
        inside |= (wavelength >= region.start * shift - width) & (
            wavelength <= region.end * shift + width
        )
    return inside
