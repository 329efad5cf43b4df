"""The mean of several exposures of the same fibres, without what only one of them shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from kspecpipe.combine.smooth import block_median, median_of
from kspecpipe.combine.stack import joined_dq
from kspecpipe.signal import BoolArray, FloatArray, Signal

#: Samples over which the ratio of the exposures' variances is taken as smooth.
_WEIGHT_BLOCK = 64
#: Samples beside a rejected one go with it when they stick out by this many sigma.
_FLANK_SIGMA = 2.0
_FLANK = 3


@dataclass(frozen=True)
class Coaddition:
    """A mean of exposures.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Weighted mean.
    weight : ndarray, shape (nexp, nfib, nw)
        Share of each exposure in each sample; the shares sum to 1, or to 0 where nothing is left.
    rejected : ndarray of bool, shape (nexp, nfib, nw)
        Usable samples that the other exposures contradict.
    chi2 : ndarray, shape (nfib,)
        Reduced chi-squared of the exposures about their mean; NaN with a single one.
    """

    spectra: Signal
    weight: FloatArray
    rejected: BoolArray
    chi2: FloatArray


def coadd(stack: Signal, *, reject_sigma: float = 4.5, model_error: float = 0.01) -> Coaddition:
    """Average exposures, weighted by their inverse variance, without outliers.

    Weights and rejection limits come from smooth ratios of the exposures' variances, not from the
    variance of each sample: that one goes with the noise of the sample itself, so that low values
    would weigh more, and a cosmic ray would excuse itself by its own photon noise.

    Parameters
    ----------
    stack : Signal, shape (nexp, nfib, nw)
        Spectra on one grid and one scale.
    reject_sigma : float
        Deviation from the mean of the other exposures beyond which a sample is left out, worst
        first; of two exposures that contradict each other the brighter is left out. 0: none.
    model_error : float
        Relative difference between exposures that is no sign of an outlier.

    Raises
    ------
    ValueError
        If the stack is not three-dimensional.
    """
    if stack.value.ndim != 3:
        raise ValueError(f"a stack of exposures has three axes, not {stack.value.ndim}")
    good = stack.good & (stack.variance > 0)
    value = np.where(good, stack.value, 0.0)
    typical = _typical_variance(stack, good)
    rejected = np.zeros(good.shape, bool)
    if reject_sigma > 0 and len(value) > 1:
        rejected = _outliers(value, typical, good, reject_sigma, model_error)
    kept = good & ~rejected
    weight = np.where(kept, 1.0 / typical, 0.0)
    total = weight.sum(axis=0)
    weight /= np.where(total > 0, total, 1.0)
    mean = np.where(total > 0, np.sum(weight * value, axis=0), np.nan)
    variance = np.sum(weight**2 * np.where(kept, stack.variance, 0.0), axis=0)
    signal = Signal(mean, np.where(total > 0, variance, np.nan), joined_dq(stack.dq, kept))
    return Coaddition(signal, weight, rejected, _chi2(value, typical, kept, mean))


def _typical_variance(stack: Signal, good: BoolArray) -> FloatArray:
    """Return the variance that each sample should have beside the other exposures."""
    variance = np.where(good, stack.variance, np.nan)
    middle = median_of(variance)
    ratio = block_median(variance / middle, _WEIGHT_BLOCK)
    typical = ratio * middle
    return np.where(good & (typical > 0), typical, np.where(good, stack.variance, 1.0))


def _outliers(
    value: FloatArray, variance: FloatArray, good: BoolArray, sigma: float, model_error: float
) -> BoolArray:
    """Leave out the worst exposure of each sample until all that are left agree."""
    kept = good.reshape(len(good), -1).copy()
    flat_value, flat_variance = (part.reshape(len(good), -1) for part in (value, variance))
    left = np.arange(kept.shape[1])
    for _ in range(len(value) - 1):
        among = kept[:, left]
        excess, side = _deviation(flat_value[:, left], flat_variance[:, left], among, model_error)
        # Two exposures contradict each other equally; light that comes and goes is added light.
        worst = np.argmax(np.where(among, excess * (1 + 1e-6 * side), -1.0), axis=0)
        beyond = excess[worst, np.arange(len(left))] > sigma
        left, worst = left[beyond], worst[beyond]
        if not left.size:
            break
        kept[worst, left] = False
    accepted = kept.reshape(good.shape)
    return good & (~accepted | _flanks(value, variance, good, accepted, model_error))


def _flanks(
    value: FloatArray, variance: FloatArray, good: BoolArray, kept: BoolArray, model_error: float
) -> BoolArray:
    """Find samples beside rejected ones that stick out too: the kernel has spread an event."""
    excess, _ = _deviation(value, variance, kept, model_error)
    beside = np.ones((1, 1, 3), bool)
    sticks_out = good & (excess > _FLANK_SIGMA)
    grown: BoolArray = binary_dilation(good & ~kept, beside, iterations=_FLANK, mask=sticks_out)
    return grown


def _deviation(
    value: FloatArray, variance: FloatArray, kept: BoolArray, model_error: float
) -> tuple[FloatArray, FloatArray]:
    """Return the distance of each sample from the mean of the other exposures [sigma], its sign."""
    weight = np.where(kept, 1.0 / variance, 0.0)
    others = weight.sum(axis=0) - weight
    alone = others <= 0
    safe = np.where(alone, 1.0, others)
    mean = (np.sum(weight * value, axis=0) - weight * value) / safe
    noise = np.sqrt(variance + 1.0 / safe + (model_error * mean) ** 2)
    distance = np.where(alone, 0.0, (value - mean) / noise)
    return np.abs(distance), np.sign(distance)


def _chi2(value: FloatArray, variance: FloatArray, kept: BoolArray, mean: FloatArray) -> FloatArray:
    """Return the reduced chi-squared of each fibre's exposures."""
    freedom = np.maximum(kept.sum(axis=0) - 1, 0)
    terms = np.where(kept, (value - np.nan_to_num(mean)) ** 2 / variance, 0.0).sum(axis=0)
    total = freedom.sum(axis=-1)
    terms = np.where(freedom > 0, terms, 0.0).sum(axis=-1)
    chi2 = np.full(len(total), np.nan)
    np.divide(terms, total, out=chi2, where=total > 0)
    return chi2
