"""Drift between arcs, and the zero point from sky lines."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.signal import Signal
from kspecpipe.wavelength.drift import measure_drift
from kspecpipe.wavelength.predict import predict_grating
from kspecpipe.wavelength.refine import refine_zero_point, shift_wavelengths
from kspecpipe.wavelength.solve import solve_arcs

LIVE = np.ones(14, bool)


@pytest.fixture(scope="module")
def night(arcs, lines, expose, spectra):
    recipe = arcs.Recipe(mode="600_680", brightness=9e5)
    arc = expose(recipe)
    return recipe, arc, solve_arcs([spectra(arc)], lines, predict_grating(**arc.prediction), LIVE)


def sky_exposure(expose, sky_lines, recipe, brightness=2e5):
    sky = replace(
        recipe,
        shift=recipe.shift + 0.8,
        lamps=("O", "Na", "OH"),
        unlisted=False,
        hump=300.0,
        second_order=0.0,
        brightness=brightness,
    )
    return expose(sky, sky_lines)


@pytest.mark.parametrize("drift", [-3.2, 0.0, 0.8])
def test_the_drift_between_two_arcs_is_measured(arcs, expose, signal, drift):
    recipe = arcs.Recipe(mode="300_490")
    before = expose(recipe)
    after = expose(replace(recipe, shift=recipe.shift + drift, noise_seed=9))
    found = measure_drift(signal(before), signal(after), LIVE)
    assert found.shift == pytest.approx(drift, abs=0.02)
    assert abs(found.stretch) < 0.04
    assert np.nanmax(np.abs(found.fibre_shift - drift)) < 0.05


def test_no_drift_is_claimed_without_lines():
    noise = Signal.of(np.random.default_rng(1).normal(0, 5, (3, 200)), 25.0)
    blank = Signal.of(np.zeros((3, 200)), 25.0)
    found = measure_drift(blank, noise, np.ones(3, bool))
    assert np.isnan(found.shift)


def test_shapes_must_agree_for_a_drift():
    with pytest.raises(ValueError, match="shapes"):
        measure_drift(Signal.of(np.zeros((2, 50))), Signal.of(np.zeros((2, 60))), np.ones(2, bool))


def test_flexure_is_taken_out_by_the_sky_lines(night, expose, signal, sky_lines):
    recipe, _, solution = night
    exposure = sky_exposure(expose, sky_lines, recipe)
    found = refine_zero_point(
        signal(exposure), solution.wavelength, solution.lsf_shape, sky_lines, LIVE
    )
    assert found.shift == pytest.approx(0.8, abs=0.03)
    assert found.shift_error < 0.03
    assert found.lines["used"].sum() > 5
    better = shift_wavelengths(solution.wavelength, found.shift, found.slope)
    error = (better - exposure.wavelength) / np.gradient(exposure.wavelength, axis=1)
    assert np.sqrt(np.mean(error**2)) < 0.03


def test_sky_lines_tell_whether_the_solution_is_right(night, expose, signal, sky_lines):
    recipe, _, solution = night
    spectra = signal(sky_exposure(expose, sky_lines, recipe))
    found = refine_zero_point(spectra, solution.wavelength, solution.lsf_shape, sky_lines, LIVE)
    assert np.isfinite(found.slope_error)
    assert found.chi2 < 10
    wave = 0.5 * np.sin(np.arange(spectra.shape[1]) / 60)
    wrong = solution.wavelength + wave * np.gradient(solution.wavelength, axis=1)
    bent = refine_zero_point(spectra, wrong, solution.lsf_shape, sky_lines, LIVE)
    assert bent.chi2 > 30


def test_sky_lines_on_one_side_of_the_chip_show_no_slope(night, expose, signal, sky_lines):
    recipe, _, solution = night
    exposure = signal(sky_exposure(expose, sky_lines, recipe))
    places = np.interp(sky_lines.wavelength, solution.wavelength[7], np.arange(exposure.shape[1]))
    near = sky_lines.select(places < 0.25 * exposure.shape[1])
    found = refine_zero_point(exposure, solution.wavelength, solution.lsf_shape, near, LIVE)
    assert np.isfinite(found.shift)
    assert (found.slope, np.isnan(found.slope_error)) == (0.0, True)


def test_one_clean_line_is_believed_beside_a_blend_that_disagrees(night, expose, signal, sky_lines):
    recipe, _, solution = night
    exposure = signal(sky_exposure(expose, sky_lines, recipe))
    two = sky_lines.select(np.isin(sky_lines.wavelength, (6300.304, 6533.044, 6553.617)))
    blend = two.wavelength.copy()
    blend[1:] = 6530.0, 6533.6
    odd = replace(two, wavelength=blend)
    found = refine_zero_point(exposure, solution.wavelength, solution.lsf_shape, odd, LIVE)
    assert found.shift == pytest.approx(0.8, abs=0.05)
    assert found.lines["used"].tolist() == [True, False]


def test_two_lines_that_are_not_where_the_list_says_do_not_hide_in_their_own_scatter(
    night, expose, signal, sky_lines
):
    recipe, _, solution = night
    exposure = signal(sky_exposure(expose, sky_lines, recipe))
    arguments = solution.wavelength, solution.lsf_shape
    places = np.interp(sky_lines.wavelength, solution.wavelength[7], np.arange(exposure.shape[1]))
    seen = np.flatnonzero((places > 20) & (places < exposure.shape[1] - 20))
    brightest = seen[np.argsort(sky_lines.intensity[seen])[-2:]]
    moved = sky_lines.wavelength.copy()
    moved[brightest] += np.array([1.5, -1.5]) * np.median(np.gradient(solution.wavelength[7]))
    odd = replace(sky_lines, wavelength=moved)
    found = refine_zero_point(exposure, *arguments, odd, LIVE)
    assert found.shift == pytest.approx(0.8, abs=0.03)
    assert found.shift_error < 0.03
    # They are told all the same, by ten errors each.
    right = refine_zero_point(exposure, *arguments, sky_lines, LIVE)
    assert right.chi2 + 3 < found.chi2 < right.chi2 + 60


def test_weak_sky_lines_move_nothing(night, expose, signal, sky_lines):
    recipe, _, solution = night
    exposure = sky_exposure(expose, sky_lines, recipe, brightness=10.0)
    found = refine_zero_point(
        signal(exposure), solution.wavelength, solution.lsf_shape, sky_lines, LIVE
    )
    assert np.isnan(found.shift)


def test_shifting_there_and_back_changes_nothing(night):
    wavelength = night[2].wavelength
    there = shift_wavelengths(wavelength, 0.8, 0.05)
    assert np.all(there < wavelength)
    back = shift_wavelengths(there, -0.8, -0.05)
    assert np.max(np.abs(back - wavelength)) < 1e-3


def test_shapes_must_agree_for_sky_lines(sky_lines):
    spectra = Signal.of(np.zeros((2, 50)))
    with pytest.raises(ValueError, match="wavelength"):
        refine_zero_point(spectra, np.zeros((2, 60)), np.ones((2, 60)), sky_lines, np.ones(2, bool))
