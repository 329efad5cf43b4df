"""B-splines, written out because `scipy.interpolate` takes longer to load than a bias to make."""

from __future__ import annotations

import numpy as np

from kspecpipe.signal import FloatArray, IntArray


def spline_basis(x: FloatArray | IntArray, knots: FloatArray, degree: int) -> FloatArray:
    """All B-splines on some knots, by the recursion of de Boor [1]_.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Where they are wanted; the outer polynomials go on beyond the knots.
    knots : ndarray, shape (m,)
        Rising; the first and the last ``degree`` of them are outside, or equal.
    degree : int
        Degree of the polynomials.

    Returns
    -------
    ndarray, shape (n, m - degree - 1)
        Values; those of one place sum to 1.

    References
    ----------
    .. [1] de Boor 1972, J. Approx. Theory 6, 50.
    """
    return _recursion(x, knots, _pieces(x, knots, degree), degree)


def spline_slopes(x: FloatArray, knots: FloatArray, degree: int) -> FloatArray:
    """Slopes of the B-splines of `spline_basis`, of degree 1 or more and without equal knots."""
    lower = _recursion(x, knots, _pieces(x, knots, degree), degree - 1)
    lower *= degree / (knots[degree:] - knots[:-degree])
    slopes: FloatArray = lower[:, :-1] - lower[:, 1:]
    return slopes


def _pieces(x: FloatArray | IntArray, knots: FloatArray, degree: int) -> IntArray:
    """Find the knot before each place, none of them in the outer ``degree`` intervals."""
    before = np.searchsorted(knots, x, side="right") - 1
    return np.clip(before, degree, len(knots) - degree - 2)


def _recursion(
    x: FloatArray | IntArray, knots: FloatArray, piece: IntArray, degree: int
) -> FloatArray:
    basis: FloatArray = (np.arange(len(knots) - 1) == piece[:, None]).astype(float)
    for order in range(1, degree + 1):
        width = knots[order:] - knots[:-order]
        rise = (x[:, None] - knots[:-order]) / np.where(width > 0, width, np.inf)
        basis = rise[:, :-1] * basis[:, :-1] + (1 - rise[:, 1:]) * basis[:, 1:]
    return basis
