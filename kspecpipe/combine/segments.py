"""Products of several modes as segments of one spectrum: the steps of the recipe splice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from kspecpipe.combine.splice import Segment, Spliced
from kspecpipe.combine.stack import weighted_mean
from kspecpipe.errors import InputError
from kspecpipe.products.combined import Coadded, grid_of, per_angstrom, unit_of
from kspecpipe.products.flux import Calibrated
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.sky.rebin import Grid
from kspecpipe.spectra import Reduced

OneMode = Reduced | Calibrated | Coadded


def ordered(products: Sequence[OneMode]) -> list[OneMode]:
    """Return products from blue to red; one that lies within another comes after it.

    Raises
    ------
    InputError
        If two are of one mode, or their units differ.
    """
    modes: dict[str, OneMode] = {}
    for one in products:
        mode = mode_of(one)
        if mode in modes:
            raise InputError(
                f"{modes[mode].name} and {one.name} are both of the mode {mode}; kspec coadd "
                "averages exposures of one mode, splice joins different ones"
            )
        modes[mode] = one
        if unit_of(one) != unit_of(products[0]):
            raise InputError(
                f"{one.name}: its unit is {unit_of(one)}, that of {products[0].name} is "
                f"{unit_of(products[0])}"
            )
    edges = {mode: grid_of(one).edges for mode, one in modes.items()}
    return [modes[mode] for mode in sorted(modes, key=lambda m: (edges[m][0], -edges[m][-1]))]


def mode_of(one: OneMode) -> str:
    """Return the instrument mode of a product."""
    return str(one.header.get("INSMODE", one.name))


def segment_of(one: OneMode) -> Segment:
    """Return the spectra of a product, flux per Angstrom."""
    spectra = one.spectra
    value, variance = (part.astype(float) for part in (spectra.value, spectra.variance))
    return Segment(Signal(value, variance, spectra.dq).scale(per_angstrom(one)), grid_of(one))


def mean_plane(
    planes: Sequence[FloatArray], grids: Sequence[Grid], spliced: Spliced, grid: Grid
) -> FloatArray:
    """Return a plane of all products on one grid, averaged with the shares of the spectra."""
    placed = [
        Segment(Signal.of(np.asarray(rows, dtype=float), 1.0), own).onto(grid).value
        for rows, own in zip(planes, grids, strict=True)
    ]
    return weighted_mean(np.stack(placed), spliced.share)


def best_level(products: Sequence[OneMode], spliced: Spliced) -> FloatArray:
    """Return the factor of each fibre that restores the level of the segment of most light."""
    best = int(np.argmax([_snr(one) for one in products]))
    level: FloatArray = 1.0 / spliced.factor[best]
    return level


def join_table(products: Sequence[OneMode], spliced: Spliced, fibres: Table) -> Table:
    """Return one row per join and fibre."""
    count, joins = len(fibres), spliced.joins
    table = Table()
    table["MODE"] = np.repeat(np.array([mode_of(one) for one in products[1:]], "U40"), count)
    table["FIBRE_ID"] = np.tile(np.asarray(fibres["FIBRE_ID"], dtype=np.int32), len(joins))
    for name in ("start", "stop"):
        table[name.upper()] = np.repeat([getattr(join, name) for join in joins], count)
        table[name.upper()].unit = "Angstrom"
    table["SCALE"] = np.concatenate([join.scale for join in joins])
    return table


def _snr(one: OneMode) -> float:
    good = one.spectra.good & (one.spectra.variance > 0)
    if not good.any():
        return 0.0
    # Per Angstrom, so that modes of another dispersion compare.
    ratio = one.spectra.value[good] / np.sqrt(one.spectra.variance[good])
    return float(np.median(ratio) / np.sqrt(grid_of(one).step))
