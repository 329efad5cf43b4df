from __future__ import annotations

import socket

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import (
    AltAz,
    EarthLocation,
    SkyCoord,
    get_body_barycentric_posvel,
    solar_system_ephemeris,
)
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.sky.velocity import (
    SPEED_OF_LIGHT,
    Site,
    airmass,
    barycentric_velocity,
    mid_exposure,
    to_barycentre,
)

CTIO = Site(-70.8065, -30.1690, 2207)
MJD = 61069.3


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def targets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.uniform(60, 150, 20), rng.uniform(-70, 10, 20)


def test_velocity_and_airmass_agree_with_astropy():
    ra, dec = targets()
    where = EarthLocation(lon=-70.8065 * u.deg, lat=-30.1690 * u.deg, height=2207 * u.m)
    star, when = SkyCoord(ra, dec, unit="deg"), Time(MJD, format="mjd")
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        expected = star.radial_velocity_correction(obstime=when, location=where).to_value("km/s")
        secant = star.transform_to(AltAz(obstime=when, location=where)).secz
    up = secant > 0
    assert up.sum() > 10
    assert np.abs(barycentric_velocity(ra, dec, CTIO, MJD) - expected).max() < 1e-4
    assert np.abs(airmass(ra, dec, CTIO, MJD) - secant)[up].max() < 1e-6
    assert np.isnan(airmass(ra, dec, CTIO, MJD)[~up]).all()


def test_velocity_is_the_projected_motion_of_the_observatory():
    """An independent sum: Earth's barycentric velocity plus the rotation of the site."""
    ra, dec = targets()
    when = Time(MJD, format="mjd")
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        with solar_system_ephemeris.set("builtin"):
            earth = get_body_barycentric_posvel("earth", when)[1].xyz.to_value("km/s")
        spin = CTIO.location.get_gcrs_posvel(when)[1].xyz.to_value("km/s")
    direction = SkyCoord(ra, dec, unit="deg").cartesian.xyz.value
    classical = (earth + spin) @ direction
    # Relativistic terms are v**2 / c, about 1.5 m/s.
    assert np.abs(barycentric_velocity(ra, dec, CTIO, MJD) - classical).max() < 5e-3


def test_far_future_needs_neither_network_nor_tables():
    ra, dec = targets()
    velocity = barycentric_velocity(ra, dec, CTIO, 67000.0)
    assert np.abs(velocity).max() < 31
    assert np.ptp(velocity) > 1


def test_settings_of_astropy_are_left_as_they_were():
    before = (iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy)
    ephemeris = solar_system_ephemeris.get()
    barycentric_velocity(*targets(), CTIO, MJD)
    after = (iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy)
    assert after == before
    assert solar_system_ephemeris.get() == ephemeris


def test_fibres_without_target_are_nan_and_the_others_unchanged():
    ra, dec = targets()
    hole = ra.copy()
    hole[3] = np.nan
    all_of_them = barycentric_velocity(ra, dec, CTIO, MJD)
    some = barycentric_velocity(hole, dec, CTIO, MJD)
    assert np.isnan(some[3])
    assert np.delete(some, 3) == pytest.approx(np.delete(all_of_them, 3), abs=1e-12)
    nobody = np.full(3, np.nan)
    assert np.isnan(barycentric_velocity(nobody, nobody, CTIO, MJD)).all()
    assert np.isnan(airmass(nobody, nobody, CTIO, MJD)).all()


@settings(max_examples=20, deadline=None)
@given(dec=st.floats(-89, 29))
def test_a_star_on_the_meridian_has_the_airmass_of_its_declination(dec):
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        sidereal = Time(MJD, format="mjd").sidereal_time("apparent", -70.8065 * u.deg).deg
    value = airmass(np.array([sidereal]), np.array([dec]), CTIO, MJD)[0]
    # 26 years of precession and aberration move the star by up to 0.25 degree.
    low, high = (1 / np.cos(np.deg2rad(abs(dec + 30.169) + d)) for d in (-0.4, 0.4))
    assert min(low, 0.9999) <= value <= high


def test_wavelengths_are_stretched_by_the_velocity():
    wavelength = np.full((2, 3), 6000.0)
    new = to_barycentre(wavelength, np.array([30.0, np.nan]))
    assert new[0] == pytest.approx(6000 * (1 + 30 / 299792.458), rel=1e-14)
    assert (new[1] == 6000).all()
    assert pytest.approx(299792.458) == SPEED_OF_LIGHT


def test_the_middle_of_an_exposure_is_half_its_length_later():
    assert mid_exposure(61000.0, 2400) == pytest.approx(61000 + 1200 / 86400, abs=1e-9)


def test_coordinates_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"ra \(2,\) and dec \(3,\)"):
        airmass(np.zeros(2), np.zeros(3), CTIO, MJD)
