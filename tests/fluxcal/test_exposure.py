"""Applying a response."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.exposure import (
    Observation,
    apply_flux_calibration,
    require_same_wavelength,
    require_uncalibrated,
)
from kspecpipe.signal import DQ, Signal

WAVE = 4000.0 + 4.0 * np.arange(50)


def observation(**changes):
    values = {
        "wavelength": WAVE,
        "lsf": np.full((2, 50), 15.0),
        "exptime": 300.0,
        "airmass": 1.5,
        "extinction": np.full(50, 0.2),
    }
    return Observation(**{**values, **changes})


def test_electrons_become_flux_above_the_air():
    spectra = Signal.of(np.full((2, 50), 1200.0), 1200.0)
    flux = apply_flux_calibration(spectra, observation(), Signal.of(np.full(50, 2e-17), 0.0))
    expected = 1200 / 300 / 4 * 10 ** (0.4 * 0.2 * 1.5) * 2e-17
    np.testing.assert_allclose(flux.value, expected)
    np.testing.assert_allclose(flux.error / flux.value, 1 / np.sqrt(1200))


def test_the_error_of_the_response_adds_in_quadrature():
    spectra = Signal.of(np.full((2, 50), 400.0), 400.0)
    response = Signal.of(np.full(50, 2e-17), (0.03 * 2e-17) ** 2)
    flux = apply_flux_calibration(spectra, observation(), response)
    np.testing.assert_allclose(flux.error / flux.value, np.hypot(0.05, 0.03))


def test_flags_join_and_without_response_there_is_no_flux():
    response = Signal.of(np.full(50, 1.0)).flag(np.arange(50) < 5, DQ.TELLURIC)
    value = response.value.copy()
    value[-3:] = np.nan
    flux = apply_flux_calibration(
        Signal.of(np.ones((2, 50))).flag(np.eye(2, 50, dtype=bool), DQ.HOT),
        observation(),
        Signal(value, response.variance, response.dq),
    )
    assert (flux.dq[0, 0] & DQ.HOT) and (flux.dq[0, 0] & DQ.TELLURIC)
    assert np.isnan(flux.value[:, -3:]).all()
    assert ((flux.dq[:, -3:] & DQ.NO_DATA) > 0).all()
    assert np.isfinite(flux.value[:, :-3]).all()


@given(time=st.floats(1, 1e5), airmass=st.floats(1, 3))
def test_a_star_has_the_same_flux_whatever_exposure_and_airmass(time, airmass):
    rate = np.full((2, 50), 7.0)
    seen = rate * 4.0 * time * 10 ** (-0.4 * 0.2 * airmass)
    where = observation(exptime=time, airmass=np.array([airmass, airmass]))
    flux = apply_flux_calibration(Signal.of(seen), where, Signal.of(np.full(50, 3e-17)))
    np.testing.assert_allclose(flux.value, 2.1e-16, rtol=1e-9)


def test_the_inputs_stay_as_they_are():
    spectra, response = Signal.of(np.ones((2, 50)), 1.0), Signal.of(np.ones(50), 0.1)
    apply_flux_calibration(spectra, observation(), response)
    assert (spectra.value == 1).all()
    assert (response.dq == 0).all()


def test_calibrated_spectra_are_refused():
    with pytest.raises(RecipeError, match="calibrating twice"):
        require_uncalibrated("erg/s/cm2/Angstrom")
    require_uncalibrated("electron")


def test_a_response_of_another_mode_is_refused():
    require_same_wavelength(WAVE, WAVE + 0.1)
    for other in (WAVE + 3.0, WAVE[:-1]):
        with pytest.raises(RecipeError, match="another mode"):
            apply_flux_calibration(
                Signal.of(np.ones((2, 50))), observation(), Signal.of(np.ones(other.size)), other
            )


@pytest.mark.parametrize(
    "changes", [{"exptime": 0.0}, {"airmass": 0.5}, {"extinction": np.zeros(3)}]
)
def test_what_cannot_be_an_exposure_is_refused(changes):
    with pytest.raises(ValueError, match=r"exposure time|fit together"):
        observation(**changes)
