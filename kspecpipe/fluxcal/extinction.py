"""Atmospheric extinction: the curves of observatories, and which of them belongs to a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from kspecpipe.signal import FloatArray


@dataclass(frozen=True, slots=True)
class ExtinctionCurve:
    """Mean extinction of an observatory.

    Parameters
    ----------
    name : str
        Short name, as in settings and headers.
    wavelength, magnitude : ndarray, shape (n,)
        Air wavelength [Angstrom] and extinction per unit airmass [mag].
    longitude, latitude : float
        Of the observatory [degree, east].
    """

    name: str
    wavelength: FloatArray
    magnitude: FloatArray
    longitude: float = float("nan")
    latitude: float = float("nan")

    def at(self, wavelength: FloatArray) -> FloatArray:
        """Return the extinction at wavelengths; beyond the table its last value [mag]."""
        return np.interp(wavelength, self.wavelength, self.magnitude)


def parse_extinction(text: str, name: str) -> ExtinctionCurve:
    """Read a curve from the text of an ECSV table with columns ``wavelength`` and ``extinction``.

    Raises
    ------
    ValueError
        If a column is missing or the wavelengths do not rise.
    """
    table = Table.read(text.splitlines(), format="ascii.ecsv")
    missing = {"wavelength", "extinction"} - set(table.colnames)
    if missing:
        raise ValueError(f"{name}: no column {sorted(missing)}; found {table.colnames}")
    wavelength = np.asarray(table["wavelength"], float)
    if not (np.diff(wavelength) > 0).all():
        raise ValueError(f"{name}: the wavelengths do not rise")
    place = (float(table.meta.get(key, np.nan)) for key in ("longitude", "latitude"))
    return ExtinctionCurve(name, wavelength, np.asarray(table["extinction"], float), *place)


def nearest_curve(
    curves: Mapping[str, ExtinctionCurve], longitude: float, latitude: float
) -> ExtinctionCurve:
    """Return the curve of the observatory nearest to a place [degree]."""
    return min(curves.values(), key=lambda curve: _distance(curve, longitude, latitude))


def no_extinction() -> ExtinctionCurve:
    """Return the curve of a telescope above the air, or of one whose response contains the air."""
    return ExtinctionCurve("none", np.array([3000.0, 11000.0]), np.zeros(2))


def tabulated(name: str, wavelength: FloatArray, magnitude: FloatArray) -> ExtinctionCurve:
    """Return the curve that a RESPONSE was made with."""
    return ExtinctionCurve(name, wavelength, np.asarray(magnitude, float))


def _distance(curve: ExtinctionCurve, longitude: float, latitude: float) -> float:
    """Return the angle between two places [radian]."""
    a, b = (
        _direction(*place) for place in ((curve.longitude, curve.latitude), (longitude, latitude))
    )
    return float(np.arccos(np.clip(a @ b, -1.0, 1.0)))


def _direction(longitude: float, latitude: float) -> FloatArray:
    angles: Sequence[float] = np.deg2rad([longitude, latitude]).tolist()
    east, north = angles
    return np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
