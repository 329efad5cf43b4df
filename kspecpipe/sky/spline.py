"""A B-spline of the sky against wavelength, sampled by many fibres at different phases."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, factorial

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.sky.rebin import fibre_edges

#: Quintic: its fourth derivative, needed to match LSFs, is still continuous.
DEGREE = 5
ORDER = DEGREE + 1
#: Diagonals of the covariance that are kept: enough for samples up to two knots apart.
COVARIANCE_LAGS = ORDER + 2
#: Every so many coefficients the covariance is probed; farther ones do not correlate.
_PROBE = 40


@dataclass(frozen=True, slots=True)
class PixelAxis:
    """The mean fibre's pixel scale, on which the sky is modelled.

    Parameters
    ----------
    wavelength : ndarray, shape (nx,)
        Wavelength at each pixel of the mean fibre, rising [Angstrom].
    """

    wavelength: FloatArray

    @classmethod
    def of(cls, wavelength: FloatArray) -> PixelAxis:
        """Mean of the fibres with wavelengths, shape (nfib, nx) [Angstrom]."""
        live = np.isfinite(wavelength).all(axis=1)
        if not live.any():
            raise ValueError("no fibre has wavelengths")
        return cls(np.asarray(wavelength[live].mean(axis=0)))

    def position(self, wavelength: FloatArray) -> FloatArray:
        """Pixel of the mean fibre at a wavelength, extrapolated linearly; NaN stays NaN."""
        inside = np.clip(wavelength, self.wavelength[0], self.wavelength[-1])
        index = scipy.interpolate.CubicSpline(
            self.wavelength, np.arange(len(self.wavelength), dtype=float)
        )
        finite = np.isfinite(inside)
        beyond = np.where(finite, wavelength - inside, 0.0)
        slope = np.where(beyond < 0, index(self.wavelength[0], 1), index(self.wavelength[-1], 1))
        position: FloatArray = np.where(
            finite, index(np.where(finite, inside, self.wavelength[0])) + beyond * slope, np.nan
        )
        return position

    def sample(self, wavelength: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Position of pixel centres and width of pixels, both in pixels of the mean fibre."""
        return self.position(wavelength), np.diff(self.position(fibre_edges(wavelength)), axis=1)

    def dispersion(self, position: FloatArray) -> FloatArray:
        """Width of the mean fibre's pixels at some positions [Angstrom]."""
        width = np.gradient(self.wavelength)
        local: FloatArray = np.interp(position, np.arange(len(width)), width)
        return local


def _basis_polynomials() -> FloatArray:
    """Coefficients of the cardinal B-spline's pieces, shape (ORDER coefficients, ORDER powers)."""
    table = np.zeros((ORDER, ORDER))
    for piece in range(ORDER):
        for r in range(ORDER - piece):
            offset = ORDER - 1 - piece - r
            sign = (-1) ** r * comb(ORDER, r) / factorial(DEGREE)
            for power in range(ORDER):
                table[piece, power] += sign * comb(DEGREE, power) * offset ** (DEGREE - power)
    return table


_PIECES = _basis_polynomials()


