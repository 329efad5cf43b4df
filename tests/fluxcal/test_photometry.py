"""Magnitudes, filters, synthetic photometry."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import speclite.filters
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.photometry import (
    FILTER_INFO,
    ab_mag_to_flam,
    ab_mag_to_fnu,
    band_weights,
    fnu_to_ab_mag,
    load_filter_curve,
    synthetic_color,
    synthetic_photometry,
)

LIGHT = 2.99792458e18
WAVE = np.arange(2000.0, 26000.0, 3.0)


def test_magnitude_zero_is_3631_jansky():
    assert ab_mag_to_fnu(0.0)[0] == pytest.approx(3.631e-20, rel=1e-4)


@given(magnitude=st.floats(-5, 30), error=st.floats(1e-4, 0.5))
def test_magnitudes_and_fluxes_turn_into_each_other_and_back(magnitude, error):
    back, back_error = fnu_to_ab_mag(*ab_mag_to_fnu(magnitude, error))
    assert back == pytest.approx(magnitude, abs=1e-9)
    assert back_error == pytest.approx(error, rel=1e-9)


def test_flux_per_wavelength_is_that_per_frequency_times_c_over_wavelength_squared():
    flam, error = ab_mag_to_flam(15.0, 5000.0, 0.1)
    assert flam == pytest.approx(ab_mag_to_fnu(15.0)[0] * LIGHT / 5000.0**2)
    assert error / flam == pytest.approx(0.0921, abs=1e-4)


def test_a_flux_that_is_not_positive_has_no_magnitude():
    assert np.isnan(fnu_to_ab_mag([0.0, -1.0])[0]).all()


@pytest.mark.parametrize("name", sorted(FILTER_INFO))
def test_a_flat_spectrum_per_frequency_has_its_magnitude_in_every_band(name):
    flux = ab_mag_to_fnu(17.0)[0] * LIGHT / WAVE**2
    # The trapezium over 3 Angstrom is right to a few parts in a million.
    assert synthetic_photometry(WAVE, flux, load_filter_curve(name)) == pytest.approx(
        17.0, abs=2e-5
    )


@pytest.mark.parametrize("name", ["ps1_g", "gaia_bp", "gaia_rp", "2mass_k"])
def test_synthetic_photometry_agrees_with_speclite(name):
    flux = 1e-15 * np.exp(-(((WAVE - 6000) / 5000) ** 2)) * (1 + 0.3 * np.sin(WAVE / 90.0))
    theirs = speclite.filters.load_filter(FILTER_INFO[name].speclite).get_ab_magnitude(
        flux * u.erg / u.s / u.cm**2 / u.AA, WAVE * u.AA
    )
    assert synthetic_photometry(WAVE, flux, load_filter_curve(name)) == pytest.approx(
        theirs, abs=1e-3
    )


def test_a_spectrum_which_covers_too_little_of_a_band_has_no_magnitude():
    flux = np.ones_like(WAVE)
    optical = (WAVE > 3600) & (WAVE < 8900)
    assert np.isfinite(
        synthetic_photometry(WAVE[optical], flux[optical], load_filter_curve("ps1_r"))
    )
    assert np.isnan(
        synthetic_photometry(WAVE[optical], flux[optical], load_filter_curve("gaia_bp"))
    )
    assert band_weights(WAVE[optical], load_filter_curve("gaia_bp"))[1] < 0.999
    assert band_weights(WAVE[optical], load_filter_curve("2mass_j"))[1] == 0


def test_nan_outside_of_the_band_does_not_matter():
    flux = np.where(WAVE > 12000, np.nan, 1e-15)
    assert np.isfinite(synthetic_photometry(WAVE, flux, load_filter_curve("ps1_i")))


@given(factor=st.floats(1e-3, 1e3), slope=st.floats(-3, 3))
def test_a_brighter_star_keeps_its_colour(factor, slope):
    flux = 1e-15 * (WAVE / 6000) ** slope
    pair = load_filter_curve("gaia_bp"), load_filter_curve("gaia_rp")
    one, other = (synthetic_color(WAVE, f, *pair) for f in (flux, factor * flux))
    assert one == pytest.approx(float(other), abs=1e-9)


def test_a_filter_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no filter 'sdss_q'"):
        load_filter_curve("sdss_q")


def test_filters_know_where_they_are():
    curve = load_filter_curve("ps1_r")
    assert (curve.system, load_filter_curve("gaia_g").system) == ("AB", "Vega")
    assert curve.wave_eff == pytest.approx(6215, abs=40)
    flat = np.ones_like(curve.wavelength) * 1e-15  # means per Angstrom and per Hertz agree there
    magnitude = synthetic_photometry(curve.wavelength, flat, curve)
    assert ab_mag_to_flam(magnitude, curve.pivot_wavelength)[0] == pytest.approx(1e-15, rel=1e-3)
    assert curve.half_width == pytest.approx(1400 / np.sqrt(12), rel=0.05)
    assert curve.wave_range[0] > 5300
    assert curve.wave_range[1] < 7100


def test_vega_offsets_are_the_ab_magnitudes_of_calspec_vega():
    spec = find_spec("pyphot")
    if spec is None:
        pytest.skip("pyphot, which carries the CALSPEC spectrum of Vega, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "libs" / "alpha_lyr_stis_011.fits"
    with warnings.catch_warnings(), fits.open(path) as hdus:
        # Its header has a null value that astropy does not like.
        warnings.simplefilter("ignore")
        wave = np.array(hdus[1].data["WAVELENGTH"], float)
        flux = np.array(hdus[1].data["FLUX"], float)
    vega = [name for name, info in FILTER_INFO.items() if info.vega_to_ab]
    assert len(vega) == 9
    for name in vega:
        integrated = synthetic_photometry(wave, flux, load_filter_curve(name))
        assert FILTER_INFO[name].vega_to_ab == pytest.approx(float(integrated), abs=0.002), name


def test_vega_offsets_agree_with_published_ones_and_gaia_rp_is_positive():
    """Evans et al. 2018 (Gaia DR2), Blanton & Roweis 2007 (2MASS): within their differences."""
    published = {
        "gaia_g": 0.1069,
        "gaia_bp": 0.0266,
        "gaia_rp": 0.3539,
        "2mass_j": 0.91,
        "2mass_h": 1.39,
        "2mass_k": 1.85,
    }
    for name, offset in published.items():
        assert FILTER_INFO[name].vega_to_ab == pytest.approx(offset, abs=0.035)


def test_photometry_refuses_arrays_of_different_length():
    with pytest.raises(ValueError, match="2 bands"):
        Photometry(("ps1_g", "ps1_r"), np.zeros(2), np.zeros(3))


def test_a_band_that_was_not_measured_has_no_magnitude_and_no_colour():
    star = Photometry(("ps1_g", "ps1_r"), np.array([15.0, np.nan]), np.array([0.01, 0.01]))
    assert star.get_band("ps1_g") == (15.0, 0.01)
    assert np.isnan(star.colour("ps1_g", "ps1_r"))
    assert np.isnan(star.get_band("2mass_j")).all()
    assert star.valid_bands() == ("ps1_g",)
