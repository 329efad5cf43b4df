"""Local maxima of a curve, and which of them count.

They are those of ``scipy.signal.find_peaks``, without the time that loading ``scipy.signal`` takes.
"""

from __future__ import annotations

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray


def local_maxima(curve: FloatArray) -> IntArray:
    """Find samples higher than both sides; of a plateau its middle; never the first or the last."""
    if curve.size < 3:
        return np.zeros(0, dtype=int)
    edge = np.flatnonzero(np.append(True, curve[1:] != curve[:-1]))
    stop = np.append(edge[1:], curve.size)
    level = curve[edge]
    top = np.zeros(edge.size, dtype=bool)
    top[1:-1] = (level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])
    middle: IntArray = (edge[top] + stop[top] - 1) // 2
    return middle


def highest_within(height: FloatArray, at: IntArray, distance: float) -> BoolArray:
    """Keep the maxima that no higher one which is kept has within ``distance`` samples.

    Parameters
    ----------
    height : ndarray, shape (n,)
        Heights of the maxima; of equal ones the later counts as higher.
    at : ndarray of int, shape (n,)
        Where they are, rising.
    distance : float
        Least distance between two that are kept.
    """
    keep = np.ones(at.size, dtype=bool)
    near = np.searchsorted(at, at - distance, side="right"), np.searchsorted(at, at + distance)
    for i in np.argsort(height, kind="stable")[::-1].tolist():
        if keep[i]:
            keep[near[0][i] : near[1][i]] = False
            keep[i] = True
    return keep


def prominence(curve: FloatArray, at: IntArray) -> FloatArray:
    """Height of each maximum above the higher of the two saddles towards higher ground.

    Parameters
    ----------
    curve : ndarray, shape (m,)
        The curve.
    at : ndarray of int, shape (n,)
        Its maxima.
    """
    saddles = np.empty(at.size)
    for i, peak in enumerate(at.tolist()):
        higher = np.flatnonzero(curve > curve[peak])
        right = int(np.searchsorted(higher, peak))
        low = int(higher[right - 1]) + 1 if right else 0
        high = int(higher[right]) if right < higher.size else curve.size
        saddles[i] = max(curve[low : peak + 1].min(), curve[peak:high].min())
    above: FloatArray = curve[at] - saddles
    return above
