"""Templates against stars: velocity, lines, colours."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.fluxcal.colour import (
    ColourOptions,
    CorrectionBasis,
    colour_correction,
    estimate_teff_from_colors,
    fit_colours,
    predicted_residual,
)
from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.grid import BANDS
from kspecpipe.fluxcal.lines import MatchOptions, Star, score_templates, shared_samples
from kspecpipe.fluxcal.matching import cross_correlate_rv, select_best_template, select_candidates
from kspecpipe.fluxcal.reddening import reddening_law


def magnitudes(grid, row, error=0.005, offset=30.0):
    return Photometry(BANDS, grid.magnitude[row] + offset, np.full(len(BANDS), error))


def star_of(grid, row, snr=100.0, velocity=0.0, seed=0):
    """Show a template as a star, through a response with a slope; no code of fluxcal."""
    wave = 3800.0 + 4.0 * np.arange(1200)
    lsf = 3 * wave / 2000
    fine = np.interp(wave / (1 + velocity / 299792.458), grid.wavelength, grid.flux[row])
    sigma = lsf[0] / 2.3548 / 4.0
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / sigma) ** 2)
    seen = np.convolve(fine, kernel / kernel.sum(), mode="same") * (wave / 6000) ** 3
    noise = seen / snr
    good = np.ones(wave.size, bool)
    good[:10] = good[-10:] = False
    flux = seen + np.random.default_rng(seed).normal(0, noise)
    return Star(wave, flux, noise**2, good, np.hypot(lsf, 0))


def test_temperature_from_colour_is_that_of_the_librarys_own_colours(grid):
    for row in range(len(grid)):
        found = estimate_teff_from_colors(grid, magnitudes(grid, row))
        assert found.colour == ("gaia_bp", "gaia_rp")
        assert found.teff == pytest.approx(grid.teff[row], abs=4 * found.error + 1)
        assert found.beyond == 0


def test_the_relation_of_colour_and_temperature_belongs_to_the_library_not_to_a_zero_point(grid):
    """With a zero point wrong by 0.77 mag in library and star alike nothing changes."""
    wrong = np.where([name == "gaia_rp" for name in BANDS], 0.77, 0.0)
    shifted = replace(grid, magnitude=grid.magnitude + wrong)
    for row in (0, 9, 20):
        right = estimate_teff_from_colors(grid, magnitudes(grid, row))
        same = estimate_teff_from_colors(shifted, magnitudes(shifted, row))
        assert same.teff == pytest.approx(right.teff, abs=1e-3)


def test_without_gaia_another_colour_is_used_and_without_any_none(grid):
    full = magnitudes(grid, 3)
    gaia = np.array([name.startswith("gaia") for name in BANDS])
    some = replace(full, magnitudes=np.where(gaia, np.nan, full.magnitudes))
    assert estimate_teff_from_colors(grid, some).colour == ("ps1_g", "ps1_i")
    only = replace(full, magnitudes=np.where(np.arange(10) == 0, full.magnitudes, np.nan))
    assert estimate_teff_from_colors(grid, only) is None
    assert select_candidates(grid.teff, None, 500.0).size == len(grid)


def test_the_lines_of_a_noisy_star_count_as_much_as_their_noise_allows(grid):
    """Errors of models reach over many samples, noise does not: faint stars keep their lines."""
    wave = grid.wavelength[(grid.wavelength > 3800) & (grid.wavelength < 8800)][::12]
    flux = np.ones(wave.size)

    def samples(noise):
        star = Star(wave, flux, np.full(wave.size, noise**2), flux > 0, np.full(wave.size, 15.0))
        return shared_samples(star, MatchOptions())

    assert samples(1e-4) == pytest.approx(MatchOptions().correlation, rel=0.01)
    assert samples(0.5) == pytest.approx(MatchOptions().noise_correlation, rel=0.02)
    assert samples(0.5) < samples(0.03) < samples(0.01) < samples(1e-4)


def test_a_star_bluer_than_the_library_is_known_as_such(grid):
    photometry = magnitudes(grid, int(np.argmax(grid.teff)))
    hotter = photometry.magnitudes.copy()
    hotter[BANDS.index("gaia_bp")] -= 0.3
    assert estimate_teff_from_colors(grid, replace(photometry, magnitudes=hotter)).beyond < -0.15


def test_candidates_are_near_the_colours_temperature(grid):
    estimate = estimate_teff_from_colors(grid, magnitudes(grid, 0))
    near = select_candidates(grid.teff, estimate, 300.0)
    assert 0 < near.size < len(grid)
    assert (np.abs(grid.teff[near] - estimate.teff) < 450).all()


def test_the_right_model_needs_no_correction(grid):
    options = ColourOptions()
    fit = fit_colours(grid, np.arange(len(grid)), magnitudes(grid, 5), options)
    assert int(np.argmin(fit.chi2)) == 5
    assert fit.chi2[5] == pytest.approx(0, abs=1e-6)
    curve, variance = colour_correction(
        fit, 5, CorrectionBasis.of(grid, grid.wavelength, options), options
    )
    np.testing.assert_allclose(curve, 30.0, atol=1e-4)
    assert np.sqrt(variance).max() < options.scale * options.blue * 2.2
    assert fit.grey[5] == pytest.approx(30.0, abs=1e-4)


def test_reddening_is_found_from_the_colours(grid):
    """Bands are reddened by integration over the template, not by the fit's own weights."""
    from kspecpipe.fluxcal.photometry import load_filter_curve, synthetic_photometry

    dust = 10 ** (-0.4 * 0.15 * reddening_law(grid.sed_wavelength))
    change = [
        synthetic_photometry(grid.sed_wavelength, grid.sed[5] * dust, load_filter_curve(b))
        - synthetic_photometry(grid.sed_wavelength, grid.sed[5], load_filter_curve(b))
        for b in BANDS
    ]
    photometry = magnitudes(grid, 5)
    reddened = replace(photometry, magnitudes=photometry.magnitudes + np.array(change))
    options = ColourOptions(scale=1e-4, ebv=1.0)
    fit = fit_colours(grid, np.array([5]), reddened, options)
    assert fit.ebv[0] == pytest.approx(0.15, abs=0.001)
    residual = predicted_residual(fit, 0, grid, options)
    assert np.abs(residual).max() < 0.001


