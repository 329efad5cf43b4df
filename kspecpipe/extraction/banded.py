"""Symmetric banded systems, one per detector column, solved side by side."""

from __future__ import annotations

from kspecpipe.signal import FloatArray


def factorise_band(band: FloatArray) -> FloatArray:
    """Factorise symmetric positive definite band matrices as L D L^T.

    Parameters
    ----------
    band : ndarray, shape (nband + 1, n, m)
        ``band[k, i]`` is element ``(i + k, i)`` of each of ``m`` matrices of size ``n``.

    Returns
    -------
    ndarray, shape (nband + 1, n, m)
        D in element 0, the sub-diagonals of the unit triangle L in the others.
    """
    factor = band.copy()
    reach, size = band.shape[0] - 1, band.shape[1]
    for i in range(size):
        for k in range(1, min(reach, size - 1 - i) + 1):
            ratio = factor[k, i] / factor[0, i]
            for j in range(k, min(reach, size - 1 - i) + 1):
                factor[j - k, i + k] -= ratio * factor[j, i]
        factor[1:, i] /= factor[0, i]
    return factor


def solve_band(factor: FloatArray, rhs: FloatArray) -> FloatArray:
    """Solve the factorised systems for one right-hand side each, (n, m), or several, (n, r, m)."""
    solution = rhs.copy()
    reach, size = factor.shape[0] - 1, factor.shape[1]
    for i in range(size):
        for k in range(1, min(reach, size - 1 - i) + 1):
            solution[i + k] -= factor[k, i] * solution[i]
    solution /= factor[0].reshape(size, *(1,) * (rhs.ndim - 2), -1)
    for i in range(size - 2, -1, -1):
        for k in range(1, min(reach, size - 1 - i) + 1):
            solution[i] -= factor[k, i] * solution[i + k]
    return solution


def invert_band(factor: FloatArray) -> FloatArray:
    """Elements of the inverse matrices inside the band, without forming the rest.

    Returns
    -------
    ndarray, shape (nband + 1, n, m)
        ``[k, i]`` is element ``(i + k, i)`` of the inverse.

    References
    ----------
    .. [1] Takahashi, Fagan & Chen 1973, 8th PICA Conference, p. 63.
    """
    inverse = factor * 0.0
    reach, size = factor.shape[0] - 1, factor.shape[1]
    for i in range(size - 1, -1, -1):
        near = range(1, min(reach, size - 1 - i) + 1)
        for k in reversed(near):
            for j in near:
                inverse[k, i] -= factor[j, i] * inverse[abs(j - k), i + min(j, k)]
        inverse[0, i] = 1 / factor[0, i]
        for j in near:
            inverse[0, i] -= factor[j, i] * inverse[j, i]
    return inverse
