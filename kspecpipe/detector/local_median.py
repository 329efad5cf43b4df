"""Medians around some pixels of an image, where filtering all of it would be waste."""

from __future__ import annotations

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray

#: Values around pixels that are held in memory at once.
_AT_ONCE = 400_000

# Rows and columns of some pixels, as from `numpy.nonzero`.
Pixels = tuple[IntArray, ...]


def median_around(image: FloatArray, where: Pixels, reach: tuple[int, int]) -> FloatArray:
    """Return the median of the rectangle about each of some pixels.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Image; its edges are repeated beyond it.
    where : tuple of two ndarrays of int, shape (n,)
        Rows and columns of the pixels.
    reach : (int, int)
        Rows and columns of the rectangle on either side of its pixel.

    Returns
    -------
    ndarray, shape (n,)
        What a median filter of the whole image has there.
    """
    y, x = where
    found = np.empty(y.size, image.dtype)
    size = (2 * reach[0] + 1) * (2 * reach[1] + 1)
    step = max(_AT_ONCE // size, 1)
    for a in range(0, y.size, step):
        at = slice(a, a + step)
        values = image[around((y[at], x[at]), image.shape, reach)]
        found[at] = np.partition(values, size // 2, axis=1)[:, size // 2]
    return found


def around(where: Pixels, shape: tuple[int, ...], reach: tuple[int, int]) -> Pixels:
    """Return rows and columns (n, size) of the rectangles about pixels; edges are repeated."""
    rows, columns = (np.arange(-r, r + 1) for r in reach)
    y = where[0][:, None] + np.repeat(rows, columns.size)
    x = where[1][:, None] + np.tile(columns, rows.size)
    return np.clip(y, 0, shape[0] - 1), np.clip(x, 0, shape[1] - 1)


def mask_of(where: Pixels, shape: tuple[int, ...], value: BoolArray | bool = True) -> BoolArray:
    """Return a mask (ny, nx) that is ``value`` at some pixels and False elsewhere."""
    mask = np.zeros(shape, bool)
    mask[where] = value
    return mask
