"""One standard star: which model it is, and the response that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import median_filter

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.candidates import Candidate
from kspecpipe.fluxcal.colour import (
    ColourFit,
    CorrectionBasis,
    colour_correction,
    predicted_residual,
)
from kspecpipe.fluxcal.containers import CalibrationVector, StarFit
from kspecpipe.fluxcal.grid import TemplateGrid
from kspecpipe.fluxcal.lines import Star, misfit_profile, smooth_variance
from kspecpipe.fluxcal.matching import TemplateMatch, select_best_template
from kspecpipe.fluxcal.options import FluxcalOptions, Limits
from kspecpipe.fluxcal.response import RatioData, SmoothRatio, fit_ratio
from kspecpipe.regions import WavelengthRegion, inside_regions
from kspecpipe.signal import DQ, DQArray, FloatArray, Signal

_MAG = 2.5 / np.log(10.0)
#: Candidates less probable than this do not enter the mean model.
_IMPROBABLE = 1e-3
_LEAST_GOOD = 0.2
#: Samples over which the models' error is smoothed.
_LINES = 51
_SURE = 4.0
#: Extinction in g per E(B-V) (Schlafly & Finkbeiner 2011, ApJ 737, 103, table 6, R_V = 3.1).
_G_BAND = 3.17


@dataclass(frozen=True, slots=True)
class FittedStar:
    """A star that was fitted: its response's logarithm, the variance of that, and its model's."""

    fit: StarFit
    log_response: FloatArray
    log_variance: FloatArray
    model_variance: FloatArray
    first: float
    last: float


def compute_calibration_vector_for_star(
    candidate: Candidate, wavelength: FloatArray, library: TemplateGrid, options: FluxcalOptions
) -> FittedStar | str:
    """Fit one star.

    Parameters
    ----------
    candidate : Candidate
        Spectrum and magnitudes.
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    library : TemplateGrid
        Models.
    options : FluxcalOptions
        Everything else.

    Returns
    -------
    FittedStar or str
        The fit, or the reason why the star cannot be used.
    """
    if candidate.reason:
        return candidate.reason
    good = candidate.rate.good & np.isfinite(candidate.lsf) & (candidate.lsf > 0)
    if good.sum() < _LEAST_GOOD * good.size:
        return "most of the spectrum is unusable; dead fibre?"
    star = _observed_star(candidate, wavelength, options.telluric)
    snr = signal_to_noise(star)
    if not snr >= options.limits.snr:
        return f"too faint: S/N {snr:.1f} per pixel, at least {options.limits.snr:g} is needed"
    match = select_best_template(star, candidate.photometry, library, options.match, options.colour)
    reason = judge_match(match, options.limits, candidate.photometry.meta.get("a_g", 0.0))
    if reason:
        return reason
    try:
        return _fit_response(candidate, star, match, library, options)
    except RecipeError as error:
        return str(error)


def signal_to_noise(star: Star) -> float:
    """Median signal-to-noise ratio per pixel of the good samples."""
    return float(np.median(star.flux[star.good] / np.sqrt(star.variance[star.good])))


def judge_match(match: TemplateMatch, limits: Limits, extinction: float = 0.0) -> str:
    """Say why star and models speak against each other; empty if they do not.

    Parameters
    ----------
    match : TemplateMatch
        How the models compare with the star.
    limits : Limits
        What is believed.
    extinction : float
        Total Galactic extinction in g in the star's direction, if the catalogue has it [mag].
    """
    estimate = match.teff_colour
    if match.colours is None:
        return "no magnitude in a band that the templates cover"
    if estimate is not None and estimate.beyond < -limits.bluer:
        return f"hot star: {-estimate.beyond:.2f} mag bluer than every template"
    if estimate is not None and estimate.beyond > limits.redder:
        return f"cool star or giant: {estimate.beyond:.2f} mag redder than every template"
    coolest, hottest = limits.temperatures
    if not coolest <= match.mean_teff <= hottest:
        kind = "cool star or giant" if match.mean_teff < coolest else "hot star"
        return f"{kind}: {match.mean_teff:.0f} K; {coolest:.0f} to {hottest:.0f} K serve"
    if not match.residual <= limits.residual:
        return (
            f"lines like no template: {match.residual:.1%} rms beyond the noise; hot star, wrong "
            "match, or bad sky?"
        )
    low, high = limits.line_strength
    doubt = _SURE * match.line_strength_error
    if match.line_strength + doubt < low or match.line_strength - doubt > high:
        return (
            f"lines {match.line_strength:.2f} times as strong as the best template's; hot star, "
            "wrong match, or no star?"
        )
    if abs(match.teff_lines - match.mean_teff) > limits.teff:
        return f"lines say {match.teff_lines:.0f} K, colours {match.mean_teff:.0f} K; wrong match?"
    dust = 1.5 * extinction / _G_BAND + 0.1 if extinction > 0 else 0.0
    if not limits.ebv[0] <= match.ebv <= max(limits.ebv[1], dust):
        return f"lines and colours agree only with E(B-V) = {match.ebv:.2f}; wrong match?"
    return ""


def calibrated_model(
    match: TemplateMatch, library: TemplateGrid, wavelength: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean of the probable models, each corrected to agree with all magnitudes.

    Parameters
    ----------
    match : TemplateMatch
        Candidates; it must have a fit of colours.
    library : TemplateGrid
        Models.
    wavelength : ndarray, shape (nw,)
        [Angstrom].

    Returns
    -------
    model : ndarray, shape (nw,)
        Above the air [erg/s/cm2/Angstrom]; NaN where the models do not reach.
    variance : ndarray, shape (nw,)
        Of its logarithm: magnitudes, correction, and choice of the model.
    """
    if match.colours is None:
        raise ValueError("a match without magnitudes cannot be calibrated")
    options = match.colour_options
    probable = np.flatnonzero(match.weight > _IMPROBABLE * match.weight.max())
    weight = match.weight[probable] / match.weight[probable].sum()
    basis = CorrectionBasis.of(library, wavelength, options)
    corrections = [colour_correction(match.colours, int(row), basis, options) for row in probable]
    curve = np.array([c[0] for c in corrections])
    logs = np.log(match.models[probable]) - curve / _MAG
    mean = weight @ logs
    spread = weight @ (logs - mean) ** 2
    return np.exp(mean), spread + weight @ np.array([c[1] for c in corrections]) / _MAG**2


