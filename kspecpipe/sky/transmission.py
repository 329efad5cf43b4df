"""Transmission of the Earth's atmosphere in its molecular bands, to be divided out on request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kspecpipe.regions import WavelengthRegion, combine_regions, inside_regions
from kspecpipe.signal import BoolArray, FloatArray, Signal

#: Width of the continuum on either side of a band, in units of the band's width, and its least
#: width [sample].
_SIDE, _LEAST = 1.0, 12


def transmission_of_standards(
    spectra: Signal,
    wavelength: FloatArray,
    standards: BoolArray,
    regions: Sequence[WavelengthRegion],
) -> FloatArray:
    """Measure the transmission in the bands from stars whose continuum is smooth.

    The continuum of each star is a straight line in the logarithm of its flux through both sides
    of a band; the weighted mean of the stars is the transmission. Stars need no model: within a
    band they have no strong lines of their own.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Sky-subtracted spectra [electron].
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    standards : ndarray of bool, shape (nfib,)
        Stars of known smooth spectrum, type C.
    regions : sequence of WavelengthRegion
        Bands.

    Returns
    -------
    ndarray, shape (nw,)
        Transmission; 1 outside the bands and in bands that cannot be measured.
    """
    transmission = np.ones(len(wavelength))
    absorbed = inside_regions(wavelength, regions)
    for band in combine_regions(regions):
        inside = inside_regions(wavelength, [band])
        side = _sides(wavelength, band.start, band.end) & ~absorbed
        ratios = [
            _ratio(spectra.select(fibre), wavelength, inside, side)
            for fibre in np.flatnonzero(standards)
        ]
        known = [pair for pair in ratios if pair is not None]
        if known and inside.any():
            value, weight = (np.array(part) for part in zip(*known, strict=True))
            total = weight.sum(axis=0)
            mean = (value * weight).sum(axis=0) / np.where(total > 0, total, 1.0)
            transmission[inside] = np.where(total > 0, np.clip(mean, 0.02, 1.05), 1.0)
    return transmission


def transmission_of_table(
    table: tuple[FloatArray, FloatArray],
    wavelength: FloatArray,
    fwhm: FloatArray,
    airmass: FloatArray,
) -> FloatArray:
    """Scale a transmission table to the airmass of each fibre and blur it with its LSF.

    Parameters
    ----------
    table : (ndarray, ndarray), shape (n,)
        Air wavelength [Angstrom], rising, and transmission of one airmass.
    wavelength : ndarray, shape (nw,)
        Air wavelength of the samples, equally spaced [Angstrom].
    fwhm : ndarray, shape (nfib, nw)
        FWHM of the LSF [Angstrom].
    airmass : ndarray, shape (nfib,)
        Airmass; NaN: that of the others, or 1.

    Returns
    -------
    ndarray, shape (nfib, nw)
        Transmission; 1 outside the table.
    """
    typical = float(np.nanmedian(airmass)) if np.isfinite(airmass).any() else 1.0
    mass = np.where(np.isfinite(airmass), airmass, typical)
    at, transmission = table
    result = np.ones(fwhm.shape)
    for fibre, row in enumerate(fwhm):
        if np.isfinite(row).any():
            seen = np.maximum(transmission, 0.0) ** mass[fibre]
            width = float(np.nanmedian(row))
            result[fibre] = _blurred(at, seen, wavelength, width)
    return result


def _sides(wavelength: FloatArray, low: float, high: float) -> BoolArray:
    step = float(np.median(np.diff(wavelength)))
    reach = max(_SIDE * (high - low), _LEAST * step)
    near = (wavelength > low - reach) & (wavelength < high + reach)
    return np.asarray(near & ~((wavelength >= low) & (wavelength <= high)))


def _ratio(
    star: Signal, wavelength: FloatArray, inside: BoolArray, side: BoolArray
) -> tuple[FloatArray, FloatArray] | None:
    """Flux over continuum inside a band and its inverse variance; None without both sides."""
    good = side & star.good & (star.value > 0) & (star.variance > 0)
    band = wavelength[inside]
    if not band.size or _fewest(wavelength[good], band) < 3:
        return None
    centre = float(band.mean())
    weight = star.value[good] / np.sqrt(star.variance[good])
    line = np.polyfit(wavelength[good] - centre, np.log(star.value[good]), 1, w=weight)
    continuum = np.exp(np.polyval(line, band - centre))
    usable = star.good[inside] & (star.variance[inside] > 0)
    value = np.where(usable, star.value[inside] / continuum, 0.0)
    variance = np.where(usable, star.variance[inside] / continuum**2, np.inf)
    return value, 1 / variance


def _blurred(at: FloatArray, seen: FloatArray, wavelength: FloatArray, fwhm: float) -> FloatArray:
    """Convolve with a Gaussian of some FWHM and interpolate; the table may be uneven."""
    step = max(min(fwhm / 8, float(np.median(np.diff(at)))), fwhm / 40)
    fine = np.arange(wavelength[0] - 4 * fwhm, wavelength[-1] + 4 * fwhm, step)
    sampled = np.interp(fine, at, seen, left=1.0, right=1.0)
    sigma = fwhm / np.sqrt(8 * np.log(2)) / step
    offset = np.arange(-int(4 * sigma), int(4 * sigma) + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    smooth = np.convolve(sampled, kernel / kernel.sum(), mode="same")
    return np.asarray(np.interp(wavelength, fine, smooth))


def _fewest(side: FloatArray, band: FloatArray) -> int:
    """Count the samples beside a band, on the side that has fewer."""
    return int(min((side < band[0]).sum(), (side > band[-1]).sum()))