def test_a_model_that_asks_for_negative_dust_is_less_probable(grid):
    every, photometry = np.arange(len(grid)), magnitudes(grid, 5)
    free = fit_colours(grid, every, photometry, ColourOptions(negative=1e9))
    held = fit_colours(grid, every, photometry, ColourOptions(negative=0.03))
    cooler = free.ebv < -0.03
    assert cooler.any()
    assert (grid.teff[cooler] < grid.teff[5]).all()
    np.testing.assert_allclose(held.ebv, free.ebv)
    assert (held.chi2[cooler] > free.chi2[cooler] + 0.9).all()
    np.testing.assert_allclose(held.chi2[free.ebv >= 0], free.chi2[free.ebv >= 0])


def test_dust_of_another_law_is_within_the_errors(grid):
    """The dust's law is wrong by 0.04 mag per E(B-V) at random; without dust that costs nothing."""
    options = ColourOptions(scale=1e-3, ebv=1.0, floor=0.0, infrared_floor=0.0)
    rng, wave = np.random.default_rng(4), grid.sed_wavelength
    lag = (np.log(wave)[:, None] - np.log(wave)) / options.law_length
    root = np.linalg.cholesky(np.exp(-0.5 * lag**2) + 1e-8 * np.eye(wave.size)) * options.law
    clear = magnitudes(grid, 5)
    fit = fit_colours(grid, np.array([5]), clear, options)
    basis = CorrectionBasis.of(grid, wave, options)
    optical = (wave > 4000) & (wave < 9000)
    unreddened = colour_correction(fit, 0, basis, options)[1][optical]
    pulls = []
    for _ in range(60):
        dust = 0.4 * (reddening_law(wave) + root @ rng.normal(size=wave.size))
        noise = clear.mag_errors * rng.normal(size=len(BANDS))
        fainter = -2.5 * np.log10(fit.share[0] @ 10 ** (-0.4 * dust))
        seen = replace(clear, magnitudes=clear.magnitudes + fainter + noise)
        dusty = fit_colours(grid, np.array([5]), seen, options)
        curve, variance = colour_correction(dusty, 0, basis, options)
        pulls.append(((curve - 30.0 - dust) / np.sqrt(variance))[optical])
    assert (variance[optical] > unreddened).all()
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.25


