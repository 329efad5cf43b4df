"""Traces of all fibres and the smooth surface that describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from kspecpipe.signal import BoolArray, FloatArray, IntArray

POINT_DTYPE = np.dtype(
    [("fibre", "i4"), ("x", "f8"), ("y", "f8"), ("error", "f8"), ("residual", "f8"), ("used", "?")]
)


@dataclass(frozen=True, eq=False)
class Traces:
    """Where the light of each fibre lies.

    Parameters
    ----------
    y : ndarray of float64, shape (nfib, nx)
        Row of the flux centroid of each fibre at each column [pixel].
    width : ndarray, shape (nfib, nx)
        Full width at half maximum of the profile [pixel].
    status : ndarray of str, shape (nfib,)
        "OK", "LOW" (little light) or "DEAD" (no light; its trace follows from the others).
    match_score, runner_up : float
        Score of the identification with the nominal rows (1 = every fibre found, no other
        light), and of the best one that is at least half a pitch away.
    points : structured ndarray
        Measured centroids: fibre, x, y, error, residual from the trace [pixel], used.
    """

    y: FloatArray
    width: FloatArray
    status: npt.NDArray[np.str_]
    match_score: float
    runner_up: float
    points: npt.NDArray[Any]

    @property
    def live(self) -> BoolArray:
        """True for fibres with light, shape (nfib,)."""
        return np.asarray(self.status != "DEAD")

    @property
    def rms(self) -> float:
        """Scatter of the used centroids about the traces [pixel]; NaN without points."""
        used = self.points["residual"][self.points["used"]]
        return float(np.sqrt(np.mean(used**2))) if used.size else float("nan")

    @property
    def pitch(self) -> float:
        """Typical distance between neighbouring traces [pixel]; 4 widths for a single fibre."""
        if self.y.shape[0] == 1:
            return 4.0 * float(np.median(self.width))
        return float(np.median(np.diff(self.y[:, self.y.shape[1] // 2])))


@dataclass(frozen=True, kw_only=True)
class SurfaceOptions:
    """Stiffness of the trace surface.

    Parameters
    ----------
    max_order_x, max_order_fibre : int
        Highest polynomial orders tried along the dispersion and across the fibres; the orders
        used are those that the points justify (Bayesian information criterion).
    clip_sigma : float
        Rejection limit of points.
    clip_iterations : int
        Largest number of rejection rounds.
    error_floor : float
        Smallest error credited to a point [pixel].
    extrapolation_order : int
        Highest order along the dispersion beyond the columns with light.
    """

    max_order_x: int = 5
    max_order_fibre: int = 4
    clip_sigma: float = 4.0
    clip_iterations: int = 6
    error_floor: float = 0.003
    extrapolation_order: int = 2


@dataclass(frozen=True, eq=False)
class Points:
    """Measured centroids: fibre index, column, row and its error, all of shape (npoint,)."""

    fibre: IntArray
    x: FloatArray
    y: FloatArray
    error: FloatArray

    def select(self, where: BoolArray) -> Points:
        """Keep some points."""
        return Points(self.fibre[where], self.x[where], self.y[where], self.error[where])


def fit_surface(
    points: Points, rows: FloatArray, n_x: int, options: SurfaceOptions
) -> tuple[FloatArray, npt.NDArray[Any]]:
    """Fit one offset per fibre plus terms smooth along dispersion and across fibres.

    Parameters
    ----------
    points : Points
        Measured centroids; fibres without any get their offset from their nominal row.
    rows : ndarray, shape (nfib,)
        Nominal (or earlier) row of each fibre at the middle column.
    n_x : int
        Number of columns.
    options : SurfaceOptions
        Stiffness.

    Returns
    -------
    y : ndarray, shape (nfib, nx)
        The traces.
    table : structured ndarray
        The points with residuals and which were used.
    """
    scale_x = _unit(np.array([0.0, max(n_x - 1, 1)]))
    scale_u = _unit(rows if rows.size > 1 else np.append(rows, rows + 1))
    terms = _terms(points, rows, scale_x, scale_u, options)
    weight = 1 / np.maximum(points.error, options.error_floor) ** 2
    used = np.ones(points.x.size, dtype=bool)
    for _ in range(options.clip_iterations):
        coefficients, offset = _best_fit(points, terms, weight * used, rows.size)
        residual = points.y - offset[points.fibre] - np.einsum("nij,ij->n", terms, coefficients)
        keep = _keep(residual * np.sqrt(weight), used, options.clip_sigma)
        if np.array_equal(keep, used):
            break
        used = keep
    scales = (scale_x, scale_u)
    y = _evaluate(coefficients, offset, rows, n_x, scales)
    stiff = terms[:, : options.extrapolation_order]
    coefficients, _ = _best_fit(points, stiff, weight * used, rows.size)
    gentle = _evaluate(coefficients, offset, rows, n_x, scales)
    y = _continue(y, gentle, points, used)
    table = np.zeros(points.x.size, POINT_DTYPE)
    for name in ("fibre", "x", "y", "error"):
        table[name] = getattr(points, name)
    table["residual"], table["used"] = residual, used
    return y, table


def _continue(y: FloatArray, gentle: FloatArray, points: Points, used: BoolArray) -> FloatArray:
    """Let a stiffer surface take over beyond the columns in which fibres were measured."""
    x = points.x[used]
    fibres = np.unique(points.fibre[used]).size
    column, count = np.unique(np.round(x / 8), return_counts=True)
    lit = column[count >= 0.3 * min(fibres, int(count.max()))] * 8
    low, high = (int(np.clip(edge, 0, y.shape[1] - 1)) for edge in (lit.min(), lit.max()))
    result = y.copy()
    result[:, :low] = gentle[:, :low] + (y - gentle)[:, low : low + 1]
    result[:, high:] = gentle[:, high:] + (y - gentle)[:, high : high + 1]
    return result


def _unit(values: FloatArray) -> tuple[float, float]:
    """Middle and half range, for scaling to -1..1."""
    return float((values[0] + values[-1]) / 2), float((values[-1] - values[0]) / 2)


def _terms(
    points: Points,
    rows: FloatArray,
    scale_x: tuple[float, float],
    scale_u: tuple[float, float],
    options: SurfaceOptions,
) -> FloatArray:
    """Products of Legendre polynomials (npoint, order_x, order_fibre + 1), none constant in x."""
    along = legendre.legvander((points.x - scale_x[0]) / scale_x[1], options.max_order_x)[:, 1:]
    order = min(options.max_order_fibre, max(np.unique(points.fibre).size // 3, 0))
    across = legendre.legvander((rows[points.fibre] - scale_u[0]) / scale_u[1], order)
    product: FloatArray = along[:, :, None] * across[:, None, :]
    return product


def _best_fit(
    points: Points, terms: FloatArray, weight: FloatArray, n_fibre: int
) -> tuple[FloatArray, FloatArray]:
    """Fit all orders up to the highest, keep the pair with the best information criterion."""
    total = np.bincount(points.fibre, weight, n_fibre)
    safe = np.where(total > 0, total, 1)

    def centred(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean = np.bincount(points.fibre, weight * values, n_fibre) / safe
        return values - mean[points.fibre], mean

    n_term = terms.shape[1] * terms.shape[2]
    flat = terms.reshape(-1, n_term)
    design = np.empty((n_term, points.x.size))
    means = np.empty((n_term, n_fibre))
    for i in range(n_term):
        design[i], means[i] = centred(flat[:, i])
    target, y_mean = centred(points.y)
    gram, side = (design * weight) @ design.T, (design * weight) @ target
    power = float(np.sum(weight * target**2))
    solution = _choose(gram, side, power, int(np.count_nonzero(weight)), terms.shape[1:])
    offset = y_mean - solution @ means
    offset[total == 0] = np.nan
    return solution.reshape(terms.shape[1:]), offset


def _choose(
    gram: FloatArray, side: FloatArray, power: float, n_point: int, shape: tuple[int, ...]
) -> FloatArray:
    """Coefficients of the orders with the smallest Bayesian information criterion."""
    order_x, order_u = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    best, chosen = np.inf, np.zeros(shape[0] * shape[1])
    for i in range(shape[0]):
        for j in range(shape[1]):
            keep = np.flatnonzero(((order_x <= i) & (order_u <= j)).ravel())
            part, *_ = np.linalg.lstsq(gram[np.ix_(keep, keep)], side[keep], rcond=1e-12)
            chi2 = max(power - float(part @ side[keep]), 1e-12 * power, 1e-300)
            criterion = n_point * np.log(chi2) + keep.size * np.log(max(n_point, 2))
            if criterion < best:
                best, chosen = criterion, np.zeros(order_x.size)
                chosen[keep] = part
    return chosen


def _keep(pull: FloatArray, used: BoolArray, sigma: float) -> BoolArray:
    """Points within ``sigma`` times the robust scatter of those used so far."""
    centre = np.median(pull[used])
    scatter = 1.4826 * np.median(np.abs(pull[used] - centre))
    keep: BoolArray = np.abs(pull - centre) <= sigma * max(float(scatter), 1e-6)
    return keep


def _evaluate(
    coefficients: FloatArray,
    offset: FloatArray,
    rows: FloatArray,
    n_x: int,
    scales: tuple[tuple[float, float], tuple[float, float]],
) -> FloatArray:
    (x0, x1), (u0, u1) = scales
    along = legendre.legvander((np.arange(n_x) - x0) / x1, coefficients.shape[0])[:, 1:]
    across = legendre.legvander((rows - u0) / u1, coefficients.shape[1] - 1)
    shape = np.einsum("xi,ij,fj->fx", along, coefficients, across)
    y: FloatArray = interpolate_offsets(offset, rows)[:, None] + shape
    return y


def interpolate_offsets(offset: FloatArray, rows: FloatArray) -> FloatArray:
    """Offsets of fibres without points (NaN) from those of the others.

    Distances to the nominal rows follow a smooth curve; a local correction keeps neighbours of a
    dead fibre where they are.
    """
    known = np.isfinite(offset)
    if known.all():
        return offset
    distance = offset[known] - rows[known]
    order = min(2, int(known.sum()) // 5)
    middle, half = rows.mean(), max(float(np.ptp(rows)) / 2, 1.0)
    curve = np.polynomial.Polynomial.fit((rows[known] - middle) / half, distance, order)
    smooth = curve((rows - middle) / half)
    filled: FloatArray = np.where(
        known, offset, rows + smooth + np.interp(rows, rows[known], distance - smooth[known])
    )
    return filled
