"""Flats of several lamps, stitched where both have enough light."""

from __future__ import annotations

from collections.abc import Mapping
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
    names : tuple of str
        The lamps.
    spectra : Signal, shape (nfib, nx)
        On the scale of the lamp with most light.
    lamp : ndarray of int, shape (nx,)
        Index of the lamp that each column is from.
    crossovers : tuple of int
        First column of each change of lamp.
    scales : tuple of float
        Factor of each lamp.
    """

    names: tuple[str, ...]
    spectra: Signal
    lamp: IntArray
    crossovers: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def joints(self) -> list[tuple[str, str, int]]:
        """Names of the lamps on both sides of each change, and its first column."""
        return [
            (self.names[self.lamp[at - 1]], self.names[self.lamp[at]], at)
            for at in self.crossovers
            if 0 < at < self.lamp.size
        ]


def stitch_lamps(
    spectra: Mapping[str, Signal], *, min_snr: float = 20.0, overlap: int = 41, scale: bool = True
) -> StitchedFlat:
    """Stitch the flats of several lamps per wavelength range.

    The lamps are ordered by where along the dispersion their light lies. Two neighbouring lamps
    are joined at the column at which they are about equally good, and scaled there.

    Parameters
    ----------
    spectra : mapping of str to Signal, each (nfib, nx)
        Extracted flat of each lamp [electron]; fibres without light are NaN.
    min_snr : float
        Signal-to-noise ratio of the median fibre that is enough light.
    overlap : int
        Columns around the cross-over from which the scale is taken.
    scale : bool
        Whether the lamps are brought to one scale; if not, the spectra step at the cross-over.

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
    names, lamps = list(spectra), list(spectra.values())
    if len({lamp.shape for lamp in lamps}) != 1:
        raise ValueError(f"lamps have shapes {[lamp.shape for lamp in lamps]}; one is needed")
    quality = np.stack([_median_snr(lamp) for lamp in lamps])
    column = np.arange(quality.shape[1])
    order = np.argsort([float(q @ column / max(q.sum(), 1e-30)) for q in quality])
    joints, ratios = [0], [1.0]
    for left, right in zip(order[:-1], order[1:], strict=True):
        at = _crossover(quality[left], quality[right], min_snr, (names[left], names[right]))
        joints.append(max(at, joints[-1]))
        ratios.append(_scale(lamps[left], lamps[right], at, overlap) if scale else 1.0)
    by_lamp = np.empty(len(lamps))
    by_lamp[order] = np.cumprod(ratios)
    by_lamp /= by_lamp[int(np.argmax(quality.sum(axis=1)))]
    lamp = order[np.searchsorted(joints, column, side="right") - 1]
    scaled = [part.scale(factor) for part, factor in zip(lamps, by_lamp, strict=True)]
    parts = (
        np.stack([getattr(part, name) for part in scaled])[lamp, :, column].T
        for name in ("value", "variance", "dq")
    )
    return StitchedFlat(
        tuple(names), Signal(*parts), lamp, tuple(joints[1:]), tuple(by_lamp.tolist())
    )


def _median_snr(lamp: Signal) -> FloatArray:
    """Signal-to-noise ratio of the median fibre at each column, smoothed; 0 without data."""
    good = lamp.good & (lamp.variance > 0)
    live = good.any(axis=1)
    if not live.any():
        return np.zeros(lamp.shape[1])
    snr = np.where(good, lamp.value / np.sqrt(np.where(good, lamp.variance, 1)), 0)[live]
    smooth: FloatArray = ndimage.median_filter(np.median(snr, axis=0), 15, mode="nearest")
    return np.maximum(smooth, 0)


def _crossover(left: FloatArray, right: FloatArray, min_snr: float, lamps: tuple[str, str]) -> int:
    """Column where both lamps are about equally good, both with enough light."""
    both = (left > min_snr) & (right > min_snr)
    if not both.any():
        raise RecipeError(
            f"the lamps {lamps[0] or 'without a name'} and {lamps[1] or 'without a name'} have no "
            f"column in common with a signal-to-noise ratio above {min_snr:g}; they cannot be put "
            "on one scale. Give longer flats of the fainter lamp, or reduce them one by one"
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
