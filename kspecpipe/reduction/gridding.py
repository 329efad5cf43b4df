"""Whole products between native pixels and a wavelength grid, with all their factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe import fibres
from kspecpipe.configuration.schema import key
from kspecpipe.errors import RecipeError
from kspecpipe.reduction.science import correlation_cards, grid_cards
from kspecpipe.signal import DQ, UNUSABLE, BoolArray, FloatArray, Signal
from kspecpipe.sky.rebin import Grid, plan_rebin, rebin_back
from kspecpipe.sky.resample import Kernel, Resampling
from kspecpipe.spectra import REDUCED_GRID, Extracted, Reduced


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """Wavelength grid of a mode."""

    start: float = key(unit="Angstrom", above=0, doc="wavelength of the first pixel")
    step: float = key(unit="Angstrom", above=0, doc="width of a pixel")
    n: int = key(at_least=2, doc="number of pixels")


@dataclass(frozen=True)
class Gridded:
    """A product after rebinning and the numbers by which it is judged.

    Parameters
    ----------
    product : Reduced or Extracted
        The product.
    flux_ratio : float
        Flux after over flux before, where both have it; median of the fibres.
    usable : float
        Fraction of the samples inside the coverage of live fibres that carry a value.
    correlation : float
        Correlation of neighbouring samples, median of the fibres.
    """

    product: Reduced | Extracted
    flux_ratio: float
    usable: float
    correlation: float


def choose_grid(chosen: GridSettings | None, wavelength: FloatArray) -> Grid:
    """Return the grid of the mode, or one that covers the spectra at their median dispersion."""
    if chosen is None:
        return Grid.from_wavelength(wavelength)
    return Grid(chosen.start, chosen.step, chosen.n)


def grid_of_reduced(extracted: Extracted) -> Grid | None:
    """Return the grid of the REDUCED that was made with EXTRACTED; None when it is not stored."""
    if not all(card in extracted.grid for card in REDUCED_GRID):
        return None
    start, step, n = (extracted.grid[card] for card in REDUCED_GRID)
    return Grid(float(start), float(step), int(n))


def onto_grid(extracted: Extracted, wavelength: FloatArray, grid: Grid, kernel: Kernel) -> Gridded:
    """Build REDUCED from EXTRACTED and its stored factors, in one resampling.

    Parameters
    ----------
    extracted : Extracted
        Spectra with flat and sky.
    wavelength : ndarray, shape (nfib, nx)
        Wavelengths [Angstrom]; NaN for dead fibres.
    grid : Grid
        Target grid.
    kernel : {"cubic", "overlap"}
        See `kspecpipe.sky.rebin.plan_rebin`.

    Returns
    -------
    Gridded
        REDUCED; without a stored sky nothing is subtracted and SKY is NaN. The variance takes
        samples of the sky model as independent, as nothing else is stored.
    """
    response = _response(extracted)
    even = extracted.spectra.divide(response)
    plan = plan_rebin(wavelength, grid, even.good, kernel=kernel)
    rwss = plan.apply(even)
    reduced, sky = rwss.signal, Signal.of(np.full(rwss.signal.shape, np.nan), np.nan, DQ.NO_DATA)
    if np.isfinite(extracted.sky).any():
        sky = _sky_onto_grid(extracted, response.value, plan)
        reduced = rwss.signal.subtract(sky)
    product = Reduced(
        spectra=reduced,
        rwss=rwss.signal.value,
        sky=sky.value,
        sky_variance=sky.variance,
        lsf=_interpolated(grid.wavelength, wavelength, extracted.lsf),
        axis=grid_cards(grid),
        correlation=correlation_cards(rwss.correlation),
        fibres=extracted.fibres,
    )
    with np.errstate(invalid="ignore"):
        inside = (wavelength >= grid.edges[0]) & (wavelength <= grid.edges[-1])
        ends = (np.min(wavelength, axis=1), np.max(wavelength, axis=1))
        covered = (grid.wavelength >= ends[0][:, None]) & (grid.wavelength <= ends[1][:, None])
    if not covered.any():
        raise RecipeError(
            f"no spectrum reaches the grid {grid.edges[0]:.1f} to {grid.edges[-1]:.1f} Angstrom; "
            f"they cover {np.nanmin(wavelength):.1f} to {np.nanmax(wavelength):.1f}"
        )
    return Gridded(
        product,
        _flux_ratio(rwss.signal, even, inside),
        float(np.mean(np.isfinite(product.rwss[covered]))),
        float(product.correlation.get("ESO PRO CORR1", np.nan)),
    )


def onto_pixels(reduced: Reduced, extracted: Extracted, kernel: Kernel) -> Gridded:
    """Put REDUCED back onto the native pixels of its EXTRACTED, with the factors of that one.

    Parameters
    ----------
    reduced : Reduced
        Spectra on a grid.
    extracted : Extracted
        Gives wavelengths, LSF and flat.
    kernel : {"cubic", "overlap"}
        See `kspecpipe.sky.rebin.plan_rebin`.

    Returns
    -------
    Gridded
        EXTRACTED: spectra with sky times FLAT and THROUGHPUT, and the sky in the same way.

    Raises
    ------
    RecipeError
        If the numbers of fibres differ, or the spectra have no grid.
    """
    missing = [card for card in ("CRVAL1", "CDELT1") if card not in reduced.axis]
    if missing or len(reduced.rwss) != len(extracted.wavelength):
        raise RecipeError(
            f"{reduced.name}: {len(reduced.rwss)} fibres, "
            f"{'no wavelength grid' if missing else 'a grid'}; "
            f"{len(extracted.wavelength)} fibres are in {extracted.name}. Are they of one exposure?"
        )
    grid = Grid(reduced.axis["CRVAL1"], reduced.axis["CDELT1"], reduced.rwss.shape[1])
    response = _response(extracted)
    own = np.nan_to_num(reduced.sky_variance)
    # Where there is light but no sky to subtract, the bits of REDUCED tell of the sky.
    informing = np.where(
        np.isfinite(reduced.rwss), reduced.spectra.dq & ~np.uint16(UNUSABLE), reduced.spectra.dq
    )
    light = Signal(
        reduced.rwss.astype(float), reduced.spectra.variance - own, informing.astype(np.uint16)
    )
    back = rebin_back(light, grid, extracted.wavelength, kernel=kernel)
    sky = Signal(reduced.sky.astype(float), reduced.sky_variance.astype(float), light.dq)
    native = rebin_back(sky, grid, extracted.wavelength, kernel=kernel).signal.scale(response.value)
    spectra = back.signal.scale(response.value)
    spectra = spectra.flag(~np.isfinite(spectra.value), DQ.NO_DATA)
    product = extracted.replace(
        spectra=spectra,
        sky=native.value,
        sky_variance=native.variance,
        ron=None,
        pixel_variance=None,
        noise={},
        fibres=reduced.fibres,
        header={},
    )
    with np.errstate(invalid="ignore"):
        covered = (extracted.wavelength > grid.edges[0]) & (extracted.wavelength < grid.edges[-1])
    correlation = correlation_cards(back.correlation)
    return Gridded(
        product,
        _flux_ratio(back.signal, light, light.good),
        float(np.mean(np.isfinite(spectra.value[covered]))),
        float(correlation.get("ESO PRO CORR1", np.nan)),
    )


def _response(extracted: Extracted) -> Signal:
    variance = 0.0 if extracted.flat_variance is None else extracted.flat_variance.astype(float)
    flat = Signal.of(extracted.flat.astype(float), variance)
    return flat.scale(fibres.divisor(extracted.fibres))


def _sky_onto_grid(extracted: Extracted, response: FloatArray, plan: Resampling) -> Signal:
    variance = 0.0 if extracted.sky_variance is None else extracted.sky_variance.astype(float)
    sky = Signal.of(extracted.sky.astype(float), variance).scale(1 / response)
    missing = plan.touches(~np.isfinite(sky.value))
    found = plan.apply(sky).signal
    gone = found.flag(missing, DQ.NO_DATA)
    return Signal(
        np.where(missing, np.nan, gone.value), np.where(missing, np.nan, gone.variance), gone.dq
    )


def _interpolated(at: FloatArray, wavelength: FloatArray, rows: FloatArray) -> FloatArray:
    pairs = zip(wavelength, rows, strict=True)
    return np.stack([np.interp(at, w, row, left=np.nan, right=np.nan) for w, row in pairs])


def _flux_ratio(after: Signal, before: Signal, inside: BoolArray) -> float:
    """Return the median over fibres of the ratio of total fluxes."""
    total = [np.nansum(after.value, axis=1), np.nansum(before.value * inside, axis=1)]
    ratio = np.divide(total[0], total[1], out=np.full(len(total[0]), np.nan), where=total[1] > 0)
    known = ratio[np.isfinite(ratio)]
    return float(np.median(known)) if known.size else float("nan")
