"""Faint traces beside the fibres (ghosts, stray light): found, so that no profile learns them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.trace.maxima import local_maxima, prominence


@dataclass(frozen=True, eq=False)
class Ghosts:
    """Extra traces, parallel to the fibre next to them.

    Parameters
    ----------
    fibre : ndarray of int, shape (nghost,)
        Fibre at the edge of the block.
    offset : ndarray, shape (nghost,)
        Distance from that fibre [pixel].
    """

    fibre: IntArray
    offset: FloatArray

    def beside(self, y: FloatArray) -> FloatArray:
        """Rows of the ghosts, given those of the fibres (nfib, n)."""
        rows: FloatArray = y[self.fibre] + self.offset[:, None]
        return rows


def find_ghosts(
    value: FloatArray, noise: FloatArray, y: FloatArray, width: float, *, sigma: float = 8.0
) -> Ghosts:
    """Find narrow light within 2.6 pitches beyond the edges of blocks of fibres.

    Parameters
    ----------
    value, noise : ndarray, shape (ny, nb)
        Collapsed flat and its standard deviation.
    y : ndarray, shape (nfib, nb)
        Traces.
    width : float
        FWHM of a fibre [pixel].
    sigma : float
        Prominence that a ghost must have.
    """
    if y.shape[0] < 2:
        return Ghosts(np.zeros(0, dtype=int), np.zeros(0))
    steps = np.diff(y.mean(axis=1))
    pitch = float(np.median(steps))
    wide = np.flatnonzero(steps > 1.5 * pitch)
    edges = [(0, -1, np.inf), (y.shape[0] - 1, 1, np.inf)]
    edges += [(int(f), 1, steps[f] - pitch) for f in wide]
    edges += [(int(f) + 1, -1, steps[f] - pitch) for f in wide]
    fibre: list[int] = []
    offset: list[float] = []
    for edge, side, room in edges:
        grid = np.arange(0.6 * pitch, min(2.6 * pitch, room), 0.25)
        found = _peaks_beside(value, noise, y[edge] + side * grid[:, None], (width, sigma))
        fibre += [edge] * found.size
        offset += (side * grid[found]).tolist()
    return Ghosts(np.array(fibre, dtype=int), np.array(offset))


def _peaks_beside(
    value: FloatArray, noise: FloatArray, rows: FloatArray, limits: tuple[float, float]
) -> IntArray:
    """Find prominent maxima of the mean light along parallels to a trace."""
    width, sigma = limits
    if rows.shape[0] < 3:
        return np.zeros(0, dtype=int)
    block = np.broadcast_to(np.arange(value.shape[1]), rows.shape)
    inside = (rows.min(axis=1) >= 0) & (rows.max(axis=1) <= value.shape[0] - 1)
    stack = ndimage.map_coordinates(value, [rows, block], order=1, mode="nearest").mean(axis=1)
    spread = ndimage.map_coordinates(noise**2, [rows, block], order=1, mode="nearest")
    error = float(np.sqrt(np.median(spread.mean(axis=1)) / value.shape[1]))
    smooth = ndimage.gaussian_filter1d(stack, 0.2 * width / 0.25)
    found = local_maxima(smooth)
    high = prominence(smooth, found) >= max(sigma * error, 1e-30)
    peaks: IntArray = found[high & inside[found]]
    return peaks
