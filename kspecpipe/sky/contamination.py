"""A first, robust look at the sky fibres: which see more than sky, which samples stand out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.sky.lines import (
    LINE_TOLERANCE,
    FittedScale,
    block_edges,
    fit_line_scale,
    lines_only,
)

_BINS = 12
#: Significance [sigma] at which a continuum excess counts, and at which samples stand out.
_SIGNIFICANCE, _FIRST_CLIP = 5.0, 6.0
#: Throughput error that is expected of a fibre.
_SCALE_PRIOR = 0.05
#: Continuum, in units of the spectrum's typical one, below which its excess is not relative to it:
#: what stray light leaves counts less where there is hardly any sky.
_FAINT = 0.5
#: Part of a fibre's samples that cosmic rays may hit.
_MAX_SPIKES = 0.15


@dataclass(frozen=True, slots=True)
class SkyDensity:
    """Sky spectra on whole pixels of the mean fibre, linearly interpolated; NaN where bad.

    Parameters
    ----------
    value, variance : ndarray, shape (nsky, nu)
        Electron per pixel of the mean fibre and variance.
    """

    value: FloatArray
    variance: FloatArray

    @classmethod
    def of(
        cls,
        position: FloatArray,
        density: FloatArray,
        variance: FloatArray,
        good: BoolArray,
        pixels: FloatArray,
    ) -> SkyDensity:
        """Interpolate samples at ``position`` (nsky, nx) to whole ``pixels`` (nu,)."""
        masked = np.where(good, density, np.nan)
        spread = np.where(good, variance, np.nan)
        rows = [
            [np.interp(pixels, at, row, left=np.nan, right=np.nan) for row in pair]
            for at, *pair in zip(position, masked, spread, strict=True)
        ]
        both = np.array(rows)
        return cls(both[:, 0], both[:, 1])


def robust_sky(value: FloatArray, *, lower: bool = False) -> FloatArray:
    """Median of the fibres.

    Parameters
    ----------
    value : ndarray, shape (nsky, nu)
        Sky spectra; NaN where bad.
    lower : bool
        Of an even number the lower of the middle two instead of their mean: light of objects and
        cosmic rays only adds, so that half of the fibres may be hit.

    Returns
    -------
    ndarray, shape (nu,)
        Sky; interpolated where no fibre is usable.
    """
    number = np.isfinite(value).sum(axis=0)
    ordered = np.sort(np.where(np.isfinite(value), value, np.inf), axis=0)
    low = np.maximum((number - 1) // 2, 0)
    high = low if lower else np.where(number > 0, number // 2, 0)
    column = np.arange(value.shape[1])
    known = number > 0
    middle = ordered[:, known]
    at = np.arange(middle.shape[1])
    sky = (middle[low[known], at] + middle[high[known], at]) / 2
    return np.asarray(np.interp(column, column[known], sky))


def find_contaminated(density: SkyDensity, tolerance: float) -> BoolArray:
    """Find sky fibres whose continuum does not fit their sky lines.

    Every fibre is compared with the robust sky of the others. Its lines tell its throughput; light
    that has a continuum and no lines is a star's. The worst fibre is dropped first, then the others
    are compared again; at least half of the fibres are kept. Of two only the brighter can be wrong.

    Parameters
    ----------
    density : SkyDensity
        Sky spectra.
    tolerance : float
        Excess relative to the sky continuum that is tolerated; with five fibres or more it falls to
        six times their scatter, but not below 0.4 of it.

    Returns
    -------
    ndarray of bool, shape (nsky,)
        True for contaminated fibres.
    """
    number = len(density.value)
    density = _without_spikes(density)
    kept = np.ones(number, bool)
    while (number - kept.sum() < number // 2) and kept.sum() > 1:
        index = np.flatnonzero(kept)
        excess, noise = np.array(
            [_excess(density, int(fibre), index[index != fibre]) for fibre in index]
        ).T
        limit = tolerance
        if len(index) >= 5:
            scatter = 1.4826 * float(np.median(np.abs(excess - np.median(excess))))
            limit = float(np.clip(6 * scatter, 0.4 * tolerance, tolerance))
        size = excess if len(index) == 2 else np.abs(excess)
        wrong = (size > limit) & (size > _SIGNIFICANCE * noise)
        if not wrong.any():
            break
        kept[index[np.argmax(np.where(wrong, size, -np.inf))]] = False
    return ~kept


def _without_spikes(density: SkyDensity) -> SkyDensity:
    """Mask cosmic rays, which lines would be mistaken for; not a fibre that differs everywhere."""
    if len(density.value) < 2:
        return density
    spikes = find_outliers(density, robust_sky(density.value, lower=True))
    spikes &= spikes.mean(axis=1, keepdims=True) < _MAX_SPIKES
    return SkyDensity(np.where(spikes, np.nan, density.value), density.variance)


def _excess(density: SkyDensity, fibre: int, others: IntArray) -> tuple[float, float]:
    """Continuum above that expected from the lines, relative to the sky; and its noise."""
    sky = robust_sky(density.value[others])
    known = np.isfinite(density.value[others]).any(axis=0)
    rest = np.where(
        known, density.value[fibre] - _compare_lines(density, fibre, sky).reshape(sky), np.nan
    )
    floor = _FAINT * float(np.median(sky))
    variance = density.variance[fibre] * (1 + 1 / len(others))
    use = np.isfinite(rest) & np.isfinite(variance)
    span = maximum_filter1d(sky, 5) - minimum_filter1d(sky, 5)
    bins = [
        _bin(rest[part], variance[part], sky[part], use[part] & _calm(span[part]), floor)
        for part in (slice(*pair) for pair in pairwise(block_edges(len(sky), _BINS).tolist()))
    ]
    relative, noise = np.array([one for one in bins if one is not None]).reshape(-1, 2).T
    if len(relative) == 0:
        return 0.0, np.inf
    # A star may be seen in the blue or in the red only: the most deviant third of the bins counts.
    third = max(1, len(relative) // 3)
    order = np.sort(relative)
    top, bottom = float(order[-third:].mean()), float(order[:third].mean())
    extreme = top if top > -bottom else bottom
    # The extreme third of pure noise lies 1.1 sigma off.
    size = max(abs(extreme) - 1.1 * float(np.median(noise)), 0.0)
    return float(np.copysign(size, extreme)), float(np.median(noise)) / np.sqrt(third)


def _calm(span: FloatArray) -> BoolArray:
    """Find the half of some samples about which the sky changes least."""
    return np.asarray(span <= np.median(span))


def _bin(
    rest: FloatArray, variance: FloatArray, sky: FloatArray, good: BoolArray, floor: float
) -> tuple[float, float] | None:
    """Median excess off the lines in units of the sky (of floor or noise if larger), its error."""
    if good.sum() < 5:
        return None
    noise = float(np.sqrt(np.median(variance[good])))
    level = max(float(np.median(sky[good])), floor, noise)
    return float(np.median(rest[good])) / level, 1.25 * noise / np.sqrt(good.sum()) / level


def _compare_lines(density: SkyDensity, fibre: int, sky: FloatArray) -> FittedScale:
    """Strength, shift and width of the sky lines in one fibre, relative to those of the sky."""
    value, variance = density.value[fibre], density.variance[fibre]
    good = np.isfinite(value) & np.isfinite(sky)
    lines = lines_only(np.where(good, value, 0.0), good)
    template = lines_only(np.where(good, sky, 0.0), good)
    return fit_line_scale(lines, variance, template, good, prior=_SCALE_PRIOR)


def find_outliers(density: SkyDensity, sky: FloatArray) -> BoolArray:
    """Find samples far from the robust sky: cosmic rays, defects, lines of objects.

    Parameters
    ----------
    density : SkyDensity
        Spectra of at least two sky fibres.
    sky : ndarray, shape (nu,)
        Robust sky.

    Returns
    -------
    ndarray of bool, shape (nsky, nu)
        True for outliers. More is tolerated on steep lines, where interpolation leaves errors.
    """
    expected = [_compare_lines(density, f, sky).reshape(sky) for f in range(len(density.value))]
    rest = density.value - np.stack(expected)
    good = np.isfinite(rest)
    centre = np.nanmedian(np.where(good, rest, np.nan), axis=1, keepdims=True)
    span = maximum_filter1d(sky, 5) - minimum_filter1d(sky, 5)
    noise = np.sqrt(np.where(good, density.variance, 0) + (LINE_TOLERANCE * span) ** 2)
    outliers: BoolArray = good & (np.abs(rest - centre) > _FIRST_CLIP * noise)
    return outliers
