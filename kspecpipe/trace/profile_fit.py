"""Least-squares B-spline fit of the cross-dispersion profile to blocks of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy.interpolate import BSpline
from scipy.linalg import cho_factor, cho_solve

from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.trace.clean import BlockSpectra, floor_basis, floor_level
from kspecpipe.trace.model import Traces
from kspecpipe.trace.table import Profile, between

#: Quintic: with knots one pixel apart good to 1e-4 of the peak for a FWHM of 3 pixels.
DEGREE = 5
_BASIS = BSpline.basis_element(np.arange(DEGREE + 2) - (DEGREE + 1) / 2, extrapolate=False)
_MARGIN = (DEGREE + 1) // 2


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
        table = np.zeros(where.shape)
        for k, knot in enumerate(self.knots):
            table += shape[:, :, k, None] * np.nan_to_num(_BASIS((where - knot) / self.spacing))
        table /= self.spacing * shape.sum(axis=2)[:, :, None]
        return Profile(table, fibre, x, float(offset[0]), 1 / per_pixel)


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
    for b in lit.tolist():
        design, rows = _design(spectra, used[:, b], b, across, (spacing, number, margin))
        part, target = _without_floor(
            design, basis[rows], spectra.weight[rows, b], spectra.value[rows, b], float(level[b])
        )
        gram += np.kron(np.outer(along[b], along[b]), part)
        side += np.kron(along[b], target)
    # change over the detector is only believed as far as the light asks for it
    ridge = 1e-9 + 1e-5 * (np.arange(size) >= n_knot)
    gram[np.diag_indices(size)] += ridge * np.tile(np.diag(gram)[:n_knot], size // n_knot)
    solution = cho_solve(cho_factor(gram), side)
    shape = solution.reshape(order_x + 1, order_u + 1, n_knot)
    return ProfileShape(shape, spacing, x_range)


def _without_floor(
    design: FloatArray, basis: FloatArray, weight: FloatArray, value: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    """Form normal matrix and right side with a smooth background eliminated."""
    scaled = design * weight[:, None]
    floor = basis[:, np.any(basis * weight[:, None] > 0, axis=0)]
    cross = scaled.T @ floor
    inner = (floor.T * weight) @ floor
    inner[np.diag_indices(inner.shape[0])] *= 1 + 1e-9
    inner[np.diag_indices(inner.shape[0])] += 1 / max(level, 1e-3) ** 2
    share = np.linalg.solve(inner, np.column_stack([cross.T, floor.T @ (weight * value)]))
    return scaled.T @ design - cross @ share[:, :-1], scaled.T @ value - cross @ share[:, -1]


def _design(
    spectra: BlockSpectra,
    used: BoolArray,
    block: int,
    across: FloatArray,
    knots: tuple[int, int, int],
) -> tuple[FloatArray, slice]:
    """Light of each coefficient on the rows of one block (nrow, n_across * n_knot)."""
    spacing, number, margin = knots
    fibre = np.flatnonzero(used)
    centre = spectra.y[fibre, block]
    reach = spacing * (number + _MARGIN)
    row = np.ceil(centre - reach).astype(int)[:, None] + np.arange(2 * reach + 1)
    unit = (row - centre[:, None]) / spacing
    first = np.floor(unit).astype(int) - _MARGIN + 1
    knot = first[:, :, None] + np.arange(DEGREE + 1)
    value = np.nan_to_num(_BASIS(unit[:, :, None] - knot))
    low = max(int(centre.min()) - margin, 0)
    high = min(int(centre.max()) + margin + 1, spectra.value.shape[0])
    inside = (np.abs(knot) <= number) & ((row >= low) & (row < high))[:, :, None]
    value = np.where(inside, value, 0) * spectra.flux[fibre, block][:, None, None]
    n_across, n_knot = across.shape[1], 2 * number + 1
    index = np.where(inside, (row[:, :, None] - low) * n_across * n_knot + knot + number, 0)
    design = np.stack(
        [
            np.bincount(
                (index + j * n_knot * inside).ravel(),
                (value * across[fibre, j][:, None, None]).ravel(),
                (high - low) * n_across * n_knot,
            )
            for j in range(n_across)
        ]
    ).sum(axis=0)
    return design.reshape(high - low, -1), slice(low, high)


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
