"""Airmass and barycentric velocity of each fibre's target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.constants import c
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, solar_system_ephemeris
from astropy.time import Time
from astropy.utils import iers
from astropy.utils.exceptions import AstropyWarning

from kspecpipe.signal import BoolArray, FloatArray

#: Speed of light [km/s].
SPEED_OF_LIGHT = float(c.to_value(u.km / u.s))
#: Days of Earth orientation read around an exposure.
_DAYS = 3


@dataclass(frozen=True, slots=True)
class Site:
    """Place of the telescope: degrees east, degrees north, metres above the ellipsoid."""

    longitude: float
    latitude: float
    height: float

    @property
    def location(self) -> EarthLocation:
        """The same as astropy's geodetic location."""
        return EarthLocation.from_geodetic(
            self.longitude * u.deg, self.latitude * u.deg, self.height * u.m
        )


def mid_exposure(mjd_start: float, exptime: float) -> float:
    """Middle of an exposure [MJD, UTC] from its start [MJD, UTC] and length [s]."""
    return mjd_start + exptime / 2 / 86400.0


def airmass(ra: FloatArray, dec: FloatArray, site: Site, mjd: float) -> FloatArray:
    """Airmass (secant of the true zenith distance, no refraction).

    Parameters
    ----------
    ra, dec : ndarray, shape (nfib,)
        ICRS coordinates [degree]; NaN where a fibre has no target.
    site : Site
        Place of the telescope.
    mjd : float
        Mid-exposure [MJD, UTC].

    Returns
    -------
    ndarray, shape (nfib,)
        Airmass; NaN without coordinates or below the horizon.

    Raises
    ------
    ValueError
        If ``ra`` and ``dec`` differ in shape.
    """
    known = _known(ra, dec)
    result = np.full(known.shape, np.nan)
    if known.any():
        with _bundled_earth_orientation(mjd):
            frame = AltAz(obstime=Time(mjd, format="mjd", scale="utc"), location=site.location)
            zenith = _targets(ra, dec, known).transform_to(frame).zen.rad
        secant = 1 / np.cos(zenith)
        result[known] = np.where(secant > 0, secant, np.nan)
    return result


def barycentric_velocity(ra: FloatArray, dec: FloatArray, site: Site, mjd: float) -> FloatArray:
    """Velocity to add to a measured radial velocity to refer it to the solar system's barycentre.

    The full correction is ``v_true = v_measured + v + v_measured v / c``: multiply wavelengths by
    ``1 + v / c``, see `to_barycentre`.

    Parameters
    ----------
    ra, dec : ndarray, shape (nfib,)
        ICRS coordinates [degree]; NaN where a fibre has no target.
    site : Site
        Place of the telescope.
    mjd : float
        Mid-exposure [MJD, UTC].

    Returns
    -------
    ndarray, shape (nfib,)
        Velocity [km/s], positive when the telescope moves towards the target; NaN without
        coordinates.

    Raises
    ------
    ValueError
        If ``ra`` and ``dec`` differ in shape.

    References
    ----------
    .. [1] Wright & Eastman 2014, PASP 126, 838.
    """
    known = _known(ra, dec)
    result = np.full(known.shape, np.nan)
    if known.any():
        with _bundled_earth_orientation(mjd):
            velocity = _targets(ra, dec, known).radial_velocity_correction(
                "barycentric",
                obstime=Time(mjd, format="mjd", scale="utc"),
                location=site.location,
            )
        result[known] = velocity.to_value(u.km / u.s)
    return result


def to_barycentre(wavelength: FloatArray, velocity: FloatArray) -> FloatArray:
    """Refer wavelengths to the barycentre.

    Parameters
    ----------
    wavelength : ndarray, shape (nfib, n)
        Observed wavelength [Angstrom]. The refractive index of air changes by less than 1e-8
        under the shift, so air wavelengths may be used directly.
    velocity : ndarray, shape (nfib,)
        From `barycentric_velocity` [km/s]; NaN leaves a fibre as it is.
    """
    return wavelength * (1 + np.nan_to_num(velocity)[:, None] / SPEED_OF_LIGHT)


def _known(ra: FloatArray, dec: FloatArray) -> BoolArray:
    if np.shape(ra) != np.shape(dec):
        raise ValueError(f"ra {np.shape(ra)} and dec {np.shape(dec)} differ in shape")
    return np.isfinite(ra) & np.isfinite(dec)


def _targets(ra: FloatArray, dec: FloatArray, known: BoolArray) -> SkyCoord:
    return SkyCoord(np.asarray(ra)[known] * u.deg, np.asarray(dec)[known] * u.deg, frame="icrs")


@contextmanager
def _bundled_earth_orientation(mjd: float) -> Iterator[None]:
    """Use the tables and the ephemeris that astropy ships: no download, no look at their age.

    A predicted or missing UT1-UTC (< 0.9 s) changes the velocity by less than 0.03 m/s.
    """
    with ExitStack() as settings:
        settings.enter_context(iers.conf.set_temp("auto_download", False))
        settings.enter_context(iers.conf.set_temp("auto_max_age", None))
        settings.enter_context(iers.conf.set_temp("iers_degraded_accuracy", "ignore"))
        settings.enter_context(solar_system_ephemeris.set("builtin"))
        settings.enter_context(iers.earth_orientation_table.set(_orientation_near(mjd)))
        settings.enter_context(warnings.catch_warnings())
        # Leap seconds and poles of the future are unknown; they change less than 0.03 m/s.
        warnings.filterwarnings("ignore", message=".*dubious year")
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _orientation_near(mjd: float) -> iers.IERS | None:
    """Read some days of the bundled table, None if it lacks them: its 50 years take a second.

    References
    ----------
    .. [1] Columns: https://maia.usno.navy.mil/ser7/readme.finals2000A
    """
    text = Path(iers.IERS_A_FILE).read_text(encoding="ascii")
    near = [line for line in text.splitlines() if abs(float(line[7:15]) - mjd) < _DAYS]
    if len(near) <= _DAYS or not all(line[58:68].strip() for line in near):
        return None
    part = {"MJD": (7, 15, u.d), "UT1_UTC": (58, 68, u.s)}
    part |= {"PM_x": (18, 27, u.arcsec), "PM_y": (37, 46, u.arcsec)}
    return iers.IERS(
        {
            name: np.array([float(line[a:b]) for line in near]) * unit
            for name, (a, b, unit) in part.items()
        }
    )
