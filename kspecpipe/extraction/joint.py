"""Fibres and a smooth background, solved together in blocks of columns."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline

from kspecpipe.extraction.slabs import Slabs
from kspecpipe.signal import BoolArray, FloatArray


def background_basis(n_row: int, span: tuple[int, int], distance: float) -> FloatArray:
    """Cubic B-splines along the rows (n_row, nspline), 0 outside ``span``, constant sum inside.

    Parameters
    ----------
    n_row : int
        Rows of the image.
    span : tuple of int
        First row and end of the fibres' surroundings.
    distance : float
        Distance of knots [pixel]: some pitches, or the background imitates fibres.
    """
    low, high = max(span[0], 0), min(span[1], n_row)
    number = max(int((high - low) / distance), 1)
    inner = np.linspace(low, max(high - 1, low + 1), number + 1)
    knots = np.concatenate([np.full(3, inner[0]), inner, np.full(3, inner[-1])])
    basis = np.zeros((n_row, number + 3))
    rows = np.arange(low, high, dtype=float)
    basis[low:high] = BSpline.design_matrix(rows, knots, 3).toarray()
    return basis


def expected_level(
    value: FloatArray, weight: FloatArray, span: tuple[float, float], pitch: float
) -> FloatArray:
    """Level that a background may have in each block (nb,), from the rows beside the fibres.

    Under the fibres a background and the far wings of all profiles look alike; where the rows 1.2
    to 2.5 pitches beyond the outermost fibres are dark, there is no background.

    Parameters
    ----------
    value, weight : ndarray, shape (ny, nb)
        Collapsed image [electron] and inverse variance.
    span : tuple of float
        Rows of the outermost fibres.
    pitch : float
        Distance of fibres [pixel].
    """
    row = np.arange(value.shape[0])
    out = np.maximum(span[0] - row, row - span[1])
    beside = (out > 1.2 * pitch) & (out < 2.5 * pitch)
    if beside.sum() < 3:
        return np.full(value.shape[1], np.inf)
    level = np.abs(np.percentile(value[beside], 25, axis=0))
    total = weight[beside].sum(axis=0)
    noise = np.where(total > 0, 1 / np.sqrt(np.where(total > 0, total, 1)), np.inf)
    level = np.maximum(level, noise)
    return np.asarray(level)


def solve_joint(
    value: FloatArray,
    weight: FloatArray,
    slabs: Slabs,
    basis: FloatArray,
    level: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Solve fluxes and background of each block by weighted least squares.

    Parameters
    ----------
    value, weight : ndarray, shape (ny, nb)
        Collapsed image [electron] and inverse variance; 0 = unusable.
    slabs : Slabs
        Profiles at the blocks.
    basis : ndarray, shape (ny, nspline)
        Splines of the background.
    level : ndarray, shape (nb,)
        Standard deviation of the background's coefficients before the fit [electron].

    Returns
    -------
    flux, error : ndarray, shape (nfib, nb)
        Fluxes and errors [electron]; 0 and inf where nothing is known.
    background : ndarray, shape (ny, nb)
        The background [electron].
    """
    n_fibre = len(slabs)
    gram, rhs = _joint_equations(value, weight, slabs, basis)
    known = np.diagonal(gram, axis1=1, axis2=2).T[:n_fibre] > 0
    scale = _condition(gram, rhs, basis.shape[1], level)
    inverse = np.linalg.inv(gram)
    solution = (scale * np.einsum("bij,bj->bi", inverse, rhs)).T
    power = (scale**2 * np.diagonal(inverse, axis1=1, axis2=2)).T
    flux = np.where(known, solution[:n_fibre], 0)
    error = np.where(known, np.sqrt(np.maximum(power[:n_fibre], 0)), np.inf)
    return flux, error, basis @ solution[n_fibre:]


def solve_background(
    value: FloatArray, weight: FloatArray, slabs: Slabs, basis: FloatArray
) -> FloatArray:
    """Background (ny, nb) that `solve_joint` finds if it may have any level.

    Without errors no matrix is inverted, which would take three times as long.
    """
    gram, rhs = _joint_equations(value, weight, slabs, basis)
    scale = _condition(gram, rhs, basis.shape[1], np.full(value.shape[1], np.inf))
    solution = (scale * np.linalg.solve(gram, rhs[..., None])[..., 0]).T
    return basis @ solution[len(slabs) :]


