"""The lines of a star against those of models, whatever the smooth curve between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kspecpipe.fluxcal.continuum import spline_basis
from kspecpipe.signal import BoolArray, FloatArray

Metric = Literal["chi2", "huber"]
_HUBER = 2.0
_SURE = 3.0
#: Where lines crowd, and where few are left [Angstrom]; how wrong these are in units of those.
_CROWDED = (4300.0, 5500.0)
_SPARSE = 0.2
#: Beyond this a sample is no line [relative]; neighbouring samples that share an LSF.
_WILD = 0.15
_SHARED = 4.0


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """How to compare a star with the models.

    Parameters
    ----------
    metric : {"chi2", "huber"}
        Penalty of a residual; Huber's grows only linearly beyond two standard deviations.
    spacing : float
        Knots of the smooth curve between star and model, which takes up response and extinction
        [Angstrom].
    model_error : float
        Relative error of the models' lines.
    correlation, noise_correlation : float
        Samples per independent one, of the models' errors, which reach over many lines, and of the
        noise.
    typical_misfit : float
        Relative rms by which the lines of a library are wrong where they crowd, if noise hides it.
    window : float
        Models this far from the colour's temperature are compared [K].
    max_velocity : float
        Largest radial velocity [km/s].
    typical_velocity : float
        Of stars, and of errors of the wavelengths [km/s]; noisy velocities are drawn to 0.
    lsf_scales : tuple of float
        Factors of the line-spread function to try; a library coarser than its name or a rotating
        star differ from the arc's width.
    """

    metric: Metric = "chi2"
    spacing: float = 250.0
    model_error: float = 0.015
    correlation: float = 20.0
    noise_correlation: float = 2.0
    typical_misfit: float = 0.04
    window: float = 900.0
    max_velocity: float = 600.0
    typical_velocity: float = 150.0
    lsf_scales: tuple[float, ...] = (0.4, 0.7, 0.85, 1.0, 1.2)


@dataclass(frozen=True, slots=True)
class Star:
    """An observed standard star.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    flux, variance : ndarray, shape (nw,)
        [electron/s/Angstrom] and its square; the variance is smooth (see `smooth_variance`).
    good : ndarray of bool, shape (nw,)
        Samples that can be used, telluric bands excluded.
    lsf : ndarray, shape (nw,)
        FWHM of the line-spread function [Angstrom].
    """

    wavelength: FloatArray
    flux: FloatArray
    variance: FloatArray
    good: BoolArray
    lsf: FloatArray


def score_templates(
    star: Star, models: FloatArray, options: MatchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compare the lines of a star with those of models, whatever the smooth curve between them.

    The star is fitted as model times a spline; the spline takes up response, extinction,
    brightness and reddening, and only lines are left to differ.

    Parameters
    ----------
    star : Star
        The observation.
    models : ndarray, shape (n, nw)
        Models at the star's resolution and velocity.
    options : MatchOptions
        Metric, spacing, error of the models.

    Returns
    -------
    chi2 : ndarray, shape (n,)
        Sum of the penalties over the good samples.
    dof : ndarray, shape (n,)
        Degrees of freedom.
    curve : ndarray, shape (n, nw)
        The spline: star over model.
    """
    use = star.good & np.isfinite(models).all(axis=0)
    basis = spline_basis(star.wavelength, options.spacing)
    basis = basis[:, basis[use].sum(axis=0) > 0.5]
    level = np.abs(_smoothed(star.flux, use, 51))
    weight = np.where(use, 1 / (star.variance + (options.model_error * level) ** 2), 0.0)
    mean = models[:, use].mean(axis=1)[:, None]
    scaled = np.where(use, models / mean, 0.0)
    robust = np.ones_like(scaled)
    rounds = 4 if options.metric == "huber" else 1
    for _ in range(rounds):
        curve = _fit_curves(basis, weight * robust, scaled, star.flux)
        pull = np.sqrt(weight) * (np.where(use, star.flux, 0.0) - scaled * curve)
        robust = np.minimum(1.0, _HUBER / np.maximum(np.abs(pull), 1e-9))
    penalty = pull**2
    if options.metric == "huber":
        penalty = np.where(np.abs(pull) > _HUBER, 2 * _HUBER * np.abs(pull) - _HUBER**2, penalty)
    dof = np.full(len(models), max(1.0, float(use.sum() - basis.shape[1])))
    return penalty.sum(axis=1), dof, curve / mean


def shared_samples(star: Star, options: MatchOptions) -> float:
    """Count the samples per independent one: neighbours share errors of the model, but no noise.

    Parameters
    ----------
    star : Star
        The observation.
    options : MatchOptions
        Error of the models, and how many samples share it.
    """
    level = np.abs(_smoothed(star.flux, star.good, 51))
    model = (options.model_error * level[star.good]) ** 2
    part = float(np.mean(model / (model + star.variance[star.good])))
    return options.noise_correlation + (options.correlation - options.noise_correlation) * part


