"""Bring the fibres of an arc onto each other, by cross-correlation, and stack them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.wavelength.peaks import compress, line_noise, subtract_continuum


@dataclass(frozen=True)
class Stack:
    """Sum of the aligned fibres.

    Parameters
    ----------
    value, variance : ndarray, shape (nx,)
        Sum of the fibres [electron], gaps filled.
    saturated : ndarray of bool, shape (nx,)
        True where some fibre's sample could not be used.
    shift : ndarray, shape (nfib,)
        How far the lines of each fibre lie to the right of the reference's [pixel]; NaN for
        fibres that were not used.
    quality : ndarray, shape (nfib,)
        Correlation coefficient of each fibre with the reference.
    """

    value: FloatArray
    variance: FloatArray
    saturated: BoolArray
    shift: FloatArray
    quality: FloatArray


def fill_gaps(value: FloatArray, good: BoolArray) -> FloatArray:
    """Interpolate samples that cannot be used along x; rows without any good sample become 0."""
    filled = np.where(good, value, 0.0)
    x = np.arange(value.shape[-1])
    for row in np.flatnonzero(good.any(axis=-1) & ~good.all(axis=-1)):
        filled[row] = np.interp(x, x[good[row]], value[row, good[row]])
    return filled


def line_spectra(spectra: Signal) -> FloatArray:
    """Compressed, continuum-free spectra (nfib, nx) in which faint and bright lines both count."""
    filled = fill_gaps(np.asarray(spectra.value, float), spectra.good)
    lines = subtract_continuum(filled)
    variance = np.where(spectra.good, spectra.variance, np.nanmedian(spectra.variance))
    noise = np.stack([line_noise(*pair) for pair in zip(lines, variance, strict=True)])
    return compress(lines / noise)


def measure_shifts(
    weights: FloatArray, reference: FloatArray, reach: int
) -> tuple[FloatArray, FloatArray]:
    """Shift of spectra against a reference from the maximum of their cross-correlation.

    Parameters
    ----------
    weights : ndarray, shape (n, nx)
        Compressed spectra.
    reference : ndarray, shape (nx,)
        Compressed reference.
    reach : int
        Largest shift either way [pixel].

    Returns
    -------
    shift : ndarray, shape (n,)
        Positive when the spectrum lies to the right of the reference [pixel].
    quality : ndarray, shape (n,)
        Correlation coefficient there.
    """
    size = weights.shape[1] + reach + 1
    spectra = weights - weights.mean(axis=1, keepdims=True)
    template = reference - reference.mean()
    product = np.fft.rfft(spectra, size) * np.conj(np.fft.rfft(template, size))
    correlation = np.fft.irfft(product, size)
    lags = np.arange(-reach, reach + 1)
    window = correlation[:, lags]
    best = np.clip(window.argmax(axis=1), 1, 2 * reach - 1)
    row = np.arange(len(window))
    left, middle, right = (window[row, best + k] for k in (-1, 0, 1))
    curvature = np.minimum(left - 2 * middle + right, -1e-12)
    shift = lags[best] + np.clip(0.5 * (left - right) / curvature, -1, 1)
    norm = np.sqrt(np.sum(spectra**2, axis=1) * np.sum(template**2))
    return shift, middle / np.maximum(norm, 1e-12)


def stack_fibres(spectra: Signal, live: BoolArray, reach: int = 15) -> Stack:
    """Align the live fibres on the middle one and add them.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted arc [electron]; samples that are not good are bridged.
    live : ndarray of bool, shape (nfib,)
        Fibres to use.
    reach : int
        Largest shift between fibres [pixel].

    Returns
    -------
    Stack
        On the pixels of the reference, with every fibre's shift.
    """
    use = np.flatnonzero(live & spectra.good.any(axis=1))
    chosen = spectra.select(use)
    weights = line_spectra(chosen)
    strength = np.sum(weights, axis=1)
    middle = np.abs(use - (len(live) - 1) / 2)
    first = int(np.argmax(strength / (1 + middle / max(len(live), 1))))
    shift, quality = measure_shifts(weights, weights[first], reach)
    # A second pass against the sum: the reference is no longer one noisy fibre.
    reference = _shift_rows(weights, shift).mean(axis=0)
    shift, quality = measure_shifts(weights, reference, reach)
    shift = shift - np.interp((len(live) - 1) / 2, use, shift)
    good = chosen.good
    value = _shift_rows(fill_gaps(np.asarray(chosen.value, float), good), shift)
    noise = np.where(good, chosen.variance, 0.0) + 1e-12
    full = np.full(len(live), np.nan)
    shifts, qualities = full.copy(), full.copy()
    shifts[use], qualities[use] = shift, quality
    return Stack(
        value.sum(axis=0),
        _shift_rows(noise, shift).sum(axis=0),
        _shift_rows((~good).astype(float), shift).mean(axis=0) > 0.2,
        shifts,
        qualities,
    )


def _shift_rows(rows: FloatArray, shift: FloatArray) -> FloatArray:
    """Sample each row at x + its shift; edges repeat."""
    x = np.arange(rows.shape[1])
    return np.stack([np.interp(x + s, x, row) for row, s in zip(rows, shift, strict=True)])
