"""What flux calibration hands over: containers, and one template scaled to magnitudes."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.fluxcal.calibration import scale_template_to_photometry
from kspecpipe.fluxcal.containers import CalibrationVector, Photometry, Spectrum1D
from kspecpipe.fluxcal.photometry import load_filter_curves, synthetic_photometry
from kspecpipe.fluxcal.templates import TemplateLibrary
from kspecpipe.signal import DQ, Signal

CURVES = load_filter_curves(["gaia_bp", "ps1_g", "ps1_r", "ps1_i", "2mass_j"])
SCALE = 3e-19


@pytest.fixture(scope="module")
def template(folder):
    return TemplateLibrary(folder).get_template(6000.0, 4.5, 0.0)


@pytest.fixture
def star(template):
    """Return magnitudes of the template as seen from afar."""
    flux = SCALE * template.flux
    magnitudes = [synthetic_photometry(template.wavelength, flux, c) for c in CURVES.values()]
    return Photometry(tuple(CURVES), np.array(magnitudes), np.full(len(CURVES), 0.01))


def test_a_spectrum_counts_its_samples_and_weighs_only_good_ones():
    wave = np.linspace(4000.0, 5000.0, 5)
    good = np.array([True, True, False, True, True])
    variance = np.array([4.0, 1.0, 1.0, 0.0, 0.25])
    spectrum = Spectrum1D(wave, np.ones(5), variance, good)
    assert (spectrum.n_pixels, spectrum.n_good) == (5, 4)
    assert spectrum.wave_range == (4000.0, 5000.0)
    assert spectrum.ivar.tolist() == [0.25, 1.0, 0.0, 0.0, 4.0]
    with pytest.raises(ValueError, match="have the shapes"):
        Spectrum1D(wave, np.ones(4), variance, good)


def test_a_template_as_a_spectrum_is_on_air_wavelengths(template):
    spectrum = template.to_spectrum1d()
    alpha = np.interp(6564.614, template.wavelength, spectrum.wavelength)
    assert alpha == pytest.approx(6562.801, abs=0.003)
    np.testing.assert_array_equal(spectrum.flux, template.flux)
    assert (spectrum.meta["continuum"] >= 0.99 * spectrum.flux).all()
    assert (template.teff, template.logg, template.feh) == (6000.0, 4.5, 0.0)
    assert spectrum.meta["name"] == template.label == "T6000 g4.5 m+0.00 a+0.00"


def test_a_vector_counts_what_rests_on_data():
    response = Signal.of(np.full(6, 2.0), np.full(6, 0.01)).flag(np.arange(6) == 1, DQ.TELLURIC)
    vector = CalibrationVector(np.arange(6.0), response.flag(np.arange(6) > 3, DQ.EXTRAPOLATED))
    assert vector.n_good == 3
    np.testing.assert_allclose(vector.cal_error / vector.cal_factor, 0.05)


def test_a_template_is_scaled_to_the_magnitudes_of_its_star(template, star):
    scale, error, residuals = scale_template_to_photometry(template, star, CURVES)
    assert scale == pytest.approx(SCALE, rel=1e-9)
    assert error / scale == pytest.approx(0.01 / 1.0857 / np.sqrt(5), rel=1e-3)
    assert residuals == pytest.approx(dict.fromkeys(CURVES, 0.0), abs=1e-9)


def test_residuals_are_model_minus_star_and_precise_bands_count_more(template, star):
    faint = star.magnitudes + np.array([0.0, 0.0, 0.3, 0.0, 0.0])
    errors = np.array([0.01, 0.01, 1.0, 0.01, 0.01])
    scale, _, residuals = scale_template_to_photometry(
        template, replace(star, magnitudes=faint, mag_errors=errors), CURVES
    )
    assert scale == pytest.approx(SCALE, rel=1e-4)
    assert residuals["ps1_r"] == pytest.approx(-0.3, abs=1e-4)


def test_bands_without_a_magnitude_or_beyond_the_template_are_left_out(template, star):
    optical = slice(*np.searchsorted(template.wavelength, [3100.0, 9900.0]))
    parts = ("wavelength", "flux", "continuum")
    short = replace(template, **{name: getattr(template, name)[optical] for name in parts})
    some = replace(star, magnitudes=np.where(np.arange(5) == 1, np.nan, star.magnitudes))
    scale, _, residuals = scale_template_to_photometry(short, some, CURVES)
    assert scale == pytest.approx(SCALE, rel=1e-3)
    assert set(residuals) == {"gaia_bp", "ps1_r", "ps1_i"}
    infrared = {"2mass_j": CURVES["2mass_j"]}
    with pytest.raises(ValueError, match=r"no band of \['2mass_j'\]"):
        scale_template_to_photometry(short, some, infrared)
