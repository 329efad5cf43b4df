"""The fibres which look at standard stars, and what the catalogue says about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from kspecpipe.fluxcal.catalogue import (
    is_giant,
    is_variable,
    match_positions,
    photometry_from_catalog_row,
)
from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.exposure import Observation, Standards
from kspecpipe.fluxcal.options import Limits
from kspecpipe.signal import FloatArray, Signal

_NO_PHOTOMETRY = Photometry((), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fibre that looks at a standard star.

    Parameters
    ----------
    fibre : int
        Its row in the spectra.
    name : str
        Of the fibre.
    separation : float
        Distance to the nearest star of the catalogue [arcsec].
    rate : Signal, shape (nw,)
        Spectrum above the air [electron/s/Angstrom].
    lsf : ndarray, shape (nw,)
        FWHM of the line-spread function [Angstrom].
    photometry : Photometry
        Magnitudes; without bands if the star is not in the catalogue.
    reason : str
        Why the star cannot be used, as far as the catalogue tells; empty if it can.
    """

    fibre: int
    name: str
    separation: float
    rate: Signal
    lsf: FloatArray
    photometry: Photometry
    reason: str = ""


def find_candidates(
    spectra: Signal,
    observation: Observation,
    standards: Standards,
    catalogue: Table,
    limits: Limits,
) -> tuple[Candidate, ...]:
    """Find each standard fibre in the catalogue, by position.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        [electron per pixel].
    observation : Observation
        Circumstances.
    standards : Standards
        Fibres and where they point.
    catalogue : Table
        Magnitudes.
    limits : Limits
        When a star is no standard.

    Returns
    -------
    tuple of Candidate
        In the order of ``standards``.
    """
    rows, distance = match_positions(
        standards.ra, standards.dec, catalogue, mjd=observation.mjd, radius=limits.radius
    )
    rate = spectra.scale(observation.rate_factor(spectra.shape[0]))
    names = standards.names or tuple(f"fibre {f + 1}" for f in standards.fibre)
    candidates = []
    for k, fibre in enumerate(standards.fibre):
        found = rows[k] >= 0
        photometry = (
            photometry_from_catalog_row(catalogue[int(rows[k])]) if found else _NO_PHOTOMETRY
        )
        separation = float(distance[k])
        candidates.append(
            Candidate(
                int(fibre),
                names[k],
                separation,
                rate.select(int(fibre)),
                observation.lsf[fibre],
                photometry,
                _reason(photometry, separation, limits),
            )
        )
    return tuple(candidates)


def _reason(photometry: Photometry, separation: float, limits: Limits) -> str:
    """Say why the catalogue speaks against a star."""
    if not photometry.filter_names and not np.isfinite(separation):
        return "the fibre has no coordinates"
    if not photometry.filter_names and separation <= limits.radius:
        return "its star in the catalogue is nearer to another fibre"
    if not photometry.filter_names:
        return f"not in the catalogue: the nearest star is {separation:.1f} arcsec away"
    if not photometry.valid.any():
        return "no magnitude in any band"
    if is_variable(photometry):
        return "variable according to Gaia"
    if is_giant(photometry):
        return "giant: its parallax puts it far above the main sequence"
    crowding = photometry.meta.get("r1", np.nan)
    if 0 < crowding < limits.crowding:
        return f"crowded: neighbours within {crowding:.1f} arcsec are as bright as the star"
    return ""
