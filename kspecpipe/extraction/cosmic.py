"""Cosmic rays: single pixels above what the profile allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.extraction.slabs import Slabs
from kspecpipe.signal import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class RejectionLimits:
    """What decides about a rejection.

    Parameters
    ----------
    sigma : float
        Limit [sigma].
    tolerance : ndarray, shape (ny, nx)
        Relative error of the model.
    """

    sigma: float
    tolerance: FloatArray


def model_error(
    left: FloatArray, noise: FloatArray, slabs: Slabs, flux: FloatArray, least: float
) -> FloatArray:
    """Relative error of the model, as most bright fibres near each place show it (ny, nx).

    The image of a line is not quite the profile of the continuum. Lines stand at nearly the same
    column in all fibres; a cosmic ray in one of them does not change what most fibres say.

    Parameters
    ----------
    left : ndarray, shape (ny, nx)
        Image without fibres and background [electron].
    noise : ndarray, shape (ny, nx)
        Its variance, without the light of the fibres [electron²].
    slabs, flux : Slabs, ndarray (nfib, nx)
        Profiles and fluxes.
    least : float
        Smallest error returned.
    """
    share, group = np.full(flux.shape, np.nan), 14
    for f, profile in enumerate(slabs.profile):
        model = np.maximum(flux[f], 0) * profile
        near = _highest_near(model)
        sigma = np.sqrt(noise[slabs.rows(f)] + near)
        bright = near > 10 * sigma
        # what noise alone may show is no error of the model
        beyond = np.maximum(np.abs(left[slabs.rows(f)]) - 3 * sigma, 0)
        off = np.where(bright, beyond / np.maximum(near, 1e-30), 0)
        share[f] = np.where(bright.any(axis=0), off.max(axis=0), np.nan)
    # lines move by some pixels from fibre to fibre
    wide = ndimage.maximum_filter1d(np.nan_to_num(share, nan=-1.0), 9, axis=1)
    tolerance = np.full(left.shape, least, dtype=left.dtype)
    number = max(len(slabs) // group, 1)
    for fibres in np.array_split(np.arange(len(slabs)), number):
        known = wide[fibres] >= 0
        middle = _quantile_of_known(wide[fibres], known, 0.5)
        # a ray in a dark column makes its own fibre bright, not those around it
        enough = known.sum(axis=0) >= max(min(3, len(fibres)), 0.4 * len(fibres))
        error = np.where(enough, 0.7 * middle, least)
        rows = slice(slabs.first[fibres[0]], slabs.rows(int(fibres[-1])).stop)
        tolerance[rows] = np.maximum(tolerance[rows], np.clip(error, least, 1.0))
    return tolerance


def _quantile_of_known(values: FloatArray, known: BoolArray, share: float) -> FloatArray:
    """Quantile along the first axis of the known values, interpolated; inf where there are none."""
    ranked = np.sort(np.where(known, values, np.inf), axis=0)
    place = share * np.maximum(known.sum(axis=0) - 1, 0)
    low = place.astype(int)
    high = np.minimum(low + 1, np.ceil(place).astype(int))
    lower, upper = (np.take_along_axis(ranked, at[None], axis=0)[0] for at in (low, high))
    with np.errstate(invalid="ignore"):  # inf - inf, where nothing is known
        between: FloatArray = lower + (place - low) * (upper - lower)
    return np.where(high > low, between, lower)


def find_cosmic(
    view: tuple[FloatArray, FloatArray, BoolArray, Slabs],
    flux: FloatArray,
    normal: FloatArray,
    limits: RejectionLimits,
    suspect: BoolArray | None = None,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Find the worst pixel of each sample, if it is too bright for the profile.

    A cosmic ray raises the flux that it is compared with, so each pixel is compared with the flux
    of its sample *without* it.

    Parameters
    ----------
    view : tuple
        Image (ny, nx), its variance without the fibres' light, good pixels, and the slabs.
    flux, normal : ndarray, shape (nfib, nx)
        Present fluxes and the diagonal of their normal matrix.
    limits : RejectionLimits
        Limit [sigma] and relative tolerance.
    suspect : ndarray of bool, shape (nfib, nx), optional
        Samples to look at; by default all.

    Returns
    -------
    row, column : ndarray of int
        The pixels.
    excess, least : ndarray
        Their excess over the fit, and how much of it the limit asks for [electron].
    """
    value, noise, good, slabs = view
    model = np.zeros_like(value)
    for f, profile in enumerate(slabs.profile):
        model[slabs.rows(f)] += flux[f] * profile
    residual = value - model
    variance = _highest_near(model)
    variance *= limits.tolerance
    variance *= variance
    variance += np.maximum(model, 0, out=model)
    variance += noise
    del model
    hit = np.zeros(value.shape, dtype=bool)
    every = np.arange(value.shape[1])
    for f, profile in enumerate(slabs.profile):
        at = every if suspect is None else np.flatnonzero(suspect[f])
        if at.size == 0:
            continue
        rows, of = slabs.rows(f), (slice(None), slice(None) if at.size == every.size else at)
        shape = profile[of]
        pull = _pull_without(
            residual[rows][of], variance[rows][of], shape, flux[f, at], normal[f, at]
        )
        pull[~good[rows][of] | (shape <= 0)] = -np.inf
        worst = np.argmax(pull, axis=0)
        above = np.flatnonzero(pull[worst, np.arange(at.size)] > limits.sigma)
        hit[rows.start + worst[above], at[above]] = True
    row, column = np.nonzero(hit)
    # The pixel itself has raised its flux, so that less of its excess is left than it has.
    least = 0.5 * limits.sigma * np.sqrt(variance[row, column])
    return row, column, residual[row, column], least


