"""Principal components of what the sky model leaves in the sky fibres."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.sky.matching import remove_continuum
from kspecpipe.sky.model import SkyModel

#: Sky fibres that are needed for components which are more than their noise.
MIN_SKY_FIBRES = 8
_CLIP = 5.0


def add_components(model: SkyModel, spectra: Signal, wavelength: FloatArray, sky: Signal) -> Signal:
    """Add the principal components of the sky fibres' residuals to the sky of each fibre.

    Components are found at wavelengths with sky lines, from residuals in units of the sky's photon
    noise; those of a sky fibre are made without it. Amplitudes are fitted to the fibre's own
    residuals, continuum removed, and shrunk by the ratio of the components' scatter among sky
    fibres to noise.

    Parameters
    ----------
    model : SkyModel
        With the number of components in its options; the sky is returned as it is if that is 0 or
        there are fewer than 8 sky fibres.
    spectra, sky : Signal, shape (nfib, nx)
        Spectra and their modelled sky [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom].

    Returns
    -------
    Signal, shape (nfib, nx)
        Sky with components; the variance grows by the error of the amplitudes.

    References
    ----------
    .. [1] Wild & Hewett 2005, MNRAS 358, 1083.
    .. [2] Sharp & Parkinson 2010, MNRAS 408, 2495.
    """
    number, members = model.options.components, np.flatnonzero(model.used)
    if number == 0 or len(members) < MIN_SKY_FIBRES:
        return sky
    good = spectra.good & sky.good & (sky.value > 0)
    scale = np.sqrt(np.where(good, sky.value, 1.0))
    residual = remove_continuum(np.where(good, spectra.value - sky.value, 0.0), good) / scale
    noise = np.where(good, np.sqrt(np.where(good, spectra.variance, 1.0)) / scale, np.inf)
    position = model.axis.position(wavelength)
    whole = np.arange(len(model.axis.wavelength), dtype=float)
    # Linear interpolation would blur what is as narrow as the LSF.
    onto = [
        scipy.interpolate.CubicSpline(position[fibre], residual[fibre])(whole) for fibre in members
    ]
    table = _clipped(np.stack(onto))
    common = _components(table, number)
    value, variance = sky.value.copy(), sky.variance.copy()
    for fibre in np.flatnonzero(good.any(axis=1)):
        own = members == fibre
        vectors = _components(table[~own], number) if own.any() else common
        at = scipy.interpolate.CubicSpline(whole, vectors[0], axis=1)(position[fibre])
        shape, error = _project(at, residual[fibre], noise[fibre], good[fibre], vectors[1])
        value[fibre] += shape * scale[fibre]
        variance[fibre] += error * scale[fibre] ** 2
    return Signal(value, variance, sky.dq.copy())


def _clipped(table: FloatArray) -> FloatArray:
    """Residuals, those of single fibres that stand out from all others at a pixel cut back."""
    size = 1.4826 * np.median(np.abs(table), axis=0)
    limit = _CLIP * np.maximum(size, np.median(size))
    return np.asarray(np.clip(table, -limit, limit))


def _components(table: FloatArray, number: int) -> tuple[FloatArray, FloatArray]:
    """Leading components (unit vectors) of residuals and the variance of their amplitudes."""
    _, size, vectors = np.linalg.svd(table, full_matrices=False)
    # The noise makes all amplitudes scatter; what the leading ones have more is signal.
    floor = float(np.median(size**2))
    signal = np.maximum(size[:number] ** 2 - floor, 0.0) / len(table)
    return vectors[:number], signal


def _project(
    components: FloatArray,
    residual: FloatArray,
    noise: FloatArray,
    good: BoolArray,
    prior: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Sum of the components that fits a fibre's residuals, and its variance."""
    keep = prior > 0
    if not keep.any():
        return np.zeros_like(residual), np.zeros_like(residual)
    vectors, use = components[keep], good
    for _ in range(3):
        weight = np.where(use, noise, np.inf) ** -2.0
        covariance = np.linalg.inv((vectors * weight) @ vectors.T + np.diag(1 / prior[keep]))
        shape = covariance @ ((vectors * weight) @ residual) @ vectors
        # Cosmic rays and lines of the object are not the sky's.
        use = good & (np.abs(residual - shape) < _CLIP * noise)
    return shape, np.einsum("kx,kl,lx->x", vectors, covariance, vectors)
