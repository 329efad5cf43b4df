"""The image that would fall on a perfect detector: fibres, ghosts and scattered light."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.kernels import Kernel
from kspecpipe.simulate.optics import Optics
from kspecpipe.simulate.plan import Traps

_GHOST_FIBRE = 0.025
_GHOST_BAND = 0.2
_HALO, _VEIL = 0.05, 0.015


def expected_image(
    optics: Optics, trace: FloatArray, electron: FloatArray, traps: Traps
) -> FloatArray:
    """Return the expected electrons of a frame's light, without detector.

    Parameters
    ----------
    optics : Optics
        Profile and its width over the chip.
    trace : ndarray, shape (nfib, nx)
        Flux centroid of each profile [row].
    electron : ndarray, shape (nfib, nx)
        Light of each fibre.
    traps : Traps
        Ghosts and scattered light on or off.

    Returns
    -------
    ndarray, shape (ny, nx)
        In electrons, normalised orientation.
    """
    image = np.zeros(optics.instrument.detector.shape)
    scale = optics.profile_scale()
    mix = optics.mix(np.arange(optics.n_columns, dtype=float))
    for row, light, width in zip(trace, electron, scale, strict=True):
        add_fibre(image, (row, light, width, mix), optics.profile)
    if traps.ghosts:
        for offset in optics.instrument.ghost_fibres:
            faint = (trace[0] + offset, _GHOST_FIBRE * electron[0], 1.15 * scale[0], mix)
            add_fibre(image, faint, optics.profile)
        image += _ghost_band(optics, trace, electron)
    if traps.scattered_light:
        image += _scattered_light(image.shape[0], trace, electron)
    return image


def add_fibre(
    image: FloatArray,
    fibre: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    profile: Kernel,
) -> None:
    """Add the light of one fibre (trace, electrons, width, kernel mix; shape (nx,)) to an image."""
    trace, light, width, mix = fibre
    reach = profile.reach * width.max() + 1
    low = max(0, int(np.floor(trace.min() - reach)))
    high = min(image.shape[0], int(np.ceil(trace.max() + reach)) + 1)
    if high > low:
        offset = np.arange(low, high)[:, None] - trace
        image[low:high] += profile.shares(offset, width, mix) * light


def _ghost_band(optics: Optics, trace: FloatArray, electron: FloatArray) -> FloatArray:
    """Return a diffuse band beyond the last fibre: a steep edge towards the fibres and a tail."""
    if optics.instrument.ghost_band is None:
        return np.zeros(optics.instrument.detector.shape)
    distance, height = optics.instrument.ghost_band
    depth = (np.arange(optics.instrument.detector.shape[0]) - trace[-1].mean() - distance) / height
    inside = (depth > 0) & (depth < 1)
    shape = np.where(
        inside, np.clip(depth / 0.2, 0, 1) * np.exp(-np.clip(depth - 0.2, 0, None) / 0.3), 0
    )
    shape *= np.clip((1 - depth) / 0.15, 0, 1)
    brightness = 0.24 * _GHOST_BAND * gaussian_filter1d(electron.mean(axis=0), 40.0, mode="nearest")
    return np.asarray(gaussian_filter1d(shape, 1.5)[:, None] * brightness, dtype=float)


def _scattered_light(ny: int, trace: FloatArray, electron: FloatArray) -> FloatArray:
    """Return a halo around each fibre and a veil over the chip, smooth along the dispersion."""
    distance = np.arange(ny)[:, None] - trace.mean(axis=1)
    halo = _HALO * _bell(distance, 12.0) + _VEIL * _bell(distance, 0.12 * ny)
    smooth = gaussian_filter1d(electron, 30.0, axis=1, mode="nearest")
    return np.asarray(halo @ smooth)


def _bell(distance: FloatArray, width: float) -> FloatArray:
    bell: FloatArray = np.exp(-0.5 * (distance / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return bell
