"""B-splines against those of scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from kspecpipe.bsplines import spline_basis, spline_slopes


def clamped(inner, degree):
    return np.concatenate([np.full(degree, inner[0]), inner, np.full(degree, inner[-1])])


@given(
    st.lists(st.floats(0.5, 30), min_size=1, max_size=8),
    st.integers(0, 5),
    st.integers(0, 2),
)
def test_splines_on_clamped_knots_are_those_of_scipy(steps, degree, again):
    inner = np.cumsum([0.0, *steps])
    inner = np.sort(
        np.append(inner, np.full(again if degree > again else 0, inner[len(steps) // 2]))
    )
    inner = inner if inner[1] > inner[0] else np.unique(inner)
    knots, x = clamped(inner, degree), np.linspace(0, inner[-1], 57)
    expected = BSpline.design_matrix(x, knots, degree).toarray()
    np.testing.assert_allclose(spline_basis(x, knots, degree), expected, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_values_and_slopes_between_and_beyond_uneven_knots_are_those_of_scipy(degree):
    knots = np.cumsum(np.arange(1.0, 14.0) ** 0.7)
    spline = BSpline(knots, np.eye(len(knots) - degree - 1), degree)
    x = np.linspace(knots[degree] - 1, knots[-degree - 1] + 1, 101)
    np.testing.assert_allclose(spline_basis(x, knots, degree), spline(x), atol=1e-12)
    np.testing.assert_allclose(spline_slopes(x, knots, degree), spline.derivative()(x), atol=1e-12)


def test_whole_numbers_are_places_too():
    knots = clamped(np.array([0.0, 3.0, 9.0]), 3)
    np.testing.assert_array_equal(
        spline_basis(np.arange(10), knots, 3), spline_basis(np.arange(10.0), knots, 3)
    )
