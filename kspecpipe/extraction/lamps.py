"""Flats of several lamps, stitched where both have enough light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.errors import RecipeError
from kspecpipe.signal import FloatArray, IntArray, Signal


@dataclass(frozen=True, eq=False)
class StitchedFlat:
    """Spectra stitched from several lamps.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        On the scale of the lamp with most light.
    lamp : ndarray of int, shape (nx,)
        Index of the lamp that each column is from.
    crossovers : tuple of int
        First column of each change of lamp.
    scales : tuple of float
        Factor of each lamp.
    """

    spectra: Signal
    lamp: IntArray
    crossovers: tuple[int, ...]
    scales: tuple[float, ...]


def stitch_lamps(
    spectra: Sequence[Signal], *, min_snr: float = 20.0, overlap: int = 41
) -> StitchedFlat:
    """Stitch the flats of several lamps per wavelength range.

    The lamps are ordered by where along the dispersion their light lies. Two neighbouring lamps
    are joined at the column at which they are about equally good, and scaled there.

    Parameters
    ----------
    spectra : sequence of Signal, each (nfib, nx)
        Extracted flat of each lamp [electron].
    min_snr : float
        Signal-to-noise ratio of the median fibre that is enough light.
    overlap : int
        Columns around the cross-over from which the scale is taken.

    Returns
    -------
    StitchedFlat

    Raises
    ------
    RecipeError
        If two neighbouring lamps have no column in common with enough light.
    ValueError
        If there is no lamp, or the shapes disagree.
    """
    if not spectra or len({lamp.shape for lamp in spectra}) != 1:
        raise ValueError(f"lamps have shapes {[lamp.shape for lamp in spectra]}; one is needed")
    quality = np.stack([_median_snr(lamp) for lamp in spectra])
    column = np.arange(quality.shape[1])
    order = np.argsort([float(q @ column / max(q.sum(), 1e-30)) for q in quality])
    joints, ratios = [0], [1.0]
    for left, right in zip(order[:-1], order[1:], strict=True):
        at = _crossover(quality[left], quality[right], min_snr, (int(left), int(right)))
        joints.append(max(at, joints[-1]))
        ratios.append(_scale(spectra[left], spectra[right], at, overlap))
    scales = np.cumprod(ratios)
    reference = int(np.argmax([quality[i].sum() for i in order]))
    scales = scales / scales[reference]
    lamp = order[np.searchsorted(joints, column, side="right") - 1]
    by_lamp = np.empty(len(spectra))
    by_lamp[order] = scales
    scaled = [lamp_spectra.scale(s) for lamp_spectra, s in zip(spectra, by_lamp, strict=True)]
    result = Signal(
        *(
            np.stack([getattr(part, name) for part in scaled])[lamp, :, column].T
            for name in ("value", "variance", "dq")
        )
    )
    return StitchedFlat(result, lamp, tuple(joints[1:]), tuple(float(s) for s in by_lamp))


def _median_snr(lamp: Signal) -> FloatArray:
    """Signal-to-noise ratio of the median fibre at each column, smoothed; 0 without data."""
    good = lamp.good & (lamp.variance > 0)
    snr = np.where(good, lamp.value / np.sqrt(np.where(good, lamp.variance, 1)), 0)
    smooth: FloatArray = ndimage.median_filter(np.median(snr, axis=0), 15, mode="nearest")
    return np.maximum(smooth, 0)


def _crossover(left: FloatArray, right: FloatArray, min_snr: float, lamps: tuple[int, int]) -> int:
    """Column where both lamps are about equally good, both with enough light."""
    both = (left > min_snr) & (right > min_snr)
    if not both.any():
        raise RecipeError(
            f"lamps {lamps[0]} and {lamps[1]} have no column in common with a signal-to-noise "
            f"ratio above {min_snr:g}; they cannot be put on one scale"
        )
    at = np.flatnonzero(both)
    return int(at[np.argmin(np.abs(np.log(left[at] / right[at])))])


def _scale(left: Signal, right: Signal, at: int, overlap: int) -> float:
    """Factor that brings the right lamp to the scale of the left one."""
    near = slice(max(at - overlap // 2, 0), at + overlap // 2 + 1)
    a, b = left.select((slice(None), near)), right.select((slice(None), near))
    good = a.good & b.good & (b.value > 0)
    if not good.any():
        raise RecipeError("the columns at which two lamps would be joined are masked")
    return float(np.median(a.value[good] / b.value[good]))
