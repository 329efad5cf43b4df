"""From reduced spectra to the response: simulated stars whose models lie between the grid's."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal import (
    apply_flux_calibration,
    calibrate_fluxes,
    history_lines,
    summarize_calibration,
)
from kspecpipe.fluxcal.catalogue import parse_refcat2
from kspecpipe.fluxcal.exposure import Standards
from kspecpipe.fluxcal.figures import (
    plot_calibrated_spectrum,
    plot_calibration_residuals,
    plot_calibration_summary,
    plot_grey_scales,
    plot_per_star_vectors,
    plot_photometric_residuals,
    plot_template_match,
)
from kspecpipe.signal import DQ, Signal
from kspecpipe.simulate.standards import StandardStar

STARS = (
    StandardStar(5900.0, 4.2, -0.3, 15.0, ra=10.00, dec=-30.0, velocity=60.0),
    StandardStar(6250.0, 4.0, -0.7, 15.4, ra=10.02, dec=-30.0, velocity=-90.0),
    StandardStar(6600.0, 4.3, -0.2, 14.8, ra=10.04, dec=-30.0, velocity=20.0),
)
RED = tuple(replace(star, ebv=0.15) for star in STARS)


@pytest.fixture(scope="module")
def calibrate(grid, options):
    def run(scene, chosen=options):
        return calibrate_fluxes(
            scene.spectra, scene.observation, scene.standards, scene.catalogue, grid, chosen
        )

    return run


@pytest.fixture(scope="module")
def three(observe, calibrate):
    return calibrate(observe(STARS))


def deviation(result, response_of):
    """Shape (rms, largest) and zero point [mag] against the truth, 3900 to 8600 Angstrom."""
    ratio = np.log(result.response.value / response_of(result.wavelength))
    inside = (result.wavelength > 3900) & (result.wavelength < 8600)
    inside &= (result.response.dq & int(DQ.TELLURIC | DQ.EXTRAPOLATED)) == 0
    assert inside.sum() > 400
    grey = np.median(ratio[inside])
    shape = ratio[inside] - grey
    return np.sqrt(np.mean(shape**2)), np.abs(shape).max(), 1.0857 * grey


def test_three_stars_give_the_response(three, response_of):
    shape, worst, zero = deviation(three, response_of)
    assert shape < 0.012
    assert worst < 0.04
    assert abs(zero) < 0.015
    assert three.metrics["stars_used"] == 3
    assert three.metrics["shape_scatter"] < 0.02


@pytest.mark.parametrize("star", [0, 1, 2])
def test_a_single_star_gives_the_response_and_an_unknown_scatter(
    star, observe, calibrate, response_of
):
    result = calibrate(observe(STARS[star : star + 1]))
    shape, worst, zero = deviation(result, response_of)
    assert shape < 0.02
    assert worst < 0.06
    assert abs(zero) < 0.02
    assert np.isnan(result.metrics["grey_scatter"])
    assert np.isnan(result.metrics["shape_scatter"])
    assert np.isfinite(result.metrics["zero_point"])


def test_reddening_costs_less_than_two_per_cent(observe, calibrate, response_of):
    result = calibrate(observe(RED))
    assert deviation(result, response_of)[0] < 0.02
    assert np.median(result.stars["ebv"]) == pytest.approx(0.15, abs=0.08)


def test_temperatures_are_right_within_300_kelvin(three):
    for row, star in zip(three.stars, STARS, strict=True):
        assert row["teff"] == pytest.approx(star.teff, abs=300)
        assert row["velocity"] == pytest.approx(star.velocity, abs=30 + 4 * row["velocity_error"])


def test_the_reported_error_is_neither_boastful_nor_timid(observe, calibrate, response_of):
    """The library of the simulator is perfect, which makes the errors look large."""
    pulls = []
    for star in STARS:
        result = calibrate(observe((star,), snr=40.0, seed=5))
        ratio = result.response.value / response_of(result.wavelength) - 1
        error = result.response.error / result.response.value
        inside = (result.wavelength > 3900) & (result.wavelength < 8600)
        pulls.append((ratio / error)[inside])
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 1.4


def test_the_model_has_the_velocity_of_its_star_where_it_divides_it(observe, calibrate):
    """At 300 km/s an unshifted model misses H-beta by 5 Angstrom, a third of the resolution."""
    result = calibrate(observe((replace(STARS[0], velocity=300.0),)))
    fit, wave = result.fits[0], result.wavelength
    near = np.abs(wave - 4866) < 60
    # Telluric lines aside, what is left of the star's lines is noise: 1 % of the continuum.
    ratio = (fit.observed.value * fit.vector.cal_factor / fit.model)[near]
    slope = np.gradient(fit.model[near]) / fit.model[near]
    # A shift of the model leaves its derivative in the ratio.
    shift = np.sum(slope * (ratio - ratio.mean())) / np.sum(slope**2)
    assert abs(shift) * 5.2 / 4866 * 299792 < 60


def test_a_library_whose_lines_are_wrong_is_known_as_such_and_its_errors_are_larger(
    three, observe, options, grid, response_of
):
    """Lines of 20 Angstrom wrong by 10 % at 4000, and smoothly by 3 %: most in the blue."""
    rng = np.random.default_rng(3)
    wave = grid.wavelength
    lines, smooth = (
        gaussian_filter1d(rng.normal(size=wave.size), reach / 2.35 / 0.5) for reach in (20, 500)
    )
    blue = np.interp(wave, (4000.0, 5500.0), (1.0, 0.2))
    factor = np.exp(blue * (0.1 * lines / lines.std() + 0.03 * smooth / smooth.std()))
    scene = observe(STARS)
    crude = replace(grid, flux=grid.flux * factor)
    result = calibrate_fluxes(
        scene.spectra, scene.observation, scene.standards, scene.catalogue, crude, options
    )
    assert three.metrics["line_misfit"] < 0.03
    assert 0.06 < result.metrics["line_misfit"] < 0.12
    assert result.metrics["error"] > 1.3 * three.metrics["error"]
    ratio = np.log(result.response.value / response_of(result.wavelength))
    pull = ratio / (result.response.error / result.response.value)
    inside = (result.wavelength > 3900) & (result.wavelength < 8600)
    assert np.sqrt(np.mean(pull[inside] ** 2)) < 1.5


def test_no_line_of_the_stars_remains_in_the_response(three, response_of):
    wave = three.wavelength
    ratio = three.response.value / response_of(wave)
    for line in (4861.3, 4340.5, 5175.0, 5892.0, 6562.8):
        near = np.abs(wave - line) < 15
        around = (np.abs(wave - line) > 40) & (np.abs(wave - line) < 70)
        assert ratio[near].mean() / ratio[around].mean() == pytest.approx(1, abs=0.01)


def test_telluric_bands_are_bridged_and_flagged_not_zero(three, response_of):
    band = (three.wavelength > 7600) & (three.wavelength < 7695)
    assert ((three.response.dq[band] & DQ.TELLURIC) > 0).all()
    ratio = three.response.value[band] / response_of(three.wavelength[band])
    np.testing.assert_allclose(ratio, 1.0, atol=0.03)


def test_calibrated_standards_have_the_colours_of_the_catalogue(three, observe):
    scene = observe(STARS)
    flux = apply_flux_calibration(scene.spectra, scene.observation, three.response)
    from kspecpipe.fluxcal.catalogue import photometry_from_catalog_row
    from kspecpipe.fluxcal.photometry import load_filter_curve, synthetic_photometry

    wave = scene.observation.wavelength
    for row in range(3):
        bands = [load_filter_curve(name) for name in ("ps1_r", "ps1_i")]
        seen = np.diff([synthetic_photometry(wave, flux.value[row], b) for b in bands])[0]
        photometry = photometry_from_catalog_row(scene.catalogue[row])
        # The i band holds the A band of oxygen, which is not corrected in the spectra.
        assert seen == pytest.approx(-photometry.colour("ps1_r", "ps1_i"), abs=0.08)


@pytest.mark.parametrize("losses", [(1, 0.5, 1), (1, 1.6, 1)])
def test_a_star_half_off_its_fibre_or_too_bright_is_rejected(
    losses, observe, calibrate, response_of
):
    result = calibrate(observe(STARS, losses=losses))
    assert result.stars["used"].tolist() == [True, False, True]
    assert "light than the other stars" in result.stars["reason"][1]
    shape, _, zero = deviation(result, response_of)
    assert shape < 0.015
    assert abs(zero) < 0.015


def rejected(calibrate, scene, words):
    result = calibrate(scene)
    assert result.stars["used"].tolist() == [True, False]
    assert words in result.stars["reason"][1]


def test_a_hot_star_is_rejected(observe, calibrate):
    hot = StandardStar(9800.0, 4.0, 0.0, 15.0, ra=10.1, dec=-30.0)
    rejected(calibrate, observe((STARS[0], hot)), "hot star")


def test_a_giant_is_rejected(observe, calibrate):
    giant = StandardStar(5100.0, 2.0, -0.5, 12.0, ra=10.1, dec=-30.0, parallax=0.3)
    rejected(calibrate, observe((STARS[0], giant)), "giant")


@pytest.mark.parametrize(
    ("serve", "words"), [((7100.0, 8600.0), "cool star or giant"), ((4900.0, 5400.0), "hot star")]
)
def test_a_library_beyond_f_and_g_stars_does_not_make_others_standards(
    serve, words, observe, calibrate, options
):
    limits = replace(options.limits, temperatures=serve)
    with pytest.raises(RecipeError, match=words):
        calibrate(observe(STARS[1:2]), replace(options, limits=limits))


def test_a_variable_is_rejected(observe, calibrate):
    rejected(calibrate, observe((STARS[0], replace(STARS[1], variable=True))), "variable")


def test_a_star_which_is_not_in_the_catalogue_is_rejected(observe, calibrate):
    scene = observe(STARS[:2])
    lost = Standards(np.array([0, 1]), np.array([10.0, 10.5]), np.array([-30.0, -30.0]))
    rejected(calibrate, replace(scene, standards=lost), "not in the catalogue")


def test_a_spectrum_without_the_lines_of_a_star_is_rejected(observe, calibrate):
    def quasar(wave):
        return 1e-15 * (wave / 6000) ** -1.0

    rejected(calibrate, observe(STARS[:2], seen=(STARS[0], quasar)), "lines")


def test_a_wrong_match_among_three_is_rejected(observe, calibrate, response_of):
    wrong = replace(STARS[0], teff=7000.0)
    scene = observe(STARS, seen=(replace(wrong, gaia=14.3), *STARS[1:]))
    result = calibrate(scene)
    assert result.stars["used"].tolist() == [False, True, True]
    assert deviation(result, response_of)[0] < 0.015


def test_fibres_and_catalogue_in_another_order_give_the_same(observe, calibrate, three):
    scene = observe(STARS)
    order = np.array([2, 0, 1])
    standards = Standards(order, scene.standards.ra[order], scene.standards.dec[order])
    result = calibrate(replace(scene, standards=standards, catalogue=scene.catalogue[::-1]))
    np.testing.assert_allclose(result.response.value, three.response.value, rtol=1e-9)


def test_missing_magnitudes_are_survived(observe, calibrate, response_of):
    poor = tuple(replace(star, missing=("BP", "RP", "J", "H", "K", "z")) for star in STARS)
    shape, _, zero = deviation(calibrate(observe(poor)), response_of)
    assert shape < 0.02
    assert abs(zero) < 0.02


def test_without_any_magnitude_nothing_is_calibrated(observe, calibrate):
    columns = ("Gaia", "BP", "RP", "g", "r", "i", "z", "J", "H", "K")
    dark = tuple(replace(star, missing=columns) for star in STARS[:2])
    with pytest.raises(RecipeError, match=r"none of 2 .* no magnitude in any band"):
        calibrate(observe(dark))


def test_without_standard_fibres_nothing_is_calibrated(observe, calibrate):
    nobody = Standards(np.array([], int), np.array([]), np.array([]))
    with pytest.raises(RecipeError, match="no fibre looks at a standard star"):
        calibrate(replace(observe(STARS[:1]), standards=nobody))


def test_a_dead_fibre_is_told_and_the_others_used(observe, calibrate):
    scene = observe(STARS[:2])
    value = scene.spectra.value.copy()
    value[1] = np.nan
    dq = np.where(np.isnan(value), int(DQ.NO_DATA), 0)
    rejected(
        calibrate, replace(scene, spectra=Signal.of(value, scene.spectra.variance, dq)), "dead"
    )


def test_cosmic_rays_and_bad_samples_do_not_matter(observe, calibrate, response_of):
    scene = observe(STARS[:1])
    value, dq = scene.spectra.value.copy(), scene.spectra.dq.copy()
    value[0, 100:1000:45] *= 10
    dq[0, 100:1000:45] = DQ.COSMIC
    value[0, 500:510], dq[0, 500:510] = np.nan, DQ.BAD
    result = calibrate(replace(scene, spectra=Signal.of(value, scene.spectra.variance, dq)))
    assert deviation(result, response_of)[0] < 0.02


def test_wrong_shapes_are_the_callers_mistake(observe, calibrate):
    scene = observe(STARS[:2])
    with pytest.raises(ValueError, match="do not fit"):
        calibrate(replace(scene, spectra=scene.spectra.select(slice(0, 1))))


def test_the_summary_tells_stars_and_reasons(observe, calibrate):
    result = calibrate(observe((*STARS[:2], replace(STARS[2], variable=True))))
    text = summarize_calibration(result)
    assert "2 of 3 standard stars" in text
    assert "star 2: rejected: variable according to Gaia" in text
    assert "Teff" in text
    assert len(history_lines(result)) == 5
    one = summarize_calibration(calibrate(observe(STARS[:1])))
    assert "unknown (one star)" in one


def test_the_catalogue_may_have_other_stars(observe, calibrate, three):
    scene = observe(STARS)
    text = "\n".join(
        [",".join(scene.catalogue.colnames)]
        + [",".join(str(v) for v in row) for row in scene.catalogue[[1, 0, 2, 0]]]
    )
    crowd = parse_refcat2(text)
    crowd["RA"][3] += 0.3
    result = calibrate(replace(scene, catalogue=crowd))
    np.testing.assert_allclose(result.response.value, three.response.value, rtol=1e-6)


def test_every_figure_shows_what_it_is_given(three):
    wave, names = three.wavelength, [str(name) for name in three.stars["name"]]
    vectors = np.array([vector.cal_factor for vector in three.per_star_vectors])
    fit = three.fits[0]
    flux = Signal.of(fit.model, (0.01 * fit.model) ** 2)
    bridged = (three.response.dq & DQ.TELLURIC) > 0
    figures = [
        plot_calibration_summary(wave, three.response, three.stars),
        plot_per_star_vectors(wave, three.response, vectors, names),
        plot_calibration_residuals(wave, three.response, vectors, names),
        plot_photometric_residuals(three.stars),
        plot_template_match(wave, fit.observed.value, fit.model, vectors[0], "star", bridged),
        plot_calibrated_spectrum(wave, flux, fit.photometry, "star"),
        plot_grey_scales(three.stars),
    ]
    assert all(len(figure.axes[0].lines) >= 1 for figure in figures)
    np.testing.assert_array_equal(figures[0].axes[0].lines[0].get_ydata(), three.response.value)
    assert len(figures[1].axes[0].lines) == 4
    bands = [label.get_text() for label in figures[3].axes[0].get_xticklabels()]
    assert bands == ["g", "BP", "r", "G", "i", "RP", "z", "J", "H", "K"]
    assert {text.get_text() for text in figures[5].axes[0].texts} >= {"G", "r", "i"}
    for figure in figures:
        figure.canvas.draw()


def test_the_figure_of_lost_light_tells_why_stars_were_rejected(observe, calibrate):
    result = calibrate(observe((*STARS[:2], replace(STARS[2], variable=True))))
    axis = plot_grey_scales(result.stars).axes[0]
    assert [text.get_text() for text in axis.texts] == ["variable according to Gaia"]
    # Its brightness is unknown: it has a reason, but no place.
    assert axis.lines[0].get_xdata().size == 2
    assert [line.get_label() for line in axis.lines][0] == "used"


def test_a_stars_scale_turns_its_template_into_its_flux(three, grid):
    """At 6000 Angstrom, where reddening and correction are small."""
    for fit, row in zip(three.fits, three.stars, strict=True):
        best = [p.label for p in grid.parameters].index(row["template"])
        assert row["alpha_m"] == grid.parameters[best].alpha_m
        surface = np.interp(6000.0, grid.wavelength, grid.continuum[best])
        star = np.median(fit.model[np.abs(three.wavelength - 6000) < 100])
        assert star / surface == pytest.approx(row["scale_factor"], rel=0.15)


def test_stars_tell_how_they_differ_from_their_combination(three):
    assert three.n_stars == 3
    residuals = np.array(three.per_star_residuals)
    assert residuals.shape == (3, three.wavelength.size)
    assert 0 < np.nanmedian(np.abs(residuals)) < 0.02
    assert three.combined_vector.n_good > 700