def _powers(fraction: FloatArray) -> FloatArray:
    """Powers 0 to DEGREE, shape (ORDER, ...)."""
    powers = np.ones((ORDER, *fraction.shape))
    for power in range(1, ORDER):
        np.multiply(powers[power - 1], fraction, out=powers[power])
    return powers


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a design matrix: six neighbouring coefficients each.

    Parameters
    ----------
    first : ndarray of int, shape (...)
        First coefficient of each row.
    weight : ndarray, shape (ORDER, ...)
        Weights of the coefficients ``first`` to ``first + DEGREE``.
    """

    first: IntArray
    weight: FloatArray

    def dot(self, coefficients: FloatArray, model: IntArray | int = 0) -> FloatArray:
        """Apply to coefficients, shape (nmodel, ncoef); ``model`` broadcasts to the rows."""
        total = np.zeros(self.first.shape)
        base = self.first + np.asarray(model) * coefficients.shape[1]
        flat = coefficients.ravel()
        for k in range(ORDER):
            total += self.weight[k] * flat[base + k]
        return total

    def variance(self, band: FloatArray, model: IntArray | int = 0) -> FloatArray:
        """Variance from the band of the covariance, shape (nlag, nmodel, ncoef)."""
        total = np.zeros(self.first.shape)
        base = self.first + np.asarray(model) * band.shape[2]
        for lag in range(ORDER):
            flat = band[lag].ravel()
            for k in range(ORDER - lag):
                twice = 1.0 if lag == 0 else 2.0
                total += twice * self.weight[k] * self.weight[k + lag] * flat[base + k]
        return total

    def covariance_with(
        self, other: Rows, band: FloatArray, model: IntArray | int = 0
    ) -> FloatArray:
        """Covariance of each row with that of other rows of the same shape."""
        total = np.zeros(self.first.shape)
        base = np.asarray(model) * band.shape[2]
        flat = band.reshape(len(band), -1)
        for a in range(ORDER):
            for b in range(ORDER):
                low = np.minimum(self.first + a, other.first + b)
                lag = np.abs(other.first + b - self.first - a)
                near = flat[np.minimum(lag, len(band) - 1), base + low]
                weight = self.weight[a] * other.weight[b]
                total += np.where(lag < len(band), weight * near, 0.0)
        return total


@dataclass(frozen=True, slots=True)
class SplineSpace:
    """Uniform quintic B-splines over a range of the pixel axis.

    Parameters
    ----------
    start : float
        First position that is covered [pixel].
    step : float
        Distance of the knots [pixel].
    n : int
        Number of coefficients.
    """

    start: float
    step: float
    n: int

    @classmethod
    def covering(cls, low: float, high: float, step: float) -> SplineSpace:
        """Span all positions from ``low`` to ``high``."""
        return cls(low, step, int(np.floor((high - low) / step)) + 1 + DEGREE)

    def rows(self, position: FloatArray, *operators: FloatArray | float) -> Rows:
        """Weights with which a differential operator of the spline reads its coefficients.

        Parameters
        ----------
        position : ndarray, shape (...)
            Positions [pixel]; must lie inside the space.
        *operators : ndarray or float that broadcasts to ``position``
            Factor of the value, of the first derivative [per pixel], of the second, ...; value
            alone without any.
        """
        scaled = (position - self.start) / self.step
        first = np.clip(np.floor(scaled).astype(np.intp), 0, self.n - ORDER)
        fraction = scaled - first
        powers = _powers(fraction)
        table, weight = _PIECES, np.zeros((ORDER, *position.shape))
        for order, factor in enumerate(operators or (1.0,)):
            if order:
                table = table[:, 1:] * np.arange(1, table.shape[1]) / self.step
            if np.any(factor):
                weight += np.tensordot(table, powers[: table.shape[1]], axes=1) * factor
        return Rows(first, weight)

    def derivatives(
        self, position: FloatArray, coefficients: FloatArray, model: IntArray | int, number: int
    ) -> FloatArray:
        """Evaluate splines and their first derivatives, shape (number, ...).

        Parameters
        ----------
        position : ndarray, shape (...)
            Positions [pixel]; must lie inside the space.
        coefficients : ndarray, shape (nmodel, ncoef)
            Coefficients of the splines.
        model : ndarray of int or int, broadcasts to ``position``
            Which spline is evaluated.
        number : int
            1 for the values alone.
        """
        scaled = (position - self.start) / self.step
        first = np.clip(np.floor(scaled).astype(np.intp), 0, self.n - ORDER)
        fraction = scaled - first
        # The polynomial between two knots, for every interval of every model.
        near = np.stack([coefficients[:, k : self.n - DEGREE + k] for k in range(ORDER)])
        pieces = np.tensordot(_PIECES.T, near, axes=1).reshape(ORDER, -1)
        index = first + np.asarray(model) * (self.n - DEGREE)
        local = [piece[index] for piece in pieces]
        result = np.empty((number, *position.shape))
        for order in range(number):
            total = local[-1].copy()
            for part in local[-2::-1]:
                total *= fraction
                total += part
            result[order] = total
            local = [part * (power / self.step) for power, part in enumerate(local[1:], start=1)]
        return result


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """Normal matrices (lower band) and right-hand sides of the fibres, before they are summed.

    Parameters
    ----------
    matrix : ndarray, shape (nfib, ORDER, ncoef)
        Lower diagonals of each fibre's normal matrix.
    vector : ndarray, shape (nfib, ncoef)
        Right-hand side of each fibre.
    """

    matrix: FloatArray
    vector: FloatArray

    @classmethod
    def of(cls, rows: Rows, value: FloatArray, weight: FloatArray, n: int) -> NormalEquations:
        """Accumulate weighted samples, shape (nfib, nx), per fibre."""
        nfib = len(value)
        base = rows.first + n * np.arange(nfib)[:, None]
        matrix, vector = np.zeros((nfib, ORDER, n)), np.zeros((nfib, n))
        for a in range(ORDER):
            weighted = weight * rows.weight[a]
            vector += _sum_at(base + a, weighted * value, nfib, n)
            for b in range(a, ORDER):
                matrix[:, b - a] += _sum_at(base + a, weighted * rows.weight[b], nfib, n)
        return cls(matrix, vector)


def _sum_at(index: IntArray, value: FloatArray, nfib: int, n: int) -> FloatArray:
    total = np.bincount(index.ravel(), value.ravel(), minlength=nfib * n)
    return np.asarray(total.reshape(nfib, n))


@dataclass(frozen=True, slots=True)
class SplineFit:
    """Coefficients and the band of their covariance of one or more spline models.

    Parameters
    ----------
    coefficients : ndarray, shape (nmodel, ncoef)
        Spline coefficients.
    band : ndarray, shape (COVARIANCE_LAGS, nmodel, ncoef)
        Covariance of coefficients i and i + lag, stored at i.
    """

    coefficients: FloatArray
    band: FloatArray


def solve(
    matrix: FloatArray,
    vector: FloatArray,
    amplitude: FloatArray | None = None,
    *,
    covariance: bool = True,
) -> SplineFit:
    """Solve one penalised least-squares problem.

    The penalty on third differences acts at frequencies that the LSF does not pass. Where the sky
    is featureless within the noise it acts from 1 radian per knot on; where there are lines it is
    weaker in proportion to their signal-to-noise ratio, so that its bias stays below the noise.

    Parameters
    ----------
    matrix : ndarray, shape (ORDER, ncoef)
        Lower band of the normal matrix.
    vector : ndarray, shape (ncoef,)
        Right-hand side.
    amplitude : ndarray, shape (ncoef,), optional
        Height of the structure around each coefficient; without it the weakest penalty acts.
    covariance : bool
        Whether the covariance is worked out too; else it is 0.

    Returns
    -------
    SplineFit
        With a single model.
    """
    n = matrix.shape[1]
    information = _information(matrix)
    strength = np.full(n, 1e-3)
    if amplitude is not None:
        strength = np.clip(0.2 / (amplitude * np.sqrt(information) + 1e-9), 1e-4, 1.0)
    factor = cholesky_banded(matrix + _penalty(strength * information), lower=True)
    coefficients = cho_solve_banded((factor, True), vector)
    band = _covariance_band(factor) if covariance else np.zeros((COVARIANCE_LAGS, n))
    return SplineFit(coefficients[None], band[:, None])


def stack(fits: list[SplineFit]) -> SplineFit:
    """Join single models to one object; the first is model 0."""
    return SplineFit(
        np.concatenate([fit.coefficients for fit in fits]),
        np.concatenate([fit.band for fit in fits], axis=1),
    )


def amplitude_of(coefficients: FloatArray) -> FloatArray:
    """Range of a spline's coefficients within about a line width, shape (ncoef,)."""
    span: FloatArray = maximum_filter1d(coefficients, 9) - minimum_filter1d(coefficients, 9)
    return span


