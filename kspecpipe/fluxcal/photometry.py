"""Magnitudes and fluxes; filters and synthetic photometry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kspecpipe.fluxcal.containers import FilterCurve
from kspecpipe.signal import FloatArray

_LIGHT = 2.99792458e18
_AB_ZERO = 48.60
_LN_MAG = 0.4 * np.log(10.0)
#: Least part of a band's transmission that a spectrum must cover.
MIN_COVERAGE = 0.999


class FilterInfo(NamedTuple):
    """A filter's name in speclite, and what to add to Vega magnitudes to have AB magnitudes."""

    speclite: str
    vega_to_ab: float = 0.0


#: Filters by our names. The offset is the AB magnitude of CALSPEC's Vega (alpha_lyr_stis_011) in
#: the band, which a test integrates; 0 where catalogues give AB magnitudes.
FILTER_INFO = {
    "ps1_g": FilterInfo("panstarrs-g"),
    "ps1_r": FilterInfo("panstarrs-r"),
    "ps1_i": FilterInfo("panstarrs-i"),
    "ps1_z": FilterInfo("panstarrs-z"),
    "ps1_y": FilterInfo("panstarrs-y"),
    "gaia_g": FilterInfo("gaiadr2-G", 0.122),
    "gaia_bp": FilterInfo("gaiadr2-BP", 0.059),
    "gaia_rp": FilterInfo("gaiadr2-RP", 0.377),
    "gaia3_g": FilterInfo("gaiadr3-G", 0.127),
    "gaia3_bp": FilterInfo("gaiadr3-BP", 0.023),
    "gaia3_rp": FilterInfo("gaiadr3-RP", 0.382),
    "2mass_j": FilterInfo("twomass-J", 0.908),
    "2mass_h": FilterInfo("twomass-H", 1.388),
    "2mass_k": FilterInfo("twomass-Ks", 1.860),
}


