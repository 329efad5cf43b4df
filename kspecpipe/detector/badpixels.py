"""Maps of bad pixels, joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kspecpipe.signal import DQArray


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