def _information(matrix: FloatArray) -> FloatArray:
    """Inverse variance per knot, never quite zero so that gaps are bridged."""
    total = matrix.sum(axis=0)
    for lag in range(1, len(matrix)):
        total[lag:] += matrix[lag, :-lag]
    smooth = uniform_filter1d(total, 9, mode="nearest")
    typical = float(np.median(smooth[smooth > 0])) if (smooth > 0).any() else 1.0
    floor: FloatArray = np.maximum(smooth, 1e-3 * typical)
    return floor


def _penalty(strength: FloatArray) -> FloatArray:
    """Lower band of D' diag(strength) D for third differences D."""
    stencil, n = np.array([-1.0, 3.0, -3.0, 1.0]), len(strength)
    local = strength[1 : n - 2]
    band = np.zeros((ORDER, n))
    for a in range(4):
        for b in range(a, 4):
            band[b - a, a : a + n - 3] += stencil[a] * stencil[b] * local
    return band


def _covariance_band(factor: FloatArray) -> FloatArray:
    """Band of the inverse, read from solutions for combs of unit vectors.

    Far from its centre a column of the inverse vanishes, so one solution serves many columns.
    """
    n = factor.shape[1]
    column = np.arange(n)
    comb_vectors = np.zeros((n, _PROBE))
    comb_vectors[column, column % _PROBE] = 1.0
    solution = cho_solve_banded((factor, True), comb_vectors, overwrite_b=True)
    band = np.zeros((COVARIANCE_LAGS, n))
    for lag in range(COVARIANCE_LAGS):
        band[lag, : n - lag] = solution[column[: n - lag], column[lag:] % _PROBE]
    return band
