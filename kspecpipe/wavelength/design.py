"""What the shared parameters of an arc do to its samples, and their normal equations.

A line touches the few pixels of its window, so that the chip is taken in blocks of neighbouring
pixels: in each, few lines are active, and the products are those of small dense matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.wavelength.scene import Rendering

#: Pixels of a block, about as many as a line's window has.
_BLOCK = 64


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
    shape : ndarray, shape (n_row, nx, n_shape)
        Derivatives by the coefficients of the LSF.
    """

    drawn: Rendering
    smooth: FloatArray
    level: FloatArray
    mover: IntArray
    n_mover: int
    shape: FloatArray

    @property
    def parts(self) -> tuple[slice, slice, slice, slice]:
        """Where strengths, continuum, displacements and LSF stand among the parameters."""
        sizes = (
            self.drawn.position.shape[1],
            self.smooth.shape[1],
            self.n_mover,
            self.shape.shape[2],
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
            scale = root[:, block].reshape(-1, 1)
            columns *= scale
            normal[np.ix_(index, index)] += columns.T @ columns
            pull[index] += columns.T @ (scale[:, 0] * residual[:, block].ravel())
        return normal, pull

    def _columns(self, block: slice) -> tuple[FloatArray, IntArray]:
        """Dense columns (n_row * n_pixel, n) of what is active in a block, and which they are."""
        strengths, continuum, moves, lsf = self.parts
        width = block.stop - block.start
        n_row, n_window = len(self.level), self.drawn.pixel.shape[-1]
        start = np.rint(self.drawn.position).astype(int) - n_window // 2 - block.start
        line = np.flatnonzero((start.min(axis=0) < width) & (start.max(axis=0) > -n_window))
        at = start[:, line, None] + np.arange(n_window)
        inside = (at >= 0) & (at < width)
        row, column, _ = np.nonzero(inside)
        at = at[inside]

        def lay(values: FloatArray) -> FloatArray:
            dense = np.zeros((n_row, width, line.size))
            dense[row, at, column] = values[:, line][inside]
            return dense.reshape(n_row * width, line.size)

        spline = np.flatnonzero(np.any(self.smooth[block] != 0, axis=0))
        smooth = self.level[:, None, None] * self.smooth[block][:, spline]
        columns = [lay(self.drawn.unit), smooth.reshape(n_row * width, spline.size)]
        index = [line, continuum.start + spline]
        if self.n_mover:
            mover, together = np.unique(self.mover[line], return_inverse=True)
            columns.append(lay(self.drawn.slope) @ np.eye(mover.size)[together])
            index.append(moves.start + mover)
        columns.append(self.shape[:, block].reshape(n_row * width, -1))
        index.append(np.arange(lsf.start, lsf.stop))
        return np.concatenate(columns, axis=1), np.concatenate(index)
