from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import exponnorm

from kspecpipe.sky.matching import Matching, Priors, match_lines, regressors, weigh_parts

X = np.arange(600.0)
CENTRES = np.array([60.3, 120.7, 190.1, 255.5, 330.9, 400.2, 470.6, 540.4])
PRIOR = Priors(scale=0.1, shift=0.3, width=0.3, skewness=0.5).sigma(np.array([1.9]))


def spectrum(scale=1.0, shift=0.0, sigma=1.6, tau=1.0) -> np.ndarray:
    """Skewed lines of unit flux times 3000; positive shift moves the spectrum to smaller x."""
    total = np.zeros((1, 600))
    for centre in CENTRES:
        line = exponnorm(tau / sigma, loc=centre - shift - tau, scale=sigma)
        total += 3000 * scale * line.pdf(X)
    return total


@lru_cache
def derivatives() -> np.ndarray:
    """By finite differences of shifted spectra."""
    h = 0.05
    at = {k: spectrum(shift=k * h) for k in (-2, -1, 0, 1, 2)}
    first = (at[1] - at[-1]) / (2 * h)
    second = (at[1] - 2 * at[0] + at[-1]) / h**2
    third = (at[2] - 2 * at[1] + 2 * at[-1] - at[-2]) / (2 * h**3)
    return np.stack([at[0], first, second, third])


def fitted(data: np.ndarray, variance: np.ndarray, prior=PRIOR) -> Matching:
    terms = regressors(derivatives(), np.ones((1, 600)))
    good = np.ones(data.shape, bool)
    return match_lines(data - spectrum(), terms, variance, good, prior)


def test_scale_shift_and_width_come_back_without_noise():
    changed = spectrum(scale=1.03, shift=0.04, sigma=np.sqrt(1.6**2 + 0.1))
    terms = fitted(changed, np.full((1, 600), 1e-2)).terms[0]
    assert terms[0] == pytest.approx(0.03, abs=1e-3)
    assert terms[1] == pytest.approx(0.04, abs=2e-3)
    assert terms[3] == pytest.approx(0.1, abs=0.01)
    assert np.abs(terms[[2, 4]]).max() < 5e-3


def test_objects_and_their_lines_do_not_disturb_the_scale():
    rng = np.random.default_rng(1)
    galaxy = 2000 + 1.5 * X + 400 * np.exp(-0.5 * ((X - 222) / 3) ** 2)
    galaxy = galaxy - 500 * np.exp(-0.5 * ((X - 257) / 3) ** 2)
    variance = spectrum() + galaxy + 100
    data = spectrum() * 0.97 + galaxy + rng.normal(0, np.sqrt(variance))
    matching = fitted(data, variance)
    assert abs(matching.scale[0] - 0.97) < 4 * matching.scale_error[0]
    assert matching.scale_error[0] < 0.06


def test_pulls_of_scale_and_shift_are_standard_normal():
    rng = np.random.default_rng(2)
    variance = spectrum() + 400
    pulls = []
    for _ in range(60):
        matching = fitted(spectrum() + rng.normal(0, np.sqrt(variance)), variance)
        pulls.append(matching.terms[0] / np.sqrt(np.diagonal(matching.covariance[0])))
    assert 0.7 < np.std(pulls, axis=0)[:2].mean() < 1.3
    assert np.abs(np.mean(pulls, axis=0))[:2].max() < 4 / np.sqrt(60)


def test_without_lines_above_the_noise_nothing_is_fitted():
    rng = np.random.default_rng(3)
    variance = np.full((1, 600), 1e6)
    matching = fitted(spectrum() + rng.normal(0, 1e3, (1, 600)), variance)
    assert matching.terms[0] == pytest.approx(0, abs=1e-12)
    assert np.sqrt(np.diagonal(matching.covariance[0])) == pytest.approx(PRIOR[0], rel=1e-3)


def test_operators_of_no_matching_are_the_plain_value():
    parts = Matching.none(2).operators(np.zeros((2, 5)))
    assert (parts[0] == 1).all()
    assert not np.any(parts[1:])


