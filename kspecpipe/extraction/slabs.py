"""Profiles laid into fixed row ranges, so that sums over a fibre are plain array slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Slabs:
    """Profile of each fibre on the image rows which it covers anywhere along the dispersion.

    Parameters
    ----------
    first : tuple of int
        First image row of each fibre's slab.
    profile : tuple of ndarray, each (nrow, nx)
        Profile inside the slab, 0 outside the fibre's window.
    band : int
        Number of neighbours on one side whose slabs overlap a fibre's.
    """

    first: tuple[int, ...]
    profile: tuple[FloatArray, ...]
    band: int

    def __len__(self) -> int:
        """Count the fibres."""
        return len(self.profile)

    def rows(self, fibre: int) -> slice:
        """Image rows of one fibre."""
        return slice(self.first[fibre], self.first[fibre] + self.profile[fibre].shape[0])

    def columns(self, where: IntArray | BoolArray) -> Slabs:
        """Keep some columns only."""
        return Slabs(self.first, tuple(profile[:, where] for profile in self.profile), self.band)

    def fibres(self, order: IntArray) -> Slabs:
        """Take the fibres in another order."""
        first = [self.first[f] for f in order]
        profiles = [self.profile[f] for f in order]
        return Slabs(tuple(first), tuple(profiles), _reach(first, profiles))

    def samples_at(self, row: IntArray, column: IntArray, n_x: int) -> BoolArray:
        """Find the samples (nfib, nx) with a pixel in their slab, and their neighbours."""
        found = np.zeros((len(self), n_x), dtype=bool)
        start = np.array(self.first)
        stop = start + [len(profile) for profile in self.profile]
        fibre, pixel = np.nonzero((row >= start[:, None]) & (row < stop[:, None]))
        for step in range(-self.band, self.band + 1):
            near = (fibre + step >= 0) & (fibre + step < len(self))
            found[fibre[near] + step, column[pixel[near]]] = True
        return found

    def overlap(self, fibre: int, other: int) -> tuple[slice, slice] | None:
        """Rows shared with a later fibre, counted in each slab; None if there are none."""
        mine, theirs = self.rows(fibre), self.rows(other)
        low, high = max(mine.start, theirs.start), min(mine.stop, theirs.stop)
        if high <= low:
            return None
        return slice(low - mine.start, high - mine.start), slice(
            low - theirs.start, high - theirs.start
        )


def lay_slabs(window: IntArray, weights: FloatArray, n_row: int) -> Slabs:
    """Lay windowed profiles (nfib, nwin, nx) into slabs, cut at the edges of the frame."""
    first, profiles = [], []
    for start, weight in zip(window, weights, strict=True):
        row, profile = _lay(start, weight, n_row)
        first.append(row)
        profiles.append(profile)
    return Slabs(tuple(first), tuple(profiles), _reach(first, profiles))


def _lay(start: IntArray, weight: FloatArray, n_row: int) -> tuple[int, FloatArray]:
    """Lay one fibre; the window moves in steps, and each run of columns is one block copy."""
    low, high = int(start.min()), int(start.max()) + weight.shape[0]
    slab = np.zeros((high - low, weight.shape[1]), dtype=weight.dtype)
    edges = [0, *(np.flatnonzero(np.diff(start)) + 1).tolist(), start.size]
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        row = int(start[a]) - low
        slab[row : row + weight.shape[0], a:b] = weight[:, a:b]
    inside = slice(min(max(0, -low), high - low), max(0, min(high, n_row) - low))
    return min(max(low, 0), n_row), slab[inside]


def _reach(first: list[int], profiles: list[FloatArray]) -> int:
    """How many later fibres begin before a fibre's slab ends, at most."""
    start = np.array(first)
    stop = start + np.array([profile.shape[0] for profile in profiles])
    later = [int(np.sum(start[i + 1 :] < stop[i])) for i in range(start.size)]
    return max(later, default=0)


def normal_equations(
    slabs: Slabs, weight: FloatArray, weighted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Band (nband + 1, nfib, nx) and right-hand side (nfib, nx) of the least-squares problem."""
    n_fibre, n_x = len(slabs), weight.shape[1]
    band = np.zeros((slabs.band + 1, n_fibre, n_x))
    rhs = np.empty((n_fibre, n_x))
    for f, profile in enumerate(slabs.profile):
        rows = slabs.rows(f)
        scaled = profile * weight[rows]
        band[0, f] = np.einsum("yx,yx->x", scaled, profile)
        rhs[f] = np.einsum("yx,yx->x", weighted[rows], profile)
        for k in range(1, min(slabs.band, n_fibre - 1 - f) + 1):
            shared = slabs.overlap(f, f + k)
            if shared is not None:
                other = slabs.profile[f + k][shared[1]]
                band[k, f] = np.einsum("yx,yx->x", scaled[shared[0]], other)
    return band, rhs
