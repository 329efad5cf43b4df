"""Airmass and barycentric velocity in the table of fibres."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time

from kspecpipe import fibres
from kspecpipe.configuration.instrument_schema import SiteFacts
from kspecpipe.reduction.pointing import with_velocity

SITE = SiteFacts(name="Cerro Tololo", longitude=-70.8065, latitude=-30.1690, height=2207)
MJD = 61070.05


def table():
    rows = fibres.fibre_table([1, 2, 3], ["OK", "OK", "DEAD"])
    rows["RA"], rows["DEC"] = [80.0, 81.0, np.nan], [-30.0, -31.5, np.nan]
    return rows


def test_each_fibre_has_the_airmass_and_velocity_of_its_own_target():
    found = with_velocity(table(), SITE, MJD)
    place = EarthLocation.from_geodetic(-70.8065 * u.deg, -30.1690 * u.deg, 2207 * u.m)
    time = Time(MJD, format="mjd", scale="utc")
    targets = SkyCoord([80.0, 81.0] * u.deg, [-30.0, -31.5] * u.deg)
    secant = targets.transform_to(AltAz(obstime=time, location=place)).secz
    velocity = targets.radial_velocity_correction(obstime=time, location=place)
    assert np.abs(found["AIRMASS"][:2] - secant.value).max() < 1e-3
    assert np.abs(found["VBARY"][:2] - velocity.to_value(u.km / u.s)).max() < 1e-3
    assert found["VBARY"][0] != found["VBARY"][1]


def test_fibre_without_target_has_neither():
    found = with_velocity(table(), SITE, MJD)
    assert np.isnan([found["AIRMASS"][2], found["VBARY"][2]]).all()
    assert np.isfinite(found["AIRMASS"][:2]).all()


@pytest.mark.parametrize(("site", "mjd"), [(None, MJD), (SITE, np.nan)])
def test_without_site_or_time_all_is_unknown(site, mjd):
    found = with_velocity(table(), site, mjd)
    assert np.isnan(found["AIRMASS"]).all()
    assert np.isnan(found["VBARY"]).all()


def test_the_table_that_was_given_stays_as_it_was():
    given = table()
    with_velocity(given, SITE, MJD)
    assert "AIRMASS" not in given.colnames
