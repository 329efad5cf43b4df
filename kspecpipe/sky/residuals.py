"""What is left of the sky lines in the sky fibres, beyond all errors that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from kspecpipe.signal import BoolArray, FloatArray, Signal

#: Standard errors by which the residuals must exceed what is known.
_SIGNIFICANCE = 2.0
#: Residuals of lines beyond this many errors, and beyond this part of a line, are no sky.
_CLIP, _LARGEST = 5.0, 0.2
#: Samples that are wider than any line.
_WIDEST = 25


def measure_line_error(spectra: Signal, sky: Signal, sky_fibres: BoolArray) -> float:
    """Measure the relative error of the sky lines that the sky fibres show beyond their variance.

    The square of a residual is expected to be its variance and the square of a part of the line's
    height. That part is fitted to all samples, of which high lines tell most.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Spectra divided by flat and throughput [electron].
    sky : Signal, shape (nfib, nx)
        Sky of each fibre, for sky fibres made without them [electron].
    sky_fibres : ndarray of bool, shape (nfib,)
        Fibres that see nothing but sky.

    Returns
    -------
    float
        0 if the known variance explains the residuals, within two standard errors.
    """
    good = (spectra.good & sky.good)[sky_fibres]
    if not good.any():
        return 0.0
    value = np.where(good, sky.value[sky_fibres], 0.0)
    variance = np.where(good, (spectra.variance + sky.variance)[sky_fibres], np.inf)
    height = np.where(good, _height(sky)[sky_fibres], 0.0) ** 2
    residual = np.where(good, spectra.value[sky_fibres] - value, 0.0) ** 2
    near = good & (residual < _CLIP**2 * variance + _LARGEST**2 * height)
    weight = np.where(near, height / variance**2, 0.0)
    information = float((weight * height).sum())
    if information <= 0:
        return 0.0
    excess = float((weight * (residual - np.where(near, variance, 0.0))).sum()) / information
    return float(np.sqrt(excess)) if excess > _SIGNIFICANCE * np.sqrt(2 / information) else 0.0


def add_line_error(sky: Signal, relative: float) -> Signal:
    """Add an error relative to the height of the lines to the variance of a sky (nfib, nx)."""
    if relative == 0:
        return sky
    return replace(sky, variance=sky.variance + (relative * _height(sky)) ** 2)


def _height(sky: Signal) -> FloatArray:
    """Height above the continuum that runs below all lines (an opening), 0 where bad."""
    known = np.where(sky.good, sky.value, np.inf)
    below = maximum_filter1d(minimum_filter1d(known, _WIDEST, axis=1), _WIDEST, axis=1)
    height: FloatArray = np.subtract(known, below, out=np.zeros(sky.shape), where=sky.good)
    return height
