"""The table of standard stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe.fluxcal.candidates import Candidate
from kspecpipe.fluxcal.grid import BANDS
from kspecpipe.fluxcal.star import FittedStar

#: Numbers of a star with their units.
NUMBERS = {
    "separation": "arcsec",
    "snr": "",
    "teff": "K",
    "teff_lines": "K",
    "teff_colour": "K",
    "logg": "",
    "feh": "",
    "alpha_m": "",
    "velocity": "km/s",
    "velocity_error": "km/s",
    "lsf_scale": "",
    "chi2": "",
    "colour_chi2": "",
    "scale_factor": "",
    "runner_up": "",
    "line_strength": "",
    "residual": "",
    "line_misfit": "",
    "ebv": "mag",
    "grey": "mag",
    "shape_rms": "",
}


def star_table(
    candidates: Sequence[Candidate],
    outcomes: Sequence[FittedStar | str],
    reasons: Sequence[str],
    extra: Mapping[int, Mapping[str, float]],
) -> Table:
    """Build the table of all candidates.

    Parameters
    ----------
    candidates : sequence of Candidate
        Fibres which look at standard stars.
    outcomes : sequence of FittedStar or str
        Fit of each, or why there is none.
    reasons : sequence of str
        Why a star was not used; empty if it was.
    extra : mapping
        Further numbers by the star's place in the list (``grey``, ``shape_rms``).

    Returns
    -------
    Table
        One row per candidate: ``fibre_id`` (from 1), ``name``, ``objid``, ``used``, ``reason``,
        the numbers, and of each band the magnitude's residual before (``res_``) and after
        (``fin_``) grey scale and colour correction; NaN where there is nothing.
    """
    rows = [
        {**_row(candidate, outcome), **extra.get(place, {}), "reason": reason, "used": not reason}
        for place, (candidate, outcome, reason) in enumerate(
            zip(candidates, outcomes, reasons, strict=True)
        )
    ]
    table = Table()
    for name in ("fibre_id", "name", "objid", "used", "reason", "template"):
        table[name] = [row.get(name, "") for row in rows]
    bands = [f"{stem}_{band}" for stem in ("res", "fin") for band in BANDS]
    for name in (*NUMBERS, *bands):
        table[name] = np.array([row.get(name, np.nan) for row in rows], float)
        unit = NUMBERS.get(name, "mag")
        if unit:
            table[name].unit = unit
    return table


def _row(candidate: Candidate, outcome: FittedStar | str) -> dict[str, Any]:
    """Everything known about one candidate."""
    row: dict[str, Any] = {
        "fibre_id": candidate.fibre + 1,
        "name": candidate.name,
        "objid": str(candidate.photometry.meta.get("objid", "")),
        "separation": candidate.separation,
    }
    if isinstance(outcome, str):
        return row
    row.update(outcome.fit.vector.meta)
    for stem, values in (("res", outcome.fit.residual), ("fin", outcome.fit.final_residual)):
        row.update({f"{stem}_{band}": value for band, value in zip(BANDS, values, strict=True)})
    return row