def _condition(gram: FloatArray, rhs: FloatArray, n_spline: int, level: FloatArray) -> FloatArray:
    """Add the prior of the splines, scale the equations to a unit diagonal, both in place.

    Returns the scale (nb, n): the solution of the scaled equations is to be multiplied by it.
    """
    diagonal = np.arange(gram.shape[1])
    free = diagonal[gram.shape[1] - n_spline :]
    gram[:, free, free] += 1 / np.maximum(level[:, None], 1e-3) ** 2
    size = np.maximum(gram[:, diagonal, diagonal], 1e-300)
    gram[:, diagonal, diagonal] += np.where(size > 1e-300, 1e-9 * size, 1.0)
    scale: FloatArray = 1 / np.sqrt(size)
    gram *= scale[:, :, None]
    gram *= scale[:, None, :]
    rhs *= scale
    return scale


def _joint_equations(
    value: FloatArray, weight: FloatArray, slabs: Slabs, basis: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return normal matrices (nb, n, n) and right-hand sides (nb, n): fibres, then splines."""
    n_fibre, n_block = len(slabs), value.shape[1]
    number = n_fibre + basis.shape[1]
    gram, rhs = np.zeros((n_block, number, number)), np.empty((n_block, number))
    # only the rows that the splines cover take part
    near: BoolArray = np.asarray(basis.any(axis=1))
    splines, weight = basis[near], weight * near[:, None]
    weighted = weight * value
    rhs[:, n_fibre:] = (splines.T @ weighted[near]).T
    for b in range(n_block):
        gram[b, n_fibre:, n_fibre:] = (splines.T * weight[near, b]) @ splines
    first = np.array(slabs.first)
    stop = first + [len(profile) for profile in slabs.profile]
    for f, profile in enumerate(slabs.profile):
        rows = slabs.rows(f)
        scaled = profile * weight[rows]
        rhs[:, f] = np.einsum("yb,yb->b", scaled, value[rows])
        gram[:, f, n_fibre:] = gram[:, n_fibre:, f] = scaled.T @ basis[rows]
        # ghosts follow all fibres: neighbours on the image need not be neighbours in the list
        for other in (f + np.flatnonzero((first[f:] < stop[f]) & (stop[f:] > first[f]))).tolist():
            shared = slabs.overlap(f, other)
            if shared is not None:
                light = np.einsum("yb,yb->b", scaled[shared[0]], slabs.profile[other][shared[1]])
                gram[:, f, other] = gram[:, other, f] = light
    return gram, rhs


def local_background(value: FloatArray, weight: FloatArray, slabs: Slabs, width: int) -> FloatArray:
    """Smooth background under the fibres (ny, nx) from blocks of ``width`` columns.

    In each block the mean image is explained by the mean profiles and splines with knots three
    pitches apart; between blocks the background is interpolated.

    Parameters
    ----------
    value, weight : ndarray, shape (ny, nx)
        Image [electron] and inverse variance of its pixels; 0 = unusable.
    slabs : Slabs
        Profiles.
    width : int
        Columns per block.
    """
    n_row, n_x = value.shape
    number = max(int(round(n_x / width)), 1)
    edges = np.linspace(0, n_x, number + 1).astype(int)
    centre = np.array([(a + b - 1) / 2 for a, b in zip(edges[:-1], edges[1:], strict=True)])
    total = np.add.reduceat(weight, edges[:-1], axis=1)
    mean = np.add.reduceat(weight * value, edges[:-1], axis=1) / np.maximum(total, 1e-300)
    profiles = tuple(
        np.add.reduceat(p.astype(float), edges[:-1], axis=1) / np.diff(edges) for p in slabs.profile
    )
    middle = np.array([slabs.first[f] + p.shape[0] / 2 for f, p in enumerate(profiles)])
    pitch = float(np.median(np.diff(middle))) if middle.size > 1 else float(profiles[0].shape[0])
    basis = background_basis(n_row, (0, n_row), 3.0 * pitch)
    blocks = Slabs(slabs.first, profiles, slabs.band)
    # the wings are known here, so that nothing need be assumed about the background
    floor = solve_background(mean, total, blocks, basis)
    if number == 1:
        return np.repeat(floor, n_x, axis=1)
    at = np.clip(np.arange(n_x), centre[0], centre[-1])
    left = np.clip(np.searchsorted(centre, at, side="right") - 1, 0, number - 2)
    share = (at - centre[left]) / (centre[left + 1] - centre[left])
    background: FloatArray = floor[:, left] * (1 - share) + floor[:, left + 1] * share
    return background