def is_standing(
    left: FloatArray, row: IntArray, column: IntArray, excess: FloatArray, least: FloatArray
) -> BoolArray:
    """Tell light that goes on along the dispersion (ghosts, stray light) from cosmic rays.

    Parameters
    ----------
    left : ndarray, shape (ny, nx)
        Image without the fibres' light.
    row, column, excess : ndarray
        Suspected pixels and their excess.
    least : ndarray
        Excess that each pixel must have over its surroundings [electron].

    Returns
    -------
    ndarray of bool
        True where half of the excess is there also 3 to 12 columns to both sides (further than
        most tracks reach), or where the pixel does not stand out of what is there.
    """
    distance = np.concatenate([np.arange(-12, -2), np.arange(3, 13)])
    beside = np.clip(column[:, None] + distance, 0, left.shape[1] - 1)
    around = np.median(left[row[:, None], beside], axis=1)
    standing: BoolArray = (around > 0.5 * excess) | (excess - around < least)
    return standing


def _pull_without(
    residual: FloatArray,
    variance: FloatArray,
    profile: FloatArray,
    flux: FloatArray,
    normal: FloatArray,
) -> FloatArray:
    """Deviation of each pixel from the fit without it, in sigma.

    ``variance`` holds the noise of the light of all fibres; that of a flux which the pixel itself
    has raised is taken back.
    """
    leverage = np.minimum(profile**2 / (variance * np.maximum(normal, 1e-300)), 0.95)
    freed = residual / (1 - leverage)
    surplus = np.clip(leverage * freed, 0, np.maximum(flux * profile, 0))
    pull: FloatArray = freed * np.sqrt((1 - leverage) / (variance - surplus))
    return pull


def beside_cosmic(cosmic: BoolArray) -> BoolArray:
    """Find the 8 neighbours of rejected pixels."""
    wide = cosmic.copy()
    wide[1:] |= cosmic[:-1]
    wide[:-1] |= cosmic[1:]
    near = wide.copy()
    near[:, 1:] |= wide[:, :-1]
    near[:, :-1] |= wide[:, 1:]
    return np.asarray(near & ~cosmic)


def _highest_near(image: FloatArray) -> FloatArray:
    """Take the running maximum over 5 rows; rows beyond the edges do not count."""
    pair = image.copy()
    np.maximum(image[:-1], image[1:], out=pair[:-1])
    highest = pair.copy()
    np.maximum(highest[2:], pair[:-2], out=highest[2:])
    np.maximum(highest[1:], pair[:-1], out=highest[1:])
    np.maximum(highest[:-2], image[2:], out=highest[:-2])
    return highest
