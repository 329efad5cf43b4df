"""Least-squares B-spline fit of the cross-dispersion profile to blocks of columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
#: Relative difference of a fibre's width that is expected: with little light it has the others'.
_OWN = 0.1
#: How much it counts, relative to the data, that both far wings are alike.
_EVEN = 0.3


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
    own : ndarray, shape (nfib, n_knot), or None
        What each fibre has beside that: fibres of one slit differ in width by some per cent.
    """

    coefficients: FloatArray
    spacing: int
    x_range: tuple[float, float]
    own: FloatArray | None = None

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
        return value if self.own is None else value + self.own[np.asarray(fibre, int), None]

    def centre(self, traces: Traces) -> FloatArray:
        """Offset of the flux centroid from the trace (nfib, nx) [pixel]."""
        n_fibre, n_x = traces.y.shape
        nodes = np.linspace(0, n_x - 1, 65)
        shape = self.at(np.arange(n_fibre), nodes, n_fibre)
        moment = shape @ self.knots / shape.sum(axis=2)
        return np.stack([np.interp(np.arange(n_x), nodes, row) for row in moment])

    def tabulate(
        self, n_fibre: int, fibre_nodes: int, x_nodes: int, *, centred: bool = True
    ) -> Profile:
        """Tabulate the normalised profile about its centroid, or about the trace as it is."""
        nodes = n_fibre if self.own is not None else min(fibre_nodes, n_fibre)
        fibre = np.linspace(0, n_fibre - 1, nodes)
        low, high = self.x_range
        x = np.linspace(low, high, x_nodes if self.coefficients.shape[0] > 1 else 1)
        shape = self.at(fibre, x, n_fibre)
        centre = shape @ self.knots / shape.sum(axis=2)
        per_pixel = int(np.ceil(8 / self.spacing))
        reach = int(self.knots[-1] + _MARGIN * self.spacing)
        offset = np.arange(-reach * per_pixel, reach * per_pixel + 1) / per_pixel
        where = offset + centre[:, :, None] * centred
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
    spectra: BlockSpectra,
    traces: Traces,
    half_width: float,
    orders: tuple[int, int],
    earlier: ProfileShape | None = None,
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
    earlier : ProfileShape or None
        Last round's: how much wider or narrower than the shape of all each fibre is, is fitted at
        once. Else the far wings, which lie under the next fibre's core, stand in for it, and pull
        the centroid.

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
    stretch = _stretch(earlier, used.shape[0]) if earlier else None
    columns = _Columns(spectra, used, across, stretch, spacing, number)
    gram, side = _normal_equations(columns, traces, lit.tolist(), along)
    n_knot = 2 * number + 1
    size = (order_x + 1) * (order_u + 1) * n_knot
    rest = _uneven(across, np.asarray(used.any(axis=1)))
    if stretch is not None:
        gram, side = _of_widths(gram, side, size, rest)
    # change over the detector is only believed as far as the light asks for it
    ridge = 1e-9 + 1e-5 * (np.arange(size) >= n_knot)
    ridge *= np.tile(np.diag(gram)[:n_knot], size // n_knot)
    ridge = np.append(ridge, np.full(gram.shape[0] - size, _OWN**-2.0))
    gram[np.diag_indices(gram.shape[0])] += ridge
    gram[:size, :size] += _even_wings(np.diag(gram)[:n_knot], 0.5 * traces.pitch / spacing, size)
    solution = cho_solve(cho_factor(gram), side)
    shape = solution[:size].reshape(order_x + 1, order_u + 1, n_knot)
    own = None if stretch is None else (rest @ solution[size:])[:, None] * stretch
    return ProfileShape(shape, spacing, x_range, own)


def _uneven(across: FloatArray, lit: BoolArray) -> FloatArray:
    """Return changes (nfib, n) from fibre to fibre beside the polynomials, of those with light."""
    basis = np.linalg.qr(across[lit], mode="complete")[0][:, across.shape[1] :]
    rest = np.zeros((lit.size, basis.shape[1]))
    rest[lit] = basis
    return rest


def _of_widths(
    gram: FloatArray, side: FloatArray, size: int, rest: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Keep of the widths, which follow the ``size`` splines, what ``rest`` (nfib, n) allows."""
    mixed = gram[:size, size:] @ rest
    own = rest.T @ gram[size:, size:] @ rest
    return np.block([[gram[:size, :size], mixed], [mixed.T, own]]), np.append(
        side[:size], rest.T @ side[size:]
    )


@dataclass(frozen=True, eq=False)
class _Columns:
    """What the columns of the design are made of: splines, then perhaps a width per fibre."""

    spectra: BlockSpectra
    used: BoolArray
    across: FloatArray
    stretch: FloatArray | None
    spacing: int
    number: int

    @property
    def n_spline(self) -> int:
        """Number of the columns of the splines."""
        return int(self.across.shape[1] * (2 * self.number + 1))

    def of(self, block: int, rows: slice) -> FloatArray:
        """Light of each coefficient on rows of one block (nrow, ncolumn)."""
        used, knots = self.used[:, block], (self.spacing, self.number, rows)
        design = _design(self.spectra, used, block, self.across, knots)
        if self.stretch is None:
            return design
        return np.hstack([design, _stretched(self.spectra, used, block, self.stretch, knots)])


def _normal_equations(
    columns: _Columns, traces: Traces, lit: list[int], along: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sum over blocks: splines change along the dispersion, the fibres' widths do not."""
    spectra, used = columns.spectra, columns.used
    size = along.shape[1] * columns.n_spline
    total = size + (0 if columns.stretch is None else used.shape[0])
    gram, side = np.zeros((total, total)), np.zeros(total)
    basis = floor_basis(traces, spectra.value.shape[0])
    level, margin = floor_level(spectra, spectra.y), int(2.5 * traces.pitch)
    ranges = [_rows_of(spectra, used[:, b], b, margin) for b in lit]
    weight = np.zeros((spectra.value.shape[0], len(lit)))
    for i, rows in enumerate(ranges):
        weight[rows, i] = spectra.weight[rows, lit[i]]
    inner = spline_products(basis, weight)
    spline, own = slice(0, columns.n_spline), slice(columns.n_spline, None)
    for i, (b, rows) in enumerate(zip(lit, ranges, strict=True)):
        floor = basis[rows], inner[i], float(level[b])
        part, target = _without_floor(
            columns.of(b, rows), floor, weight[rows, i], spectra.value[rows, b]
        )
        gram[:size, :size] += np.kron(np.outer(along[b], along[b]), part[spline, spline])
        gram[:size, size:] += np.kron(along[b][:, None], part[spline, own])
        gram[size:, size:] += part[own, own]
        side[:size] += np.kron(along[b], target[spline])
        side[size:] += target[own]
    gram[size:, :size] = gram[:size, size:].T
    return gram, side


def _even_wings(diagonal: FloatArray, start: float, size: int) -> FloatArray:
    """Penalty on the difference of both wings beyond half a pitch (size, size).

    What one fibre has there and its neighbour lacks in its core cannot be told apart when
    neighbours are about equally bright, but it decides where the centroid is.
    """
    n_knot = diagonal.size
    far = np.flatnonzero(np.arange(n_knot) - n_knot // 2 >= start)
    difference = np.zeros((far.size, n_knot))
    difference[np.arange(far.size), far] = 1
    difference[np.arange(far.size), n_knot - 1 - far] = -1
    penalty = (difference.T * (_EVEN * diagonal[far])) @ difference
    return np.kron(np.eye(size // n_knot), penalty)


def _stretch(shape: ProfileShape, n_fibre: int) -> FloatArray:
    """Change of the coefficients per relative change of the width (nfib, n_knot).

    It is that of the shape of all, and of its core: a change of the far wings would be their noise.
    """
    middle = np.array([np.mean(shape.x_range)])
    coefficients = replace(shape, own=None).at(np.arange(n_fibre), middle, n_fibre)[:, 0]
    centre = coefficients @ shape.knots / coefficients.sum(axis=1)
    offset = np.arange(8 * shape.knots[0], 8 * shape.knots[-1] + 1) / 8
    knot, value = spline_values(offset / shape.spacing)
    design = np.zeros((offset.size, shape.knots.size + 2 * DEGREE))
    np.put_along_axis(design, knot + shape.knots.size // 2 + DEGREE, value, axis=1)
    design = design[:, DEGREE:-DEGREE]
    light = design @ coefficients.T
    change = -np.gradient((offset[:, None] - centre) * light, offset, axis=0)
    change[light < 0.01 * light.max(axis=0)] = 0
    return np.asarray(np.linalg.lstsq(design, change, rcond=None)[0].T)


def _stretched(
    spectra: BlockSpectra,
    used: BoolArray,
    block: int,
    stretch: FloatArray,
    knots: tuple[int, int, slice],
) -> FloatArray:
    """Change of each fibre's light on rows of one block with its width (nrow, nfib)."""
    _, number, rows = knots
    fibre = np.flatnonzero(used)
    row, knot, value = _splines_near(spectra.y[fibre, block], knots)
    at = np.clip(knot + number, 0, 2 * number)
    light = np.sum(stretch[fibre[:, None, None], at] * (np.abs(knot) <= number) * value, axis=2)
    inside = (row >= rows.start) & (row < rows.stop)
    design = np.zeros((rows.stop - rows.start, used.size))
    index = (np.where(inside, row - rows.start, 0), fibre[:, None])
    np.add.at(design, index, inside * light * spectra.flux[fibre, block][:, None])
    return design


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
    # of a matrix times its own transpose only half is computed
    root = np.sqrt(weight)
    scaled, value = design * root[:, None], value * root
    seen = np.flatnonzero(np.diagonal(inner) > 0)
    basis, inner = basis[:, seen], inner[np.ix_(seen, seen)]
    basis = basis * root[:, None]
    cross = scaled.T @ basis
    inner[np.diag_indices(seen.size)] *= 1 + 1e-9
    inner[np.diag_indices(seen.size)] += 1 / max(level, 1e-3) ** 2
    share = np.linalg.solve(inner, np.column_stack([cross.T, basis.T @ value]))
    return scaled.T @ scaled - cross @ share[:, :-1], scaled.T @ value - cross @ share[:, -1]


def _rows_of(spectra: BlockSpectra, used: BoolArray, block: int, margin: int) -> slice:
    """Rows of one block near the fibres that are used."""
    centre = spectra.y[used, block]
    high = min(int(centre.max()) + margin + 1, spectra.value.shape[0])
    return slice(max(int(centre.min()) - margin, 0), high)


def _splines_near(
    centre: FloatArray, knots: tuple[int, int, slice]
) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows (nfib, nrow) about fibres, and the splines there: their knots and values."""
    spacing, number, _ = knots
    reach = spacing * (number + _MARGIN)
    row = np.ceil(centre - reach).astype(int)[:, None] + np.arange(2 * reach + 1)
    return row, *spline_values((row - centre[:, None]) / spacing)


def _design(
    spectra: BlockSpectra,
    used: BoolArray,
    block: int,
    across: FloatArray,
    knots: tuple[int, int, slice],
) -> FloatArray:
    """Light of each coefficient on the rows of one block (nrow, n_across * n_knot)."""
    _, number, rows = knots
    low, high = rows.start, rows.stop
    fibre = np.flatnonzero(used)
    row, knot, value = _splines_near(spectra.y[fibre, block], knots)
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
