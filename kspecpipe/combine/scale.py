"""How bright each exposure of each fibre is, relative to the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.combine.smooth import median_of, running_mean
from kspecpipe.detector.order_statistics import MAD_TO_SIGMA
from kspecpipe.signal import FloatArray, Signal

#: Samples over which the template is averaged.
_TEMPLATE_WIDTH = 51
#: Signal-to-noise ratio of its factor from which a fibre tells of the exposure as a whole.
_BRIGHT = 20.0
#: Relative error beyond which the factor of an exposure counts as unmeasured.
_VAGUE = 0.1


@dataclass(frozen=True)
class Scales:
    """Factors of exposures relative to the mean of them.

    Parameters
    ----------
    value : ndarray, shape (nexp, nfib)
        Factor of each exposure and fibre; its mean over the exposures is 1.
    common : ndarray, shape (nexp,)
        Factor of each exposure, all fibres together.
    error : ndarray, shape (nexp,)
        Error of ``common``; infinite where the fibres have too little light to tell.
    """

    value: FloatArray
    common: FloatArray
    error: FloatArray


def relative_scales(stack: Signal, expected: FloatArray, *, per_fibre: bool = True) -> Scales:
    """Measure by which factor the fluxes of each exposure differ from those of the others.

    Each spectrum is compared with a smoothed median of all exposures. A fibre keeps a factor of its
    own as far as its light supports one: the factors of faint fibres are drawn to that of their
    exposure, with the scatter that the bright fibres show (an empirical Bayes estimate [1]_).

    Parameters
    ----------
    stack : Signal, shape (nexp, nfib, nw)
        Spectra of the exposures on one grid.
    expected : ndarray, shape (nexp,)
        What to take where there is too little light, such as the exposure times.
    per_fibre : bool
        False: one factor for all fibres of an exposure.

    References
    ----------
    .. [1] Efron & Morris 1975, J. Am. Stat. Assoc. 70, 311.
    """
    factor, error = _factors(stack)
    common, common_error = _common(factor, error, np.asarray(expected, dtype=float))
    value = np.repeat(common[:, None], stack.shape[1], axis=1)
    if per_fibre:
        scatter = np.array(
            [_scatter(row, sigma, c) for row, sigma, c in zip(factor, error, common, strict=True)]
        )
        known = np.isfinite(common_error)
        value = np.where(known[:, None], _drawn(factor, error, common, scatter), value)
    level = common.mean()
    return Scales(value / value.mean(axis=0), common / level, common_error / level)


def unit_scales(shape: tuple[int, ...]) -> Scales:
    """Return factors of 1, shape (nexp, nfib)."""
    return Scales(np.ones(shape), np.ones(shape[0]), np.zeros(shape[0]))


def _factors(stack: Signal) -> tuple[FloatArray, FloatArray]:
    """Return the factor of each exposure and fibre to the template, and its error."""
    good = stack.good & (stack.variance > 0)
    value, variance = (np.where(good, part, np.nan) for part in (stack.value, stack.variance))
    middle, typical = median_of(value), median_of(variance)
    template = running_mean(middle, _TEMPLATE_WIDTH)
    # Cosmic rays and stars of another brightness must not look alike: only spikes are left out.
    spike = np.abs(value - middle) > 8 * np.sqrt(typical) + 0.5 * np.abs(middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.where(good & ~spike & np.isfinite(template), template / typical, 0.0)
        weight[~np.isfinite(weight)] = 0.0
        total = np.sum(weight * np.nan_to_num(template), axis=-1)
        factor = np.sum(weight * np.nan_to_num(value), axis=-1) / total
        error = np.sqrt(np.sum(weight**2 * np.nan_to_num(variance), axis=-1)) / np.abs(total)
    known = np.isfinite(factor) & np.isfinite(error) & (error > 0)
    return np.where(known, factor, np.nan), np.where(known, error, np.inf)


def _common(
    factor: FloatArray, error: FloatArray, expected: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return one factor per exposure: the median of bright fibres, else the weighted mean."""
    common, sigma = expected / expected.mean(), np.full(len(expected), np.inf)
    for i, (row, own) in enumerate(zip(factor, error, strict=True)):
        bright = np.isfinite(row) & (row > _BRIGHT * own)
        weight = np.where(np.isfinite(row), own**-2.0, 0.0)
        if weight.sum() == 0 or weight.sum() ** -0.5 > _VAGUE:
            continue
        mean = np.sum(weight * np.nan_to_num(row)) / weight.sum()
        common[i] = np.median(row[bright]) if bright.sum() >= 3 else mean
        sigma[i] = weight.sum() ** -0.5
    if np.isfinite(sigma).all():
        return common, sigma
    return expected / expected.mean(), np.full(len(expected), np.inf)


def _scatter(factor: FloatArray, error: FloatArray, common: float) -> float:
    """Return the scatter of the fibres' true factors, as far as it exceeds their errors."""
    bright = np.isfinite(factor) & (factor > _BRIGHT * error)
    if bright.sum() < 3:
        return 0.0
    seen = MAD_TO_SIGMA * np.median(np.abs(factor[bright] - common))
    return float(np.sqrt(max(0.0, seen**2 - np.median(error[bright]) ** 2)))


def _drawn(
    factor: FloatArray, error: FloatArray, common: FloatArray, scatter: FloatArray
) -> FloatArray:
    """Return each factor, drawn to the common one in proportion to the variances.

    A fibre that is off by more than 2 sigma is an exception: its own distance counts as scatter.
    """
    away = np.nan_to_num(factor) - common[:, None]
    own = np.maximum(scatter[:, None] ** 2, away**2 - 4 * error**2)
    own = np.where(np.isfinite(factor), own, 0.0)
    share = np.divide(own, own + error**2, out=np.zeros_like(own), where=np.isfinite(error))
    return common[:, None] + share * away