def ab_mag_to_fnu(
    magnitude: npt.ArrayLike, error: npt.ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Turn AB magnitudes into flux per frequency.

    Parameters
    ----------
    magnitude, error : array_like
        AB magnitude and its error [mag].

    Returns
    -------
    fnu, fnu_error : ndarray
        [erg/s/cm2/Hz].

    References
    ----------
    .. [1] Oke & Gunn 1983, ApJ 266, 713.
    """
    fnu = np.asarray(10 ** (-0.4 * (np.asarray(magnitude, float) + _AB_ZERO)))
    return fnu, fnu * _LN_MAG * np.asarray(error, float)


def fnu_to_ab_mag(fnu: npt.ArrayLike, error: npt.ArrayLike = 0.0) -> tuple[FloatArray, FloatArray]:
    """Turn flux per frequency [erg/s/cm2/Hz] into AB magnitudes; NaN where it is not positive."""
    value = np.asarray(fnu, float)
    positive = np.where(value > 0, value, np.nan)
    return -2.5 * np.log10(positive) - _AB_ZERO, np.asarray(error, float) / positive / _LN_MAG


def ab_mag_to_flam(
    magnitude: npt.ArrayLike, wavelength: npt.ArrayLike, error: npt.ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Turn AB magnitudes into flux per wavelength [erg/s/cm2/Angstrom] at ``wavelength``."""
    fnu, fnu_error = ab_mag_to_fnu(magnitude, error)
    factor = _LIGHT / np.asarray(wavelength, float) ** 2
    return fnu * factor, fnu_error * factor


@lru_cache(maxsize=32)
def load_filter_curve(name: str) -> FilterCurve:
    """Return a filter of `FILTER_INFO`.

    Raises
    ------
    ValueError
        If there is no such filter.
    """
    if name not in FILTER_INFO:
        raise ValueError(f"no filter {name!r}; there are {', '.join(sorted(FILTER_INFO))}")
    # Importing speclite takes longer than everything else that a recipe needs.
    import speclite.filters

    info = FILTER_INFO[name]
    curve = speclite.filters.load_filter(info.speclite)
    wavelength = np.array(curve.wavelength, float)
    return FilterCurve(name, wavelength, np.array(curve.response, float), info.vega_to_ab)


def load_filter_curves(names: Sequence[str]) -> dict[str, FilterCurve]:
    """Return several filters of `FILTER_INFO` by name, in this order."""
    return {name: load_filter_curve(name) for name in names}


def band_weights(wavelength: FloatArray, curve: FilterCurve) -> tuple[FloatArray, float]:
    """Weights whose product with a spectrum is its mean flux per frequency in a band.

    Spectrum and transmission are taken as linear between their samples; the integral over both is
    therefore right whichever of the two is sampled more finely.

    Parameters
    ----------
    wavelength : ndarray, shape (n,)
        Rising wavelengths of the spectrum [Angstrom].
    curve : FilterCurve
        The band.

    Returns
    -------
    weights : ndarray, shape (n,)
        ``weights @ flux`` is <f_nu> [erg/s/cm2/Hz] of a flux in erg/s/cm2/Angstrom, photon
        weighted.
    coverage : float
        Part of the band's transmission inside the spectrum's range.
    """
    edges = np.array([wavelength[0], wavelength[-1]])
    node = np.union1d(wavelength, np.concatenate([curve.wavelength, edges]))
    node = node[(node >= curve.wavelength[0]) & (node <= curve.wavelength[-1])]
    transmission = np.interp(node, curve.wavelength, curve.transmission)
    inside = (node >= edges[0]) & (node <= edges[1])
    total = np.trapezoid(transmission / node, node)
    if inside.sum() < 2:
        return np.zeros(wavelength.size), 0.0
    node, transmission = node[inside], transmission[inside]
    covered = np.trapezoid(transmission / node, node)
    step = np.zeros(node.size)
    step[1:] += np.diff(node) / 2
    step[:-1] += np.diff(node) / 2
    share = step * transmission * node / (_LIGHT * covered)
    return _spread(node, share, wavelength), float(covered / total)


def synthetic_photometry(
    wavelength: FloatArray, flux: FloatArray, curve: FilterCurve
) -> FloatArray:
    """Synthetic AB magnitudes.

    Parameters
    ----------
    wavelength : ndarray, shape (n,)
        Vacuum wavelength over the whole range of the spectrum [Angstrom].
    flux : ndarray, shape (..., n)
        Flux [erg/s/cm2/Angstrom].
    curve : FilterCurve
        The band.

    Returns
    -------
    ndarray, shape (...)
        AB magnitude; NaN if the spectrum covers less than 99.9 % of the transmission, or if its
        flux in the band is not positive.
    """
    weights, coverage = band_weights(wavelength, curve)
    if coverage < MIN_COVERAGE:
        return np.full(flux.shape[:-1], np.nan)
    # A NaN outside of the band must not spread to it.
    return fnu_to_ab_mag(flux[..., weights > 0] @ weights[weights > 0])[0]


def synthetic_color(
    wavelength: FloatArray, flux: FloatArray, first: FilterCurve, second: FilterCurve
) -> FloatArray:
    """Synthetic colour: magnitude in the first band minus that in the second [mag, AB]."""
    return synthetic_photometry(wavelength, flux, first) - synthetic_photometry(
        wavelength, flux, second
    )


def _spread(node: FloatArray, share: FloatArray, wavelength: FloatArray) -> FloatArray:
    """Hand the shares of nodes to the two samples between which each lies."""
    low = np.clip(np.searchsorted(wavelength, node, side="right") - 1, 0, wavelength.size - 2)
    part = (node - wavelength[low]) / (wavelength[low + 1] - wavelength[low])
    left = np.bincount(low, share * (1 - part), wavelength.size)
    right = np.bincount(low + 1, share * part, wavelength.size)
    return np.asarray(left + right, float)
