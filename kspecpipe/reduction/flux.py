"""From reduced to calibrated spectra: what the recipe fluxcal does with one exposure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.configuration.instrument_schema import SiteFacts
from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal import (
    FluxCalibrationResult,
    Observation,
    Standards,
    apply_flux_calibration,
    history_lines,
    require_same_wavelength,
    require_uncalibrated,
)
from kspecpipe.fluxcal.extinction import ExtinctionCurve, nearest_curve, no_extinction
from kspecpipe.products.flux import Calibrated, Response, axis_wavelength
from kspecpipe.reduction.pointing import with_velocity
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.spectra import Reduced

_DAY = 86400.0


@dataclass(frozen=True)
class FluxExposure:
    """One exposure, ready for flux calibration.

    Parameters
    ----------
    reduced : Reduced
        Its spectra.
    fibres : Table
        FIBRES with types, places and AIRMASS.
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    exptime, mjd : float
        Exposure time [s] and middle of the exposure.
    airmass : ndarray, shape (nfib,)
        Airmass of each fibre; NaN throughout if nothing tells it.
    """

    reduced: Reduced
    fibres: Table
    wavelength: FloatArray
    exptime: float
    mjd: float
    airmass: FloatArray

    @property
    def mean_airmass(self) -> float:
        """Mean over the fibres; NaN if it is unknown."""
        return float(self.airmass.mean())

    @property
    def standards(self) -> Standards:
        """Live fibres of type C."""
        rows = np.flatnonzero(fibres.of_type(self.fibres, "C"))
        ra, dec = (np.asarray(self.fibres[name], float)[rows] for name in ("RA", "DEC"))
        return Standards(rows, ra, dec, tuple(str(self.fibres["NAME"][row]) for row in rows))

    def observation(self, curve: ExtinctionCurve, airmass: float = 1.0) -> Observation:
        """Return the circumstances; ``airmass`` is taken where the exposure's own is unknown."""
        known = np.where(np.isfinite(self.airmass), self.airmass, airmass)
        return Observation(
            self.wavelength,
            np.asarray(self.reduced.lsf, float),
            self.exptime,
            known,
            curve.at(self.wavelength),
            self.mjd,
        )


def open_exposure(
    reduced: Reduced, assignment: Table | None, site: SiteFacts | None
) -> FluxExposure:
    """Collect what flux calibration must know of an exposure.

    Parameters
    ----------
    reduced : Reduced
        Spectra; EXPTIME and MJD-OBS are in its header.
    assignment : Table or None
        Fibre assignment that replaces the one in FIBRES.
    site : SiteFacts or None
        Place of the telescope, for the airmass of a new assignment.

    Raises
    ------
    RecipeError
        If the spectra are calibrated already, have no axis or no exposure time.
    """
    header = reduced.header
    unit = str(header.get("BUNIT", "electron"))
    require_uncalibrated("erg/s/cm2/Angstrom" if header.get("FLUXCAL") else unit)
    exptime = _number(header, "EXPTIME")
    if not exptime > 0 or "CRVAL1" not in reduced.axis or "CDELT1" not in reduced.axis:
        raise RecipeError(
            f"{reduced.name}: EXPTIME is {header.get('EXPTIME')!r} and the wavelength axis "
            f"{dict(reduced.axis)}; a positive time and CRVAL1, CDELT1 are needed"
        )
    mjd = _number(header, "MJD-OBS") + exptime / 2 / _DAY
    table = reduced.fibres
    if assignment is not None:
        table = with_velocity(fibres.assign(table, assignment), site, mjd)
    return FluxExposure(
        reduced,
        table,
        axis_wavelength(reduced.axis, reduced.spectra.shape[1]),
        exptime,
        mjd,
        _airmass(table),
    )


def choose_extinction(
    curves: Mapping[str, ExtinctionCurve], wanted: str, site: SiteFacts | None
) -> ExtinctionCurve:
    """Return the extinction curve of that name; ``site``: the one nearest to the telescope."""
    if wanted == "none" or (wanted == "site" and site is None):
        return no_extinction()
    if wanted == "site" and site is not None:
        return nearest_curve(curves, site.longitude, site.latitude)
    return curves[wanted]


