"""Combining the responses of several stars."""

import numpy as np
import pytest

from kspecpipe.fluxcal.combine import CombineOptions, combine_calibration_vectors

WAVE = np.linspace(0, 1, 400)
CURVE = -35.0 + 0.5 * np.sin(3 * WAVE)
MAG = 2.5 / np.log(10)


def stars(grey, bumps=None, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = CURVE + np.array(grey)[:, None] / MAG
    if bumps is not None:
        rows = rows + np.array(bumps)[:, None] * np.cos(6 * WAVE)
    smooth = rng.normal(0, noise, (len(grey), 1)) * np.cos(9 * WAVE)
    return rows + smooth


def combine(rows, sigma=0.01, options=None):
    variance = np.full(rows.shape, sigma**2)
    good = np.ones(rows.shape, bool)
    return combine_calibration_vectors(
        rows, variance, good, variance / 2, options or CombineOptions()
    )


def test_equal_stars_give_their_response():
    found = combine(stars([0, 0, 0]))
    np.testing.assert_allclose(found.log_response, CURVE, atol=1e-12)
    assert found.reasons == ("", "", "")
    assert found.grey_scatter == pytest.approx(0, abs=1e-9)


def test_grey_losses_do_not_touch_the_shape():
    found = combine(stars([0.05, -0.05, 0.0, 0.02, -0.02]))
    np.testing.assert_allclose(np.diff(found.log_response), np.diff(CURVE), atol=1e-12)
    np.testing.assert_allclose(found.grey, [0.05, -0.05, 0.0, 0.02, -0.02], atol=1e-9)


def test_one_star_half_a_magnitude_off_is_left_out_of_three():
    for off, words in ((0.5, "less light"), (-0.5, "more light")):
        found = combine(stars([0.01, off, -0.01]))
        assert found.reasons[0] == found.reasons[2] == ""
        assert words in found.reasons[1]
        np.testing.assert_allclose(found.log_response, CURVE, atol=1e-9)


def test_a_star_of_another_shape_is_left_out_of_three():
    found = combine(stars([0, 0.02, 0.01], bumps=[0.004, -0.004, 0.2]))
    assert [bool(reason) for reason in found.reasons] == [False, False, True]
    assert "shape" in found.reasons[2]
    assert np.abs(np.diff(found.log_response - CURVE)).max() < 1e-3


def test_a_star_that_lost_light_is_found_beside_one_of_another_shape():
    """A bright wrong match hides a star half off its fibre until it is left out itself."""
    found = combine(stars([0.0, 0.005, -0.9, 0.75], bumps=[0.0, 0.002, 0.2, -0.002]))
    assert [bool(reason) for reason in found.reasons] == [False, False, True, True]
    assert "half off" in found.reasons[3]
    assert found.grey_scatter < 0.01


def test_of_two_stars_the_one_that_lost_light_is_left_out():
    found = combine(stars([0.0, 0.7]))
    assert found.reasons[0] == ""
    assert "half off" in found.reasons[1]
    assert combine(stars([0.0, 0.1])).reasons == ("", "")


def test_the_scatter_of_one_star_is_unknown_not_zero_and_a_floor_is_kept():
    options = CombineOptions()
    found = combine(stars([0.1]), sigma=1e-6)
    assert np.isnan(found.grey_scatter)
    assert np.isnan(found.shape_scatter)
    np.testing.assert_allclose(found.variance, options.single_floor**2, rtol=1e-3)


def test_errors_that_stars_share_do_not_average_out():
    alone = combine(stars([0.0]), sigma=0.04).variance[0]
    many = combine(stars([0.0] * 50), sigma=0.04).variance[0]
    common = CombineOptions().shared * 0.04**2 / 2
    assert common < many < alone
    assert many == pytest.approx(common + 0.04**2 / 50, rel=0.1)


def test_scatter_between_stars_enters_the_error():
    quiet = combine(stars([0.0] * 8, noise=0.0), sigma=0.002)
    loud = combine(stars([0.0] * 8, noise=0.03), sigma=0.002)
    assert loud.shape_scatter > 0.01
    assert loud.variance.mean() > quiet.variance.mean() + 0.5 * loud.shape_scatter**2 / 8


def test_noise_of_the_blue_end_is_no_scatter_of_the_stars():
    """Errors of 20 % at one end and 1 % elsewhere, as faint stars have them: pulls stay at 1."""
    sigma = np.where(WAVE < 0.2, 0.2, 0.01)
    rng = np.random.default_rng(4)
    variance = np.tile(sigma**2, (3, 1))
    options = CombineOptions(shared=0.0, floor=0.0)
    pulls = []
    for _ in range(40):
        rows = CURVE + rng.normal(0, sigma, (3, WAVE.size))
        found = combine_calibration_vectors(
            rows, variance, np.ones(rows.shape, bool), variance, options
        )
        pulls.append((found.log_response - CURVE) / np.sqrt(found.variance))
    assert 0.85 < np.std(np.array(pulls)[:, WAVE > 0.2]) < 1.1


def test_a_precise_star_counts_more():
    rows = stars([0, 0], bumps=[0.0, 0.02])
    variance = np.repeat([[0.001**2], [0.1**2]], WAVE.size, axis=1)
    good = np.ones(rows.shape, bool)
    found = combine_calibration_vectors(rows, variance, good, variance, CombineOptions())
    assert found.shape_rms[0] < 0.01 * found.shape_rms[1]


def test_stars_that_end_early_do_not_count_beyond():
    rows = stars([0, 0])
    rows[1, 300:] += 5
    good = np.ones(rows.shape, bool)
    good[1, 300:] = False
    variance = np.full(rows.shape, 1e-4)
    found = combine_calibration_vectors(rows, variance, good, variance, CombineOptions())
    np.testing.assert_allclose(found.log_response[:300], CURVE[:300], atol=1e-9)
    np.testing.assert_allclose(found.log_response[300:], CURVE[300:], atol=1e-3)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        combine_calibration_vectors(
            np.zeros((2, 5)),
            np.zeros((2, 5)),
            np.ones((1, 5), bool),
            np.zeros((2, 5)),
            CombineOptions(),
        )
