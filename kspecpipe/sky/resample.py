"""Linear maps from the samples of spectra to new pixels, with the covariance that they cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kspecpipe.signal import DQ, UNUSABLE, BoolArray, DQArray, FloatArray, IntArray, Signal

Kernel = Literal["cubic", "overlap"]

#: Lags at which the correlation of a rebinned spectrum is measured: 1 to this many samples.
LAGS = 3
#: Grid pixels per fibre from which the mean correlation is measured.
_CORRELATION_SAMPLES = 128
#: Virtual pixels on either side of a spectrum; farther targets see nothing.
_FAR = 10_000


@dataclass(frozen=True, slots=True)
class Rebinned:
    """Rebinned spectra and how strongly their neighbouring samples correlate.

    Parameters
    ----------
    signal : Signal, shape (nfib, nw)
        Flux per new pixel; its variance is the diagonal of the covariance.
    correlation : ndarray, shape (nfib, nlag)
        Mean correlation coefficient of samples 1, 2, ... pixels apart; NaN without data.
    """

    signal: Signal
    correlation: FloatArray


@dataclass(frozen=True, slots=True)
class Resampling:
    """A linear map from the samples of each fibre to new pixels, ready to be used many times.

    Spectra which will be subtracted from one another must go through the *same* map, bad samples
    included: only then do their differences keep no trace of the resampling.

    Parameters
    ----------
    first : ndarray of int, shape (nfib, nt)
        Sample that the first tap of each new pixel reads; may lie outside the spectrum.
    weight : ndarray, shape (ntap, nfib, nt)
        Weight of each tap; 0 for unusable samples.
    touched : ndarray of bool, shape (ntap, nfib, nt)
        Samples that share area with the new pixel.
    lost : ndarray of bool, shape (nfib, nt)
        New pixels in which nothing usable is left.
    n_source : int
        Samples per fibre of the spectra to be mapped.
    """

    first: IntArray
    weight: FloatArray
    touched: BoolArray
    lost: BoolArray
    n_source: int

    def values(self, samples: FloatArray) -> FloatArray:
        """Map values; NaN where nothing usable is left.

        Parameters
        ----------
        samples : ndarray, shape (nfib, nx)
            Flux per sample; unusable samples may be NaN.
        """
        total = np.zeros(self.first.shape)
        clean = np.where(np.isfinite(samples), samples, 0.0)
        for tap, weight in enumerate(self.weight):
            total += weight * np.take_along_axis(clean, self._index(tap), axis=1)
        return np.where(self.lost, np.nan, total)

    def apply(self, spectra: Signal, correlation: FloatArray | None = None) -> Rebinned:
        """Map value, variance and DQ.

        Parameters
        ----------
        spectra : Signal, shape (nfib, nx)
            Flux per sample.
        correlation : ndarray, shape (nfib, nlag), optional
            Correlation of neighbouring input samples (lag 1 first); independent without it.

        Returns
        -------
        Rebinned
            NaN with the bits of what was lost, and NO_DATA outside the coverage; elsewhere
            informing bits only.
        """
        sigma = np.sqrt(np.where(np.isfinite(spectra.variance), spectra.variance, 0.0))
        rho = np.zeros((len(sigma), 0)) if correlation is None else np.nan_to_num(correlation)
        every = np.arange(self.first.shape[1])
        variance = self._covariance(sigma, rho, 0, every)
        signal = Signal(
            self.values(spectra.value),
            np.where(self.lost, np.nan, variance),
            self._flags(spectra.dq),
        )
        return Rebinned(signal, self._correlation(sigma, rho))

    def touches(self, samples: BoolArray) -> BoolArray:
        """Find new pixels that use one of some samples, shape (nfib, nx)."""
        found = np.zeros(self.first.shape, bool)
        for tap, weight in enumerate(self.weight):
            inside = (self.first + tap >= 0) & (self.first + tap < self.n_source)
            marked = np.take_along_axis(samples, self._index(tap), axis=1)
            found |= (weight != 0) & inside & marked
        return found

    def _index(self, tap: int) -> IntArray:
        return np.clip(self.first + tap, 0, self.n_source - 1)

    def _flags(self, dq: DQArray) -> DQArray:
        joined = np.zeros(self.first.shape, np.uint16)
        for tap, touched in enumerate(self.touched):
            joined |= np.where(touched, np.take_along_axis(dq, self._index(tap), axis=1), 0)
        informing = joined & np.uint16(0xFFFF ^ UNUSABLE)
        why = np.where(joined & np.uint16(UNUSABLE), joined, joined | np.uint16(DQ.NO_DATA))
        return np.where(self.lost, why, informing).astype(np.uint16)

    def _covariance(
        self, sigma: FloatArray, rho: FloatArray, lag: int, columns: IntArray
    ) -> FloatArray:
        """Covariance of the new pixels ``columns`` with those ``lag`` to their right."""
        total = np.zeros((len(sigma), len(columns)))
        near = self._columns(sigma, columns)
        far = self._columns(sigma, columns + lag) if lag else near
        step = self.first[:, columns] - self.first[:, columns + lag]
        taps = len(self.weight)
        for shift in range(-rho.shape[1], rho.shape[1] + 1):
            strength = 1.0 if shift == 0 else rho[:, abs(shift) - 1, None]
            for tap in range(taps):
                if lag:
                    total += strength * near[tap] * _pick(far, step + tap + shift)
                elif 0 <= tap + shift < taps:
                    total += strength * near[tap] * near[tap + shift]
        return total

    def _columns(self, sigma: FloatArray, columns: IntArray) -> FloatArray:
        """Weight times error of every tap of some new pixels, shape (ntap, nfib, ncolumn)."""
        tap = np.arange(len(self.weight))[:, None, None]
        index = np.clip(self.first[None, :, columns] + tap, 0, self.n_source - 1)
        fibre = np.arange(len(sigma))[None, :, None]
        product: FloatArray = self.weight[:, :, columns] * sigma[fibre, index]
        return product

    def _correlation(self, sigma: FloatArray, rho: FloatArray) -> FloatArray:
        new = self.first.shape[1]
        mean = np.full((len(sigma), LAGS), np.nan)
        for lag in range(1, min(LAGS, new - 1) + 1):
            columns = np.arange(0, new - lag, max(1, (new - lag) // _CORRELATION_SAMPLES))
            left = self._covariance(sigma, rho, 0, columns)
            right = self._covariance(sigma, rho, 0, columns + lag)
            shared = self._covariance(sigma, rho, lag, columns)
            norm = np.sqrt(left * right)
            usable = (norm > 0) & ~(self.lost[:, columns] | self.lost[:, columns + lag])
            ratio = np.divide(shared, norm, out=np.zeros_like(norm), where=usable)
            count = usable.sum(axis=1)
            mean[:, lag - 1] = np.where(count > 0, ratio.sum(axis=1) / np.maximum(count, 1), np.nan)
        return mean


def _pick(taps: FloatArray, which: IntArray) -> FloatArray:
    """Take one tap (ntap, nfib, ncolumn) of each new pixel; 0 where there is no such tap."""
    inside = (which >= 0) & (which < len(taps))
    picked = np.take_along_axis(taps, np.clip(which, 0, len(taps) - 1)[None], axis=0)[0]
    return np.where(inside, picked, 0.0)


def plan_resampling(
    source: FloatArray, target: FloatArray, good: BoolArray, kernel: Kernel
) -> Resampling:
    """Work out the weights: the kernel where all that it needs is usable, else the good overlap.

    Parameters
    ----------
    source : ndarray, shape (nfib, nx + 1)
        Rising edges of the samples.
    target : ndarray, shape (nfib, nt + 1)
        Rising edges of the new pixels, in the same unit.
    good : ndarray of bool, shape (nfib, nx)
        Samples that may be used.
    kernel : {"cubic", "overlap"}
        ``overlap`` shares each sample's flux by area; ``cubic`` interpolates the cumulative flux
        with cubics.
    """
    n = good.shape[1]
    position = _positions(source, target)
    cell = np.floor(position).astype(np.intp)
    first = cell[:, :-1] - 1
    taps = int((cell[:, 1:] - first).max()) + 2
    overlap = np.stack([_overlap(position, first + tap) for tap in range(taps)])
    usable = np.stack([_usable(good, first + tap, n) for tap in range(taps)])
    weight = overlap * usable
    kept, whole = weight.sum(axis=0), overlap.sum(axis=0)
    lost = kept <= 1e-6 * whole
    weight *= np.where(lost, 0.0, whole / np.where(lost, 1.0, kept))
    if kernel == "cubic":
        cubic = _cubic_weights(position, cell, first, taps)
        intact = (usable | (cubic == 0)).all(axis=0)
        weight = np.where(intact, cubic, weight)
    return Resampling(first, weight, (overlap > 1e-6) & _inside(first, taps, n), lost, n)


def _positions(source: FloatArray, target: FloatArray) -> FloatArray:
    """Target edges in units of source edges; 0 is the lower edge of the first sample."""
    n = source.shape[1] - 1
    index = np.concatenate([[-_FAR], np.arange(n + 1), [n + _FAR]])
    low = source[:, :1] - _FAR * (source[:, 1:2] - source[:, :1])
    high = source[:, -1:] + _FAR * (source[:, -1:] - source[:, -2:-1])
    padded = np.hstack([low, source, high])
    return np.stack([np.interp(t, s, index) for t, s in zip(target, padded, strict=True)])


def _overlap(position: FloatArray, sample: IntArray) -> FloatArray:
    """Part of a source sample that lies inside each target pixel."""
    low = np.maximum(position[:, :-1], sample)
    area: FloatArray = np.maximum(np.minimum(position[:, 1:], sample + 1) - low, 0.0)
    return area


def _usable(good: BoolArray, sample: IntArray, n: int) -> BoolArray:
    inside = (sample >= 0) & (sample < n)
    usable: BoolArray = inside & np.take_along_axis(good, np.clip(sample, 0, n - 1), axis=1)
    return usable


def _inside(first: IntArray, taps: int, n: int) -> BoolArray:
    sample = first + np.arange(taps)[:, None, None]
    inside: BoolArray = (sample >= 0) & (sample < n)
    return inside


def _cubic_weights(position: FloatArray, cell: IntArray, first: IntArray, taps: int) -> FloatArray:
    """Weights of the samples in the difference of the cumulative flux at the two edges of a pixel.

    The cumulative flux at a fractional edge is the Lagrange cubic through four source edges; the
    differences telescope, so that every sample's weights sum to 1 over the grid.
    """
    f = position - cell
    before = -f * (f - 1) * (f - 2) / 6
    upper, far = -(f + 1) * f * (f - 2) / 2, (f + 1) * f * (f - 1) / 6
    # Share left of the edge: of samples up to cell - 2, of cell - 1, cell, cell + 1, and beyond.
    share = (np.ones_like(f), 1 - before, upper + far, far, np.zeros_like(f))
    low, high = ([part[:, side] for part in share] for side in (slice(None, -1), slice(1, None)))
    weight = np.empty((taps, *first.shape))
    for tap in range(taps):
        sample = first + tap
        weight[tap] = np.choose(np.clip(sample - cell[:, 1:] + 2, 0, 4), high)
        # the lower edge always lies in the second tap
        weight[tap] -= low[min(tap + 1, 4)]
    return weight
