"""Smooth surfaces through the means of boxes: the slow part of an image."""

from __future__ import annotations

import numpy as np

from kspecpipe.bsplines import spline_basis
from kspecpipe.detector.planes import Planes
from kspecpipe.detector.robust import Moments, clipped_moments
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, IntArray


class BoxGrid:
    """Boxes that tile an image, and the surface that has given means in them.

    Parameters
    ----------
    shape : (int, int)
        Shape (ny, nx) of the image.
    box : int
        Approximate size of the boxes [pixel]; the image is divided into equal ones.
    """

    def __init__(self, shape: tuple[int, int], box: int) -> None:
        """Divide both axes."""
        self.rows, self.columns = (_box_index(n, box) for n in shape)
        self._along_y = _spline_through_means(self.rows, shape[0])
        self._along_x = _spline_through_means(self.columns, shape[1])
        self._pixels_per_box = shape[0] * shape[1] / (len(self.rows) * len(self.columns))

    def pixels(self, image: FloatArray) -> FloatArray:
        """Pixels of each box: (..., ny, nx) becomes (..., nby, nbx, size), filled up with NaN."""
        edge = [(0, 0)] * (image.ndim - 2) + [(0, 1), (0, 1)]
        padded = np.pad(image, edge, constant_values=np.nan)
        boxes = np.moveaxis(padded[..., self.rows, :][..., self.columns], -3, -2)
        return boxes.reshape(*boxes.shape[:-2], -1)

    def pixels_of(self, image: FloatArray, where: BoolArray) -> FloatArray:
        """Pixels (n, size) of the boxes of an image (ny, nx) where a mask (nby, nbx) is True."""
        y, x = np.nonzero(where)
        padded = np.pad(image, ((0, 1), (0, 1)), constant_values=np.nan)
        boxes = padded[self.rows[y][:, :, None], self.columns[x][:, None, :]]
        return boxes.reshape(len(boxes), -1)

    def pixels_in_row(self, block: FloatArray) -> FloatArray:
        """Pixels of the boxes of one row of boxes: (n, height, nx) becomes (n, nbx, size)."""
        padded = np.pad(block, ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        boxes = padded[..., self.columns].transpose(0, 2, 1, 3)
        return boxes.reshape(*boxes.shape[:2], -1)

    def row_range(self, number: int) -> tuple[int, int]:
        """First and last (exclusive) image row of a row of boxes."""
        index = self.rows[number]
        inside = index[index < len(self._along_y)]
        return int(inside[0]), int(inside[-1]) + 1

    def surface(self, means: FloatArray, rows: slice = slice(None)) -> FloatArray:
        """Product of cubic splines whose mean over every box is the one given, in some rows."""
        return self._along_y[rows] @ means @ self._along_x.T

    def noise_gain(self) -> FloatArray:
        """Variance of the surface for pixels of unit variance, shape (ny, nx)."""
        along_y, along_x = (np.square(m).sum(axis=1) for m in (self._along_y, self._along_x))
        gain: FloatArray = np.outer(along_y, along_x) / self._pixels_per_box
        return gain


def box_surface(image: FloatArray, grid: BoxGrid) -> FloatArray:
    """Fit a smooth surface through the clipped means of boxes.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Values; NaN are left out.
    grid : BoxGrid
        Boxes of the same (ny, nx).

    Returns
    -------
    ndarray, shape (ny, nx)
        Product of cubic splines whose mean over every box is the mean measured there.

    Raises
    ------
    RecipeError
        If no value is finite.
    """
    return grid.surface(fill_empty(clipped_moments(grid.pixels(image)).mean))


def box_means(planes: Planes, grid: BoxGrid) -> Moments:
    """Clipped mean, scatter and count of every box of every plane, each (n, nby, nbx).

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Frames, read one row of boxes at a time.
    grid : BoxGrid
        Boxes of the same (ny, nx).

    Returns
    -------
    Moments
        NaN and count 0 where a box holds no finite value.
    """
    rows = []
    for number in range(len(grid.rows)):
        a, b = grid.row_range(number)
        rows.append(clipped_moments(grid.pixels_in_row(planes.rows(a, b))))
    return Moments(
        np.stack([row.mean for row in rows], axis=1),
        np.stack([row.std for row in rows], axis=1),
        np.stack([row.count for row in rows], axis=1),
    )


def fill_empty(means: FloatArray) -> FloatArray:
    """Give boxes without a value the median of the others.

    Parameters
    ----------
    means : ndarray
        Means of boxes; NaN where a box is empty.

    Returns
    -------
    ndarray
        The same without NaN.

    Raises
    ------
    RecipeError
        If all boxes are empty.
    """
    known = np.isfinite(means)
    if not known.any():
        raise RecipeError("no pixel is usable; are the frames saturated or empty?")
    return np.where(known, means, np.median(means[known]))


def _box_index(n: int, box: int) -> IntArray:
    """Pixel numbers of each of the boxes (n_box, size), filled up with ``n``."""
    number = max(round(n / box), 1)
    edges = np.rint(np.linspace(0, n, number + 1)).astype(int)
    size = int(np.diff(edges).max())
    index = edges[:-1, None] + np.arange(size)
    return np.where(index < edges[1:, None], index, n)


def _spline_through_means(boxes: IntArray, n: int) -> FloatArray:
    """Matrix (n, n_box) from means over boxes to the spline with these means."""
    number = len(boxes)
    if number == 1:
        return np.ones((n, 1))
    membership = np.zeros((number, n + 1))
    np.put_along_axis(membership, boxes, 1.0, axis=1)
    averaging = membership[:, :n] / (boxes < n).sum(axis=1, keepdims=True)
    centers = averaging @ np.arange(n)
    basis = _spline_basis(np.arange(n), centers)
    return basis @ np.linalg.inv(averaging @ basis)


def _spline_basis(x: IntArray, nodes: FloatArray) -> FloatArray:
    """B-splines (n, n_node) of the splines that nodes determine.

    Cubic, of lower degree for fewer than four nodes; the outer polynomials go on beyond the nodes.
    """
    degree = min(3, len(nodes) - 1)
    inner = nodes[2:-2]  # "not a knot": the outer two pieces on each side are one polynomial
    knots = np.pad(inner, degree + 1, constant_values=(nodes[0], nodes[-1]))
    return spline_basis(x, knots, degree)
