"""A parsed template library: what matching needs of every model, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kspecpipe.fluxcal.air import vacuum_to_air
from kspecpipe.fluxcal.catalogue import REFCAT2_BANDS
from kspecpipe.fluxcal.containers import StellarTemplate, TemplateParameters
from kspecpipe.fluxcal.photometry import (
    MIN_COVERAGE,
    band_weights,
    fnu_to_ab_mag,
    load_filter_curves,
)
from kspecpipe.signal import FloatArray

#: Bands whose magnitudes are kept.
BANDS = tuple(REFCAT2_BANDS)
_FINE = (3000.0, 11000.0, 1e-4)
_COARSE = (2500.0, 26000.0, 5e-3)


@dataclass(frozen=True, slots=True)
class TemplateGrid:
    """All models of a library on common wavelengths.

    Parameters
    ----------
    parameters : tuple of TemplateParameters, length n
        Of the models.
    magnitude : ndarray, shape (n, nband)
        Synthetic AB magnitudes in `BANDS` from the full range; NaN where it covers too little.
    sed_wavelength, sed : ndarray, shape (nbin,) and (n, nbin)
        Vacuum wavelength [Angstrom] and flux in coarse bins over all bands.
    wavelength : ndarray, shape (npixel,)
        **Air** wavelength, even in its logarithm [Angstrom].
    flux, continuum : ndarray, shape (n, npixel)
        Flux at the star's surface [erg/s/cm2/Angstrom].
    resolution : float
        Resolving power of the models (wavelength / FWHM).
    """

    parameters: tuple[TemplateParameters, ...]
    magnitude: FloatArray
    sed_wavelength: FloatArray
    sed: FloatArray
    wavelength: FloatArray
    flux: FloatArray
    continuum: FloatArray
    resolution: float

    def __len__(self) -> int:
        """Count the models."""
        return len(self.parameters)

    @property
    def teff(self) -> FloatArray:
        """Effective temperatures, shape (n,) [K]."""
        return np.array([p.teff for p in self.parameters])

    @property
    def table(self) -> FloatArray:
        """Teff, logg, [M/H], [alpha/M] of each model, shape (n, 4)."""
        return np.array([(p.teff, p.logg, p.feh, p.alpha_m) for p in self.parameters])

    def colour(self, first: str, second: str) -> FloatArray:
        """Synthetic colours of all models, shape (n,) [mag]."""
        return self.magnitude[:, BANDS.index(first)] - self.magnitude[:, BANDS.index(second)]


@dataclass(frozen=True, slots=True)
class TemplateSummary:
    """The row of one model in a `TemplateGrid`: magnitudes, coarse and fine spectra."""

    magnitude: FloatArray
    sed: FloatArray
    flux: FloatArray
    continuum: FloatArray


@dataclass(frozen=True, slots=True)
class GridAxes:
    """What all models of a library share.

    Parameters
    ----------
    coarse, fine : ndarray
        Edges of the bins, in vacuum and in air, even in the logarithm [Angstrom].
    bands : ndarray, shape (nband, k)
        Weights of `band_weights`; NaN for bands that the library's range does not cover.
    """

    coarse: FloatArray
    fine: FloatArray
    bands: FloatArray


def grid_axes(wavelength: FloatArray) -> GridAxes:
    """Prepare the bins and bands for a library's wavelengths.

    Parameters
    ----------
    wavelength : ndarray, shape (k,)
        Vacuum wavelength of the library [Angstrom].

    Returns
    -------
    GridAxes
        Inside the library's range.

    Raises
    ------
    ValueError
        If the library does not reach into the optical range.
    """
    coarse, fine = (_edges(wavelength[0], wavelength[-1], span) for span in (_COARSE, _FINE))
    bands = np.full((len(BANDS), wavelength.size), np.nan)
    for row, curve in enumerate(load_filter_curves(BANDS).values()):
        weights, coverage = band_weights(wavelength, curve)
        if coverage >= MIN_COVERAGE:
            bands[row] = weights
    return GridAxes(coarse, fine, bands)


def summarise_template(template: StellarTemplate, axes: GridAxes) -> TemplateSummary:
    """Reduce a template to what matching needs."""
    wave, fine = template.wavelength, axes.fine
    optical = slice(*np.searchsorted(wave, [fine[0] - 200.0, fine[-1] + 200.0]))
    air = vacuum_to_air(wave[optical])
    return TemplateSummary(
        fnu_to_ab_mag(axes.bands @ template.flux)[0],
        bin_spectrum(wave, template.flux, axes.coarse).astype(np.float32),
        bin_spectrum(air, template.flux[optical], fine).astype(np.float32),
        bin_spectrum(air, template.continuum[optical], fine).astype(np.float32),
    )


def assemble_grid(
    parameters: Sequence[TemplateParameters],
    summaries: Iterable[TemplateSummary],
    edges: tuple[FloatArray, FloatArray],
    resolution: float,
) -> TemplateGrid:
    """Join the summaries of all models; ``edges`` are those of the coarse and the fine bins."""
    rows = list(summaries)
    centres = [np.sqrt(part[1:] * part[:-1]) for part in edges]
    return TemplateGrid(
        tuple(parameters),
        np.array([row.magnitude for row in rows]),
        centres[0],
        np.array([row.sed for row in rows], np.float32),
        centres[1],
        np.array([row.flux for row in rows], np.float32),
        np.array([row.continuum for row in rows], np.float32),
        resolution,
    )


def bin_spectrum(wavelength: FloatArray, flux: FloatArray, edges: FloatArray) -> FloatArray:
    """Mean flux in bins of a spectrum that is linear between its samples.

    Right for bins narrower and wider than the samples alike.

    Parameters
    ----------
    wavelength, flux : ndarray, shape (k,)
        Rising wavelength and flux.
    edges : ndarray, shape (n + 1,)
        Edges of the bins, in the range of the wavelengths.

    Returns
    -------
    ndarray, shape (n,)
    """
    step = np.diff(wavelength)
    total = np.concatenate([[0.0], np.cumsum(step * (flux[1:] + flux[:-1]) / 2)])
    cell = np.clip(np.searchsorted(wavelength, edges, side="right") - 1, 0, step.size - 1)
    beyond = edges - wavelength[cell]
    slope = (flux[cell + 1] - flux[cell]) / step[cell]
    integral = total[cell] + flux[cell] * beyond + slope * beyond**2 / 2
    return np.diff(integral) / np.diff(edges)


def resample_spectrum(wave_in: FloatArray, flux_in: FloatArray, wave_out: FloatArray) -> FloatArray:
    """Mean flux density in the pixels of other wavelengths; the integral is conserved.

    Parameters
    ----------
    wave_in, flux_in : ndarray, shape (k,)
        Rising wavelength and flux density.
    wave_out : ndarray, shape (n,)
        Rising wavelengths of the pixels' centres; pixels end half-way between them.

    Returns
    -------
    ndarray, shape (n,)
        NaN in pixels that reach beyond ``wave_in``.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two samples.
    """
    if wave_in.shape != flux_in.shape or min(wave_in.size, wave_out.size) < 2:
        raise ValueError(
            f"wave_in {wave_in.shape}, flux_in {flux_in.shape} and wave_out {wave_out.shape}: "
            "the first two must be alike, and two samples are needed"
        )
    middle = (wave_out[1:] + wave_out[:-1]) / 2
    edges = np.concatenate([[2 * wave_out[0] - middle[0]], middle, [2 * wave_out[-1] - middle[-1]]])
    known = (edges[:-1] >= wave_in[0]) & (edges[1:] <= wave_in[-1])
    flux = np.full(wave_out.size, np.nan)
    if known.any():
        first, last = np.flatnonzero(known)[[0, -1]]
        flux[known] = bin_spectrum(wave_in, flux_in, edges[first : last + 2])
    return flux


def _edges(first: float, last: float, span: tuple[float, float, float]) -> FloatArray:
    low, high = max(span[0], first * 1.001), min(span[1], last * 0.999)
    if high < 1.2 * low:
        raise ValueError(
            f"templates from {first:.0f} to {last:.0f} Angstrom do not cover the optical range"
        )
    return np.asarray(np.exp(np.arange(np.log(low), np.log(high), span[2])))