def _observed_star(
    candidate: Candidate, wavelength: FloatArray, telluric: Sequence[WavelengthRegion]
) -> Star:
    good = candidate.rate.good & np.isfinite(candidate.lsf) & (candidate.lsf > 0)
    lsf = np.where(good, candidate.lsf, np.median(candidate.lsf[good]))
    clear = ~inside_regions(wavelength, telluric, margin=lsf / 2)
    variance = smooth_variance(candidate.rate.variance, good)
    return Star(wavelength, candidate.rate.value, variance, good & clear, lsf)


def _fit_response(
    candidate: Candidate,
    star: Star,
    match: TemplateMatch,
    library: TemplateGrid,
    options: FluxcalOptions,
) -> FittedStar:
    """Divide a star by its calibrated model, smoothly."""
    model, model_variance = calibrated_model(match, library, star.wavelength)
    lines = inside_regions(
        star.wavelength, options.stellar, margin=star.lsf / 2, velocity=match.velocity
    )
    data = RatioData(star.wavelength, star.flux, star.variance, model, star.good & ~lines)
    ratio = fit_ratio(data, options.response)
    model_variance = np.where(np.isfinite(model_variance), model_variance, 1.0)
    # The candidates differ most in their lines, over which the curve averages.
    model_variance = median_filter(model_variance, _LINES, mode="nearest")
    # Where the lines that can be seen are wrong, so are the blends that cannot.
    wrong = np.maximum(ratio.misfit, match.misfit * misfit_profile(star.wavelength))
    model_variance = model_variance + (options.response.blends * wrong) ** 2
    variance = ratio.variance + model_variance
    response = np.exp(-ratio.log_ratio)
    signal = Signal(response, response**2 * variance, _flags(star, ratio, options.telluric))
    meta = _numbers(candidate, match, library, signal_to_noise(star))
    vector = CalibrationVector(star.wavelength, signal, meta)
    fit = _star_fit(candidate, match, library, (vector, data))
    curve = -ratio.log_ratio
    return FittedStar(fit, curve, variance, model_variance, ratio.first, ratio.last)


def _star_fit(
    candidate: Candidate,
    match: TemplateMatch,
    library: TemplateGrid,
    parts: tuple[CalibrationVector, RatioData],
) -> StarFit:
    if match.colours is None:
        raise ValueError("a match without magnitudes cannot be calibrated")
    before = np.where(match.colours.bands, match.colours.difference[match.best], np.nan)
    return StarFit(
        vector=parts[0],
        observed=candidate.rate,
        model=parts[1].model,
        fitted=parts[1].use,
        photometry=candidate.photometry,
        residual=before - np.nanmean(before),
        final_residual=predicted_residual(match.colours, match.best, library, match.colour_options),
    )


def _flags(star: Star, ratio: SmoothRatio, telluric: Sequence[WavelengthRegion]) -> DQArray:
    """Flag what is bridged in telluric bands or lies beyond the star's data."""
    flags = Signal.of(ratio.log_ratio)
    inside = inside_regions(star.wavelength, telluric, margin=star.lsf / 2)
    beyond = (star.wavelength < ratio.first) | (star.wavelength > ratio.last)
    return flags.flag(inside, DQ.TELLURIC).flag(beyond, DQ.EXTRAPOLATED).dq


def _scale_factor(colours: ColourFit | None, best: int) -> float:
    """Return the flux above the air over that at the star's surface."""
    return float("nan") if colours is None else float(10 ** (-0.4 * colours.grey[best]))


def _numbers(
    candidate: Candidate, match: TemplateMatch, library: TemplateGrid, snr: float
) -> dict[str, Any]:
    """Everything worth telling about a match."""
    best = library.parameters[int(match.index[match.best])]
    colours = match.colours
    return {
        "fibre": candidate.fibre,
        "name": candidate.name,
        "objid": candidate.photometry.meta.get("objid", ""),
        "template": best.label,
        "teff": match.mean_teff,
        "teff_lines": match.teff_lines,
        "teff_colour": float("nan") if match.teff_colour is None else match.teff_colour.teff,
        "logg": best.logg,
        "feh": best.feh,
        "alpha_m": best.alpha_m,
        "velocity": match.velocity,
        "velocity_error": match.velocity_error,
        "lsf_scale": match.lsf_scale,
        "chi2": float(match.line_chi2[match.best]),
        "colour_chi2": float("nan") if colours is None else float(colours.chi2[match.best]),
        "scale_factor": _scale_factor(colours, match.best),
        "runner_up": match.runner_up_margin,
        "line_strength": match.line_strength,
        "residual": match.residual,
        "line_misfit": match.sure_misfit,
        "ebv": match.ebv,
        "snr": snr,
    }
