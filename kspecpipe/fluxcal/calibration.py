"""Flux calibration from standard stars: from reduced spectra to the response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.candidates import Candidate, find_candidates
from kspecpipe.fluxcal.combine import Combined, CombineOptions, combine_calibration_vectors
from kspecpipe.fluxcal.containers import FluxCalibrationResult
from kspecpipe.fluxcal.exposure import Observation, Standards
from kspecpipe.fluxcal.grid import TemplateGrid
from kspecpipe.fluxcal.options import FluxcalOptions
from kspecpipe.fluxcal.qc import quality_metrics
from kspecpipe.fluxcal.star import FittedStar, compute_calibration_vector_for_star
from kspecpipe.fluxcal.table import star_table
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal

#: How far beyond the last datum the response is still given, flagged [Angstrom].
_REACH = 100.0


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
