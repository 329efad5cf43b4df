"""What the shared parameters of an arc do to its samples, and their normal equations.

A line touches the few pixels of its window, so that the chip is taken in blocks of neighbouring
pixels: in each, few lines are active, and the products are those of small dense matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.wavelength.scene import Rendering

#: Pixels of a block, about as many as a line's window has.
_BLOCK = 64


@dataclass(frozen=True)
class LsfColumns:
    """Derivatives of all samples by the coefficients of the LSF: for each term a part and a factor.

    Terms that differ only by what they are across the dispersion share a part.

    Parameters
    ----------
    parts : ndarray, shape (n_row, n_part, nx, n_spline)
        Splines of all lines, weighted with what the terms are along the dispersion.
    part : sequence of int, n_term of them
        Part of each term.
    factor : ndarray, shape (n_row, n_term)
        Its factor.
    """

    parts: FloatArray
    part: Sequence[int]
    factor: FloatArray

    @property
    def count(self) -> int:
        """Number of coefficients."""
        return int(len(self.part) * self.parts.shape[-1])

    def lay(self, block: slice, columns: FloatArray) -> None:
        """Write the columns (n_row, n_pixel, count) of a block of pixels."""
        n_spline = self.parts.shape[-1]
        for term, part in enumerate(self.part):
            own = columns[..., term * n_spline : (term + 1) * n_spline]
            np.multiply(self.parts[:, part, block], self.factor[:, term, None, None], out=own)


@dataclass(frozen=True)
class Design:
    """Derivatives of the model by strengths, continuum, displacements and LSF, in this order.

    Parameters
    ----------
    drawn : Rendering
        Lines, with ``unit`` and ``slope``.
    smooth : ndarray, shape (nx, n_smooth)
        Splines of the continuum.
    level : ndarray, shape (n_row,)
        Brightness of each row's continuum.
    mover : ndarray of int, shape (n_line,)
        Which lines are displaced together.
    n_mover : int
        Number of displacements; 0 when nothing moves.
    shape : LsfColumns
        Derivatives by the coefficients of the LSF.
    """

    drawn: Rendering
    smooth: FloatArray
    level: FloatArray
    mover: IntArray
    n_mover: int
    shape: LsfColumns

    @property
    def parts(self) -> tuple[slice, slice, slice, slice]:
        """Where strengths, continuum, displacements and LSF stand among the parameters."""
        sizes = (
            self.drawn.position.shape[1],
            self.smooth.shape[1],
            self.n_mover,
            self.shape.count,
        )
        ends = np.cumsum(sizes).tolist()
        strengths, continuum, moves, lsf = (
            slice(end - size, end) for end, size in zip(ends, sizes, strict=True)
        )
        return strengths, continuum, moves, lsf

    def normal_equations(
        self, weight: FloatArray, residual: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return normal matrix and right side of the samples with these weights (n_row, nx)."""
        size = self.parts[-1].stop
        normal, pull = np.zeros((size, size)), np.zeros(size)
        root = np.sqrt(weight)
        for first in range(0, weight.shape[1], _BLOCK):
            block = slice(first, min(first + _BLOCK, weight.shape[1]))
            columns, index = self._columns(block)
            columns *= root[:, block, None]
            columns = columns.reshape(-1, index.size)
            normal[np.ix_(index, index)] += columns.T @ columns
            pull[index] += columns.T @ (root[:, block] * residual[:, block]).ravel()
        return normal, pull

    def _columns(self, block: slice) -> tuple[FloatArray, IntArray]:
        """Dense columns (n_row, n_pixel, n) of what is active in a block, and which they are."""
        strengths, continuum, moves, lsf = self.parts
        width = block.stop - block.start
        n_row, n_window = len(self.level), self.drawn.pixel.shape[-1]
        start = np.rint(self.drawn.position).astype(int) - n_window // 2 - block.start
        line = np.flatnonzero((start.min(axis=0) < width) & (start.max(axis=0) > -n_window))
        at = start[:, line, None] + np.arange(n_window)
        inside = (at >= 0) & (at < width)
        row, column, _ = np.nonzero(inside)
        at = at[inside]
        spline = np.flatnonzero(np.any(self.smooth[block] != 0, axis=0))
        mover, together = np.unique(self.mover[line], return_inverse=True)
        if not self.n_mover:
            mover = mover[:0]
        sizes = (line.size, spline.size, mover.size, self.shape.count)
        columns = np.zeros((n_row, width, sum(sizes)))
        one, smooth, moved, shape = np.split(columns, np.cumsum(sizes[:-1]), axis=2)
        one[row, at, column] = self.drawn.unit[:, line][inside]
        smooth[:] = self.level[:, None, None] * self.smooth[block][:, spline]
        if self.n_mover:
            # Lines of one mover may overlap.
            flat = np.ravel_multi_index((row, at, together[column]), moved.shape)
            slope = self.drawn.slope[:, line][inside]
            moved[:] = np.bincount(flat, slope, moved.size).reshape(moved.shape)
        self.shape.lay(block, shape)
        index = [
            line,
            continuum.start + spline,
            moves.start + mover,
            np.arange(lsf.start, lsf.stop),
        ]
        return columns, np.concatenate(index)
