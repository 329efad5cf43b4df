"""Templates as the spectrograph would see them: moved, broadened, on the observed wavelengths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from kspecpipe.fluxcal.air import vacuum_to_air
from kspecpipe.fluxcal.containers import Spectrum1D, StellarTemplate
from kspecpipe.fluxcal.grid import bin_spectrum
from kspecpipe.signal import FloatArray

_LIGHT = 299792.458
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
_REACH = 4.0
#: Templates with lines wider than the spectra by this factor are called coarse.
_COARSE = 1.2


def broadening_operator(
    source: FloatArray,
    wavelength: FloatArray,
    lsf: FloatArray,
    *,
    velocity: float = 0.0,
    resolution: float = np.inf,
) -> csr_array:
    """Build the matrix which turns a template into what is observed.

    Every row is the line-spread function of one observed sample, a Gaussian of its own width less
    the template's width in quadrature, integrated over the template's samples.

    Parameters
    ----------
    source : ndarray, shape (npixel,)
        Wavelength of the template, even in the logarithm [Angstrom].
    wavelength : ndarray, shape (nw,)
        Observed wavelength [Angstrom].
    lsf : ndarray, shape (nw,)
        FWHM of the line-spread function [Angstrom].
    velocity : float
        Radial velocity of the star [km/s]; positive moves lines to the red.
    resolution : float
        Resolving power of the template.

    Returns
    -------
    csr_array, shape (nw, npixel)
        Each row sums to 1, or is empty where the template does not reach.

    Raises
    ------
    ValueError
        If ``wavelength`` and ``lsf`` differ in shape.
    """
    if wavelength.shape != lsf.shape:
        raise ValueError(f"wavelength {wavelength.shape} and lsf {lsf.shape} differ in shape")
    step = float(np.log(source[-1] / source[0]) / (source.size - 1))
    rest = np.log(wavelength / source[0]) - np.log1p(velocity / _LIGHT)
    centre = rest / step
    fwhm = np.sqrt(np.clip((lsf / wavelength) ** 2 - resolution**-2.0, 0, None))
    # Narrower than the samples, the kernel is a linear interpolation.
    sigma = np.clip(np.nan_to_num(fwhm) / _FWHM / step, 0.4, None)
    reach = int(np.ceil(_REACH * sigma.max())) + 1
    first = np.floor(centre).astype(int) - reach
    column = first[:, None] + np.arange(2 * reach + 2)
    weight = np.exp(-0.5 * ((column - centre[:, None]) / sigma[:, None]) ** 2)
    weight[np.abs(column - centre[:, None]) > _REACH * sigma[:, None] + 1] = 0.0
    outside = (column < 0) | (column >= source.size)
    # A kernel that is cut off at the end of the template would be wrong.
    weight[(outside & (weight > 0)).any(axis=1)] = 0.0
    total = weight.sum(axis=1, keepdims=True)
    weight /= np.where(total > 0, total, 1.0)
    row = np.broadcast_to(np.arange(wavelength.size)[:, None], column.shape)
    keep = weight > 0
    shape = (wavelength.size, source.size)
    return csr_array((weight[keep], (row[keep], column[keep])), shape=shape)


def broaden(operator: csr_array, templates: FloatArray) -> FloatArray:
    """Apply the operator to templates of shape (n, npixel); NaN where they do not reach.

    Returns
    -------
    ndarray, shape (n, nw)
    """
    seen = np.asarray((operator @ np.atleast_2d(templates).T).T, float)
    seen[:, np.diff(operator.indptr) == 0] = np.nan
    return seen


def describe_coarse_library(resolution: float, wavelength: FloatArray, lsf: FloatArray) -> str:
    """Say in words that templates are coarser than the spectra; empty if they are not.

    Parameters
    ----------
    resolution : float
        Resolving power of the templates.
    wavelength : ndarray, shape (nw,)
        [Angstrom].
    lsf : ndarray, shape (..., nw)
        FWHM of the line-spread function [Angstrom]; NaN where it is unknown.
    """
    excess = (wavelength / resolution) / lsf
    if not np.isfinite(excess).any() or np.nanmedian(excess) < _COARSE:
        return ""
    needed = resolution * float(np.nanmedian(excess))
    return (
        f"templates of resolution {resolution:.0f} are coarser than the spectra: their lines are "
        f"{np.nanmedian(excess):.1f} times as wide and do not fit; give a library of at least "
        f"{needed:.0f}"
    )


def prepare_template(
    template: StellarTemplate, wavelength: FloatArray, lsf: npt.ArrayLike, *, velocity: float = 0.0
) -> Spectrum1D:
    """Return one template as it would be observed.

    Parameters
    ----------
    template : StellarTemplate
        Over its full range, in vacuum.
    wavelength : ndarray, shape (nw,)
        Observed wavelength in air [Angstrom].
    lsf : float or ndarray, shape (nw,)
        FWHM of the line-spread function [Angstrom].
    velocity : float
        Radial velocity [km/s].

    Returns
    -------
    Spectrum1D
        Without variance; its continuum, likewise prepared, is ``meta["continuum"]``. NaN and not
        good where the template does not reach.
    """
    lsf = np.broadcast_to(np.asarray(lsf, float), wavelength.shape)
    margin = 10 * float(np.nanmax(lsf)) + 50.0
    use = slice(
        *np.searchsorted(template.wavelength, [wavelength[0] - margin, wavelength[-1] + margin])
    )
    air = vacuum_to_air(template.wavelength[use])
    edges = np.exp(np.arange(np.log(air[0]), np.log(air[-1]), 1e-4))
    fine = np.array(
        [bin_spectrum(air, column[use], edges) for column in (template.flux, template.continuum)]
    )
    operator = broadening_operator(
        np.sqrt(edges[1:] * edges[:-1]),
        wavelength,
        lsf,
        velocity=velocity,
        resolution=template.resolution,
    )
    flux, continuum = broaden(operator, fine)
    meta = {"continuum": continuum, "rv": velocity, "name": template.label}
    return Spectrum1D(wavelength, flux, np.zeros_like(flux), np.isfinite(flux), meta)
