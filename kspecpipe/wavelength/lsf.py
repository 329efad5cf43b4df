"""The empirical line-spread function: a smooth, skewed shape that changes slowly over the chip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kspecpipe.bsplines import spline_basis, spline_slopes
from kspecpipe.signal import FloatArray, IntArray

#: Samples of the tables per pixel.
_OVERSAMPLING = 50
#: Powers of the places along and across the dispersion in the terms of `place_terms`.
ALONG, ACROSS = (0, 1, 0, 2, 0, 1), (0, 0, 1, 0, 2, 1)
#: Their number.
N_TERM = len(ALONG)


@dataclass(frozen=True)
class LsfBasis:
    """Splines of which every shape is made, and how shapes may change over the chip.

    Parameters
    ----------
    fwhm : float
        Width of line for which it was made [pixel].
    reach : int
        Half length of the LSF [pixel]; it is 0 beyond.
    table, slope : ndarray, shape (n_spline, n_sample)
        The splines and their derivatives on a fine grid from -reach to reach.
    flux, moment : ndarray, shape (n_spline,)
        Integral and first moment of each.
    """

    fwhm: float
    reach: int
    table: FloatArray
    slope: FloatArray
    flux: FloatArray
    moment: FloatArray

    @property
    def offset(self) -> FloatArray:
        """Fine grid of distances from the centroid [pixel]."""
        return np.linspace(-self.reach, self.reach, self.table.shape[1])


@dataclass(frozen=True)
class Lsf:
    """LSF of unit flux and zero centroid, as a function of place on the chip.

    The shape is ``sum_k terms[k](u, v) * shapes[k](distance)`` with terms 1, u, v, u^2, v^2, uv,
    where u and v are the place along and across the dispersion, from -1 to 1. It includes the
    pixel's width.

    Parameters
    ----------
    basis : LsfBasis
        Splines.
    coefficients : ndarray, shape (n_term, n_spline)
        The shapes.
    """

    basis: LsfBasis
    coefficients: FloatArray

    def evaluate(
        self, start: FloatArray, number: int, terms: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Value and derivative of the LSF in windows of pixels.

        All pixels of a window lie at the same fraction of a pixel, so that a window is one row of a
        table; windows of the same row are one product of matrices.

        Parameters
        ----------
        start : ndarray, shape (...)
            Centre of the first pixel of each window minus line position [pixel].
        number : int
            Pixels in a window.
        terms : ndarray, shape (..., n_term)
            See `place_terms`.

        Returns
        -------
        value, slope : ndarray, shape (..., number)
            Flux per pixel of a line of unit flux; its derivative by distance.
        """
        at = (start.ravel() + self.basis.reach) * _OVERSAMPLING
        first = np.floor(at).astype(int)
        fraction = (at - first)[:, None]
        both = np.concatenate([terms.reshape(at.size, -1)] * 2, axis=1)
        both[:, terms.shape[-1] :] *= fraction
        low, high = int(first.min(initial=0)), int(first.max(initial=0))
        tables = self._tables(low, high, number)
        order = np.argsort(first, kind="stable")
        edges = np.flatnonzero(np.diff(first[order], prepend=-(2**31), append=2**31))
        drawn = np.empty((2, at.size, number))
        for a, b in pairwise(edges.tolist()):
            window = tables[..., first[order[a]] - low :: _OVERSAMPLING][..., :number]
            drawn[:, order[a:b]] = both[order[a:b]] @ window
        value, slope = drawn.reshape(2, *start.shape, number)
        return value, slope

    def _tables(self, low: int, high: int, number: int) -> FloatArray:
        """Value and slope (2, 2 n_term, n) of each term on the fine grid, then their steps."""
        last = high + (number - 1) * _OVERSAMPLING
        size = self.basis.table.shape[1]
        tables = np.zeros((2, 2, len(self.coefficients), last - low + 1))
        inside = slice(max(low, 0), min(last + 1, size - 1))
        for k, table in enumerate((self.basis.table, self.basis.slope)):
            lines = self.coefficients @ table
            steps = np.diff(lines, append=0.0)
            part = slice(inside.start - low, inside.stop - low)
            tables[k, 0, :, part], tables[k, 1, :, part] = lines[:, inside], steps[:, inside]
        return tables.reshape(2, 2 * len(self.coefficients), -1)