def test_differences_are_referred_to_the_mean_fibre():
    terms = np.arange(12.0).reshape(2, 6)
    centred = Matching(terms, np.zeros((2, 6, 6))).centred_on(np.array([1.0, 3.0]))
    assert (centred.terms * [[1], [3]]).sum(axis=0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("scatter", "error"), [(0.0, 0.01), (0.01, 0.005), (0.05, 0.01)])
def test_scatter_of_scale_is_that_beyond_errors_and_between_its_limits(scatter, error):
    rng = np.random.default_rng(5)
    prior, number = 0.02, 400
    told = scatter * rng.standard_normal(number) + error * rng.standard_normal(number)
    precision = error**-2 + prior**-2
    terms = np.zeros((number, 6))
    terms[:, 0] = told * error**-2 / precision
    covariance = np.zeros((number, 6, 6))
    covariance[:, 0, 0] = 1 / precision
    known = np.ones(number, bool)
    found = float(np.median(Matching(terms, covariance).expected_scale(prior, known)))
    # The variance of so many scales is known to sqrt(2 / 400): 7 %.
    spread = 4 * np.sqrt(2 / number) * (scatter**2 + error**2)
    assert abs(found**2 - np.clip(scatter, 0.003, prior) ** 2) < spread


def test_few_fibres_or_none_with_lines_leave_the_prior_as_it_is():
    covariance = np.zeros((9, 6, 6))
    covariance[:, 0, 0] = 0.02**2 * 0.99
    lines = Matching(np.zeros((9, 6)), covariance)
    assert (lines.expected_scale(0.02, np.ones(9, bool)) == 0.02).all()
    sharp = Matching(np.zeros((9, 6)), covariance * 1e-2)
    assert (sharp.expected_scale(0.02, np.arange(9) < 4) == 0.02).all()
    np.testing.assert_allclose(sharp.expected_scale(0.02, np.ones(9, bool)), 0.003)


def test_a_fibre_far_off_the_others_still_follows_its_own_lines():
    covariance = np.zeros((9, 6, 6))
    covariance[:, 0, 0] = 0.002**2
    terms = np.zeros((9, 6))
    terms[4, 0] = -0.3
    expected = Matching(terms, covariance).expected_scale(0.02, np.ones(9, bool))
    np.testing.assert_allclose(expected[4], 0.3 * (1 + (0.002 / 0.02) ** 2), rtol=0.02)
    np.testing.assert_allclose(np.delete(expected, 4), 0.003)


def test_an_object_line_under_the_strongest_sky_line_is_no_sky():
    rng = np.random.default_rng(4)
    strong = spectrum()
    strong[:, 300:360] *= 8
    galaxy = 1500 * np.exp(-0.5 * ((X - CENTRES[4]) / 2.2) ** 2)
    variance = strong + galaxy + 400
    data = strong + galaxy + rng.normal(0, np.sqrt(variance))
    terms = regressors(np.stack([strong, *[np.gradient(strong[0])[None]] * 3]), np.ones((1, 600)))
    prior = Priors(scale=0.1).sigma(np.array([1.9]))
    prior[:, 1:] = 1e-9
    matching = match_lines(data - strong, terms, variance, np.ones((1, 600), bool), prior)
    # Believed, the line would be 27 % more sky with an error of 0.6 %.
    assert abs(matching.terms[0, 0]) < 2 * matching.scale_error[0]
    assert matching.scale_error[0] < 0.08


def test_parts_that_agree_within_their_errors_keep_most_of_their_weight():
    rng = np.random.default_rng(6)
    line = np.repeat(spectrum() / 30, 200, axis=0)
    weight = np.ones_like(line)
    factors = weigh_parts(line, 0.03 * line + rng.normal(0, 1, line.shape), weight)
    told = np.sum(factors * line**2, axis=1) / np.sum(line**2, axis=1)
    assert np.median(told) > 0.99
    assert np.mean(told) > 0.85


def test_without_any_weight_the_parts_have_nothing_to_disagree_about():
    nothing = np.zeros((2, 600))
    np.testing.assert_allclose(weigh_parts(nothing, nothing, nothing), 1.0)
