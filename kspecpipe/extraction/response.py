"""Fibre flat: throughput of each fibre, blaze of all, and what remains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.blaze import (
    BlazeSplineOptions,
    SincBlaze,
    fit_blaze_sinc,
    fit_blaze_spline,
)
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
    blaze_rms : float
        Relative scatter of the median live fibre's spectrum about the blaze, where it has light.
    sinc : SincBlaze or None
        The squared sinc, when the blaze is one.
    """

    throughput: FloatArray
    blaze: FloatArray
    fibre_flat: Signal
    blaze_rms: float
    sinc: SincBlaze | None = None


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """How the flat is split.

    Parameters
    ----------
    blaze : {"spline", "sinc"}
        Shape of the blaze: a robust spline, or the squared sinc of an echelle order.
    spline : BlazeSplineOptions
        Stiffness of the spline.
    max_noise : float
        Relative noise of a fibre-flat sample above which the smooth course is taken.
    smooth_width : int
        Columns over which the smooth course is averaged.
    """

    blaze: Literal["spline", "sinc"] = "spline"
    spline: BlazeSplineOptions = field(default_factory=BlazeSplineOptions)
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
        If no live fibre has light, or too few samples have some for a blaze.
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
    sinc = None
    if options.blaze == "sinc":
        sinc = fit_blaze_sinc(np.where(known, typical, np.nan))
        blaze = np.maximum(sinc.blaze, 0)
    else:
        error = _median_error(spectra, throughput, live)
        blaze = fit_blaze_spline(typical, known, error, options=options.spline)
    flat = _fibre_flat(spectra, live, blaze, throughput, options)
    return Response(throughput, blaze, flat, _relative_scatter(typical, known, blaze), sinc)


def _relative_scatter(typical: FloatArray, known: BoolArray, blaze: FloatArray) -> float:
    """Scatter of a spectrum about its blaze where it has a tenth of its light."""
    lit = known & (typical > 0.1 * np.percentile(typical[known], 95)) & (blaze > 0)
    return float(np.std(typical[lit] / blaze[lit])) if lit.any() else np.nan


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
    noise = np.sqrt(
        scipy.ndimage.median_filter(np.where(good, variance, 1e6), (1, 25), mode="nearest")
    )
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
    total = scipy.ndimage.uniform_filter1d(weight, size, axis=1, mode="constant")
    product = scipy.ndimage.uniform_filter1d(weight * ratio, size, axis=1, mode="constant")
    squares = scipy.ndimage.uniform_filter1d(
        weight**2 * np.where(lit, variance, 0), size, axis=1, mode="constant"
    )
    known = scipy.ndimage.uniform_filter1d(lit.astype(float), size, axis=1, mode="constant") > 0.25
    smooth, spread = np.ones(ratio.shape), np.full(ratio.shape, options.max_noise**2)
    for f in np.flatnonzero(known.any(axis=1)):
        at = np.flatnonzero(known[f])
        middle = (at[:-1] + at[1:]) // 2
        nearest = at[np.searchsorted(middle, np.arange(ratio.shape[1]), side="left")]
        smooth[f] = product[f, nearest] / total[f, nearest]
        spread[f] = squares[f, nearest] / (size * total[f, nearest] ** 2)
    return smooth, spread