def place_terms(u: FloatArray, v: FloatArray) -> FloatArray:
    """How shapes change over the chip (last axis): 1, u, v, u^2, v^2, uv for places from -1 to 1.

    A skewed line that is fitted too wide is displaced: what changes along the slit must be free.
    """
    return place_powers(u)[..., ALONG] * place_powers(v)[..., ACROSS]


def place_powers(place: FloatArray) -> FloatArray:
    """Return 1, u and u^2 (last axis), the last without its mean over -1 to 1."""
    return np.stack([np.ones_like(place), place, place**2 - 1 / 3], axis=-1)


def lsf_basis(fwhm: float) -> LsfBasis:
    """Build splines for lines of about this FWHM [pixel]: fine in the core, coarse in the wings."""
    step = max(fwhm, 2.0) / 4.0
    core = np.arange(-6, 7) * step
    wing = 6 * step + np.cumsum(step * np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 6.0]))
    knots = np.concatenate([-wing[::-1], core, wing])
    reach = int(np.ceil(wing[-1]))
    knots[[0, -1]] = -reach, reach
    outside = np.arange(1, 4)
    full = np.concatenate([knots[0] - outside[::-1], knots, knots[-1] + outside])
    offset = np.linspace(-reach, reach, 2 * reach * _OVERSAMPLING + 1)
    # Splines that do not vanish at both ends are left out: the LSF is 0 there.
    table, slope = (find(offset, full, 3)[:, 3:-3].T for find in (spline_basis, spline_slopes))
    return LsfBasis(
        fwhm, reach, table, slope, table.sum(axis=1) / _OVERSAMPLING, table @ offset / _OVERSAMPLING
    )


def gaussian_lsf(basis: LsfBasis, fwhm: float) -> Lsf:
    """First guess: the splines that come nearest to a Gaussian."""
    target = np.exp(-4 * np.log(2) * (basis.offset / fwhm) ** 2)
    shape, *_ = np.linalg.lstsq(basis.table.T, target, rcond=None)
    coefficients = np.zeros((N_TERM, shape.size))
    coefficients[0] = shape / (shape @ basis.flux)
    return Lsf(basis, coefficients)


def first_shape(basis: LsfBasis) -> tuple[FloatArray, FloatArray]:
    """Coefficients (n_spline,) of what any LSF is like: a Gaussian core, and wings that fade."""
    core = gaussian_lsf(basis, basis.fwhm).coefficients[0]
    distance = np.abs(basis.moment / basis.flux) / basis.fwhm
    return core, 0.03 * np.max(core) * np.exp(-1.2 * distance)


def winged_lsf(basis: LsfBasis) -> Lsf:
    """Return the sum of both, where a fit of the wings can start: theirs cannot start from 0."""
    coefficients = np.zeros((N_TERM, len(basis.table)))
    coefficients[0] = np.sum(first_shape(basis), axis=0)
    coefficients[0] /= coefficients[0] @ basis.flux
    return Lsf(basis, coefficients)


def stretches(lsf: Lsf) -> FloatArray:
    """Return the changes (2, n_spline) of the mean shape if its left, or right, side grows wider.

    Each is the derivative by the logarithm of the side's width. Flux and centroid stay.
    """
    x, shape = lsf.basis.offset, lsf.coefficients[0]
    line, slope = shape @ lsf.basis.table, shape @ lsf.basis.slope
    from_peak = x - x[np.argmax(line)]
    sides = -np.stack([np.minimum(from_peak, 0.0), np.maximum(from_peak, 0.0)]) * slope
    sides -= np.outer(sides.sum(axis=1) / _OVERSAMPLING, line)
    sides += np.outer(sides @ x / _OVERSAMPLING, slope)
    return np.asarray(np.linalg.lstsq(lsf.basis.table.T, sides.T, rcond=None)[0].T)


