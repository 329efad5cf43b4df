"""Flux calibration from standard stars: from reduced spectra to the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.table import Table

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.candidates import Candidate, find_candidates
from kspecpipe.fluxcal.combine import Combined, CombineOptions, combine_calibration_vectors
from kspecpipe.fluxcal.containers import (
    FilterCurve,
    FluxCalibrationResult,
    Photometry,
    StellarTemplate,
)
from kspecpipe.fluxcal.exposure import Observation, Standards
from kspecpipe.fluxcal.grid import TemplateGrid
from kspecpipe.fluxcal.options import FluxcalOptions
from kspecpipe.fluxcal.photometry import synthetic_photometry
from kspecpipe.fluxcal.qc import quality_metrics
from kspecpipe.fluxcal.star import FittedStar, compute_calibration_vector_for_star
from kspecpipe.fluxcal.table import star_table
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal

#: How far beyond the last datum the response is still given, flagged [Angstrom].
_REACH = 100.0
_MAG = 2.5 / np.log(10.0)


def calibrate_fluxes(
    spectra: Signal,
    observation: Observation,
    standards: Standards,
    catalogue: Table,
    library: TemplateGrid,
    options: FluxcalOptions,
) -> FluxCalibrationResult:
    """Derive the response of an exposure from its standard stars.

    Each star is found in the catalogue by its position and compared with the models by its lines
    and its colours. The models, moved to its velocity, broadened like the spectrum, and corrected
    to agree with all magnitudes, divide the observed spectrum; a smooth curve through that ratio,
    without telluric bands and strong lines, is the star's response. Responses of several stars are
    combined, shapes and brightness apart.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Sky-subtracted spectra [electron per pixel of the grid].
    observation : Observation
        Wavelengths, line-spread function, exposure time, airmass, extinction.
    standards : Standards
        Fibres of the standard stars and where they point.
    catalogue : Table
        Magnitudes, as `parse_refcat2` returns them.
    library : TemplateGrid
        Models.
    options : FluxcalOptions
        Regions to leave out, limits, and the options of each step.

    Returns
    -------
    FluxCalibrationResult
        Response, stars (used or why not), fits and metrics.

    Raises
    ------
    RecipeError
        If no star can be used; the message says why not, star by star.
    ValueError
        If shapes disagree.

    References
    ----------
    .. [1] Yan et al. 2016, AJ 151, 8 (MaNGA). [2] Bolton et al. 2012, AJ 144, 144 (BOSS).
    """
    if spectra.shape != observation.lsf.shape:
        raise ValueError(f"spectra {spectra.shape} and lsf {observation.lsf.shape} do not fit")
    if standards.fibre.size == 0:
        raise RecipeError(
            "no fibre looks at a standard star (TYPE C): give the fibre assignment, or a RESPONSE "
            "of another exposure"
        )
    candidates = find_candidates(spectra, observation, standards, catalogue, options.limits)
    outcomes = [
        compute_calibration_vector_for_star(c, observation.wavelength, library, options)
        for c in candidates
    ]
    reasons = [item if isinstance(item, str) else "" for item in outcomes]
    places = [place for place, item in enumerate(outcomes) if isinstance(item, FittedStar)]
    fitted = [item for item in outcomes if isinstance(item, FittedStar)]
    if not fitted:
        raise RecipeError(_nothing_left(candidates, reasons))
    combined = _combine(fitted, observation.wavelength, options.combine)
    extra = {}
    for k, place in enumerate(places):
        reasons[place] = combined.reasons[k]
        extra[place] = {"grey": float(combined.grey[k]), "shape_rms": float(combined.shape_rms[k])}
    kept = [star for star, why in zip(fitted, combined.reasons, strict=True) if not why]
    fits = tuple(star.fit for star in kept)
    wavelength = observation.wavelength
    response = _response(combined, kept, wavelength)
    stars = star_table(candidates, outcomes, reasons, extra)
    scatter = (combined.grey_scatter, combined.shape_scatter)
    metrics = quality_metrics(wavelength, response, stars, fits, scatter)
    return FluxCalibrationResult(wavelength, response, stars, fits, metrics)


def scale_template_to_photometry(
    template: StellarTemplate, photometry: Photometry, filter_curves: Mapping[str, FilterCurve]
) -> tuple[float, float, dict[str, float]]:
    """Scale a template by one factor so that its magnitudes are those of a star on average.

    This is all that a single grey factor can do; `kspecpipe.fluxcal.colour.fit_colours`, which
    `calibrate_fluxes` takes, fits reddening and a smooth correction too.

    Parameters
    ----------
    template : StellarTemplate
        Over its full range.
    photometry : Photometry
        Of the star.
    filter_curves : mapping of str to FilterCurve
        Bands to use, by name; those that were not measured, or that the template does not cover,
        are left out.

    Returns
    -------
    scale_factor, scale_error : float
        Flux at the Earth over that at the star's surface, and its error from the magnitudes.
    band_residuals : dict of str to float
        Magnitude of the scaled template minus that of the star, of each band used [mag].

    Raises
    ------
    ValueError
        If there is no such band.
    """
    wave, flux = template.wavelength, template.flux
    model = {
        name: float(synthetic_photometry(wave, flux, filter_curves[name]))
        for name in photometry.valid_bands()
        if name in filter_curves
    }
    used = [name for name, magnitude in model.items() if np.isfinite(magnitude)]
    if not used:
        raise ValueError(f"no band of {sorted(filter_curves)} with a magnitude and a template")
    seen = np.array([photometry.get_band(name) for name in used])
    excess = np.array([model[name] for name in used]) - seen[:, 0]
    weight = seen[:, 1] ** -2.0
    offset = float(np.average(excess, weights=weight))
    scale = 10 ** (0.4 * offset)
    error = scale / _MAG / np.sqrt(weight.sum())
    return scale, float(error), dict(zip(used, (excess - offset).tolist(), strict=True))


def _combine(
    fitted: Sequence[FittedStar], wavelength: FloatArray, options: CombineOptions
) -> Combined:
    return combine_calibration_vectors(
        np.array([star.log_response for star in fitted]),
        np.array([star.log_variance for star in fitted]),
        np.array([_inside(star, wavelength) for star in fitted]),
        np.array([star.model_variance for star in fitted]),
        options,
    )


def _inside(star: FittedStar, wavelength: FloatArray) -> BoolArray:
    return (wavelength >= star.first) & (wavelength <= star.last)


def _response(combined: Combined, kept: Sequence[FittedStar], wavelength: FloatArray) -> Signal:
    """Response with flags; far beyond the stars' data there is none."""
    value = np.exp(combined.log_response)
    telluric = np.all([(s.fit.vector.response.dq & DQ.TELLURIC) > 0 for s in kept], axis=0)
    first, last = min(s.first for s in kept), max(s.last for s in kept)
    beyond = (wavelength < first) | (wavelength > last)
    lost = (wavelength < first - _REACH) | (wavelength > last + _REACH)
    value = np.where(lost, np.nan, value)
    response = Signal.of(value, np.where(lost, np.nan, value**2 * combined.variance))
    return response.flag(telluric, DQ.TELLURIC).flag(beyond, DQ.EXTRAPOLATED).flag(lost, DQ.NO_DATA)


def _nothing_left(candidates: Sequence[Candidate], reasons: Sequence[str]) -> str:
    """Say why no star can be used."""
    told = "; ".join(f"{c.name}: {why}" for c, why in zip(candidates, reasons, strict=True))
    return (
        f"none of {len(candidates)} standard stars can be used ({told}). Give a RESPONSE of "
        "another exposure or night instead"
    )
