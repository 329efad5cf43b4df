"""Transmission of the air, from standards and from a table."""

from __future__ import annotations

import numpy as np
import pytest

from kspecpipe.regions import WavelengthRegion
from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.transmission import transmission_of_standards, transmission_of_table

WAVELENGTH = np.arange(6500.0, 8000.0, 2.0)
BANDS = (WavelengthRegion(6860, 6950, "O2"), WavelengthRegion(7590, 7670, "O2"))
TRUE = (
    1
    - 0.4 * np.exp(-(((WAVELENGTH - 6900) / 15) ** 2))
    - 0.7 * np.exp(-(((WAVELENGTH - 7630) / 12) ** 2))
)


def stars(noise: float = 0.0) -> Signal:
    continuum = np.stack([3e4 * (WAVELENGTH / 7000) ** slope for slope in (-2.0, -3.5, 0.0)])
    light = continuum * TRUE
    error = noise * np.sqrt(light)
    value = light + error * np.random.default_rng(4).normal(size=light.shape)
    return Signal.of(value, error**2 + 1e-6)


STANDARDS = np.array([True, True, False])


def test_bands_of_standards_give_the_transmission_and_nothing_elsewhere():
    found = transmission_of_standards(stars(), WAVELENGTH, STANDARDS, BANDS)
    inside = (TRUE < 0.999) & (found != 1)
    assert inside.sum() > 50
    assert np.abs(found - TRUE)[inside].max() < 0.003
    assert (found[(WAVELENGTH > 7000) & (WAVELENGTH < 7500)] == 1).all()


def test_transmission_of_noisy_standards_is_as_good_as_their_light():
    found = transmission_of_standards(stars(1.0), WAVELENGTH, STANDARDS, BANDS)
    inside = found != 1
    expected = np.sqrt(TRUE / 2 / 3e4)
    assert abs(((found - TRUE) / expected)[inside].std() - 1) < 4 / np.sqrt(2 * inside.sum()) + 0.1


def test_stars_that_are_not_standards_bad_samples_and_no_standards_are_harmless():
    clean = stars()
    spoilt = clean.value.copy()
    spoilt[2] *= 3 + np.sin(WAVELENGTH / 9)
    spoilt[0, 190:200] = 1e9
    hit = np.zeros(clean.shape, bool)
    hit[0, 190:200] = True
    signal = Signal(spoilt, clean.variance, clean.dq).flag(hit, DQ.COSMIC)
    found = transmission_of_standards(signal, WAVELENGTH, STANDARDS, BANDS)
    inside = found != 1
    assert np.abs(found - TRUE)[inside].max() < 0.003
    none = transmission_of_standards(clean, WAVELENGTH, np.zeros(3, bool), BANDS)
    assert (none == 1).all()


def test_a_band_at_the_end_of_the_spectrum_is_not_measured():
    late = (WavelengthRegion(7960, 8100),)
    assert (transmission_of_standards(stars(), WAVELENGTH, STANDARDS, late) == 1).all()


def test_a_table_is_scaled_to_the_airmass_and_blurred_by_the_lsf():
    at = np.arange(6000.0, 8500.0, 0.5)
    line = 1 - 0.8 * ((at > 7000) & (at < 7002))
    fwhm = np.full((3, len(WAVELENGTH)), 10.0)
    fwhm[2] = np.nan
    found = transmission_of_table((at, line), WAVELENGTH, fwhm, np.array([1.0, 2.0, 1.0]))
    lost = (1 - found).sum(axis=1) * 2.0
    assert lost[0] == pytest.approx(0.8 * 1.5, rel=0.4)
    assert lost[1] / lost[0] == pytest.approx((1 - 0.2**2) / 0.8, rel=0.01)
    width = (1 - found[0]) > (1 - found[0]).max() / 2
    assert width.sum() * 2.0 == pytest.approx(10, abs=2.1)
    assert (found[2] == 1).all()


def test_an_unknown_airmass_is_that_of_the_others_and_beyond_the_table_the_air_is_clear():
    at = np.array([6600.0, 6700.0])
    fwhm = np.full((2, len(WAVELENGTH)), 5.0)
    found = transmission_of_table(
        (at, np.array([0.5, 0.5])), WAVELENGTH, fwhm, np.array([2, np.nan])
    )
    assert found[:, 70:80] == pytest.approx(0.25, abs=0.01)
    assert found[:, 200:] == pytest.approx(1.0, abs=1e-12)