def response_product(
    exposure: FluxExposure, result: FluxCalibrationResult, curve: ExtinctionCurve
) -> Response:
    """Return the product that holds the response of an exposure and its stars."""
    vectors = [vector.response for vector in result.per_star_vectors]
    m = result.metrics
    cards = {
        "FLUXCAL": True,
        "FCALNSTR": int(m["stars_used"]),
        "FCALNREJ": int(m["stars_rejected"]),
        "FCALRMS": round(m["shape_scatter"], 6),
        "FCALGREY": round(m["grey_scatter"], 6),
        "FCALZP": round(m["zero_point"], 4),
        "FCALEXT": curve.name,
        "FCALAIRM": round(exposure.mean_airmass, 5),
        "HISTORY": history_lines(result),
    }
    return Response(
        response=result.response,
        extinction=curve.at(exposure.wavelength),
        vectors=np.array([vector.value for vector in vectors]),
        vector_variance=np.array([vector.variance for vector in vectors]),
        observed=np.array([fit.observed.value for fit in result.fits]),
        model=np.array([fit.model for fit in result.fits]),
        stars=result.stars,
        axis=dict(exposure.reduced.axis),
        calibration={key: value for key, value in cards.items() if value == value},
    )


def calibrate_exposure(exposure: FluxExposure, response: Response) -> Calibrated:
    """Turn the electrons of an exposure into flux above the air.

    Parameters
    ----------
    exposure : FluxExposure
        The exposure.
    response : Response
        Of this or of another exposure of the same mode; its extinction curve is used.

    Returns
    -------
    Calibrated
        PRIMARY = REDUCED x FACTOR, and both factors and errors to repeat it.

    Raises
    ------
    RecipeError
        If the response is of another mode.
    """
    require_same_wavelength(exposure.wavelength, response.wavelength)
    if not response.response.good.any():
        raise RecipeError(f"{response.name} has no usable sample: give another RESPONSE")
    cards = response.calibration
    curve = ExtinctionCurve(
        str(cards.get("FCALEXT", "")), exposure.wavelength, np.asarray(response.extinction, float)
    )
    seen = exposure.observation(curve, float(cards.get("FCALAIRM", 1.0)))
    vector = _as_stored(response.response)
    reduced = exposure.reduced
    factor = seen.rate_factor(reduced.spectra.shape[0]) * vector.value
    airmass = np.broadcast_to(np.asarray(seen.airmass, float), (len(factor),))
    table = exposure.fibres.copy()
    table["AIRMASS"] = airmass
    return Calibrated(
        spectra=apply_flux_calibration(reduced.spectra, seen, vector),
        sky=np.asarray(reduced.sky, float) * factor,
        lsf=reduced.lsf,
        telluric=reduced.telluric,
        factor=factor,
        factor_error=vector.error / vector.value,
        extinction=np.asarray(response.extinction, float),
        axis=dict(reduced.axis),
        correlation=dict(reduced.correlation),
        calibration={**cards, "FCALAIRM": round(float(airmass.mean()), 5)},
        fibres=table,
    )


def borrowed(response: Response, name: str) -> Response:
    """Return a response of another exposure, marked as such."""
    cards = dict(response.calibration)
    history = [f"no star of this exposure: RESPONSE of {name}", *cards.get("HISTORY", ())]
    return response.replace(calibration={**cards, "FCALRESP": name, "HISTORY": history})


def nearest_in_time(
    exposure: FluxExposure, others: Sequence[tuple[FluxExposure, Response | None]]
) -> tuple[FluxExposure, Response] | None:
    """Return the exposure nearest in time that has a response of its own."""
    known = [(other, response) for other, response in others if response is not None]
    return min(known, key=lambda pair: abs(pair[0].mjd - exposure.mjd), default=None)


def _as_stored(response: Signal) -> Signal:
    """Round to the precision of RESPONSE, so that anyone can repeat what follows from it."""
    value, variance = (
        part.astype(np.float32).astype(float) for part in (response.value, response.variance)
    )
    return replace(response, value=value, variance=variance)


def _airmass(table: Table) -> FloatArray:
    """Return the airmass of each fibre; the mean of the others where its own is unknown."""
    if "AIRMASS" not in table.colnames:
        return np.full(len(table), np.nan)
    own = np.asarray(table["AIRMASS"], float)
    usable = np.isfinite(own) & (own >= 1 - 1e-6)
    mean = float(own[usable].mean()) if usable.any() else float("nan")
    return np.where(usable, own, mean)


def _number(header: Mapping[str, Any], key: str) -> float:
    value = header.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and value is not None else float("nan")
