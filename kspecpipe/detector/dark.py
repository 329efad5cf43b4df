"""The dark rate of every pixel, free of cosmic rays, and pixels that misbehave in the dark."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.detector.boxes import BoxGrid, box_means, box_surface
from kspecpipe.detector.order_statistics import sort_planes
from kspecpipe.detector.planes import Planes, row_blocks
from kspecpipe.detector.structure import SmoothOptions, smooth_structure
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal


@dataclass(frozen=True)
class DarkOptions:
    """Limits for the dark rate.

    Parameters
    ----------
    sigma : float
        Significance above which an excess over the other darks is a cosmic ray, and a pixel differs
        from its surroundings.
    hot_rate : float, optional
        Excess rate that makes a pixel hot [electron/s]; by default that whose shot noise in the
        longest dark equals the read noise.
    unstable_probability : float
        Pixels whose scatter is less probable than this are unstable.
    box : int
        Size of the boxes that carry each frame's smooth difference from the others [pixel].
    """

    sigma: float = 5.0
    hot_rate: float | None = None
    unstable_probability: float = 1e-7
    box: int = 32


@dataclass(frozen=True)
class DarkRate:
    """Dark rate and what was taken out of it.

    Parameters
    ----------
    rate : Signal, shape (ny, nx)
        Rate [electron/s], its variance, and the bits ``HOT``, ``UNSTABLE``, ``BAD`` (dead) and
        ``NO_DATA``.
    rejected : ndarray of int, shape (n,)
        Pixels of each dark taken as cosmic rays.
    """

    rate: Signal
    rejected: IntArray


def group_exposures(exptimes: FloatArray, tolerance: float = 0.02) -> tuple[IntArray, ...]:
    """Sort exposures into groups of about equal exposure time.

    Parameters
    ----------
    exptimes : ndarray, shape (n,)
        Exposure times [s].
    tolerance : float
        Times within this fraction of the shortest of a group belong to it.

    Returns
    -------
    tuple of ndarray of int
        Numbers of the exposures of each group; the shortest group first.

    Raises
    ------
    RecipeError
        If an exposure time is not a positive number.
    """
    times = _checked_times(exptimes)
    order = np.argsort(times, kind="stable")
    groups: list[list[int]] = []
    for number in order:
        if groups and times[number] <= times[groups[-1][0]] * (1 + tolerance):
            groups[-1].append(int(number))
        else:
            groups.append([int(number)])
    return tuple(np.sort(np.asarray(group)) for group in groups)


def dark_rate(
    planes: Planes, exptimes: FloatArray, ron: float, options: DarkOptions | None = None
) -> DarkRate:
    """Fit the dark rate of every pixel against exposure time, without cosmic rays.

    Each dark's smooth difference from the typical one (level drift, glow of varying strength) is
    taken off first, else it would look like cosmic rays. Cosmic rays are excesses over the line
    through zero that the darks agree on. Two darks that differ by a cosmic ray: the lower is right.
    In a single dark a cosmic ray and a hot pixel are the same; both get the value of their
    surroundings with the excess as error, and are ``UNSTABLE``.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Darks without bias [electron]; NaN and Inf are left out.
    exptimes : ndarray, shape (n,)
        Their exposure times [s].
    ron : float
        Read noise [electron].
    options : DarkOptions, optional
        Limits.

    Returns
    -------
    DarkRate
        Rates with variance and DQ, and the number of cosmic-ray pixels of each dark.

    Raises
    ------
    ValueError
        If there is not one exposure time for each dark, or the read noise is not positive.
    RecipeError
        If an exposure time is not positive, or no pixel is finite.
    """
    options = options or DarkOptions()
    times = _checked_times(exptimes)
    n, ny, nx = planes.shape
    if times.shape != (n,) or not ron > 0:
        raise ValueError(f"{n} darks need {n} times and a read noise above 0, not {times}, {ron}")
    grid = BoxGrid((ny, nx), options.box)
    differences = _smooth_differences(planes, times, grid)
    rate, variance, excess = (np.empty((ny, nx)) for _ in range(3))
    rejected, lost = np.zeros(n, int), np.zeros((ny, nx), int)
    for a, b in row_blocks(planes, copies=8):
        block = planes.rows(a, b) - grid.surface(differences, slice(a, b)).astype(np.float32)
        fit = _fit_rates(block.reshape(n, -1), times, ron, options.sigma)
        for image, part in ((rate, fit.rate), (variance, fit.variance), (excess, fit.chi2)):
            image[a:b] = part.reshape(b - a, nx)
        lost[a:b] = fit.rejected.sum(axis=0).reshape(b - a, nx)
        rejected += fit.rejected.sum(axis=1)
    dark = Signal.of(rate, variance).flag(~np.isfinite(rate), DQ.NO_DATA)
    if not dark.good.any():
        raise RecipeError(f"none of the {rate.size} pixels of {n} darks holds a value")
    if n == 1:
        dark, replaced = _replace_outliers(dark, options.sigma)
        rejected = np.array([replaced])
    unstable = _unstable(excess, lost, n, options)
    dark = replace(dark, variance=np.where(unstable, dark.variance * excess, dark.variance))
    hot_rate = options.hot_rate or ron**2 / times.max()
    return DarkRate(_flag_outliers(dark.flag(unstable, DQ.UNSTABLE), hot_rate, options), rejected)


def smooth_dark(master: Signal, options: SmoothOptions | None = None) -> Signal:
    """Smooth structure of a master dark plus the pixels that differ: see `smooth_structure`.

    Parameters
    ----------
    master : Signal, shape (ny, nx)
        Dark rate [electron/s].
    options : SmoothOptions, optional
        Box size, significance, amplifiers.

    Returns
    -------
    Signal, shape (ny, nx)
        What to subtract from science [electron/s] with the variance that is left; DQ as before.

    Raises
    ------
    RecipeError
        If no pixel is usable.
    """
    return smooth_structure(master, options)


@dataclass(frozen=True)
class _Fit:
    """Rates of m pixels, their variance and reduced chi-squared, and the values rejected (n, m)."""

    rate: FloatArray
    variance: FloatArray
    chi2: FloatArray
    rejected: BoolArray


def _checked_times(exptimes: FloatArray) -> FloatArray:
    times = np.asarray(exptimes, float)
    bad = ~(np.isfinite(times) & (times > 0))
    if times.ndim != 1 or bad.any():
        raise RecipeError(
            f"exposure times of darks must be above 0 s, found {times[bad].tolist()}; are there "
            "bias frames among the darks?"
        )
    return times


def _smooth_differences(planes: Planes, times: FloatArray, grid: BoxGrid) -> FloatArray:
    """Smooth part of each dark minus that of the typical one: box means (n, nby, nbx)."""
    means = box_means(planes, grid).mean
    rates = means / times[:, None, None]
    flat = rates.reshape(len(times), -1)
    # The mean of lower and upper median: of two darks neither is preferred.
    middle = (_weighted_median(flat, times**2) - _weighted_median(-flat, times**2)) / 2
    typical = middle.reshape(rates.shape[1:])
    differences = means - typical * times[:, None, None]
    if not np.isfinite(differences).any():
        raise RecipeError(f"none of {len(times)} darks holds a finite value")
    return np.where(np.isfinite(differences), differences, 0)


def _fit_rates(block: FloatArray, times: FloatArray, ron: float, sigma: float) -> _Fit:
    """Weighted mean rate of each pixel; values far above it are left out."""
    finite = np.isfinite(block)
    values = np.where(finite, block, np.nan)
    t = times[:, None].astype(block.dtype)
    rate = _weighted_median(values / t, _shared_weights(times))
    keep = finite
    # The median is uncertain itself; later rates are means of what was kept.
    doubt = 2.0
    for _ in range(3):
        noise = ron**2 + np.maximum(rate, 0) * t
        weight = t**2 / noise
        with np.errstate(invalid="ignore", divide="ignore"):
            others = np.where(keep, weight, 0).sum(axis=0) - np.where(keep, weight, 0)
            uncertain = noise if doubt == 0 else noise + doubt * t**2 / np.maximum(others, 0)
            keep = finite & (values - rate * t <= sigma * np.sqrt(uncertain))
            total = np.where(keep, weight, 0).sum(axis=0)
            rate = np.where(keep, weight * values / t, 0).sum(axis=0) / total
        doubt = 0.0
    noise = ron**2 + np.maximum(rate, 0) * t
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.where(keep, (values - rate * t) ** 2 / noise, 0).sum(axis=0)
        variance = 1 / np.where(keep, t**2 / noise, 0).sum(axis=0)
    chi2_per_degree = squares / np.maximum(keep.sum(axis=0) - 1, 1)
    variance = np.where(np.isfinite(rate), variance, np.nan)
    return _Fit(rate, variance, chi2_per_degree, finite & ~keep)


def _shared_weights(times: FloatArray) -> FloatArray:
    """Weights of the darks in a median: no long one among short ones decides alone."""
    weights = times**2
    return np.minimum(weights, weights.sum() - weights) if len(times) > 1 else weights


def _weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Lower weighted median along the first axis of (n, m); NaN do not count."""
    if np.ptp(weights) == 0:
        return _lower_median(values)
    order = np.argsort(values, axis=0)  # NaN come last
    ranked = np.take_along_axis(values, order, axis=0)
    share = np.where(np.isfinite(ranked), weights[order], 0).cumsum(axis=0)
    middle = np.argmax(share >= 0.5 * share[-1] * (1 - 1e-9), axis=0)
    median: FloatArray = np.take_along_axis(ranked, middle[None], axis=0)[0]
    return median


