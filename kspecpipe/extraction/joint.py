"""Fibres and a smooth background, solved together in blocks of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.bsplines import spline_basis
from kspecpipe.extraction.banded import factorise_band, invert_band, solve_band
from kspecpipe.extraction.slabs import Slabs, normal_equations
from kspecpipe.signal import BoolArray, FloatArray, IntArray

#: What is added to every equation relative to its own size, so that it can be solved.
_LEAST = 1e-9


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
    basis[low:high] = spline_basis(np.arange(low, high), knots, 3)
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
    equations = _Equations.of(value, weight, slabs, basis)
    flux, background, share, inverse = equations.solve(level)
    # what the background is not known to adds to the error of what stands on it
    power = invert_band(equations.factor)[0]
    power += np.einsum("fsb,bst,ftb->fb", share, inverse, share, optimize=True)
    back = np.argsort(equations.order)
    known = equations.known
    flux = np.where(known, flux, 0)[back]
    error = np.where(known, np.sqrt(np.maximum(power, 0)), np.inf)[back]
    return flux, error, basis @ background


def solve_background(
    value: FloatArray, weight: FloatArray, slabs: Slabs, basis: FloatArray
) -> FloatArray:
    """Background (ny, nb) that `solve_joint` finds if it may have any level."""
    level = np.full(value.shape[1], np.inf)
    return basis @ _Equations.of(value, weight, slabs, basis).solve(level)[1]


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations of fibres, sorted by their rows, and splines.

    Neighbouring fibres overlap, so their part is banded, and the fluxes can be eliminated from the
    equations of the splines before anything is inverted.

    Parameters
    ----------
    order : ndarray of int, shape (nfib,)
        Fibres from the first row to the last; ghosts come after all fibres in the list.
    factor : ndarray, shape (nband + 1, nfib, nb)
        Factorised part of the fibres.
    known : ndarray of bool, shape (nfib, nb)
        Fluxes about which the pixels tell anything.
    cross : ndarray, shape (nfib, nspline, nb)
        What fibres and splines have in common.
    free : ndarray, shape (nb, nspline, nspline)
        Part of the splines.
    light, floor : ndarray, shape (nfib, nb), (nspline, nb)
        Right-hand sides.
    """

    order: IntArray
    factor: FloatArray
    known: BoolArray
    cross: FloatArray
    free: FloatArray
    light: FloatArray
    floor: FloatArray

    @classmethod
    def of(
        cls, value: FloatArray, weight: FloatArray, slabs: Slabs, basis: FloatArray
    ) -> _Equations:
        """Form the equations of all blocks."""
        order = np.argsort(slabs.first, kind="stable")
        slabs = slabs.fibres(order)
        # only the rows that the splines cover take part
        weight = weight * np.asarray(basis.any(axis=1))[:, None]
        weighted = weight * value
        normal, light = normal_equations(slabs, weight, weighted)
        known = normal[0] > 0
        normal[0] = np.where(known, (1 + _LEAST) * normal[0], 1)
        cross = np.empty((len(slabs), basis.shape[1], value.shape[1]))
        for f, profile in enumerate(slabs.profile):
            rows = slabs.rows(f)
            cross[f] = basis[rows].T @ (profile * weight[rows])
        free = spline_products(basis, weight)
        return cls(order, factorise_band(normal), known, cross, free, light, basis.T @ weighted)

    def solve(self, level: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Solve fluxes and splines.

        Returns
        -------
        flux, background : ndarray, shape (nfib, nb), (nspline, nb)
            The solution.
        share : ndarray, shape (nfib, nspline, nb)
            Change of the fluxes with each spline.
        inverse : ndarray, shape (nb, nspline, nspline)
            Covariance of the splines.
        """
        share = solve_band(self.factor, self.cross)
        alone = solve_band(self.factor, self.light)
        across = np.ascontiguousarray(self.cross.transpose(2, 1, 0))
        left = self.free - across @ share.transpose(2, 0, 1)
        index = np.arange(left.shape[1])
        prior = 1 / np.maximum(level[:, None], 1e-3) ** 2
        own = self.free[:, index, index] + prior
        left[:, index, index] += prior + np.where(own > 0, _LEAST * own, 1)
        scale = 1 / np.sqrt(np.where(own > 0, own, 1))
        # unit diagonal: blocks may differ in brightness by many orders
        inverse = np.linalg.inv(left * scale[:, :, None] * scale[:, None, :])
        inverse *= scale[:, :, None] * scale[:, None, :]
        target = self.floor.T - np.einsum("bsf,fb->bs", across, alone)
        background = np.einsum("bst,bt->sb", inverse, target)
        flux = alone - np.einsum("fsb,sb->fb", share, background)
        return flux, background, share, inverse


def spline_products(basis: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted products of splines, of which only four overlap in a row.

    Parameters
    ----------
    basis : ndarray, shape (ny, nspline)
        The splines of `background_basis`.
    weight : ndarray, shape (ny, nb)
        Inverse variance of the rows of each block.

    Returns
    -------
    ndarray, shape (nb, nspline, nspline)
        Normal matrix of each block.
    """
    number = basis.shape[1]
    products = np.zeros((weight.shape[1], number, number))
    for step in range(min(4, number)):
        low = np.arange(number - step)
        shared = (basis[:, low] * basis[:, low + step]).T @ weight
        products[:, low, low + step] = products[:, low + step, low] = shared.T
    return products


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
    mean = np.add.reduceat(weight * value, edges[:-1], axis=1) / np.maximum(total, 1e-30)
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
