"""Least-squares B-spline fit of the cross-dispersion profile to blocks of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy.linalg import cho_factor, cho_solve

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.joint import spline_products
from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.trace.clean import BlockSpectra, floor_basis, floor_level
from kspecpipe.trace.model import Traces
from kspecpipe.trace.table import Profile, between

#: Quintic: with knots one pixel apart good to 1e-4 of the peak for a FWHM of 3 pixels.
DEGREE = 5
_MARGIN = (DEGREE + 1) // 2
#: Polynomials of the splines that overlap between two knots: row i belongs to the i-th power.
_POLYNOMIALS = (
    np.array(
        [
            [1, 26, 66, 26, 1, 0],
            [-5, -50, 0, 50, 5, 0],
            [10, 20, -60, 20, 10, 0],
            [-10, 20, 0, -20, 10, 0],
            [5, -20, 30, -20, 5, 0],
            [-1, 5, -10, 10, -5, 1],
        ]
    )
    / 120
)


@dataclass(frozen=True, eq=False)
class ProfileShape:
    """B-spline coefficients of the profile, polynomials of column and fibre.

    Parameters
    ----------
    coefficients : ndarray, shape (order_x + 1, order_fibre + 1, n_knot)
        Coefficients on knots at ``spacing * (-n .. n)`` from the trace.
    spacing : int
        Distance of knots [pixel]; a whole number, so that flux and centroid do not depend on
        the phase of the pixels.
    x_range : tuple of float
        Columns with light; the shape is held constant beyond.
    """

    coefficients: FloatArray
    spacing: int
    x_range: tuple[float, float]

    @property
    def knots(self) -> FloatArray:
        """Positions of the B-splines [pixel]."""
        number = self.coefficients.shape[2] // 2
        return self.spacing * np.arange(-number, number + 1.0)

    def at(self, fibre: FloatArray | IntArray, x: FloatArray, n_fibre: int) -> FloatArray:
        """Coefficients for fibres and columns, shape (n_fibre, n_x, n_knot)."""
        along = along_terms(x, self.x_range, self.coefficients.shape[0])
        across = across_terms(fibre, n_fibre, self.coefficients.shape[1])
        value: FloatArray = np.einsum("xi,fj,ijk->fxk", along, across, self.coefficients)
        return value

    def centre(self, traces: Traces) -> FloatArray:
        """Offset of the flux centroid from the trace (nfib, nx) [pixel]."""
        n_fibre, n_x = traces.y.shape
        nodes = np.linspace(0, n_x - 1, 65)
        shape = self.at(np.arange(n_fibre), nodes, n_fibre)
        moment = shape @ self.knots / shape.sum(axis=2)
        return np.stack([np.interp(np.arange(n_x), nodes, row) for row in moment])

    def tabulate(self, n_fibre: int, fibre_nodes: int, x_nodes: int) -> Profile:
        """Tabulate the normalised profile about its centroid."""
        fibre = np.linspace(0, n_fibre - 1, min(fibre_nodes, n_fibre))
        low, high = self.x_range
        x = np.linspace(low, high, x_nodes if self.coefficients.shape[0] > 1 else 1)
        shape = self.at(fibre, x, n_fibre)
        centre = shape @ self.knots / shape.sum(axis=2)
        per_pixel = int(np.ceil(8 / self.spacing))
        reach = int(self.knots[-1] + _MARGIN * self.spacing)
        offset = np.arange(-reach * per_pixel, reach * per_pixel + 1) / per_pixel
        where = offset + centre[:, :, None]
        knot, value = spline_values(where / self.spacing)
        inside = np.abs(knot) <= self.knots.size // 2
        at = np.where(inside, knot + self.knots.size // 2, 0).reshape(*shape.shape[:2], -1)
        share = np.take_along_axis(shape, at, axis=2).reshape(knot.shape)
        table = np.sum(share * inside * value, axis=-1)
        table /= self.spacing * shape.sum(axis=2)[:, :, None]
        return Profile(table, fibre, x, float(offset[0]), 1 / per_pixel)


def spline_values(unit: FloatArray) -> tuple[IntArray, FloatArray]:
    """Find the splines that are not 0 at places given in distances of knots, and their values.

    Returns
    -------
    knot : ndarray of int, shape (..., 6)
        Numbers of the splines' knots, counted from the place 0.
    value : ndarray, shape (..., 6)
        Their values there; they sum to 1.
    """
    whole = np.floor(unit)
    powers = np.vander((unit - whole).ravel(), DEGREE + 1, increasing=True)
    value: FloatArray = (powers @ _POLYNOMIALS).reshape(*unit.shape, DEGREE + 1)
    first = whole.astype(int) - _MARGIN + 1
    return first[..., None] + np.arange(DEGREE + 1), value


def along_terms(x: FloatArray, x_range: tuple[float, float], number: int) -> FloatArray:
    """Legendre polynomials along the dispersion, constant beyond the lit columns."""
    low, high = x_range
    unit = np.clip(2 * (np.asarray(x) - low) / max(high - low, 1) - 1, -1, 1)
    terms: FloatArray = legendre.legvander(unit, number - 1)
    return terms


def across_terms(fibre: FloatArray | IntArray, n_fibre: int, number: int) -> FloatArray:
    """Legendre polynomials of the fibre index."""
    terms: FloatArray = legendre.legvander(2 * fibre / max(n_fibre - 1, 1) - 1, number - 1)
    return terms


def fit_profile(
    spectra: BlockSpectra, traces: Traces, half_width: float, orders: tuple[int, int]
) -> ProfileShape:
    """Fit the profile to blocks of columns with given fluxes, neighbours together.

    Parameters
    ----------
    spectra : BlockSpectra
        Collapsed flat with fluxes of the fibres in each block.
    traces : Traces
        Present traces.
    half_width : float
        Half width of the profile [pixel].
    orders : tuple of int
        Polynomial orders along the dispersion and across the fibres.

    Raises
    ------
    RecipeError
        If no block has light.
    """
    used = spectra.significant(10.0) & traces.live[:, None]
    lit = np.flatnonzero(used.sum(axis=0) >= max(1, 0.3 * traces.live.sum()))
    if lit.size == 0:
        raise RecipeError("no block of columns has enough light to measure the profile")
    spacing = max(1, int(np.median(traces.width) / 10))
    number = max(int(round(half_width / spacing)) - 2, 2)
    order_x = min(orders[0], max((lit.size - 1) // 4, 0))
    order_u = min(orders[1], max((int(traces.live.sum()) - 1) // 3, 0))
    x_range = (float(spectra.x[lit[0]]), float(spectra.x[lit[-1]]))
    along = along_terms(spectra.x, x_range, order_x + 1)
    across = across_terms(np.arange(used.shape[0]), used.shape[0], order_u + 1)
    n_knot = 2 * number + 1
    size = (order_x + 1) * (order_u + 1) * n_knot
    gram, side = np.zeros((size, size)), np.zeros(size)
    basis = floor_basis(traces, spectra.value.shape[0])
    level, margin = floor_level(spectra, spectra.y), int(2.5 * traces.pitch)
    ranges = [_rows_of(spectra, used[:, b], b, margin) for b in lit.tolist()]
    weight = np.zeros((spectra.value.shape[0], lit.size))
    for i, rows in enumerate(ranges):
        weight[rows, i] = spectra.weight[rows, lit[i]]
    inner = spline_products(basis, weight)
    for i, (b, rows) in enumerate(zip(lit.tolist(), ranges, strict=True)):
        design = _design(spectra, used[:, b], b, across, (spacing, number, rows))
        floor = basis[rows], inner[i], float(level[b])
        part, target = _without_floor(design, floor, weight[rows, i], spectra.value[rows, b])
        gram += np.kron(np.outer(along[b], along[b]), part)
        side += np.kron(along[b], target)
    # change over the detector is only believed as far as the light asks for it
    ridge = 1e-9 + 1e-5 * (np.arange(size) >= n_knot)
    gram[np.diag_indices(size)] += ridge * np.tile(np.diag(gram)[:n_knot], size // n_knot)
    solution = cho_solve(cho_factor(gram), side)
    shape = solution.reshape(order_x + 1, order_u + 1, n_knot)
    return ProfileShape(shape, spacing, x_range)


def _without_floor(
    design: FloatArray,
    floor: tuple[FloatArray, FloatArray, float],
    weight: FloatArray,
    value: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Form normal matrix and right side with a smooth background eliminated.

    ``floor`` holds its splines on these rows, their normal matrix, and the level it may have.
    """
    basis, inner, level = floor
    scaled = design * weight[:, None]
    seen = np.flatnonzero(np.diagonal(inner) > 0)
    basis, inner = basis[:, seen], inner[np.ix_(seen, seen)]
    cross = scaled.T @ basis
    inner[np.diag_indices(seen.size)] *= 1 + 1e-9
    inner[np.diag_indices(seen.size)] += 1 / max(level, 1e-3) ** 2
    share = np.linalg.solve(inner, np.column_stack([cross.T, basis.T @ (weight * value)]))
    return scaled.T @ design - cross @ share[:, :-1], scaled.T @ value - cross @ share[:, -1]


