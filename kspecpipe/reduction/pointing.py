"""Airmass and barycentric velocity of every fibre, as columns of the FIBRES table."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from kspecpipe.configuration.instrument_schema import SiteFacts


def with_velocity(table: Table, site: SiteFacts | None, mjd: float) -> Table:
    """Return the table with AIRMASS and VBARY [km/s] of each fibre's target.

    Spectra stay at the wavelengths that were observed: add VBARY to a measured radial velocity, or
    use `kspecpipe.sky.velocity.to_barycentre`. The numbers need no network.

    Parameters
    ----------
    table : Table
        FIBRES, with RA and DEC [degree, ICRS]; NaN where a fibre has no target.
    site : SiteFacts or None
        Place of the telescope; without one all is NaN.
    mjd : float
        Middle of the exposure [MJD, UTC].
    """
    from kspecpipe.sky.velocity import Site, airmass, barycentric_velocity

    filled = table.copy()
    filled["AIRMASS"] = np.full(len(table), np.nan)
    filled["VBARY"] = np.full(len(table), np.nan)
    if site is None or not np.isfinite(mjd):
        return filled
    ra, dec = (np.asarray(table[name], dtype=float) for name in ("RA", "DEC"))
    place = Site(site.longitude, site.latitude, site.height)
    filled["AIRMASS"] = airmass(ra, dec, place, mjd)
    filled["VBARY"] = barycentric_velocity(ra, dec, place, mjd)
    filled["VBARY"].unit = "km/s"
    return filled
