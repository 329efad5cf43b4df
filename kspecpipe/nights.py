"""Which night a time belongs to."""

from __future__ import annotations

import math
from datetime import date

_MJD_EPOCH = date(1858, 11, 17).toordinal()


def night_of(mjd: float | None, longitude: float = 0.0) -> str:
    """Return the date on which the night began, ISO; empty when the time is unknown.

    A night runs from local noon to local noon, so that the calibrations of the afternoon and of the
    morning after belong to it, and midnight in UTC does not cut it.

    Parameters
    ----------
    mjd : float or None
        Modified Julian date, UTC.
    longitude : float
        Geographic longitude of the telescope [deg east].
    """
    if mjd is None or not math.isfinite(mjd):
        return ""
    east = (longitude + 180.0) % 360.0 - 180.0
    day = _MJD_EPOCH + math.floor(mjd + east / 360.0 - 0.5)
    return date.fromordinal(day).isoformat() if 1 <= day <= date.max.toordinal() else ""