def positive_wings(shape: FloatArray, distance: FloatArray) -> FloatArray:
    """Let a shape (n_spline,) fall outwards on both sides, and never below 0.

    A wing that turns negative or rises again is a continuum that the fit has mistaken for a wing.
    """
    falling = np.maximum(shape, 0.0)
    top = int(np.argmax(shape))
    inner = distance <= 1
    for side in (slice(top, None), slice(top, None, -1)):
        cut = np.where(inner[side], np.inf, falling[side])
        falling[side] = np.minimum(np.minimum.accumulate(cut), falling[side])
    return falling


def without_negative_wings(basis: LsfBasis, shape: FloatArray) -> FloatArray:
    """Cut wings (n_spline,) like `positive_wings`; the core keeps flux 1 and centroid 0."""
    distance = np.abs(basis.moment / basis.flux) / basis.fwhm
    cut = positive_wings(shape, distance)
    moments = np.stack([basis.flux, basis.moment])
    core = moments * np.exp(-2 * distance**2)
    missing = np.array([1.0, 0.0]) - moments @ cut
    return np.asarray(cut + core.T @ np.linalg.solve(core @ moments.T, missing))


def free_changes(basis: LsfBasis) -> FloatArray:
    """Orthonormal changes (n_spline - 2, n_spline) of a shape, which keep its flux and centroid.

    A fit of these has nothing to be held by a huge weight, in which all else would be rounded off.
    """
    moments = np.stack([basis.flux, basis.moment], axis=1)
    return np.asarray(np.linalg.qr(moments, mode="complete")[0][:, 2:].T)


def spline_windows(basis: LsfBasis, changes: FloatArray) -> FloatArray:
    """Lay changes (n, n_spline) of the LSF on the pixels around a line, for all places in a pixel.

    Returns
    -------
    ndarray, shape (_OVERSAMPLING + 1, 2, 2 * reach + 1, n)
        For lines half a pixel below to half a pixel above the middle pixel: values, and the steps
        to the next row of the table.
    """
    table = changes @ basis.table
    half, size = _OVERSAMPLING // 2, 2 * basis.reach + 1
    fine = np.zeros((2, len(table), (size + 1) * _OVERSAMPLING))
    fine[0, :, half : half + table.shape[1]] = table
    fine[1, :, half : half + table.shape[1]] = np.diff(table, append=0.0)
    windows = [fine[..., p::_OVERSAMPLING][..., :size] for p in range(_OVERSAMPLING + 1)]
    return np.ascontiguousarray(np.stack(windows).swapaxes(-1, -2))


def window_row(offset: FloatArray) -> tuple[IntArray, FloatArray]:
    """Row of `spline_windows` for middle pixel minus line, and the fraction of its step."""
    at = np.clip(offset, -0.5, 0.5) * _OVERSAMPLING + _OVERSAMPLING // 2
    row = np.floor(at).astype(int)
    return row, at - row


def measure_fwhm(lsf: Lsf, terms: FloatArray) -> FloatArray:
    """FWHM [pixel] of the LSF at places ``terms`` (..., n_term)."""
    flat = terms.reshape(-1, terms.shape[-1])
    shape = flat @ lsf.coefficients @ lsf.basis.table
    half = shape.max(axis=1, keepdims=True) / 2
    above = shape >= half
    first = above.argmax(axis=1)
    last = shape.shape[1] - 1 - above[:, ::-1].argmax(axis=1)
    row = np.arange(len(shape))

    def crossing(inner: np.ndarray, outer: np.ndarray) -> FloatArray:
        high, low = shape[row, inner], shape[row, outer]
        fraction: FloatArray = (high - half[:, 0]) / np.maximum(high - low, 1e-12)
        return fraction

    left = first - crossing(first, np.maximum(first - 1, 0))
    right = last + crossing(last, np.minimum(last + 1, shape.shape[1] - 1))
    return np.asarray(((right - left) / _OVERSAMPLING).reshape(terms.shape[:-1]))
