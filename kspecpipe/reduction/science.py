"""From extracted spectra to reduced ones: flat, throughput, sky, grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.reduction.transmission import difference_from_lines, flat_response, line_throughput
from kspecpipe.regions import WavelengthRegion, inside_regions
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.sky.matching import Matching
from kspecpipe.sky.model import SkyOptions
from kspecpipe.sky.rebin import Grid, rebin
from kspecpipe.sky.subtract import subtract_sky
from kspecpipe.sky.throughput import Throughput, flag_low_throughput
from kspecpipe.sky.transmission import transmission_of_standards, transmission_of_table
from kspecpipe.spectra import CORRELATION, REDUCED_GRID, Extracted, FibreFlat, Reduced

#: A fibre's sky lines contradict its throughput from this part, and this many errors, on.
_CHANGED, _CLEARLY = 0.15, 5.0
#: Part of its sky by which a spectrum may be negative; nowhere was 5 % exceeded when all was well.
#: Errors of sums are half as large again as those of uncorrelated samples.
_NEGATIVE, _CORRELATED = 0.08, 1.5


@dataclass(frozen=True)
class Calibration:
    """What all exposures of a set share.

    Parameters
    ----------
    flat : FibreFlat or None
        Response of the fibres; none: 1.
    fibres : Table
        FIBRES with types and throughput.
    grid : Grid
        Wavelength grid of the product.
    telluric : sequence of WavelengthRegion
        Bands to flag.
    transmission : (ndarray, ndarray) or None
        Wavelength [Angstrom] and transmission of the air at airmass 1.
    """

    flat: FibreFlat | None
    fibres: Table
    grid: Grid
    telluric: Sequence[WavelengthRegion] = ()
    transmission: tuple[FloatArray, FloatArray] | None = None


@dataclass(frozen=True)
class ReducedExposure:
    """Products of one exposure and the numbers by which they are judged.

    Parameters
    ----------
    extracted, reduced : Extracted, Reduced
        The products.
    usable : float
        Fraction of the samples of live fibres that carry a value.
    sky_fibres : int
        Sky fibres that the sky was made of.
    dropped : tuple of int
        FIBRE_ID of sky fibres that were left out because they see more than sky.
    changed : tuple of (int, float)
        FIBRE_ID of fibres whose sky lines contradict their throughput, and their light over it.
    negative : int
        Targets that are clearly darker than no light: their sky is not what they see.
    sky_residual : float or None
        Robust width of the sky fibres' pulls after subtraction; None with fewer than two.
    snr : float
        Median signal-to-noise ratio of the program fibres.
    lines : float or None
        Robust scatter of the fibres' throughput over that of the exposure's sky lines.
    """

    extracted: Extracted
    reduced: Reduced
    usable: float
    sky_fibres: int
    dropped: tuple[int, ...]
    changed: tuple[tuple[int, float], ...]
    negative: int
    sky_residual: float | None
    snr: float
    lines: float | None = None


def reduce_exposure(
    spectra: Signal,
    wavelength: FloatArray,
    lsf: FloatArray,
    calibration: Calibration,
    parameters: Any,
) -> ReducedExposure:
    """Divide spectra by flat and throughput, model and subtract their sky, and rebin them.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted spectra [electron].
    wavelength, lsf : ndarray, shape (nfib, nx)
        Wavelengths of this exposure and FWHM of its LSF [Angstrom].
    calibration : Calibration
        Flat, fibres and grid.
    parameters : Declared
        ``subtract_sky``, ``sky_contamination``, ``sky_components``, ``min_throughput`` and
        ``telluric``.
    """
    table, grid = calibration.fibres, calibration.grid
    live = fibres.live(table)
    wavelength = np.where(live[:, None], wavelength, np.nan)
    lsf = np.where(live[:, None], lsf, np.nan)
    # What follows starts from the numbers that EXTRACTED stores: anyone can repeat it from them.
    spectra = fibres.without_dead(_as_stored(spectra), table)
    flat = flat_response(calibration.flat, wavelength)
    lines = line_throughput(spectra.divide(flat), wavelength, live)
    table, difference = _with_throughput(table, lines)
    spectra = _flag_low(spectra, table, parameters.min_throughput)
    spectra = _flag_telluric(spectra, wavelength, lsf, calibration.telluric)
    response = _as_stored(flat).scale(fibres.divisor(table))
    even = spectra.divide(response)
    sky_fibres = fibres.of_type(table, "S")
    gridded = _on_grid(even, wavelength, lsf, sky_fibres, grid, parameters)
    native = gridded.native_sky.scale(response.value)
    reduced = _flag_low(gridded.reduced, table, parameters.min_throughput)
    changed = _changed(gridded.matching, table)
    spectra, reduced = (
        _flag_lost(part, changed, gridded.matching, table, parameters.min_throughput)
        for part in (spectra, reduced)
    )
    lsf_on_grid = _lsf_on_grid(lsf, wavelength, grid)
    products = (
        Extracted(
            spectra=spectra,
            wavelength=wavelength,
            lsf=lsf,
            flat=response.value / fibres.divisor(table),
            sky=native.value,
            flat_variance=response.variance / fibres.divisor(table) ** 2,
            sky_variance=native.variance,
            grid=dict(zip(REDUCED_GRID, (grid.start, grid.step, grid.n), strict=True)),
            fibres=table,
        ),
        Reduced(
            spectra=reduced,
            rwss=gridded.rwss.value,
            sky=gridded.sky.value,
            sky_variance=gridded.sky.variance,
            lsf=lsf_on_grid,
            axis=grid_cards(grid),
            correlation=correlation_cards(gridded.correlation),
            telluric=_transmission(reduced, lsf_on_grid, calibration, parameters.telluric),
            fibres=table,
        ),
    )
    return ReducedExposure(
        *products,
        usable=float(np.mean(spectra.good[live])) if live.any() else 0.0,
        sky_fibres=int(gridded.used.sum()),
        dropped=tuple(int(number) for number in table["FIBRE_ID"][gridded.dropped]),
        changed=_named(changed, gridded.matching, table),
        negative=int((_targets(table) & ~gridded.dropped & _negative(reduced, gridded.sky)).sum()),
        sky_residual=_pull_width(reduced, gridded.used) if gridded.used.sum() > 1 else None,
        snr=median_snr(reduced, table),
        lines=difference,
    )


@dataclass(frozen=True)
class _Gridded:
    """Spectra on the grid with and without sky, and the sky fibres that it was made of."""

    rwss: Signal
    reduced: Signal
    sky: Signal
    native_sky: Signal
    correlation: FloatArray
    matching: Matching
    used: BoolArray
    dropped: BoolArray


def _on_grid(
    even: Signal,
    wavelength: FloatArray,
    lsf: FloatArray,
    sky_fibres: BoolArray,
    grid: Grid,
    parameters: Any,
) -> _Gridded:
    """Rebin spectra that differ by their objects only, and subtract the sky if there is one."""
    if parameters.subtract_sky and sky_fibres.any():
        options = SkyOptions(
            contamination=parameters.sky_contamination, components=parameters.sky_components
        )
        found = subtract_sky(even, wavelength, lsf, sky_fibres, grid, options)
        used = sky_fibres & ~found.dropped
        parts = (found.rwss, found.reduced, found.sky, found.native_sky, found.correlation)
        return _Gridded(*parts, found.matching, used, found.dropped)
    rebinned = rebin(even, wavelength, grid)
    none = np.zeros(len(sky_fibres), bool)
    sky, native = (
        Signal.of(np.full(shape, np.nan), np.nan, DQ.NO_DATA)
        for shape in (rebinned.signal.shape, even.shape)
    )
    parts = (rebinned.signal, rebinned.signal, sky, native, rebinned.correlation)
    return _Gridded(*parts, Matching.none(len(none)), none, none)


def _changed(matching: Matching, table: Table) -> BoolArray:
    """Find targets whose sky lines show clearly more or less light than their throughput."""
    off = np.abs(matching.scale - 1)
    return _targets(table) & (off > _CHANGED) & (off > _CLEARLY * matching.scale_error)


def _named(changed: BoolArray, matching: Any, table: Table) -> tuple[tuple[int, float], ...]:
    """Name the fibres that have changed, and say what part of their light they pass now."""
    return tuple(
        (int(table["FIBRE_ID"][i]), float(matching.scale[i])) for i in np.flatnonzero(changed)
    )


def _flag_lost(
    signal: Signal, changed: BoolArray, matching: Matching, table: Table, least: float
) -> Signal:
    """Flag fibres that have changed until next to nothing passes them."""
    lost = changed & ~(matching.scale * fibres.divisor(table)[:, 0] >= least)
    return signal.flag(np.broadcast_to(lost[:, None], signal.shape), DQ.LOW_THROUGHPUT)


def _targets(table: Table) -> BoolArray:
    """Find live fibres that point at something, be it empty sky."""
    found: BoolArray = np.any([fibres.of_type(table, kind) for kind in "PSC"], axis=0)
    return found


def _negative(reduced: Signal, sky: Signal) -> BoolArray:
    """Find spectra (nfib, nw) whose sum is negative by a part of their sky, and by errors."""
    good = reduced.good & sky.good & (reduced.variance > 0)
    light, level, variance = (
        np.where(good, part, 0.0).sum(axis=1)
        for part in (reduced.value, sky.value, reduced.variance)
    )
    found: BoolArray = -light > np.maximum(
        _NEGATIVE * level, _CORRELATED * _CLEARLY * np.sqrt(variance)
    )
    return found


def grid_cards(grid: Grid) -> dict[str, Any]:
    """Return the header cards of a wavelength grid (air)."""
    return {
        "CTYPE1": "AWAV",
        "CRPIX1": 1.0,
        "CRVAL1": float(grid.start),
        "CDELT1": float(grid.step),
        "CUNIT1": "Angstrom",
    }


def correlation_cards(correlation: FloatArray) -> dict[str, Any]:
    """Return the header cards of the correlation (nfib, nlag) of neighbouring samples."""
    known = correlation[np.isfinite(correlation).all(axis=1)]
    if len(known) == 0:
        return {}
    median = np.median(known, axis=0)
    return {card: round(float(r), 5) for card, r in zip(CORRELATION, median, strict=False)}


def _as_stored(signal: Signal) -> Signal:
    """Round to the precision of the product."""
    value, variance = (
        part.astype(np.float32).astype(float) for part in (signal.value, signal.variance)
    )
    return Signal(value, variance, signal.dq)


def _flag_telluric(
    spectra: Signal, wavelength: FloatArray, lsf: FloatArray, regions: Sequence[WavelengthRegion]
) -> Signal:
    """Flag the bands, widened by what the LSF spreads."""
    bands = inside_regions(wavelength, regions, margin=np.nan_to_num(lsf) / 2)
    return spectra.flag(bands, DQ.TELLURIC)


def _with_throughput(table: Table, lines: Throughput | None) -> tuple[Table, float | None]:
    """Return the table, and how it differs from the lines, which serve if nothing else is known."""
    if np.isfinite(fibres.throughput(table)).any():
        return table, difference_from_lines(table, lines)
    filled = table.copy()
    if lines is not None:
        filled["THROUGHPUT"] = lines.value
    return filled, None


def _flag_low(spectra: Signal, table: Table, minimum: float) -> Signal:
    """Flag fibres that pass too little light; when none is known, those that are dead."""
    known = fibres.throughput(table)
    if not np.isfinite(known).any():
        known = np.where(fibres.live(table), 1.0, np.nan)
    return flag_low_throughput(spectra, known, minimum)


def _transmission(
    reduced: Signal, lsf: FloatArray, calibration: Calibration, source: str
) -> FloatArray | None:
    """Return the transmission of the air (nfib, nw), which is not applied; None if not wanted."""
    grid, table = calibration.grid.wavelength, calibration.fibres
    if source == "table" and calibration.transmission is not None:
        mass = np.asarray(table["AIRMASS"], dtype=float)
        return transmission_of_table(calibration.transmission, grid, lsf, mass)
    standards = fibres.of_type(table, "C")
    if source == "standards" and standards.any():
        found = transmission_of_standards(reduced, grid, standards, calibration.telluric)
        return np.broadcast_to(found, reduced.shape)
    return None


def _lsf_on_grid(lsf: FloatArray, wavelength: FloatArray, grid: Grid) -> FloatArray:
    rows = zip(wavelength, lsf, strict=True)
    return np.stack(
        [np.interp(grid.wavelength, w, row, left=np.nan, right=np.nan) for w, row in rows]
    )


def _pull_width(spectra: Signal, rows: Any) -> float:
    """Return 1.4826 MAD of value over error of some fibres."""
    chosen = spectra.select(rows)
    good = chosen.good & (chosen.variance > 0)
    if not good.any():
        return float("nan")
    pulls = chosen.value[good] / np.sqrt(chosen.variance[good])
    return float(1.4826 * np.median(np.abs(pulls - np.median(pulls))))


def median_snr(spectra: Signal, table: Table) -> float:
    """Return the median signal-to-noise ratio of the program fibres; NaN without any."""
    chosen = spectra.select(fibres.of_type(table, "P"))
    good = chosen.good & (chosen.variance > 0)
    if not good.any():
        return float("nan")
    return float(np.median(chosen.value[good] / np.sqrt(chosen.variance[good])))