def _rows_of(spectra: BlockSpectra, used: BoolArray, block: int, margin: int) -> slice:
    """Rows of one block near the fibres that are used."""
    centre = spectra.y[used, block]
    high = min(int(centre.max()) + margin + 1, spectra.value.shape[0])
    return slice(max(int(centre.min()) - margin, 0), high)


def _design(
    spectra: BlockSpectra,
    used: BoolArray,
    block: int,
    across: FloatArray,
    knots: tuple[int, int, slice],
) -> FloatArray:
    """Light of each coefficient on the rows of one block (nrow, n_across * n_knot)."""
    spacing, number, rows = knots
    low, high = rows.start, rows.stop
    fibre = np.flatnonzero(used)
    centre = spectra.y[fibre, block]
    reach = spacing * (number + _MARGIN)
    row = np.ceil(centre - reach).astype(int)[:, None] + np.arange(2 * reach + 1)
    knot, value = spline_values((row - centre[:, None]) / spacing)
    inside = (np.abs(knot) <= number) & ((row >= low) & (row < high))[:, :, None]
    value = np.where(inside, value, 0) * spectra.flux[fibre, block][:, None, None]
    n_knot = 2 * number + 1
    index = np.where(inside, (row[:, :, None] - low) * n_knot + knot + number, 0).ravel()
    size = (high - low) * n_knot
    design = [
        np.bincount(index, (value * share[:, None, None]).ravel(), size).reshape(-1, n_knot)
        for share in across[fibre].T
    ]
    return np.hstack(design)


def first_guess(traces: Traces, half_width: float) -> Profile:
    """Gaussian of the typical width, to start from."""
    sigma = float(np.median(traces.width)) / 2.3548
    reach = int(np.ceil(half_width))
    offset = np.arange(-8 * reach, 8 * reach + 1) / 8
    table = np.exp(-0.5 * (offset / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return Profile(table[None, None], np.zeros(1), np.zeros(1), -float(reach), 1 / 8)


def widths(profile: Profile, shape: tuple[int, int]) -> FloatArray:
    """FWHM of every fibre at every column (nfib, nx)."""
    x = np.arange(shape[1])
    along = np.stack([np.interp(x, profile.x_node, row) for row in profile.fwhm()])
    lower, share = between(np.arange(shape[0]), profile.fibre_node)
    upper = np.minimum(lower + 1, profile.fibre_node.size - 1)
    width: FloatArray = (1 - share[:, None]) * along[lower] + share[:, None] * along[upper]
    return width
