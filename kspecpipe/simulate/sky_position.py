"""Where the telescope points: sidereal time, airmass, positions of targets."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from kspecpipe.simulate.arrays import FloatArray

#: Plate scale [mm/degree].
_PLATE = 190.0
#: Cerro Tololo: longitude (east), latitude [degree].
SITE = (-70.8065, -30.1690)
_EPOCH = datetime(2000, 1, 1, 12, tzinfo=UTC)


def sidereal_time(when: datetime) -> float:
    """Return the local sidereal time of the site [degree]."""
    days = (when.replace(tzinfo=UTC) - _EPOCH).total_seconds() / 86400.0
    return (280.46061837 + 360.98564736629 * days + SITE[0]) % 360.0


def airmass(when: datetime, ra: float, dec: float) -> float:
    """Return the secant of the zenith distance of a position [degree]."""
    hour_angle = np.deg2rad(sidereal_time(when) - ra)
    latitude, declination = np.deg2rad(SITE[1]), np.deg2rad(dec)
    sine = np.sin(latitude) * np.sin(declination)
    sine += np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    return float(1 / sine)


def sky_places(pointing: tuple[float, float], position: FloatArray) -> FloatArray:
    """Return right ascension and declination of places on the plate, shape (n, 2).

    Parameters
    ----------
    pointing : tuple of float
        Right ascension and declination of the middle [degree].
    position : ndarray, shape (n, 2)
        On the plate [mm].
    """
    ra, dec = pointing
    right = (ra + position[:, 0] / _PLATE / np.cos(np.deg2rad(dec))) % 360.0
    return np.stack([right, dec + position[:, 1] / _PLATE], axis=1)
