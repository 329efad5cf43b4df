"""Arcs against earlier arcs: drift of the zero point, and a start from an earlier solution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.wavelength.align import fill_gaps, line_spectra, measure_shifts
from kspecpipe.wavelength.peaks import subtract_continuum
from kspecpipe.wavelength.predict import Prediction


@dataclass(frozen=True)
class Drift:
    """Displacement of the lines of an exposure against an earlier one.

    Parameters
    ----------
    shift, shift_error : float
        Displacement at the middle of the chip, positive towards larger x [pixel].
    stretch, stretch_error : float
        Further displacement at the chip's right edge [pixel]; minus that at the left one.
    fibre_shift, fibre_error : ndarray, shape (nfib,)
        Displacement of each fibre [pixel]; NaN where it cannot be measured.
    """

    shift: float
    shift_error: float
    stretch: float
    stretch_error: float
    fibre_shift: FloatArray
    fibre_error: FloatArray


def measure_drift(before: Signal, after: Signal, live: BoolArray, *, reach: int = 15) -> Drift:
    """Measure the zero-point drift between two exposures of the same lamps.

    Each fibre's later spectrum is fitted with the earlier one, displaced, stretched and scaled;
    no line needs to be known.

    Parameters
    ----------
    before, after : Signal, shape (nfib, nx)
        Extracted arcs [electron].
    live : ndarray of bool, shape (nfib,)
        Fibres to use.
    reach : int
        Largest drift either way [pixel].

    Returns
    -------
    Drift
        NaN when no fibre has enough signal.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    if before.shape != after.shape or before.shape[0] != len(live):
        raise ValueError(f"arcs have shapes {before.shape} and {after.shape}, {len(live)} fibres")
    use = np.flatnonzero(live & before.good.any(axis=1) & after.good.any(axis=1))
    start = _coarse_shift(before.select(use), after.select(use), reach) if use.size else 0.0
    fits = [_fit_fibre(before.select(f), after.select(f), start) for f in use]
    shift, error = np.full(len(live), np.nan), np.full(len(live), np.nan)
    stretch, stretch_error = shift.copy(), error.copy()
    for f, (value, covariance) in zip(use, fits, strict=True):
        shift[f], stretch[f] = value
        error[f], stretch_error[f] = np.sqrt(np.diag(covariance))
    return Drift(*_robust_mean(shift, error), *_robust_mean(stretch, stretch_error), shift, error)


def predict_from_solution(
    wavelength: FloatArray, *, shift_range: float = 10.0, scale: float = 0.003
) -> Prediction:
    """Predict the wavelengths of an arc from an earlier solution of the same mode.

    Parameters
    ----------
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres in the earlier solution [Angstrom].
    shift_range : float
        Largest drift since, either way [pixel].
    scale : float
        Largest relative change of the dispersion since.

    Returns
    -------
    Prediction
        The wavelengths of the middle fibre, with narrow ranges.
    """
    middle = np.asarray(wavelength[len(wavelength) // 2], float)
    return Prediction(middle, (1 - scale, 1 + scale), shift_range, None, measured=True)


def _coarse_shift(before: Signal, after: Signal, reach: int) -> float:
    """Whole-chip shift from the cross-correlation of the summed line spectra."""
    template = line_spectra(before).mean(axis=0)
    shift, _ = measure_shifts(line_spectra(after).mean(axis=0)[None], template, reach)
    return float(shift[0])


def _fit_fibre(before: Signal, after: Signal, start: float) -> tuple[FloatArray, FloatArray]:
    """Shift and stretch (2,) of one fibre, and their covariance, by Gauss-Newton."""
    x = np.arange(before.shape[0], dtype=float)
    u = 2 * x / (x.size - 1) - 1
    template, target = (
        subtract_continuum(fill_gaps(np.asarray(s.value, float)[None], s.good[None]))[0]
        for s in (before, after)
    )
    spline = scipy.interpolate.CubicSpline(x, template)
    noise = np.where(before.good, before.variance, np.inf)
    value = np.array([start, 0.0])
    covariance = np.full((2, 2), np.nan)
    for _ in range(6):
        at = np.clip(x - value[0] - value[1] * u, 0, x.size - 1)
        model, slope = spline(at), spline(at, 1)
        variance = after.variance + noise[np.rint(at).astype(int)]
        weight = np.where(after.good & np.isfinite(variance), 1 / np.maximum(variance, 1e-9), 0.0)
        scale = np.sum(weight * model * target) / max(np.sum(weight * model**2), 1e-12)
        columns = np.stack([model, -scale * slope, -scale * slope * u], axis=1)
        normal = columns.T @ (weight[:, None] * columns)
        if not np.all(np.diag(normal) > 0):
            return np.full(2, np.nan), np.full((2, 2), np.nan)
        residual = target - scale * model
        inverse = np.linalg.inv(normal + 1e-9 * np.diag(np.diag(normal)))
        value = value + np.clip((inverse @ (columns.T @ (weight * residual)))[1:], -2, 2)
        chi2 = np.sum(weight * residual**2) / max(np.count_nonzero(weight) - 3, 1)
        covariance = inverse[1:, 1:] * max(float(chi2), 1.0)
    return value, covariance


def _robust_mean(value: FloatArray, error: FloatArray) -> tuple[float, float]:
    """Weighted mean without values that are 5 sigma off the median, and its error."""
    good = np.isfinite(value) & np.isfinite(error) & (error > 0)
    if not good.any():
        return float("nan"), float("nan")
    middle = np.median(value[good])
    spread = 1.4826 * np.median(np.abs(value[good] - middle))
    good &= np.abs(value - middle) <= 5 * np.hypot(np.where(good, error, 0), spread) + 1e-12
    weight = 1 / error[good] ** 2
    mean = float(np.sum(weight * value[good]) / np.sum(weight))
    scatter = float(np.sum(weight * (value[good] - mean) ** 2)) / max(good.sum() - 1, 1)
    return mean, float(np.sqrt(max(scatter, 1.0) / np.sum(weight)))
