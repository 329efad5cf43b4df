"""Which model a star is: radial velocity, lines, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from kspecpipe.fluxcal.broaden import broaden, broadening_operator
from kspecpipe.fluxcal.colour import (
    ColourFit,
    ColourOptions,
    TeffEstimate,
    estimate_teff_from_colors,
    fit_colours,
)
from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.grid import TemplateGrid
from kspecpipe.fluxcal.lines import (
    MatchOptions,
    Star,
    excess_residual,
    line_misfit,
    line_pair,
    line_strength,
    score_templates,
    shared_samples,
)
from kspecpipe.signal import FloatArray, IntArray

_LIGHT = 299792.458
#: Samples per independent one in the error of the velocity: those that share an LSF.
_VELOCITY_CORRELATION = 4.0


@dataclass(frozen=True, slots=True)
class TemplateMatch:
    """How the models compare with a star; the arrays have shape (n,), one entry per candidate.

    Parameters
    ----------
    index : ndarray of int
        Candidates in the library.
    teff : ndarray
        Their temperatures [K].
    line_chi2 : ndarray
        Of the lines, per degree of freedom.
    chi2 : ndarray
        Lines and colours together, relative to the best.
    weight : ndarray
        Probability of each candidate; the sum is 1.
    models : ndarray, shape (n, nw)
        Candidates as they would be observed, at the star's velocity.
    colours : ColourFit or None
        Fit of the magnitudes.
    teff_colour : TeffEstimate or None
        From the colour alone.
    teff_lines : float
        From the lines alone, all models compared [K].
    velocity, velocity_error : float
        Radial velocity [km/s].
    lsf_scale : float
        Factor of the line-spread function that fits best.
    line_strength, line_strength_error : float
        Lines of the star in units of the best model's.
    residual : float
        Relative rms of star against best model beyond the noise, at three sigma.
    misfit, sure_misfit : float
        Relative rms by which the models' lines are wrong where they crowd, see `line_misfit`.
    colour_options : ColourOptions
        Sizes of errors of the magnitudes' fit, given that misfit.
    """

    index: IntArray
    teff: FloatArray
    line_chi2: FloatArray
    chi2: FloatArray
    weight: FloatArray
    models: FloatArray
    colours: ColourFit | None
    teff_colour: TeffEstimate | None
    teff_lines: float
    velocity: float
    velocity_error: float
    lsf_scale: float
    line_strength: float
    line_strength_error: float
    residual: float
    misfit: float
    sure_misfit: float
    colour_options: ColourOptions

    @property
    def mean_teff(self) -> float:
        """Temperature from lines and colours together [K]."""
        return float(self.weight @ self.teff)

    @property
    def ebv(self) -> float:
        """Mean E(B-V) of the candidates [mag]; NaN without magnitudes."""
        return float("nan") if self.colours is None else float(self.weight @ self.colours.ebv)

    @property
    def best(self) -> int:
        """Position of the best candidate."""
        return int(np.argmin(self.chi2))

    @property
    def runner_up_margin(self) -> float:
        """Total chi2 of the second best less that of the best; NaN with one candidate."""
        ranked = np.sort(self.chi2)
        return float(ranked[1] - ranked[0]) if ranked.size > 1 else float("nan")


def select_candidates(teff: FloatArray, estimate: TeffEstimate | None, window: float) -> IntArray:
    """Return the models whose temperature is near the colour's; all without a colour."""
    if estimate is None:
        return np.arange(teff.size)
    # A reddened star looks cooler than it is, hence the wider upper side.
    above = teff - estimate.teff
    near = np.flatnonzero((above > -window) & (above < 1.5 * window))
    return near if near.size else np.array([int(np.argmin(np.abs(above)))])


