"""Fibre flat: throughput of each fibre, blaze of all, and what remains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.optimize import least_squares

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal


@dataclass(frozen=True, eq=False)
class Response:
    """A flat's spectra = blaze x throughput x fibre flat.

    Parameters
    ----------
    throughput : ndarray, shape (nfib,)
        Light relative to the median live fibre.
    blaze : ndarray, shape (nx,)
        Smooth spectrum of the median live fibre [electron].
    fibre_flat : Signal, shape (nfib, nx)
        What remains: fibre colour, fringes. ``EXTRAPOLATED`` where the flat has too little light
        and a smooth course stands in; NaN and ``NO_DATA`` for fibres that are not live.
    """

    throughput: FloatArray
    blaze: FloatArray
    fibre_flat: Signal


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """How the flat is split.

    Parameters
    ----------
    bspline_deg : int
        Degree of the blaze spline.
    knot_distance : float
        Distance of its knots [pixel]; fringes must be shorter.
    clip_sigma : float
        Rejection limit of the spline.
    max_noise : float
        Relative noise of a fibre-flat sample above which the smooth course is taken.
    smooth_width : int
        Columns over which the smooth course is averaged.
    """

    bspline_deg: int = 3
    knot_distance: float = 64.0
    clip_sigma: float = 4.0
    max_noise: float = 0.02
    smooth_width: int = 129


def split_response(
    spectra: Signal, live: BoolArray, *, options: ResponseOptions | None = None
) -> Response:
    """Split extracted flat spectra into throughput, blaze and fibre flat.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted flat [electron].
    live : ndarray of bool, shape (nfib,)
        Fibres with light.
    options : ResponseOptions, optional
        Smoothness and limits.

    Returns
    -------
    Response

    Raises
    ------
    RecipeError
        If no live fibre has light.
    ValueError
        If ``live`` does not fit the spectra.
    """
    options = options or ResponseOptions()
    if live.shape != spectra.shape[:1]:
        raise ValueError(f"live {live.shape} does not fit spectra {spectra.shape}")
    value = np.where(spectra.good, spectra.value, np.nan).astype(float)
    if not live.any() or not np.any(np.nan_to_num(value[live]) > 0):
        raise RecipeError("no live fibre has light; was the lamp on?")
    throughput = _throughput(value, live)
    scaled = value[live] / throughput[live, None]
    typical, known = _median_known(scaled)
    error = _median_error(spectra, throughput, live)
    blaze = fit_blaze_spline(typical, known, error, options=options)
    flat = _fibre_flat(spectra, live, blaze, throughput, options)
    return Response(throughput, blaze, flat)


def _throughput(value: FloatArray, live: BoolArray) -> FloatArray:
    """Median ratio to the median live fibre where there is light; median live fibre = 1."""
    throughput = np.ones(live.size)
    for _ in range(3):
        typical, known = _median_known(value[live] / throughput[live, None])
        bright = known & (typical > 0.1 * np.percentile(typical[known], 95))
        ratio = np.where(np.isfinite(value[:, bright]), value[:, bright] / typical[bright], np.nan)
        throughput = np.array([_clipped_ratio(row, typical[bright]) for row in ratio])
        throughput /= np.median(throughput[live])
        throughput[live & ~(throughput > 1e-6)] = 1e-6
    return throughput


def _clipped_ratio(ratio: FloatArray, weight: FloatArray) -> float:
    """Mean ratio weighted with the light, without outliers; 0 without data."""
    used = np.isfinite(ratio)
    for _ in range(3):
        if not used.any():
            return 0.0
        off = np.abs(ratio - np.median(ratio[used]))
        used = used & (off <= 4 * 1.4826 * np.median(off[used]) + 1e-12)
    return float(np.average(ratio[used], weights=weight[used]))


def _median_known(value: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Median over the fibres without NaN, and columns with any value."""
    known: BoolArray = np.asarray(np.isfinite(value).any(axis=0))
    median = np.zeros(value.shape[1])
    median[known] = np.nanmedian(value[:, known], axis=0)
    return median, known


def _median_error(spectra: Signal, throughput: FloatArray, live: BoolArray) -> FloatArray:
    """Error of the median spectrum (nx,)."""
    variance = np.where(spectra.good, spectra.variance, np.nan)[live] / throughput[live, None] ** 2
    typical, known = _median_known(variance)
    error: FloatArray = np.sqrt(1.57 * np.where(known, typical, 1) / live.sum())
    return error


