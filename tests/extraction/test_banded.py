import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.extraction.banded import factorise_band, invert_band, solve_band


def dense(band, column):
    size = band.shape[1]
    matrix = np.zeros((size, size))
    for k in range(band.shape[0]):
        for i in range(size - k):
            matrix[i + k, i] = matrix[i, i + k] = band[k, i, column]
    return matrix


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 9), reach=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_band_solution_and_inverse_are_those_of_the_full_matrix(size, reach, seed):
    rng = np.random.default_rng(seed)
    band = rng.uniform(-1, 1, (reach + 1, size, 3))
    band[0] += 2.0 * (reach + 1)
    rhs = rng.standard_normal((size, 3))
    factor = factorise_band(band)
    solution, inverse = solve_band(factor, rhs), invert_band(factor)
    for column in range(3):
        matrix = dense(band, column)
        np.testing.assert_allclose(solution[:, column], np.linalg.solve(matrix, rhs[:, column]))
        full = np.linalg.inv(matrix)
        for k in range(min(reach, size - 1) + 1):
            expected = np.diagonal(full, -k)
            np.testing.assert_allclose(inverse[k, : size - k, column], expected, atol=1e-12)


def test_factorisation_leaves_its_input_alone():
    band = np.full((2, 3, 1), 0.1)
    band[0] = 1
    before = band.copy()
    factorise_band(band)
    np.testing.assert_array_equal(band, before)
    expected = np.linalg.solve(dense(band, 0), np.ones(3))
    assert solve_band(factorise_band(band), np.ones((3, 1)))[:, 0] == pytest.approx(expected)
