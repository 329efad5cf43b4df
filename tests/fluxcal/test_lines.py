"""How wrong the lines of the models are, and what follows for the response's error."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from kspecpipe.fluxcal.colour import ColourOptions
from kspecpipe.fluxcal.lines import MatchOptions, Star, line_misfit, misfit_profile

WAVE = 3800.0 + 4.0 * np.arange(1200)
CURVE = (WAVE / 6000) ** 3


def observed(snr, wrong=0.0, seed=0):
    """Return a star whose lines differ by ``wrong`` where they crowd; its noise is independent."""
    rng = np.random.default_rng(seed)
    lines = gaussian_filter1d(rng.normal(size=WAVE.size), 2.0)
    flux = CURVE * (1 + wrong * misfit_profile(WAVE) * lines / lines.std())
    noise = CURVE / snr
    every = np.ones(WAVE.size, bool)
    return Star(WAVE, rng.normal(flux, noise), noise**2, every, np.full(WAVE.size, 15.0))


@pytest.mark.parametrize("wrong", [0.02, 0.05, 0.1])
def test_the_error_of_lines_is_told_from_the_noise(wrong):
    found = [line_misfit(observed(50.0, wrong, seed), CURVE, MatchOptions()) for seed in range(8)]
    assert np.mean([expected for expected, _ in found]) == pytest.approx(wrong, rel=0.12)
    sure = np.mean([sure for _, sure in found])
    assert sure < wrong
    assert sure > 0.8 * wrong or wrong < 0.03


@pytest.mark.parametrize("snr", [5.0, 20.0, 100.0])
def test_right_lines_are_not_called_wrong_whatever_the_noise(snr):
    sure = [line_misfit(observed(snr, seed=seed), CURVE, MatchOptions())[1] for seed in range(8)]
    assert np.mean(sure) < 0.25 / snr


def test_where_noise_hides_the_lines_the_library_is_a_typical_one():
    options = MatchOptions(typical_misfit=0.04)
    assert line_misfit(observed(2.0), CURVE, options)[0] == pytest.approx(0.04, rel=0.1)
    assert line_misfit(observed(300.0), CURVE, options)[0] < 0.01


def test_a_few_wild_samples_are_no_wrong_lines():
    star = observed(100.0)
    star.flux[100:103] *= 0.2
    assert line_misfit(star, CURVE, MatchOptions())[1] < 0.02


def test_the_worse_the_lines_of_a_library_the_larger_its_smooth_errors_may_be():
    options = ColourOptions(scale=0.01, misfit=0.02)
    assert options.for_misfit(0.0).scale == 0.01
    assert options.for_misfit(0.02).scale == pytest.approx(0.02)
    assert options.for_misfit(0.06).scale == pytest.approx(0.1)
