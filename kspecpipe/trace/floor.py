"""Scattered light between the traces, when it is a flat floor and not the wings of the profile."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kspecpipe.signal import FloatArray


def has_floor(value: FloatArray, y: FloatArray, *, flatness: float = 0.6) -> bool:
    """Decide whether the light half way between traces is a floor.

    Wings still fall between 0.36 and 0.5 pitch from a trace; a floor does not. A level below
    1e-3 of the light of the traces is neither.

    Parameters
    ----------
    value : ndarray, shape (ny, nb)
        Collapsed flat.
    y : ndarray, shape (nfib, nb)
        Traces.
    flatness : float
        Ratio of the two levels from which it is a floor.
    """
    if y.shape[0] < 2:
        return False
    steps = np.diff(y, axis=0)
    peak, flank, middle = (
        float(np.median(sample_rows(value, y[:-1] + part * steps))) for part in (0, 0.36, 0.5)
    )
    return middle > 1e-3 * peak and middle > flatness * flank


def fit_floor(value: FloatArray, y: FloatArray) -> FloatArray:
    """Join the levels half way between traces by straight lines (ny, nb)."""
    steps = np.diff(y, axis=0)
    middle = y[:-1] + 0.5 * steps
    levels = np.mean(
        [sample_rows(value, middle + part * steps) for part in (-0.08, -0.04, 0, 0.04, 0.08)],
        axis=0,
    )
    levels = ndimage.median_filter(levels, (1, 5), mode="nearest")
    rows = np.arange(value.shape[0])
    return np.stack(
        [np.interp(rows, at, level) for at, level in zip(middle.T, levels.T, strict=True)], axis=1
    )


def sample_rows(value: FloatArray, rows: FloatArray) -> FloatArray:
    """Values at fractional rows (n, nb) of each block."""
    block = np.broadcast_to(np.arange(value.shape[1]), rows.shape)
    sampled: FloatArray = ndimage.map_coordinates(value, [rows, block], order=1, mode="nearest")
    return sampled
