"""Smooth surfaces through the means of boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline

from kspecpipe.detector.boxes import BoxGrid, _spline_basis, box_surface, fill_empty
from kspecpipe.errors import RecipeError


@given(number=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
def test_the_spline_through_nodes_is_that_of_scipy_beyond_the_nodes_too(number, seed):
    rng = np.random.default_rng(seed)
    nodes, values = np.cumsum(rng.uniform(5, 60, number)), rng.normal(0, 1, number)
    x = np.arange(int(nodes[-1]) + 30)
    basis = _spline_basis(x, nodes)
    through = np.linalg.solve(_spline_basis(nodes, nodes), values)
    expected = make_interp_spline(nodes, values, k=min(3, number - 1))(x)
    np.testing.assert_allclose(basis @ through, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(40, 33), (64, 7), (9, 100)])
def test_the_surface_has_the_mean_of_each_box(shape):
    grid = BoxGrid(shape, 10)
    means = np.random.default_rng(1).normal(5, 1, (len(grid.rows), len(grid.columns)))
    found = np.nanmean(grid.pixels(grid.surface(means)), axis=-1)
    np.testing.assert_allclose(found, means, rtol=1e-12)


def test_a_slope_comes_back_exactly_to_the_edges():
    y, x = np.mgrid[:60, :80]
    grid = BoxGrid((60, 80), 16)
    surface = box_surface(2.0 + 0.1 * x - 0.3 * y, grid)
    np.testing.assert_allclose(surface, 2.0 + 0.1 * x - 0.3 * y, atol=1e-9)


def test_the_noise_of_the_surface_is_that_of_many_noisy_images():
    grid, rng = BoxGrid((24, 30), 8), np.random.default_rng(4)
    surfaces = [box_surface(rng.normal(0, 1, (24, 30)), grid) for _ in range(400)]
    ratio = np.var(surfaces, axis=0) / grid.noise_gain()
    # Clipping leaves the noise of a mean nearly alone; neighbouring pixels share theirs.
    assert abs(ratio.mean() - 1) < 4 * np.sqrt(2 / 400 / 12) + 0.02


def test_empty_boxes_take_the_median_of_the_others_unless_all_are_empty():
    means = np.array([[1.0, np.nan], [3.0, 5.0]])
    np.testing.assert_array_equal(fill_empty(means), [[1.0, 3.0], [3.0, 5.0]])
    with pytest.raises(RecipeError, match="no pixel is usable"):
        fill_empty(np.full((2, 2), np.nan))
