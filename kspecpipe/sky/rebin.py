"""Rebin fibre spectra between native pixels and a common wavelength grid, conserving flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.sky.resample import Kernel, Rebinned, Resampling, plan_resampling


@dataclass(frozen=True)
class Grid:
    """Linear wavelength grid.

    Parameters
    ----------
    start : float
        Centre of the first pixel [Angstrom].
    step : float
        Width of a pixel [Angstrom].
    n : int
        Number of pixels.

    Raises
    ------
    ValueError
        If the step or the number of pixels is not positive.
    """

    start: float
    step: float
    n: int

    def __post_init__(self) -> None:
        """Refuse a grid without pixels."""
        if not (self.step > 0 and self.n >= 1 and np.isfinite(self.start)):
            raise ValueError(f"{self}: step and n must be positive and start finite")

    @classmethod
    def from_wavelength(cls, wavelength: FloatArray) -> Grid:
        """Cover all fibres at their median dispersion.

        Step and start are rounded (to 4 digits, and to a multiple of the step), so that nights of
        one mode tend to share their grid.

        Parameters
        ----------
        wavelength : ndarray, shape (nfib, nx)
            Wavelength of pixel centres, rising [Angstrom]; dead fibres are NaN.

        Raises
        ------
        ValueError
            If no fibre has wavelengths, or they fall.
        """
        live = _live_fibres(wavelength)
        if not live.any():
            raise ValueError("no fibre has wavelengths; a grid cannot be derived")
        exact = float(np.median(np.diff(wavelength[live], axis=1)))
        step = float(np.format_float_scientific(exact, precision=3, unique=False))
        first, last = float(wavelength[live, 0].min()), float(wavelength[live, -1].max())
        start = round(first / step) * step
        return cls(start, step, int(round((last - start) / step)) + 1)

    @property
    def wavelength(self) -> FloatArray:
        """Pixel centres, shape (n,) [Angstrom]."""
        return self.start + self.step * np.arange(self.n)

    @property
    def edges(self) -> FloatArray:
        """Pixel edges, shape (n + 1,) [Angstrom]."""
        return self.start + self.step * (np.arange(self.n + 1) - 0.5)


def plan_rebin(
    wavelength: FloatArray, grid: Grid, good: BoolArray, *, kernel: Kernel = "cubic"
) -> Resampling:
    """Work out the map from native pixels to a grid.

    Parameters
    ----------
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres, rising [Angstrom]; NaN throughout for a dead fibre.
    grid : Grid
        Target grid.
    good : ndarray of bool, shape (nfib, nx)
        Samples that may be used.
    kernel : {"cubic", "overlap"}
        ``overlap`` shares each sample's flux by area; ``cubic`` interpolates the cumulative flux
        with cubics: it conserves flux too, keeps lines as narrow as they are, and correlates
        neighbours less.

    Raises
    ------
    ValueError
        If shapes disagree or wavelengths do not rise.
    """
    live = _check(wavelength, good)
    target = np.broadcast_to(grid.edges, (len(wavelength), grid.n + 1))
    return plan_resampling(_edges(wavelength, live), target, good & live[:, None], kernel)


def rebin(
    spectra: Signal, wavelength: FloatArray, grid: Grid, *, kernel: Kernel = "cubic"
) -> Rebinned:
    """Rebin native spectra onto a wavelength grid, in one resampling which conserves flux.

    Where bad samples take part of a grid pixel, its flux is scaled from the good part and its
    variance grows accordingly; it is NaN only where nothing usable is left.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Flux [electron per native pixel].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres, rising [Angstrom].
    grid : Grid
        Target grid.
    kernel : {"cubic", "overlap"}
        See `plan_rebin`.

    Returns
    -------
    Rebinned
        Flux [electron per grid pixel], shape (nfib, nw). Outside the coverage NaN with NO_DATA.

    Raises
    ------
    ValueError
        If shapes disagree or wavelengths do not rise.
    """
    return plan_rebin(wavelength, grid, spectra.good, kernel=kernel).apply(spectra)


def rebin_back(
    spectra: Signal, grid: Grid, wavelength: FloatArray, *, kernel: Kernel = "cubic"
) -> Rebinned:
    """Rebin gridded spectra onto native pixels, the reverse of `rebin`.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Flux [electron per grid pixel].
    grid : Grid
        Grid of ``spectra``.
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of native pixel centres, rising [Angstrom].
    kernel : {"cubic", "overlap"}
        See `plan_rebin`.

    Returns
    -------
    Rebinned
        Flux [electron per native pixel], shape (nfib, nx).

    Raises
    ------
    ValueError
        If shapes disagree or wavelengths do not rise.
    """
    if spectra.shape != (len(wavelength), grid.n):
        raise ValueError(
            f"spectra {spectra.shape} do not fit {len(wavelength)} fibres of {grid.n} pixels"
        )
    live = _check(wavelength, np.ones(wavelength.shape, bool))
    source = np.broadcast_to(grid.edges, (len(wavelength), grid.n + 1))
    target = _edges(wavelength, live)
    return plan_resampling(source, target, spectra.good & live[:, None], kernel).apply(spectra)


def inflate_errors(
    variance: FloatArray, correlation: FloatArray, smoothing: int | FloatArray
) -> FloatArray:
    """Correct the variance of a smoothed spectrum for the correlation of its samples.

    Parameters
    ----------
    variance : ndarray, shape (nfib, nw)
        Variance after smoothing or summing, propagated as if samples were independent.
    correlation : ndarray, shape (nfib, nlag)
        Correlation coefficients at lags 1, 2, ..., as in `Rebinned`.
    smoothing : int or ndarray, shape (nkernel,)
        Pixels averaged, or the weights of the smoothing kernel.

    Returns
    -------
    ndarray, shape (nfib, nw)
        Variance that the smoothed spectrum really has.

    Raises
    ------
    ValueError
        If the kernel is empty or the numbers of fibres differ.
    """
    weights = np.ones(smoothing) if isinstance(smoothing, int) else np.asarray(smoothing, float)
    if weights.ndim != 1 or not np.any(weights):
        raise ValueError(f"smoothing {smoothing!r} is neither a positive width nor a kernel")
    if len(variance) != len(correlation):
        raise ValueError(f"{len(variance)} fibres of variance, {len(correlation)} of correlation")
    products = np.correlate(weights, weights, mode="full")[len(weights) - 1 :]
    lags = min(correlation.shape[1], len(products) - 1)
    shared = correlation[:, :lags] @ products[1 : lags + 1]
    inflated: FloatArray = variance * (1 + 2 * shared / products[0])[:, None]
    return inflated


def fibre_edges(wavelength: FloatArray) -> FloatArray:
    """Wavelengths of pixel edges, interpolated by cubics between pixel centres.

    Parameters
    ----------
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom]; NaN for dead fibres.

    Returns
    -------
    ndarray, shape (nfib, nx + 1)
        Wavelength of the edges [Angstrom].
    """
    inner = (wavelength[:, 1:] + wavelength[:, :-1]) / 2
    # The midpoint of a curved dispersion is not the mean of its neighbours.
    inner[:, 1:-1] += (inner[:, 1:-1] - (wavelength[:, 3:] + wavelength[:, :-3]) / 2) / 8
    low, high = 2 * wavelength[:, :1] - inner[:, :1], 2 * wavelength[:, -1:] - inner[:, -1:]
    return np.hstack([low, inner, high])


def pixel_widths(wavelength: FloatArray) -> FloatArray:
    """Width of native pixels, shape (nfib, nx) [Angstrom]; NaN for fibres without wavelengths."""
    return np.diff(fibre_edges(wavelength), axis=1)


def _live_fibres(wavelength: FloatArray) -> BoolArray:
    """Fibres with wavelengths; they must be complete and rise."""
    finite = np.isfinite(wavelength)
    live = np.asarray(finite.all(axis=1), bool)
    partial = np.flatnonzero(finite.any(axis=1) & ~live)
    if partial.size:
        raise ValueError(f"wavelengths of fibres {partial[:5].tolist()} are partly NaN")
    rising = (np.diff(np.where(finite, wavelength, 0)) > 0).all(axis=1)
    falling = np.flatnonzero(live & ~rising)
    if falling.size:
        raise ValueError(f"wavelengths of fibres {falling[:5].tolist()} do not rise with x")
    return live


def _check(wavelength: FloatArray, good: BoolArray) -> BoolArray:
    if wavelength.ndim != 2 or wavelength.shape != good.shape:
        raise ValueError(f"wavelength {wavelength.shape} and spectra {good.shape} differ in shape")
    if wavelength.shape[1] < 4:
        raise ValueError(f"{wavelength.shape[1]} samples per fibre; at least 4 are needed")
    return _live_fibres(wavelength)


def _edges(wavelength: FloatArray, live: BoolArray) -> FloatArray:
    """Pixel edges; those of dead fibres just count up, their samples are never good."""
    return np.where(live[:, None], fibre_edges(wavelength), np.arange(wavelength.shape[1] + 1.0))
