"""The blaze: the smooth shape that the spectra of a flat share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.bsplines import spline_basis
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray

#: Columns in most of which a spline misses the light where this ends steeply [pixel].
_EDGE = 9


@dataclass(frozen=True, kw_only=True)
class BlazeSplineOptions:
    """How the spline is fitted.

    Parameters
    ----------
    bspline_deg : int
        Degree of the spline.
    knot_distance : float
        Distance of its knots [pixel]; fringes must be shorter.
    clip_sigma : float
        Rejection limit.
    corners : tuple of int
        Columns at which the slope may change at once: where the light is of another lamp.
    edge_misfit : float
        Relative misfit, over most of an outlier's neighbourhood, from which the light is taken to
        end too steeply for these knots. Above any fringe.
    edge_knot_distance : float
        Distance of the knots there [pixel].
    """

    bspline_deg: int = 3
    knot_distance: float = 64.0
    clip_sigma: float = 4.0
    corners: tuple[int, ...] = ()
    edge_misfit: float = 0.15
    edge_knot_distance: float = 6.0


def fit_blaze_spline(
    spectrum: FloatArray,
    known: BoolArray,
    error: FloatArray,
    *,
    options: BlazeSplineOptions | None = None,
) -> FloatArray:
    """Fit a robust smoothing spline to one spectrum.

    Parameters
    ----------
    spectrum : ndarray, shape (nx,)
        Spectrum of the median live fibre [electron].
    known : ndarray of bool, shape (nx,)
        Columns with data.
    error : ndarray, shape (nx,)
        Standard deviation [electron].
    options : BlazeSplineOptions, optional
        Degree, knots, clipping.

    Returns
    -------
    ndarray, shape (nx,)
        The blaze [electron], never negative.
    """
    options = options or BlazeSplineOptions()
    coarse = _knots(spectrum.size, options)
    smooth = _clipped_spline(spectrum, known, error, coarse, options)
    missed = np.abs(spectrum - smooth) > np.maximum(options.edge_misfit * smooth, 5 * error)
    # Steep light that does not end is not of the blaze: humps of a lamp, fringes.
    around = 2 * int(options.knot_distance) + 1
    lit = np.where(known, spectrum, 0.0)
    ends = scipy.ndimage.minimum_filter1d(lit, around) < 0.1 * scipy.ndimage.maximum_filter1d(
        lit, around
    )
    missed &= known & ends
    share = scipy.ndimage.uniform_filter1d(missed.astype(float), _EDGE, mode="nearest")
    if not np.any(share > 0.5):
        return np.asarray(np.maximum(smooth, 0))
    near = scipy.ndimage.binary_dilation(share > 0.5, iterations=int(options.knot_distance))
    fine = np.arange(0.0, spectrum.size, options.edge_knot_distance)
    fine = fine[near[fine.astype(int)] & np.all(np.abs(fine[:, None] - coarse) > 2, axis=1)]
    knots = np.sort(np.append(coarse, fine))
    return np.asarray(np.maximum(_clipped_spline(spectrum, known, error, knots, options), 0))


def _knots(n_x: int, options: BlazeSplineOptions) -> FloatArray:
    """Return even knots, with those of the corners in place of what is close to them."""
    degree = options.bspline_deg
    number = max(int(round(n_x / options.knot_distance)), 1)
    inner = np.linspace(0, n_x - 1, number + 1)
    corners = [at - 0.5 for at in options.corners if 0 < at < n_x]
    far = np.all(np.abs(inner[:, None] - np.array(corners or [np.inf])) > 4, axis=1)
    inner = np.sort(np.append(inner[far], np.repeat(corners, degree)))
    return np.concatenate([np.full(degree, 0.0), inner, np.full(degree, n_x - 1.0)])


def _clipped_spline(
    spectrum: FloatArray,
    known: BoolArray,
    error: FloatArray,
    knots: FloatArray,
    options: BlazeSplineOptions,
) -> FloatArray:
    """Fit a spline on given knots and reject what lies far off."""
    x = np.arange(spectrum.size)
    design = spline_basis(x, knots, options.bspline_deg)
    # fringes of some per cent must not be taken for outliers, nor bright columns decide alone
    weight = known / (error**2 + (0.03 * spectrum) ** 2 + 1e-30)
    bend = np.diff(np.eye(design.shape[1]), 2, axis=0)
    taper = np.ones(x.size)
    for _ in range(6):
        gram = (design.T * (weight * taper)) @ design
        gram += 1e-6 * np.trace(gram) / gram.shape[0] * (bend.T @ bend)
        smooth: FloatArray = design @ np.linalg.solve(gram, design.T @ (weight * taper * spectrum))
        pull = np.abs(spectrum - smooth) * np.sqrt(weight)
        scatter = max(1.4826 * float(np.median(pull[known])), 1e-12)
        taper = (pull < options.clip_sigma * max(scatter, 0.5)).astype(float)
    return smooth


@dataclass(frozen=True, eq=False)
class SincBlaze:
    """A blaze of the shape of a grating's diffraction pattern.

    Parameters
    ----------
    blaze : ndarray, shape (nx,)
        The model [electron].
    amplitude, period, centre, quadratic, cubic, slope : float
        Its parameters A, P, L, q, c, s.
    rms : float
        Relative scatter of the smoothed spectrum about the model where there is light.
    used : ndarray of bool, shape (nx,)
        Columns that took part.
    """

    blaze: FloatArray
    amplitude: float
    period: float
    centre: float
    quadratic: float
    cubic: float
    slope: float
    rms: float
    used: BoolArray


def fit_blaze_sinc(
    spectrum: FloatArray,
    *,
    median_width: int = 25,
    low: float = 0.05,
    high: float = 2.0,
    peak_cut: float = 0.1,
) -> SincBlaze:
    """Fit the squared sinc of an echelle order to one spectrum.

    B(x) = A sin(X)^2 / X^2 (1 + s d) with X = 2 pi (d + q d^2 + c d^3) / P and d = x - L.

    Parameters
    ----------
    spectrum : ndarray, shape (nx,)
        Spectrum [electron]; NaN where unknown.
    median_width : int
        Width of the running median [pixel].
    low, high : float
        Samples outside these multiples of the 95th percentile are left out.
    peak_cut : float
        Fraction of the model's peak above which samples count in the scatter.

    Returns
    -------
    SincBlaze

    Raises
    ------
    RecipeError
        If too few samples have light.

    References
    ----------
    .. [1] Cook et al. 2022, PASP 134, 114509 (APERO).
    """
    x = np.arange(spectrum.size, dtype=float)
    finite = np.isfinite(spectrum)
    if finite.sum() < 20:
        raise RecipeError(f"{finite.sum()} samples of the blaze have data; 20 are needed for a fit")
    filled = np.interp(x, x[finite], spectrum[finite])
    smooth = scipy.ndimage.median_filter(filled, median_width, mode="nearest")
    level = float(np.percentile(smooth, 95))
    used = finite & (smooth > low * level) & (smooth < high * level)
    if level <= 0 or used.sum() < 20:
        raise RecipeError("too few samples have light for a fit of the blaze")
    bright = used & (smooth > 0.5 * level)
    centre = float(np.average(x[bright], weights=smooth[bright]))
    # the square of the sinc falls to one half at X = 1.39
    half = max(float(np.ptp(x[bright])) / 2, 10.0)
    start = np.array([1.0, np.log(2 * np.pi * half / 1.39), centre / spectrum.size, 0, 0, 0])

    def residual(parameters: FloatArray) -> FloatArray:
        model = _sinc_model(parameters, x[used], spectrum.size)
        difference: FloatArray = model - smooth[used] / level
        return difference

    fit = scipy.optimize.least_squares(residual, start, loss="soft_l1", f_scale=0.03, x_scale="jac")
    blaze = level * _sinc_model(fit.x, x, spectrum.size)
    lit = used & (blaze > peak_cut * blaze.max())
    rms = float(np.std(smooth[lit] / blaze[lit])) if lit.any() else np.nan
    n = float(spectrum.size)
    a, log_period, centre, q, c, s = (float(p) for p in fit.x)
    return SincBlaze(
        blaze, a * level, float(np.exp(log_period)), centre * n, q / n, c / n**2, s / n, rms, used
    )


def _sinc_model(parameters: FloatArray, x: FloatArray, n_x: int) -> FloatArray:
    """Squared sinc with lengths in units of the spectrum, so that all parameters are near 1."""
    a, log_period, centre, q, c, s = parameters
    d = x / n_x - centre
    phase = 2 * np.pi * n_x * (d + q * d**2 + c * d**3) / np.exp(log_period)
    model: FloatArray = a * np.sinc(phase / np.pi) ** 2 * (1 + s * d)
    return model