def test_the_correction_follows_the_magnitudes_and_its_error_is_honest(grid):
    """Templates with random smooth errors of the assumed size: the pulls have a spread of 1."""
    options = ColourOptions(blue=1.0, floor=0.0, infrared_floor=0.0)
    rng = np.random.default_rng(3)
    wave = grid.sed_wavelength
    lag = (np.log(wave)[:, None] - np.log(wave)) / options.length
    root = np.linalg.cholesky(np.exp(-0.5 * lag**2) + 1e-8 * np.eye(wave.size)) * options.scale
    start = fit_colours(grid, np.array([5]), magnitudes(grid, 5), options)
    basis = CorrectionBasis.of(grid, wave, options)
    pulls = []
    for _ in range(60):
        error = root @ rng.normal(size=wave.size)
        shift = start.share[0] @ error + rng.normal(0, 0.005, len(BANDS))
        photometry = magnitudes(grid, 5)
        seen = replace(photometry, magnitudes=photometry.magnitudes + shift)
        fit = fit_colours(grid, np.array([5]), seen, options)
        curve, variance = colour_correction(fit, 0, basis, options)
        inner = (wave > 4200) & (wave < 8500)
        pulls.append(((curve - 30.0 - error) / np.sqrt(variance))[inner])
    assert 0.8 < np.std(pulls) < 1.15


def test_a_band_that_contradicts_the_others_is_left_out(grid):
    photometry = magnitudes(grid, 5)
    wrong = photometry.magnitudes.copy()
    wrong[BANDS.index("ps1_r")] += 0.5
    fit = fit_colours(
        grid, np.arange(len(grid)), replace(photometry, magnitudes=wrong), ColourOptions()
    )
    assert not fit.bands[BANDS.index("ps1_r")]
    assert fit.bands.sum() == 9
    assert fit.grey[5] == pytest.approx(30.0, abs=1e-3)


def test_one_band_gives_a_brightness_and_none_gives_nothing(grid):
    photometry = magnitudes(grid, 5)
    one = np.where(np.arange(10) == 4, photometry.magnitudes, np.nan)
    fit = fit_colours(grid, np.array([5]), replace(photometry, magnitudes=one), ColourOptions())
    assert fit.grey[0] == pytest.approx(30.0, abs=1e-3)
    none = replace(photometry, magnitudes=np.full(10, np.nan))
    assert fit_colours(grid, np.array([5]), none, ColourOptions()) is None


@pytest.mark.parametrize("velocity", [-300.0, 0.0, 120.0])
def test_cross_correlation_finds_a_velocity(velocity):
    wave = np.linspace(4000, 8000, 1500)
    centres = np.random.default_rng(1).uniform(4100, 7900, 30)

    def lines(shift):
        at = centres * (1 + shift / 299792.458)
        return -np.exp(-0.5 * ((wave[:, None] - at) / 8.0) ** 2).sum(axis=1)

    found, peak = cross_correlate_rv(wave, lines(velocity), lines(0.0), max_velocity=600.0)
    assert found == pytest.approx(velocity, abs=6.0)
    assert peak > 0.95


def test_nothing_correlates_with_nothing():
    wave = np.linspace(4000, 8000, 1500)
    assert cross_correlate_rv(wave, 0 * wave, 0 * wave, max_velocity=500) == (0.0, 0.0)


@pytest.mark.parametrize("metric", ["chi2", "huber"])
def test_the_lines_of_the_right_model_fit_best_whatever_the_response(grid, metric):
    star = star_of(grid, 14)
    match = select_best_template(
        star, magnitudes(grid, 14), grid, MatchOptions(metric=metric), ColourOptions()
    )
    assert match.index[match.best] == 14
    assert match.runner_up_margin > 0
    assert match.weight.sum() == pytest.approx(1.0)
    assert match.line_strength == pytest.approx(1.0, abs=0.12)


def test_the_velocity_of_a_star_is_found_within_its_error(grid):
    pulls = []
    for seed, velocity in enumerate((-150.0, -40.0, 0.0, 60.0, 160.0)):
        star = star_of(grid, 14, velocity=velocity, seed=seed)
        match = select_best_template(
            star, magnitudes(grid, 14), grid, MatchOptions(), ColourOptions()
        )
        assert match.velocity == pytest.approx(velocity, abs=25)
        pulls.append((match.velocity - velocity) / match.velocity_error)
    assert np.abs(pulls).max() < 4


def test_wild_samples_hurt_huber_less(grid):
    star = star_of(grid, 14)
    flux = star.flux.copy()
    flux[200::97] *= 3
    index = np.arange(len(grid))
    from kspecpipe.fluxcal.matching import _seen

    models = _seen(star, grid, index, 0.0)
    wild = replace(star, flux=flux)
    inflation = [
        score_templates(wild, models, MatchOptions(metric=metric))[0][14]
        / score_templates(star, models, MatchOptions(metric=metric))[0][14]
        for metric in ("chi2", "huber")
    ]
    assert inflation[1] < 0.3 * inflation[0]
