"""Fluxes for the noise model."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kspecpipe.signal import BoolArray, FloatArray


def smooth_flux(
    flux: FloatArray, error: FloatArray, solved: BoolArray, width: int = 15
) -> FloatArray:
    """Fluxes from which Poisson noise is computed; never negative.

    A faint sample's own flux is mostly noise, and cutting it at 0 would make the variance too
    large; there the running mean is taken. A well measured sample keeps its own flux.
    """
    known = np.where(solved, flux, 0.0)
    count = ndimage.uniform_filter1d(solved.astype(float), width, axis=1, mode="nearest")
    mean = ndimage.uniform_filter1d(known, width, axis=1, mode="nearest") / np.maximum(count, 1e-9)
    certainty = np.clip(np.abs(known - mean) / np.maximum(error, 1e-30) - 3, 0, 1)
    expected: FloatArray = np.maximum(mean + certainty * (known - mean), 0)
    return expected