def cross_correlate_rv(
    wavelength: FloatArray,
    star: FloatArray,
    model: FloatArray,
    *,
    max_velocity: float,
) -> tuple[float, float]:
    """Radial velocity from the cross-correlation of two line spectra in log wavelength, by FFT.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        [Angstrom].
    star, model : ndarray, shape (nw,)
        Normalised spectra less 1; 0 where nothing is known.
    max_velocity : float
        Limit of the search [km/s].

    Returns
    -------
    velocity : float
        Of the star relative to the model [km/s]; 0 if there is no peak.
    peak : float
        Correlation coefficient.
    """
    step = float(np.min(np.diff(np.log(wavelength)))) / 2
    axis = np.arange(np.log(wavelength[0]), np.log(wavelength[-1]), step)
    pair = [_taper(np.interp(axis, np.log(wavelength), line)) for line in (star, model)]
    size = next_fast_len(2 * axis.size, real=True)
    product = irfft(rfft(pair[0], size) * np.conj(rfft(pair[1], size)), size)
    reach = min(int(np.log1p(max_velocity / _LIGHT) / step), axis.size // 2)
    lags = np.arange(-reach, reach + 1)
    power = float(np.sqrt((pair[0] ** 2).sum() * (pair[1] ** 2).sum()))
    if reach < 2 or power == 0:
        return 0.0, 0.0
    correlation = product[lags] / power
    top = int(np.argmax(correlation))
    if top in (0, lags.size - 1):
        return 0.0, float(correlation[top])
    low, mid, high = correlation[top - 1 : top + 2]
    centre = lags[top] + 0.5 * (low - high) / (low - 2 * mid + high)
    return _LIGHT * float(np.expm1(centre * step)), float(mid)


def select_best_template(
    star: Star,
    photometry: Photometry,
    grid: TemplateGrid,
    options: MatchOptions,
    colour_options: ColourOptions,
) -> TemplateMatch:
    """Find the models that agree with a star's lines and colours.

    Parameters
    ----------
    star : Star
        The observation.
    photometry : Photometry
        Its magnitudes.
    grid : TemplateGrid
        The library.
    options, colour_options : MatchOptions, ColourOptions
        How to compare.

    Returns
    -------
    TemplateMatch
        All candidates with their probabilities.
    """
    estimate = estimate_teff_from_colors(grid, photometry)
    index = select_candidates(grid.teff, estimate, options.window)
    velocity, peak_error, scale = _velocity_and_width(star, grid, index, estimate, options)
    models = _seen(star, grid, index, velocity, scale)
    chi2, dof, curve = score_templates(star, models, options)
    inflation = max(1.0, float(np.min(chi2 / dof))) * shared_samples(star, options)
    alike = np.exp(-0.5 * (chi2 - chi2.min()) / inflation)
    misfit, sure_misfit = line_misfit(star, alike @ (models * curve) / alike.sum(), options)
    colour_options = colour_options.for_misfit(misfit)
    colours = fit_colours(grid, index, photometry, colour_options)
    total = chi2 / inflation + (0.0 if colours is None else colours.chi2)
    total = total - total.min()
    weight = np.exp(-0.5 * total)
    best = int(np.argmin(total))
    strength, strength_error = line_strength(star, models[[best]], options)
    return TemplateMatch(
        index=index,
        teff=grid.teff[index],
        line_chi2=chi2 / dof,
        chi2=total,
        weight=weight / weight.sum(),
        models=models,
        colours=colours,
        teff_colour=estimate,
        teff_lines=float(alike @ grid.teff[index] / alike.sum()),
        velocity=velocity,
        velocity_error=peak_error,
        lsf_scale=scale,
        line_strength=strength,
        line_strength_error=strength_error,
        residual=excess_residual(star, models[best], curve[best]),
        misfit=misfit,
        sure_misfit=sure_misfit,
        colour_options=colour_options,
    )


def _taper(line: FloatArray) -> FloatArray:
    """Bring both ends to zero, so that they make no lines of their own."""
    edge = max(1, line.size // 20)
    window = np.ones(line.size)
    window[:edge] = np.sin(0.5 * np.pi * np.arange(edge) / edge) ** 2
    window[-edge:] = window[:edge][::-1]
    tapered: FloatArray = (line - line.mean()) * window
    return tapered


def _velocity_and_width(
    star: Star,
    grid: TemplateGrid,
    index: IntArray,
    estimate: TeffEstimate | None,
    options: MatchOptions,
) -> tuple[float, float, float]:
    """Velocity, its error and the factor of the LSF, with the model whose lines fit best."""
    velocity = 0.0
    distance = np.abs(grid.teff[index] - (6000.0 if estimate is None else estimate.teff))
    best = int(index[np.argmin(distance)])
    for last in (False, False, True):
        velocity += _line_shift(star, _seen(star, grid, [best], velocity), options)[0]
        if not last:
            scores = score_templates(star, _seen(star, grid, index, velocity), options)[0]
            best = int(index[np.argmin(scores)])
    error = _velocity_error(star, grid, best, velocity, options)
    # A velocity from noise does more harm than none.
    trust = 1 / (1 + (error / options.typical_velocity) ** 2) if np.isfinite(error) else 0.0
    velocity *= trust
    widths = [_seen(star, grid, [best], velocity, factor) for factor in options.lsf_scales]
    fits = [score_templates(star, width, options)[0][0] for width in widths]
    return velocity, error, options.lsf_scales[int(np.argmin(fits))]


def _seen(
    star: Star,
    grid: TemplateGrid,
    index: IntArray | list[int],
    velocity: float,
    scale: float = 1.0,
) -> FloatArray:
    """Models as the spectrograph would see them, shape (n, nw)."""
    operator = broadening_operator(
        grid.wavelength,
        star.wavelength,
        star.lsf * scale,
        velocity=velocity,
        resolution=grid.resolution,
    )
    return broaden(operator, grid.flux[index])


def _line_shift(star: Star, model: FloatArray, options: MatchOptions) -> tuple[float, float]:
    """Velocity of a star relative to a model of shape (1, nw)."""
    observed, lines, _ = line_pair(star, model, options)
    return cross_correlate_rv(star.wavelength, observed, lines, max_velocity=options.max_velocity)


def _velocity_error(
    star: Star, grid: TemplateGrid, best: int, velocity: float, options: MatchOptions
) -> float:
    """Error of the velocity from the curvature of chi2 [km/s]."""
    step = 50.0
    chi2, dof = [], 1.0
    for moved in (velocity - step, velocity, velocity + step):
        score, degrees, _ = score_templates(star, _seen(star, grid, [best], moved), options)
        chi2.append(float(score[0]))
        dof = float(degrees[0])
    inflation = max(1.0, chi2[1] / dof) * _VELOCITY_CORRELATION
    curvature = (chi2[0] - 2 * chi2[1] + chi2[2]) / step**2 / inflation
    return float(np.sqrt(2 / curvature)) if curvature > 0 else float("nan")
