"""Pixels whose charge or count hit the ceiling, and those that charge bled into."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kspecpipe.signal import DQ, BoolArray, DQArray, FloatArray


def saturation_dq(
    adu: FloatArray, saturation: float, *, bleed: int = 2, axis: Literal[0, 1] = 0
) -> DQArray:
    """Flag saturated pixels, and their neighbours along the direction of charge transfer.

    Parameters
    ----------
    adu : ndarray, shape (ny, nx)
        Raw values [adu], before anything is subtracted. NaN and Inf are not saturated but missing.
    saturation : float
        Values at or above this are saturated [adu].
    bleed : int
        Number of pixels on either side of a saturated one that charge can reach.
    axis : {0, 1}
        Axis along which charge is moved: 0 along columns, 1 along rows.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        ``SATURATED`` and, on their unsaturated neighbours, ``BLEED``.

    Raises
    ------
    ValueError
        If ``bleed`` is negative.
    """
    if bleed < 0:
        raise ValueError(f"bleed is a number of pixels, not {bleed}")
    saturated = np.isfinite(adu) & (adu >= saturation)
    dq = np.where(saturated, np.uint16(DQ.SATURATED), np.uint16(0))
    if saturated.any():
        dq[_neighbours(saturated, bleed, axis) & ~saturated] = DQ.BLEED
    return dq


def _neighbours(marked: BoolArray, reach: int, axis: int) -> BoolArray:
    """Mark pixels at most ``reach`` away along the axis from a marked one."""
    marked = np.moveaxis(marked, axis, 0)
    near = marked.copy()
    for distance in range(1, min(reach, len(marked) - 1) + 1):
        near[distance:] |= marked[:-distance]
        near[:-distance] |= marked[distance:]
    return np.moveaxis(near, 0, axis)
