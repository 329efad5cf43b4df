"""Maps of bad pixels: joined, and found in flats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import median_filter

from kspecpipe.signal import BoolArray, DQArray, Signal


def combine_bad_pixels(maps: Sequence[DQArray]) -> DQArray:
    """Join maps of bad pixels: a pixel has every bit that it has in one of them.

    Parameters
    ----------
    maps : sequence of ndarray of uint16, shape (ny, nx)
        One or more maps.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        Their union.

    Raises
    ------
    ValueError
        If there is no map or shapes differ.
    """
    shapes = {np.shape(one) for one in maps}
    if len(shapes) != 1:
        raise ValueError(f"maps of one shape are needed, not {sorted(shapes) or 'none at all'}")
    joined: DQArray = np.bitwise_or.reduce(np.asarray(maps, np.uint16), axis=0)
    return joined


def find_cold_pixels(
    flat: Signal, *, response: float = 0.5, size: tuple[int, int] = (1, 31), sigma: float = 5.0
) -> BoolArray:
    """Find pixels that see much less light than their neighbourhood.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Well exposed flat [electron]: of the bare detector or, with a window along the dispersion
        as by default, of fibres.
    response : float
        A pixel with less than this fraction of the light around it is cold.
    size : (int, int)
        Height and width of the neighbourhood, whose median is compared with [pixel].
    sigma : float
        Significance that the lack of light must have; dark parts of the flat find nothing.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True where a usable pixel is cold: to be flagged ``BAD``.

    Raises
    ------
    ValueError
        If ``response`` is not between 0 and 1.
    """
    if not 0 < response < 1:
        raise ValueError(f"response must lie between 0 and 1, not {response}")
    good = flat.good
    value = np.where(good, flat.value, 0).astype(np.float32)
    around = median_filter(value, size=size, mode="nearest")
    lack = around - value
    # The noise of the pixel itself may be known from a handful of values only.
    noise = np.sqrt(np.maximum(flat.variance, np.median(flat.variance[good])) if good.any() else 1)
    cold: BoolArray = good & (value < response * around) & (lack > sigma * noise)
    return cold
