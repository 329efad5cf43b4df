"""The product WAVE_SOLUTION from solved arcs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.signal import DQ, FloatArray, Signal
from kspecpipe.spectra import WaveSolution
from kspecpipe.wavelength.solution import WaveSolution as SolvedArcs


def wave_solution(
    solved: SolvedArcs, table: Table, lamps: Sequence[str], spectra: Sequence[Signal]
) -> WaveSolution:
    """Put a solution into the form of its product.

    Parameters
    ----------
    solved : SolvedArcs
        Wavelengths, LSF and lines.
    table : Table
        FIBRES; wavelengths of those without light are flagged as extrapolated.
    lamps : sequence of str, length n_exposure
        Lamp that each frame is named after; empty for all together.
    spectra : sequence of Signal, shape (nfib, nx)
        Extracted arcs [electron].

    Returns
    -------
    WaveSolution
        Its lines carry FIBRE_IDs, and exposures counted from 1.
    """
    dead = np.broadcast_to(~fibres.live(table)[:, None], solved.wavelength.shape)
    return WaveSolution(
        wavelength=Signal.of(solved.wavelength, solved.error**2).flag(dead, DQ.EXTRAPOLATED),
        error=solved.error,
        lsf=solved.lsf,
        lsf_shape=solved.lsf_shape.coefficients,
        lsf_basis={"LSFFWHM": solved.lsf_shape.basis.fwhm},
        lines=_line_table(solved, table, lamps),
        shifts=Table({"FIBRE_ID": table["FIBRE_ID"], "SHIFT": solved.shifts}),
        lamps=_lamp_table(solved),
        arc=_sum_of(spectra),
        fibres=table,
    )


def _sum_of(spectra: Sequence[Signal]) -> FloatArray:
    """Sum of the arcs (nfib, nx), NaN where one of them has no usable sample."""
    return np.asarray(np.sum([np.where(s.good, s.value, np.nan) for s in spectra], axis=0))


def _line_table(solved: SolvedArcs, table: Table, lamps: Sequence[str]) -> Table:
    """Name fibres, exposures and lamps of the lines as users know them."""
    lines = Table(solved.lines)
    exposure = np.asarray(lines["exposure"], dtype=int)
    lines["fibre"] = np.asarray(table["FIBRE_ID"])[np.asarray(lines["fibre"], dtype=int)]
    lines["exposure"] = exposure + 1
    lines["lamp"] = np.array(lamps, dtype="U16")[exposure]
    return lines


def _lamp_table(solved: SolvedArcs) -> Table:
    """Flux of each species over its listed one, and how many of its lines are used."""
    lines, ratios = solved.lines, solved.flux_ratio
    used = {s: lines["wavelength"][lines["used"] & (lines["species"] == s)] for s in ratios}
    return Table(
        {
            "SPECIES": np.array(list(ratios), dtype="U8"),
            "FLUX_RATIO": np.array(list(ratios.values()), dtype=float),
            "LINES": np.array([np.unique(used[s]).size for s in ratios], dtype=int),
        }
    )
