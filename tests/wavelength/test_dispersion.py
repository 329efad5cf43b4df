"""The dispersion model, and its fit to positions of lines."""

import numpy as np
import pytest

from kspecpipe.wavelength.dispersion import (
    GroupError,
    absorb,
    default_prior,
    dispersion_from_alignment,
    fit_dispersion,
)
from kspecpipe.wavelength.predict import predict_grating, predict_linear

X = np.arange(1340.0)


@pytest.fixture
def prediction():
    return predict_grating(
        lines=600, centre=4300, nx=1340, focal_length=320, pixel=0.02, dispersion=23.0
    )


def test_position_and_wavelength_are_inverse(prediction):
    model = dispersion_from_alignment(
        prediction, np.array([12.0, -30.0, 4.0, 0.4]), np.linspace(-1, 1, 5)
    )
    wavelength = model.wavelength(X)
    assert np.all(np.diff(wavelength, axis=1) > 0)
    for f in range(5):
        assert np.max(np.abs(model.position(wavelength[f])[f] - X)) < 1e-8


def test_moving_terms_into_the_base_moves_no_wavelength(prediction):
    model = dispersion_from_alignment(prediction, np.array([5.0, -20, 3, 0.2]), np.zeros(3))
    assert np.max(np.abs(absorb(model).wavelength(X) - model.wavelength(X))) < 0.01


@pytest.mark.parametrize("mode", ["150_620", "600_430"])
def test_the_true_instrument_is_fitted_within_its_claimed_error(arcs, mode):
    recipe = arcs.Recipe(mode=mode)
    grooves, centre = arcs.MODES[mode]
    prediction = predict_grating(
        lines=grooves, centre=centre, nx=1340, focal_length=320, pixel=0.02, dispersion=23.0
    )
    truth = arcs.true_wavelength(recipe, X, np.arange(14)[:, None])
    wavelength = np.linspace(truth.min() + 20, truth.max() - 20, 25)
    position = np.stack([np.interp(wavelength, row, X) for row in truth])
    sigma, common = 0.02, 0.005
    rng = np.random.default_rng(4)
    measured = position + rng.normal(0, sigma, position.shape) + rng.normal(0, common, 25)
    half = 669.5
    offset = np.interp(wavelength, prediction.wavelength, X - half)
    fit = np.polynomial.Polynomial.fit(offset / half, position.mean(axis=0) - half - offset, 2)
    c = fit.convert().coef
    start = dispersion_from_alignment(prediction, np.array([c[0], c[1], c[2], 0.0]), np.zeros(14))
    weight = np.full(position.shape, sigma**-2)
    for _ in range(3):
        model, groups = fit_dispersion(
            start,
            wavelength,
            measured,
            weight,
            GroupError(np.full(25, common)),
            default_prior(prediction),
        )
        start = absorb(model)
    error = (model.wavelength(X) - truth) / np.gradient(truth, axis=1)
    claimed = model.position_error(X)
    assert np.sqrt(np.mean(error**2)) < 0.02
    assert 0.4 < np.sqrt(np.mean(error**2) / np.mean(claimed**2)) < 1.6
    assert np.max(np.abs(groups.held_out)) < 0.08


def test_a_group_left_out_changes_nothing_but_is_predicted(prediction):
    wavelength = np.linspace(3800, 4800, 12)
    start = dispersion_from_alignment(prediction, np.zeros(4), np.zeros(4))
    measured = start.position(wavelength)
    wrong = measured.copy()
    wrong[:, 5] += 3.0
    weight = np.full(measured.shape, 1e4)
    sd = np.full(12, 0.01)
    sd[5] = np.inf
    args = (wavelength, wrong, weight)
    model, _ = fit_dispersion(start, *args, GroupError(sd), default_prior(prediction))
    assert np.max(np.abs(model.position(wavelength) - measured)) < 0.02
    sd[5] = 0.01
    _, groups = fit_dispersion(start, *args, GroupError(sd), default_prior(prediction))
    assert np.argmax(np.abs(groups.held_out)) == 5
    assert groups.held_out[5] == pytest.approx(3.0, abs=0.3)


def test_errors_grow_beyond_the_lines(prediction):
    start = dispersion_from_alignment(prediction, np.zeros(4), np.zeros(4))
    wavelength = np.linspace(4100, 4500, 9)
    measured = start.position(wavelength)
    model, _ = fit_dispersion(
        start,
        wavelength,
        measured,
        np.full(measured.shape, 1e4),
        GroupError(np.full(9, 0.01)),
        default_prior(prediction),
    )
    error = model.position_error(X)[1]
    assert error[0] > 5 * error[670]
    assert error[-1] > 5 * error[670]


def test_errors_that_groups_share_do_not_average_out(prediction):
    start = dispersion_from_alignment(prediction, np.zeros(4), np.zeros(4))
    wavelength = np.linspace(3800, 4800, 20)
    measured = start.position(wavelength)
    sd = np.full(20, 0.05)
    together = np.full((20, 20), 0.05**2)
    args = (start, wavelength, measured, np.full(measured.shape, 1e6))
    apart, _ = fit_dispersion(*args, GroupError(sd), default_prior(prediction))
    shared, _ = fit_dispersion(*args, GroupError(sd, together), default_prior(prediction))
    more = shared.position_error(X) ** 2 - apart.position_error(X) ** 2
    assert np.sqrt(np.median(more)) == pytest.approx(0.05, rel=0.01)
    assert np.median(apart.position_error(X)) < 0.035


def test_a_linear_prediction_takes_any_curvature():
    prediction = predict_linear(centre=6500, step=1.0, nx=1340)
    model = dispersion_from_alignment(prediction, np.array([3.0, 10, 5, 1.0]), np.zeros(2))
    u = X / 669.5 - 1
    ideal = X - (3 + 10 * u + 5 * u**2 + u**3 - u)
    rough = np.interp(ideal, X, prediction.wavelength)
    assert np.max(np.abs(model.wavelength(X)[0] - rough)[100:-100]) < 0.5
