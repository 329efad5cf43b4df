"""The part of the chip that lines fix: what lies beyond is extrapolated, and not trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kspecpipe.signal import FloatArray
from kspecpipe.wavelength.rounds import Progress, RoundOptions, fit_positions
from kspecpipe.wavelength.scene import Scene


def typical_error(state: Progress, x: FloatArray) -> FloatArray:
    """Claimed error (n,) [pixel] of the typical fibre at pixels x (n,)."""
    return np.asarray(np.median(state.dispersion.position_error(x), axis=0))


def trusted_span(lines: FloatArray, error: FloatArray, limit: float) -> tuple[float, float]:
    """Find the longest stretch between two lines in which the error keeps a limit.

    Parameters
    ----------
    lines : ndarray, shape (n,)
        Positions of lines, at least one [pixel].
    error : ndarray, shape (nx,)
        Error at every pixel [pixel].
    limit : float
        Largest error [pixel].

    Returns
    -------
    tuple of float
        Positions of its first and its last line; the same twice when there is no stretch.
    """
    place = np.sort(lines)
    beyond = np.concatenate([[0], np.cumsum(error > limit)])
    at = np.clip(np.rint(place).astype(int), 0, error.size - 1)
    bad = beyond[at + 1][None, :] - beyond[at][:, None]
    length = np.where(bad == 0, place[None, :] - place[:, None], -1.0)
    first, last = np.unravel_index(int(np.argmax(length)), length.shape)
    return (place[first], place[last]) if length[first, last] > 0 else (place[0], place[0])


def keep_trusted(scene: Scene, state: Progress, step: RoundOptions, limit: float) -> Progress:
    """Take no line for used at the ends between which the others do not know to ``limit`` [pixel].

    A faint line far from all others stretches the range that a solution claims, but nothing tells
    whether it is the line that it is taken for. It stays in the fit: most often it is that line.
    """
    x = np.arange(scene.nx, dtype=float)
    trusted = state
    for _ in range(8):
        groups = trusted.groups
        if groups is None or groups.used.sum() < 3:
            break
        place = trusted.dispersion.position(groups.wavelength)[trusted.dispersion.nfib // 2]
        low, high = trusted_span(place[groups.used], typical_error(trusted, x), limit)
        kept = groups.used & (place >= low) & (place <= high)
        if kept.sum() < 3 or np.array_equal(kept, groups.used):
            break
        trusted = fit_positions(trusted, replace(groups, used=kept), scene, step)
    if trusted.groups is None or state.groups is None:
        return state
    return replace(state, groups=replace(state.groups, used=trusted.groups.used))