def smooth_variance(variance: FloatArray, good: BoolArray, size: int = 51) -> FloatArray:
    """Average the variance over neighbours, so that it no longer follows the noise of its sample.

    Photon noise makes a sample that came out low also look precise; weights from such a variance
    pull every fit down (by the inverse square of the signal-to-noise ratio). Real peaks, more than
    twice the average, as under sky lines, are kept.
    """
    smooth = _smoothed(variance, good, size)
    return np.maximum(smooth, np.where(good, variance, 0.0) / 2)


def _smoothed(values: FloatArray, good: BoolArray, size: int) -> FloatArray:
    """Average neighbouring good samples; the nearest where there is none."""
    kernel = np.ones(min(size, values.size))
    count = np.convolve(good.astype(float), kernel, mode="same")
    total = np.convolve(np.where(good, values, 0.0), kernel, mode="same")
    place = np.arange(values.size)
    known = count > 0
    return np.interp(place, place[known], total[known] / count[known])


def line_strength(star: Star, model: FloatArray, options: MatchOptions) -> tuple[float, float]:
    """Strength of a star's lines in units of a model's (shape (1, nw)), and its error."""
    observed, lines, flat = line_pair(star, model, options)
    noise = star.variance / np.where(flat > 0, flat, 1.0) ** 2 + options.model_error**2
    weight = lines / noise
    power = float(np.sum(weight * lines))
    if power <= 0:
        return float("nan"), float("nan")
    return float(np.sum(weight * observed)) / power, 1 / float(np.sqrt(power))


def line_pair(
    star: Star, model: FloatArray, options: MatchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lines of star and model less the same smooth curve, 0 where unknown; and that curve."""
    relaxed = replace(options, metric="chi2")
    curve = score_templates(star, model, relaxed)[2]
    flat = score_templates(star, np.ones_like(model), relaxed)[2][0]
    use = star.good & np.isfinite(model[0]) & (flat > 0)
    observed = np.where(use, star.flux / np.where(use, flat, 1.0) - 1, 0.0)
    lines = np.where(use, model[0] * curve[0] / np.where(use, flat, 1.0) - 1, 0.0)
    return observed, lines, np.where(use, flat, 0.0)


def excess_residual(star: Star, model: FloatArray, curve: FloatArray) -> float:
    """Relative rms of star against model which the noise surely does not explain."""
    fitted = model * curve
    use = star.good & np.isfinite(fitted) & (fitted > 0.05 * np.nanmax(fitted))
    if use.sum() < 10:
        return float("nan")
    relative = star.flux[use] / fitted[use] - 1
    noise = star.variance[use] / fitted[use] ** 2
    weight = 1 / (noise + 1e-4)
    excess = relative**2 - noise
    mean = np.average(excess, weights=weight)
    error = np.sqrt(np.sum((weight * (excess - mean)) ** 2)) / weight.sum()
    return float(np.sqrt(max(0.0, mean - _SURE * error)))


def misfit_profile(wavelength: FloatArray) -> FloatArray:
    """Return how wrong a library's lines are against those where they crowd, shape (nw,)."""
    return np.asarray(np.interp(wavelength, _CROWDED, (1.0, _SPARSE)))


def line_misfit(star: Star, fitted: FloatArray, options: MatchOptions) -> tuple[float, float]:
    """Relative rms by which the lines of a model are wrong where they crowd, beyond the noise.

    Lines of all wavelengths tell it: their errors are taken to shrink towards the red as lines
    become few.

    Parameters
    ----------
    star : Star
        The observation.
    fitted : ndarray, shape (nw,)
        Models like it at the star's resolution, times the smooth curve star over model.
    options : MatchOptions
        What is typical.

    Returns
    -------
    expected : float
        As much as is probable; where noise hides the lines, the library is a typical one.
    sure : float
        As much as the noise does not explain, at one standard deviation.
    """
    use = star.good & np.isfinite(fitted) & (fitted > 0.05 * np.nanmax(fitted))
    noise = star.variance[use] / fitted[use] ** 2
    square = (star.flux[use] / fitted[use] - 1) ** 2
    excess = np.minimum(square, _SURE**2 * noise + _WILD**2) - noise
    typical = options.typical_misfit**2
    profile = misfit_profile(star.wavelength[use]) ** 2
    # Inverse variances: of squares of normal deviates, which neighbours share; and of libraries.
    weight = 1 / (2 * _SHARED * (noise + typical * profile) ** 2)
    power, moment = np.sum(weight * profile**2), np.sum(weight * profile * excess)
    expected = (moment + 1 / typical) / (power + 1 / typical**2)
    sure = (moment - np.sqrt(power)) / power
    return float(np.sqrt(max(0.0, expected))), float(np.sqrt(max(0.0, sure)))


def _fit_curves(
    basis: FloatArray, weight: FloatArray, models: FloatArray, flux: FloatArray
) -> FloatArray:
    """Solve star = model x spline for every model, shape (n, nw)."""
    weight = np.broadcast_to(weight, models.shape)
    squares = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    size = basis.shape[1]
    normal = ((weight * models**2) @ squares).reshape(-1, size, size)
    trace = np.trace(normal, axis1=1, axis2=2)[:, None, None] / size
    normal = normal + 1e-8 * trace * np.eye(size)
    right = (weight * models * np.where(np.isfinite(flux), flux, 0.0)) @ basis
    solution = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    curves: FloatArray = solution @ basis.T
    return curves
