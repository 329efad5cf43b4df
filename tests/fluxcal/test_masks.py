"""Masks of a spectrum, reddening, vacuum and air."""

import numpy as np
import pytest

from kspecpipe.fluxcal.air import vacuum_to_air
from kspecpipe.fluxcal.containers import Spectrum1D
from kspecpipe.fluxcal.masks import (
    apply_mask_regions,
    apply_named_mask,
    load_mask_array,
    mask_coverage_fraction,
)
from kspecpipe.fluxcal.reddening import reddening_law
from kspecpipe.regions import WavelengthRegion

WAVE = np.arange(3800.0, 8900.0)


@pytest.mark.parametrize("name", ["stellar_lines", "telluric_regions"])
def test_shipped_masks_leave_most_of_the_spectrum(name):
    assert 0.03 < mask_coverage_fraction(WAVE, name) < 0.35


def test_wavelengths_in_another_unit_are_not_covered_at_all():
    assert mask_coverage_fraction(WAVE / 10) == 0


def test_a_mask_leaves_the_samples_outside_its_regions():
    keep = load_mask_array(np.array([5500.0, 7600.0, 7000.0, 8600.0]))
    assert keep.tolist() == [True, False, False, True]


def test_masking_a_spectrum_takes_samples_away_and_gives_none_back():
    good = WAVE > 4000
    spectrum = Spectrum1D(WAVE, np.ones(WAVE.size), np.ones(WAVE.size), good, {"name": "star"})
    masked = apply_mask_regions(spectrum, [WavelengthRegion(3900, 4100), WavelengthRegion(5, 6)])
    assert masked.n_good == np.sum(WAVE > 4100)
    assert masked.meta == spectrum.meta
    assert spectrum.n_good == good.sum()
    air = apply_named_mask(spectrum)
    assert (air.good == (good & load_mask_array(WAVE))).all()
    assert air.n_good < spectrum.n_good


def test_reddening_lies_between_the_two_laws_in_use():
    """Published points: A_V = 3.055 (Fitzpatrick) and 3.116 E(B-V) (Cardelli) at 5470 Angstrom."""
    # Cardelli: x = 1.8282 gives y = 0.0082 and A / E(B-V) = 3.1 a + b = 3.1 * 1.0014 + 0.0117.
    assert reddening_law(np.array([5470.0]))[0] == pytest.approx((3.055 + 3.116) / 2, abs=2e-3)
    # In the infrared: a = 0.574 x^1.61, b = -0.527 x^1.61 with x = 0.8197 at 12200 Angstrom.
    infrared = (3.1 * 0.574 - 0.527) * (1 / 1.22) ** 1.61
    assert reddening_law(np.array([12200.0]))[0] == pytest.approx((0.829 + infrared) / 2, abs=1e-3)
    blue, visual = reddening_law(np.array([4400.0, 5500.0]))
    assert blue - visual == pytest.approx(1.0, abs=0.06)


def test_reddening_falls_smoothly_with_wavelength_even_where_a_law_ends():
    curve = reddening_law(np.arange(2700.0, 25000.0, 10.0))
    assert (np.diff(curve) < 0).all()
    assert np.abs(np.diff(curve)).max() < 0.03


def test_air_wavelengths_are_those_of_well_known_lines():
    """Ca II K and H alpha in vacuum and air, NIST."""
    air = vacuum_to_air(np.array([3934.777, 6564.614]))
    np.testing.assert_allclose(air, [3933.663, 6562.801], atol=0.003)