def fit_blaze_spline(
    spectrum: FloatArray,
    known: BoolArray,
    error: FloatArray,
    *,
    options: ResponseOptions | None = None,
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
    options : ResponseOptions, optional
        Degree, knots, clipping.

    Returns
    -------
    ndarray, shape (nx,)
        The blaze [electron], never negative.
    """
    options = options or ResponseOptions()
    n_x, degree = spectrum.size, options.bspline_deg
    number = max(int(round(n_x / options.knot_distance)), 1)
    inner = np.linspace(0, n_x - 1, number + 1)
    knots = np.concatenate([np.full(degree, inner[0]), inner, np.full(degree, inner[-1])])
    design = BSpline.design_matrix(np.arange(float(n_x)), knots, degree).toarray()
    # fringes of some per cent must not be taken for outliers, nor bright columns decide alone
    weight = known / (error**2 + (0.03 * spectrum) ** 2 + 1e-30)
    bend = np.diff(np.eye(design.shape[1]), 2, axis=0)
    taper = np.ones(n_x)
    for _ in range(6):
        gram = (design.T * (weight * taper)) @ design
        gram += 1e-6 * np.trace(gram) / gram.shape[0] * (bend.T @ bend)
        smooth = design @ np.linalg.solve(gram, design.T @ (weight * taper * spectrum))
        pull = np.abs(spectrum - smooth) * np.sqrt(weight)
        scatter = max(1.4826 * float(np.median(pull[known])), 1e-12)
        taper = (pull < options.clip_sigma * max(scatter, 0.5)).astype(float)
    return np.asarray(np.maximum(smooth, 0))


def _fibre_flat(
    spectra: Signal,
    live: BoolArray,
    blaze: FloatArray,
    throughput: FloatArray,
    options: ResponseOptions,
) -> Signal:
    """Divide where there is light, continue smoothly where there is not."""
    expected = blaze * np.where(live, throughput, 1)[:, None]
    good = spectra.good & (expected > 0) & live[:, None]
    divisor = np.where(expected > 0, expected, 1)
    ratio = np.where(good, spectra.value / divisor, 0).astype(float)
    variance = np.where(good, spectra.variance / divisor**2, np.inf).astype(float)
    # noise as expected over some columns, so that the choice does not follow the noise itself
    noise = np.sqrt(ndimage.median_filter(np.where(good, variance, 1e6), (1, 25), mode="nearest"))
    smooth, smooth_variance = _smooth_course(ratio, variance, noise, options)
    direct = good & (noise < options.max_noise)
    value = np.where(direct, ratio, smooth)
    flat = Signal(
        np.where(live[:, None], value, np.nan),
        np.where(live[:, None], np.where(direct, variance, smooth_variance), np.nan),
        np.where(direct, spectra.dq, 0).astype(np.uint16),
    )
    flat = flat.flag(~direct & live[:, None], DQ.EXTRAPOLATED)
    return flat.flag(np.broadcast_to(~live[:, None], flat.shape), DQ.NO_DATA)


def _smooth_course(
    ratio: FloatArray, variance: FloatArray, noise: FloatArray, options: ResponseOptions
) -> tuple[FloatArray, FloatArray]:
    """Average over a running window; take the nearest value where there is no light."""
    lit = np.isfinite(variance) & (noise < 10 * options.max_noise)
    # relative to the typical fibre: where the blaze is poor at the edge of the light, it cancels
    common, known_column = _median_known(np.where(lit, ratio, np.nan))
    ratio = ratio / np.where(known_column & (common > 0), common, 1)
    weight = np.where(lit, 1 / (np.where(lit, variance, 1) + options.max_noise**2), 0)
    size = options.smooth_width
    total = ndimage.uniform_filter1d(weight, size, axis=1, mode="constant")
    product = ndimage.uniform_filter1d(weight * ratio, size, axis=1, mode="constant")
    squares = ndimage.uniform_filter1d(
        weight**2 * np.where(lit, variance, 0), size, axis=1, mode="constant"
    )
    known = ndimage.uniform_filter1d(lit.astype(float), size, axis=1, mode="constant") > 0.25
    smooth, spread = np.ones(ratio.shape), np.full(ratio.shape, options.max_noise**2)
    for f in range(ratio.shape[0]):
        at = np.flatnonzero(known[f])
        if at.size == 0:
            continue
        nearest = at[np.argmin(np.abs(np.arange(ratio.shape[1])[:, None] - at), axis=1)]
        smooth[f] = (product[f, at] / total[f, at])[np.searchsorted(at, nearest)]
        spread[f] = (squares[f, at] / (size * total[f, at] ** 2))[np.searchsorted(at, nearest)]
    return smooth, spread


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
        Relative scatter of the spectrum about the model where it was fitted.
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
        Fraction of the peak above which the first guess is made.

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
    smooth = ndimage.median_filter(filled, median_width, mode="nearest")
    level = float(np.percentile(smooth, 95))
    used = finite & (smooth > low * level) & (smooth < high * level)
    if level <= 0 or used.sum() < 20:
        raise RecipeError("too few samples have light for a fit of the blaze")
    bright = used & (smooth > (peak_cut + 0.4) * level)
    centre = float(np.average(x[bright], weights=smooth[bright]))
    # the square of the sinc falls to one half at X = 1.39
    half = max(float(np.ptp(x[bright])) / 2, 10.0)
    start = np.array([1.0, np.log(2 * np.pi * half / 1.39), centre / spectrum.size, 0, 0, 0])

    def residual(parameters: FloatArray) -> FloatArray:
        model = _sinc_model(parameters, x[used], spectrum.size)
        difference: FloatArray = model - smooth[used] / level
        return difference

    fit = least_squares(residual, start, loss="soft_l1", f_scale=0.03, x_scale="jac")
    blaze = level * _sinc_model(fit.x, x, spectrum.size)
    rms = float(np.std(smooth[used] / np.maximum(blaze[used], 1e-3 * level)))
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
