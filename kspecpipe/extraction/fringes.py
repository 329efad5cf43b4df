"""Structure of the fibre flat that is shorter than a blaze: fringes, and how strong they are."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal


def fine_structure(flat: Signal, width: int = 65) -> tuple[FloatArray, BoolArray]:
    """Divide each fibre flat by its running mean and subtract 1.

    Parameters
    ----------
    flat : Signal, shape (nfib, nx)
        Fibre flat.
    width : int
        Columns of the running mean; longer than a fringe [pixel].

    Returns
    -------
    structure : ndarray, shape (nfib, nx)
        Relative structure; 0 where it was not measured.
    measured : ndarray of bool, shape (nfib, nx)
        Where the flat has enough light.
    """
    measured = flat.good & ((flat.dq & np.uint16(DQ.EXTRAPOLATED)) == 0)
    value = np.where(measured, flat.value, 0).astype(float)
    count = _running_mean(measured.astype(float), width)
    mean = _running_mean(value, width) / np.maximum(count, 1e-9)
    measured = np.asarray(measured & (count > 0.5) & (mean > 0))
    structure: FloatArray = np.where(measured, value / np.where(measured, mean, 1) - 1, 0)
    return structure, measured


def flat_rms(flat: Signal) -> FloatArray:
    """Rms of each fibre flat about its smooth course, shape (nfib,); NaN without light."""
    structure, measured = fine_structure(flat)
    number = measured.sum(axis=1)
    rms = np.sqrt((structure**2).sum(axis=1) / np.maximum(number, 1))
    return np.where(number > 0, rms, np.nan)


def fringe_amplitude(flat: Signal, width: int = 65) -> FloatArray:
    """Amplitude of fringes where they are strong (90th percentile), noise apart, shape (nfib,).

    Parameters
    ----------
    flat : Signal, shape (nfib, nx)
        Fibre flat with its variance.
    width : int
        Columns over which an amplitude is averaged [pixel].

    Returns
    -------
    ndarray, shape (nfib,)
        Amplitude of a sine wave of the same rms; NaN where nothing was measured.
    """
    structure, measured = fine_structure(flat, width)
    noise = np.where(measured, flat.variance / np.where(measured, flat.value, 1) ** 2, 0)
    count = _running_mean(measured.astype(float), width)
    power = _running_mean(structure**2 - noise, width) / np.maximum(count, 1e-9)
    amplitude = np.sqrt(2 * np.maximum(power, 0))
    known = count > 0.9
    return np.array(
        [
            np.percentile(a[k], 90) if k.any() else np.nan
            for a, k in zip(amplitude, known, strict=True)
        ]
    )


def _running_mean(values: FloatArray, width: int) -> FloatArray:
    mean: FloatArray = ndimage.uniform_filter1d(values, width, axis=1, mode="constant")
    return mean
