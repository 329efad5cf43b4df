"""Several exposures or segments as one signal, and planes averaged with the shares of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kspecpipe.signal import DQ, UNUSABLE, BoolArray, DQArray, FloatArray, Signal


def stack_of(signals: Sequence[Signal]) -> Signal:
    """Return signals of one shape as one, along a new first axis."""
    return Signal(
        np.stack([signal.value for signal in signals]),
        np.stack([signal.variance for signal in signals]),
        np.stack([signal.dq for signal in signals]),
    )


def joined_dq(dq: DQArray, used: BoolArray) -> DQArray:
    """Join the informing bits of what was used; where nothing was, say why.

    Parameters
    ----------
    dq : ndarray of uint16, shape (n, nfib, nw)
        Bits of each member of a stack.
    used : ndarray of bool, shape (n, nfib, nw)
        Samples that have a share in the result.
    """
    informing = np.bitwise_or.reduce(np.where(used, dq & np.uint16(0xFFFF ^ UNUSABLE), 0), axis=0)
    joined: DQArray = np.bitwise_or.reduce(dq, axis=0)
    joined[(joined & np.uint16(UNUSABLE)) == 0] |= np.uint16(DQ.NO_DATA)
    some = used.any(axis=0)
    joined[some] = informing[some]
    return joined


def weighted_mean(rows: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the mean of a plane per member with the shares of the spectra; NaN without any.

    Parameters
    ----------
    rows : ndarray, shape (n, nfib, nw)
        The planes; NaN where they have no value.
    weight : ndarray, shape (n, nfib, nw)
        Shares.
    """
    share = np.where(np.isfinite(rows), weight, 0.0)
    total = share.sum(axis=0)
    mean = np.full(total.shape, np.nan)
    np.divide(np.nansum(rows * share, axis=0), total, out=mean, where=total > 0)
    return mean
