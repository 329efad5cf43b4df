from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from kspecpipe.sky.spline import (
    DEGREE,
    NormalEquations,
    PixelAxis,
    SplineSpace,
    amplitude_of,
    solve,
    stack,
)

SPACE = SplineSpace.covering(-3.0, 60.0, 0.8)


def dense(rows, n: int) -> np.ndarray:
    """Spell out the design matrix of one fibre."""
    matrix = np.zeros((rows.first.shape[1], n))
    for k in range(DEGREE + 1):
        matrix[np.arange(len(matrix)), rows.first[0] + k] += rows.weight[k, 0]
    return matrix


@pytest.mark.parametrize("order", range(5))
def test_spline_and_derivatives_agree_with_scipy(order):
    coefficients = np.random.default_rng(1).normal(size=SPACE.n)
    knots = SPACE.start + SPACE.step * np.arange(-DEGREE, SPACE.n + 1)
    position = np.linspace(-3, 60, 501)
    expected = BSpline(knots, coefficients, DEGREE)(position, order)
    rows = SPACE.rows(position, *[0.0] * order, 1.0)
    assert rows.dot(coefficients[None]) == pytest.approx(expected, abs=1e-10)


def test_derivatives_of_several_splines_agree_with_their_rows():
    coefficients = np.random.default_rng(5).normal(size=(3, SPACE.n))
    position = np.linspace(-3, 59.9, 40).reshape(2, 20)
    model = np.array([[2], [1]])
    found = SPACE.derivatives(position, coefficients, model, 5)
    for order in range(5):
        rows = SPACE.rows(position, *[0.0] * order, 1.0)
        assert found[order] == pytest.approx(rows.dot(coefficients, model), abs=1e-10)


def test_variance_and_covariance_are_those_of_the_dense_inverse():
    rng = np.random.default_rng(2)
    position = np.sort(rng.uniform(-3, 60, (1, 160)), axis=1)
    weight = rng.uniform(0.5, 2, position.shape)
    rows = SPACE.rows(position)
    normal = NormalEquations.of(rows, np.sin(position), weight, SPACE.n)
    design = dense(rows, SPACE.n)
    assert normal.vector[0] == pytest.approx(design.T @ (weight * np.sin(position))[0])
    fit = solve(normal.matrix[0], normal.vector[0])
    full = np.zeros((SPACE.n, SPACE.n))
    for lag in range(DEGREE + 1):
        full += np.diag(normal.matrix[0, lag, : SPACE.n - lag], -lag)
    full += np.tril(full, -1).T
    assert full == pytest.approx((design.T * weight) @ design)
    # The inverse must reproduce the solution: the penalty is small, not nothing.
    covariance = np.linalg.lstsq(full, np.eye(SPACE.n), rcond=None)[0]
    projected = design @ covariance @ design.T
    variance = rows.variance(fit.band)[0]
    assert (variance < np.diag(projected) * 1.0001).all()
    assert np.median(variance / np.diag(projected)) > 0.7
    left, right = SPACE.rows(position[:, :-1]), SPACE.rows(position[:, 1:])
    near = left.covariance_with(right, fit.band)[0]
    assert left.covariance_with(left, fit.band)[0] == pytest.approx(variance[:-1])
    assert (np.abs(near) <= np.sqrt(variance[1:] * variance[:-1]) * 1.0001).all()


def test_smooth_functions_are_recovered_from_scattered_samples():
    rng = np.random.default_rng(3)
    position = np.sort(rng.uniform(-3, 60, (4, 63)), axis=1)
    truth = 5 + np.sin(position / 4)
    rows = SPACE.rows(position)
    normal = NormalEquations.of(rows, truth, np.full(truth.shape, 1e4), SPACE.n)
    matrix, vector = normal.matrix.sum(axis=0), normal.vector.sum(axis=0)
    first = solve(matrix, vector, covariance=False)
    fit = solve(matrix, vector, amplitude_of(first.coefficients[0]))
    assert rows.dot(fit.coefficients) == pytest.approx(truth, abs=2e-3)


def test_pulls_of_a_featureless_spectrum_are_honest_and_its_noise_is_smoothed():
    rng = np.random.default_rng(4)
    position = np.arange(-3, 60, 1.0) * np.ones((1, 1))
    rows = SPACE.rows(position)
    at = SPACE.rows(np.linspace(5, 50, 80)[None])
    pulls, sigma = [], []
    for _ in range(150):
        data = 100 + rng.normal(0, 2.0, position.shape)
        normal = NormalEquations.of(rows, data, np.full(data.shape, 0.25), SPACE.n)
        fit = solve(normal.matrix[0], normal.vector[0], np.full(SPACE.n, 1e-9))
        sigma.append(np.sqrt(at.variance(fit.band)).mean())
        pulls.append((at.dot(fit.coefficients) - 100) / np.sqrt(at.variance(fit.band)))
    assert np.mean(sigma) < 0.75 * 2.0
    # The posterior variance also covers structure that the prior allows but the sky lacks.
    assert 0.75 < np.std(pulls) < 1.05


def test_gaps_are_bridged_with_growing_variance():
    position = np.concatenate([np.arange(0, 20.0), np.arange(26, 50.0)])[None]
    rows = SPACE.rows(position)
    normal = NormalEquations.of(
        rows, np.full(position.shape, 7.0), np.ones(position.shape), SPACE.n
    )
    fit = solve(normal.matrix[0], normal.vector[0], np.full(SPACE.n, 1e-9))
    at = SPACE.rows(np.array([[10.0, 22.5]]))
    assert at.dot(fit.coefficients) == pytest.approx(7.0, abs=1e-6)
    assert at.variance(fit.band)[0, 1] > 3 * at.variance(fit.band)[0, 0]


def test_models_are_stacked_and_read_by_index():
    one = solve(*_flat(3.0))
    two = solve(*_flat(8.0))
    rows = SPACE.rows(np.full((2, 5), 10.0))
    both = stack([one, two])
    value = rows.dot(both.coefficients, np.array([[1], [0]]))
    assert value == pytest.approx(np.array([[8.0] * 5, [3.0] * 5]), abs=1e-9)


def _flat(level: float) -> tuple[np.ndarray, np.ndarray]:
    position = np.arange(-3, 60, 0.5)[None]
    normal = NormalEquations.of(
        SPACE.rows(position), np.full(position.shape, level), np.ones(position.shape), SPACE.n
    )
    return normal.matrix[0], normal.vector[0]


def test_the_axis_knows_where_wavelengths_are_and_keeps_dead_fibres_nan():
    x = np.arange(100.0)
    wavelength = 5000 + 3 * (x + np.array([[0.0], [0.6], [0.0]])) + 1e-3 * x**2
    wavelength[2] = np.nan
    axis = PixelAxis.of(wavelength)
    position, width = axis.sample(wavelength)
    assert position[0] == pytest.approx(x - 0.3, abs=0.02)
    assert width[:2] == pytest.approx(1.0, abs=0.01)
    assert np.isnan(position[2]).all()
    with pytest.raises(ValueError, match="no fibre has wavelengths"):
        PixelAxis.of(np.full((2, 10), np.nan))