def _lower_median(values: FloatArray) -> FloatArray:
    """Lower median along the first axis of (n, m); NaN do not count."""
    finite = np.isfinite(values)
    ranks = sort_planes(np.where(finite, values, np.inf))
    if finite.all():
        return ranks[(len(ranks) - 1) // 2]
    count = finite.sum(axis=0)
    middle = np.maximum(count - 1, 0) // 2
    median: FloatArray = np.take_along_axis(np.stack(ranks), middle[None], axis=0)[0]
    return np.where(count > 0, median, np.nan)


def _replace_outliers(dark: Signal, sigma: float) -> tuple[Signal, int]:
    """Give pixels above their surroundings the value of these, and their excess as error."""
    value = np.where(dark.good, dark.value, np.median(dark.value[dark.good]))
    around = scipy.ndimage.median_filter(value, size=5, mode="nearest")
    noise = np.where(dark.good, np.median(dark.variance[dark.good]), np.inf)
    excess = value - around
    # The edges of an event are lost in the noise one by one, but lie next to its core.
    core = excess > sigma * np.sqrt(noise)
    near = scipy.ndimage.binary_dilation(core, np.ones((3, 3))) & (
        excess > 0.5 * sigma * np.sqrt(noise)
    )
    high = core | near
    replaced = Signal(
        np.where(high, around, dark.value),
        np.where(high, dark.variance + excess**2, dark.variance),
        dark.dq,
    )
    return replaced.flag(high, DQ.UNSTABLE), int(high.sum())


def _unstable(
    chi2_per_degree: FloatArray, lost: IntArray, n: int, options: DarkOptions
) -> BoolArray:
    """Find pixels that scatter more than their noise and than the pixels around them do."""
    if n < 3:
        return np.zeros(lost.shape, bool)
    degrees = np.maximum(n - lost - 1, 1)
    possible = np.arange(1, n)
    limits = scipy.special.chdtri(possible, options.unstable_probability) / possible
    typical = box_surface(chi2_per_degree, BoxGrid(lost.shape, options.box))
    # One cosmic ray in a pixel is common; several in the same pixel are not cosmic rays.
    repeated = lost >= max(2, -(-n // 3))
    scattered: BoolArray = chi2_per_degree > limits[degrees - 1] * np.maximum(typical, 1)
    return scattered | repeated


def _flag_outliers(dark: Signal, hot_rate: float, options: DarkOptions) -> Signal:
    """Set ``HOT`` and, for pixels very far below their surroundings, ``BAD``."""
    grid = BoxGrid(dark.value.shape, options.box)
    around = box_surface(np.where(dark.good, dark.value, np.nan), grid)
    excess = dark.value - around
    limit = np.maximum(options.sigma * dark.error, hot_rate)
    return dark.flag(excess > limit, DQ.HOT).flag(excess < -2 * limit, DQ.BAD)
