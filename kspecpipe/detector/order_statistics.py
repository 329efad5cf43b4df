"""Median and median absolute deviation of many short columns at once.

A sorting network compares whole rows (`np.minimum`, `np.maximum`), so the work is done by vector
instructions on data that stays in the processor's cache: ten times faster than sorting columns.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray

#: Standard deviation of a normal distribution in units of its median absolute deviation.
MAD_TO_SIGMA = 1.482602218505602


@cache
def sorting_network(n: int) -> tuple[tuple[int, int], ...]:
    """List the comparators that sort ``n`` values: Batcher's merge exchange.

    References
    ----------
    .. [1] Knuth, The Art of Computer Programming, vol. 3, section 5.2.2, algorithm M.
    """
    comparators: list[tuple[int, int]] = []
    top = 1 << max((n - 1).bit_length() - 1, 0)
    p = top
    while p > 0 and n > 1:
        q, r, distance = top, 0, p
        while True:
            comparators += [(i, i + distance) for i in range(n - distance) if i & p == r]
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2
    return tuple(comparators)


def sort_planes(block: FloatArray) -> list[FloatArray]:
    """Sort along the first axis; returns one array per rank, lowest first.

    A column with a NaN becomes NaN in part of its ranks.
    """
    ranks: list[FloatArray] = list(block.copy())
    spare = np.empty_like(ranks[0])
    for i, j in sorting_network(len(ranks)):
        low, high = ranks[i], ranks[j]
        np.minimum(low, high, out=spare)
        np.maximum(low, high, out=high)
        ranks[i], spare = spare, low
    return ranks


def median_of_sorted(ranks: list[FloatArray]) -> FloatArray:
    """Median of sorted planes."""
    n = len(ranks)
    if n % 2:
        return ranks[n // 2].copy()
    return (ranks[n // 2 - 1] + ranks[n // 2]) * np.float32(0.5)


def mad_of_deviations(below: list[FloatArray], above: list[FloatArray]) -> FloatArray:
    """Median absolute deviation from the deviations below and above the median, each rising.

    Both lists are sorted, so the k-th smallest of their union needs no further sort. For an odd
    number of values the median itself (deviation 0) belongs to neither list.
    """
    half = len(below)
    if len(above) != half:
        raise ValueError(f"{half} deviations below the median but {len(above)} above")
    return _union_rank(below, above, half)


def mad_of_even_deviations(below: list[FloatArray], above: list[FloatArray]) -> FloatArray:
    """As `mad_of_deviations` for an even number of values: the mean of the two middle ones."""
    upper = _union_rank(below, above, len(below) + 1)
    upper += mad_of_deviations(below, above)
    upper *= np.float32(0.5)
    return upper


def masked_median_and_mad(values: FloatArray, keep: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Median and MAD along the first axis of the values to keep; NaN where there are none."""
    center = _masked_median(values, keep)
    return center, _masked_median(np.abs(values - center), keep)


def _masked_median(values: FloatArray, keep: BoolArray) -> FloatArray:
    count = keep.sum(axis=0)
    ranked = np.sort(np.where(keep, values, np.inf), axis=0)
    low = np.take_along_axis(ranked, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ranked, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    middle: FloatArray = np.where(count > 0, (low + high) * np.float32(0.5), np.float32(np.nan))
    return middle


def _union_rank(first: list[FloatArray], second: list[FloatArray], k: int) -> FloatArray:
    """Return the k-th smallest (from 1) of two sorted lists.

    Taking i of the first and k - i of the second list, the larger of their last ones is smallest
    for the right i.
    """
    a, b = len(first), len(second)
    best: FloatArray | None = None
    scratch = np.empty_like(first[0])
    for i in range(max(0, k - b), min(a, k) + 1):
        if i == 0:
            last = second[k - 1]
        elif i == k:
            last = first[k - 1]
        else:
            last = np.maximum(first[i - 1], second[k - i - 1], out=scratch)
        best = last.copy() if best is None else np.minimum(best, last, out=best)
    if best is None:
        raise ValueError(f"rank {k} of {a + b} values")
    return best
