"""Robust sums over blocks of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.signal import FloatArray, IntArray, Signal


@dataclass(frozen=True, eq=False)
class Blocks:
    """An image collapsed into blocks of columns.

    Parameters
    ----------
    x : ndarray, shape (nb,)
        Mean column of each block.
    value, error : ndarray, shape (ny, nb)
        Robust mean over the block's columns and its error [electron]; NaN without good pixels.
    """

    x: FloatArray
    value: FloatArray
    error: FloatArray


def block_edges(n_x: int, width: int) -> IntArray:
    """First columns of blocks of about ``width`` columns, and the end."""
    number = max(int(round(n_x / width)), 1)
    return np.linspace(0, n_x, number + 1).astype(int)


def collapse(image: Signal, width: int) -> Blocks:
    """Mean of the middle half of the good pixels of each row and block.

    Cosmic rays and hot columns fall outside the middle half.
    """
    edges = block_edges(image.shape[1], width)
    value = np.where(image.good, image.value, np.nan).astype(np.float32)
    columns = [_middle_mean(value[:, a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    mean = np.stack([m for m, _ in columns], axis=1).astype(float)
    count = np.stack([n for _, n in columns], axis=1)
    noise = np.add.reduceat(np.where(image.good, image.variance, 0), edges[:-1], axis=1)
    noise /= np.maximum(count, 1)
    # the mean of the middle half has 1.2 times the variance of the mean
    error = np.sqrt(1.2 * (noise + np.maximum(mean, 0)) / np.maximum(count, 1))
    return Blocks((edges[:-1] + edges[1:] - 1) / 2, mean, error)


def _middle_mean(value: FloatArray) -> tuple[FloatArray, IntArray]:
    """Mean of the middle half along the last axis without NaN, and the number of good values."""
    count = np.sum(np.isfinite(value), axis=1)
    total = np.cumsum(np.sort(value, axis=1), axis=1, dtype=float)
    total = np.insert(total, 0, 0, axis=1)
    low, high = count // 4, count - count // 4
    at = np.arange(value.shape[0])
    mean = (total[at, high] - total[at, low]) / np.maximum(high - low, 1)
    return np.where(count > 0, mean, np.nan), count


def narrow_light(blocks: Blocks, pitch: float) -> tuple[FloatArray, FloatArray]:
    """Light with structure on the scale of a fibre, and its error (ny, nb).

    A low running percentile over two pitches takes away background, glow and the diffuse ghost
    band; a Gaussian of a fraction of a pitch takes away single rows.
    """
    value = np.where(np.isfinite(blocks.value), blocks.value, 0)
    size = max(int(round(1.8 * pitch)), 5)
    floor = ndimage.percentile_filter(value, 15, size=(size, 1), mode="nearest")
    floor = ndimage.gaussian_filter1d(floor, size / 4, axis=0, mode="nearest")
    sigma = max(0.07 * pitch, 0.7)
    light = ndimage.gaussian_filter1d(value - floor, sigma, axis=0, mode="nearest")
    error = np.where(np.isfinite(blocks.error), blocks.error, 0)
    noise = ndimage.gaussian_filter1d(error, sigma, axis=0, mode="nearest")
    return light, noise / np.sqrt(2 * np.sqrt(np.pi) * sigma)
