"""Spectra of all fibres at once: weighted least squares with the measured profiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kspecpipe.extraction.banded import factorise_band, invert_band, solve_band
from kspecpipe.extraction.cosmic import (
    RejectionLimits,
    beside_cosmic,
    find_cosmic,
    is_standing,
    model_error,
)
from kspecpipe.extraction.joint import local_background
from kspecpipe.extraction.slabs import Slabs, lay_slabs, normal_equations
from kspecpipe.extraction.smooth import smooth_flux
from kspecpipe.signal import DQ, UNUSABLE, BoolArray, DQArray, FloatArray, IntArray, Signal


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions:
    """How the spectra are solved.

    Parameters
    ----------
    prnu : float
        Relative pixel-response scatter that no pixel flat has removed.
    frames : int
        Exposures of which the image is the average; its Poisson noise is so much smaller.
    iterations : int
        Passes; the second takes the Poisson noise from the model of the first, and so on.
    background : {"none", "local"}
        "local": a smooth background under the fibres is solved together with the spectra.
    background_width : int
        Columns over which the local background is smoothed.
    reject_sigma : float
        Cosmic-ray limit against the profile model; 0 = no rejection.
    reject_tolerance : float
        Relative error of the model which is never taken for a cosmic ray; more is allowed
        where most fibres show more.
    reject_iterations : int
        Largest number of pixels that may be rejected from one sample.
    min_weight : float
        Fraction of a sample's profile weight that must be usable, else it is NO_DATA.
    core : float
        Pixels with more than this fraction of the profile's peak decide about SATURATED.
    """

    prnu: float = 0.0
    frames: int = 1
    iterations: int = 2
    background: Literal["none", "local"] = "none"
    background_width: int = 129
    reject_sigma: float = 5.5
    reject_tolerance: float = 0.02
    reject_iterations: int = 8
    min_weight: float = 0.3
    core: float = 0.3


@dataclass(frozen=True, eq=False)
class Extraction:
    """Extracted spectra and what was learnt on the way.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Flux [electron], its variance [electron²] and DQ.
    covariance : ndarray, shape (nfib - 1, nx)
        Covariance with the next fibre [electron²].
    chi2 : ndarray, shape (nfib, nx)
        Reduced chi-squared of the pixels in each sample's window.
    cosmic : ndarray of bool, shape (ny, nx)
        Pixels rejected as cosmic rays.
    background : ndarray, shape (ny, nx)
        Local background that was subtracted [electron]; 0 without one.
    """

    spectra: Signal
    covariance: FloatArray
    chi2: FloatArray
    cosmic: BoolArray
    background: FloatArray

    def padded(self, first: int, n_row: int) -> Extraction:
        """Put the images back into a frame of ``n_row`` rows."""
        margin = ((first, n_row - first - self.cosmic.shape[0]), (0, 0))
        return replace(
            self,
            cosmic=np.pad(self.cosmic, margin),
            background=np.pad(self.background, margin, mode="edge"),
        )


@dataclass(frozen=True, eq=False)
class _Solution:
    """Fluxes, the band of their covariance matrix and samples that could be solved."""

    flux: FloatArray
    band: FloatArray
    normal: FloatArray
    solved: BoolArray

    def columns(self, at: IntArray) -> _Solution:
        """Keep some columns only."""
        return _Solution(
            self.flux[:, at], self.band[:, :, at], self.normal[:, :, at], self.solved[:, at]
        )

    def replaced(self, at: IntArray, new: _Solution) -> _Solution:
        """Put new solutions of some columns in."""
        result = _Solution(
            self.flux.copy(), self.band.copy(), self.normal.copy(), self.solved.copy()
        )
        result.flux[:, at], result.band[:, :, at] = new.flux, new.band
        result.normal[:, :, at], result.solved[:, at] = new.normal, new.solved
        return result


def extract_fibres(
    image: Signal,
    window: IntArray,
    weights: FloatArray,
    *,
    options: ExtractionOptions | None = None,
) -> Extraction:
    """Solve the flux of every fibre of each detector column by weighted least squares.

    Neighbouring profiles overlap, so the normal matrix of a column is banded; all columns are
    solved at once. Poisson and pixel-response noise come from the model of the previous pass,
    because weights taken from the noisy pixels themselves bias the flux low.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Bias-subtracted image [electron]; its variance holds read noise and calibration terms
        [electron²], no Poisson noise. Unusable pixels (`UNUSABLE`) get no weight.
    window : ndarray of int, shape (nfib, nx)
        First row of each fibre's window; rows outside the frame count as unusable.
    weights : ndarray, shape (nfib, nwin, nx)
        Cross-dispersion profile inside the window; sums to 1 over ``nwin``.
    options : ExtractionOptions, optional
        Noise terms, passes, rejection.

    Returns
    -------
    Extraction
        NaN and ``NO_DATA`` where too little of the profile falls on usable pixels (with the bits
        of the pixels that took it); ``SATURATED`` where the core of the profile is saturated;
        informing bits (hot, bleed, ...) of the pixels in the core.

    Raises
    ------
    ValueError
        If the shapes disagree.

    References
    ----------
    .. [1] Horne 1986, PASP 98, 609.
    .. [2] Sharp & Birchall 2010, PASA 27, 91.
    """
    options = options or ExtractionOptions()
    _check_shapes(image, window, weights)
    # rows beside the fibres tell the background
    margin = weights.shape[1] if options.background == "local" else 0
    first = min(max(int(window.min()) - margin, 0), image.shape[0])
    last = min(max(int(window.max()) + weights.shape[1] + margin, first), image.shape[0])
    part = image.select(slice(first, last))
    slabs = lay_slabs(window - first, weights, part.shape[0])
    return _Solver(part, slabs, options).run().padded(first, image.shape[0])


def model_image(spectra: Signal, window: IntArray, weights: FloatArray, n_row: int) -> FloatArray:
    """Image (n_row, nx) that spectra and profiles predict; samples without a value give none.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted flux [electron].
    window, weights : ndarray
        As for `extract_fibres`.
    n_row : int
        Rows of the image.
    """
    slabs = lay_slabs(window, weights, n_row)
    flux = np.nan_to_num(spectra.value)
    return lay_model(slabs, flux, (n_row, window.shape[1]), weights.dtype)


def _check_shapes(image: Signal, window: IntArray, weights: FloatArray) -> None:
    n_fibre, n_x = window.shape
    if image.value.ndim != 2 or image.shape[1] != n_x:
        raise ValueError(f"image {image.shape} and window {window.shape} differ in columns")
    if weights.ndim != 3 or weights.shape[::2] != (n_fibre, n_x):
        raise ValueError(
            f"weights {weights.shape} do not fit window {window.shape}; "
            "expected (n_fibre, n_window, n_x)"
        )


class _Solver:
    """One frame's solution: image and slabs stay, good pixels and model change per pass."""

    def __init__(self, image: Signal, slabs: Slabs, options: ExtractionOptions) -> None:
        self.image, self.slabs, self.options = image, slabs, options
        self.good = image.good
        self.value = np.where(self.good, image.value, 0)
        self.noise = np.where(self.good, image.variance, 1)
        self.background = np.zeros((1, 1), dtype=self.value.dtype)
        self.cosmic = np.zeros(image.shape, dtype=bool)

    def run(self) -> Extraction:
        """Alternate solution, noise model, cosmic rays and background."""
        solution = self._solve(self._inverse_variance(np.maximum(self.value, 0)))
        for _ in range(max(self.options.iterations - 1, 0)):
            if self.options.reject_sigma > 0:
                # weights from the pixels make faint fluxes too low, and then all look like rays
                solution = self._solve(self._inverse_variance(self._expected(solution)))
                solution = self._reject(solution)
            if self.options.background == "local":
                self._measure_background(solution)
            solution = self._solve(self._inverse_variance(self._expected(solution)))
        return self._finish(solution)

    def _expected(self, solution: _Solution) -> FloatArray:
        """Electrons whose Poisson noise a pixel has, from fluxes smoothed where they are faint."""
        error = np.sqrt(solution.band[0])
        flux = smooth_flux(solution.flux, error, solution.solved)
        return lay_model(self.slabs, flux, self.value.shape, self.value.dtype)

    def _inverse_variance(self, model: FloatArray, columns: IntArray | None = None) -> FloatArray:
        """Weights from read noise, Poisson noise of model and background, and pixel response."""
        at = slice(None) if columns is None else columns
        # The far wings of a measured profile may be slightly negative; a variance never is.
        electrons = np.maximum(model, 0)
        electrons += np.maximum(_columns(self.background, at), 0)
        variance = electrons / self.options.frames
        variance += self.noise[:, at]
        if self.options.prnu > 0:
            electrons *= self.options.prnu
            variance += np.square(electrons, out=electrons)
        np.maximum(variance, np.finfo(variance.dtype).tiny, out=variance)
        weight: FloatArray = np.divide(self.good[:, at], variance, out=variance)
        return weight

    def _solve(
        self, weight: FloatArray, columns: IntArray | None = None, slabs: Slabs | None = None
    ) -> _Solution:
        at = slice(None) if columns is None else columns
        slabs = slabs or self.slabs
        value = self.value[:, at] - _columns(self.background, at)
        normal, rhs = normal_equations(slabs, weight, weight * value)
        solved = usable_weight(slabs, self.good[:, at]) > self.options.min_weight
        solved &= normal[0] > 0
        isolate_samples(normal, rhs, solved)
        factor = factorise_band(normal)
        return _Solution(solve_band(factor, rhs), invert_band(factor), normal, solved)

    def _reject(self, solution: _Solution) -> _Solution:
        """Take out the worst pixel of each sample and solve its column again, until all fit."""
        left = self._left(solution)
        columns = np.arange(self.value.shape[1])
        background = np.maximum(_columns(self.background, columns), 0)
        tolerance = model_error(
            left * self.good,
            self.noise + background,
            self.slabs,
            solution.flux,
            self.options.reject_tolerance,
        )
        spared = np.zeros(self.value.shape, dtype=bool)
        slabs, suspect = self.slabs, None
        for round_ in range(self.options.reject_iterations):
            here = solution.columns(columns)
            value, noise, good = self._view(columns)
            view = value, noise, good & ~spared[:, columns], slabs
            limits = RejectionLimits(self.options.reject_sigma, tolerance[:, columns])
            row, at, excess, least = find_cosmic(view, here.flux, here.normal[0], limits, suspect)
            if row.size == 0:
                break
            standing = is_standing(left, row, columns[at], excess, least)
            spared[row[standing], columns[at[standing]]] = True
            changed = slabs.samples_at(row, at, columns.size)
            row, at = row[~standing], at[~standing]
            self.cosmic[row, columns[at]] = True
            self.good[row, columns[at]] = False
            touched = np.flatnonzero(changed.any(axis=0))
            columns, slabs = columns[touched], slabs.columns(touched)
            # weights of the second solution show rays that the first has hidden; later on only
            # what has lost a pixel, and its neighbours, looks different
            suspect = changed[:, touched] if round_ else None
            solution = self._update(solution, columns, slabs)
        self._grow(solution, left, tolerance)
        return solution

    def _update(self, solution: _Solution, columns: IntArray, slabs: Slabs) -> _Solution:
        """Solve some columns again after rejections."""
        shape = self.value.shape[0], columns.size
        flux = np.maximum(solution.flux[:, columns], 0)
        model = lay_model(slabs, flux, shape, self.value.dtype)
        new = self._solve(self._inverse_variance(model, columns), columns, slabs)
        return solution.replaced(columns, new)

    def _left(self, solution: _Solution) -> FloatArray:
        """Image without background and fibres."""
        left = lay_model(self.slabs, solution.flux, self.value.shape, self.value.dtype)
        np.subtract(self.value, left, out=left)
        left -= self.background
        return left

    def _grow(self, solution: _Solution, before: FloatArray, tolerance: FloatArray) -> None:
        """Reject the fainter neighbours of rejected pixels too."""
        if not self.cosmic.any():
            return
        row, column = np.nonzero(beside_cosmic(self.cosmic) & self.good)
        left = self._left(solution)
        electrons = np.maximum(self.value - left, 0)[row, column]
        variance = self.noise[row, column] + electrons / self.options.frames
        variance += (tolerance[row, column] * electrons) ** 2
        excess = left[row, column]
        least = 0.6 * self.options.reject_sigma * np.sqrt(variance)
        grown = (excess > least) & ~is_standing(before, row, column, excess, least)
        self.cosmic[row[grown], column[grown]] = True
        self.good[row[grown], column[grown]] = False

    def _view(self, columns: IntArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Image without background, its variance without the fibres' light, good pixels."""
        at = slice(None) if columns.size == self.value.shape[1] else columns
        background = _columns(self.background, at)
        noise = self.noise[:, at] + np.maximum(background, 0)
        return self.value[:, at] - background, noise, self.good[:, at]

    def _measure_background(self, solution: _Solution) -> None:
        """Solve fibres and a smooth background together in blocks of columns."""
        weight = self._inverse_variance(self._expected(solution))
        self.background = local_background(
            self.value, weight, self.slabs, self.options.background_width
        )

    def _finish(self, solution: _Solution) -> Extraction:
        model = lay_model(self.slabs, solution.flux, self.value.shape, self.value.dtype)
        residual = self.value - _columns(self.background, slice(None)) - model
        weight = self._inverse_variance(np.maximum(model, 0))
        solved = solution.solved
        dq = self._quality(solved)
        spectra = Signal(
            np.where(solved, solution.flux, np.nan), np.where(solved, solution.band[0], np.nan), dq
        )
        covariance = _next_covariance(solution)
        background = np.broadcast_to(self.background, self.value.shape)
        chi2 = np.where(solved, _chi2(self.slabs, weight * residual**2, self.good), np.nan)
        return Extraction(spectra, covariance, chi2, self.cosmic, np.array(background))

    def _quality(self, solved: BoolArray) -> DQArray:
        """Bits of a sample from the pixels in the core of its profile."""
        image_dq = self.image.dq | np.where(self.cosmic, np.uint16(DQ.COSMIC), np.uint16(0))
        present = int(np.bitwise_or.reduce(image_dq, axis=None))
        dq = np.where(solved, 0, int(DQ.NO_DATA)).astype(np.uint16)
        for bit in DQ:
            if not present & bit:
                continue
            hit = _core_has(self.slabs, (image_dq & np.uint16(bit)) > 0, self.options.core)
            if bit & UNUSABLE and bit != DQ.SATURATED:
                hit &= ~solved
            dq |= np.where(hit, np.uint16(bit), np.uint16(0))
        return dq


def _columns(background: FloatArray, at: slice | IntArray) -> FloatArray:
    """Columns of a background that may still be the constant 0."""
    return background if background.shape[1] == 1 else background[:, at]


def lay_model(
    slabs: Slabs, flux: FloatArray, shape: tuple[int, ...], dtype: np.dtype[np.floating]
) -> FloatArray:
    """Image of the fibres' light."""
    model = np.zeros(shape, dtype=dtype)
    for f, profile in enumerate(slabs.profile):
        model[slabs.rows(f)] += flux[f] * profile
    return model


def usable_weight(slabs: Slabs, good: BoolArray) -> FloatArray:
    """Fraction of each sample's profile on usable pixels (nfib, nx)."""
    bad = ~good
    lost = np.empty((len(slabs), good.shape[1]))
    for f, profile in enumerate(slabs.profile):
        rows = bad[slabs.rows(f)]
        inside = profile.sum(axis=0)
        lost[f] = inside - (np.einsum("yx,yx->x", profile, rows) if rows.any() else 0)
    return lost


def isolate_samples(normal: FloatArray, rhs: FloatArray, solved: BoolArray) -> None:
    """Take samples that cannot be solved out of the equations, in place."""
    if solved.all():
        return
    normal[0][~solved] = 1
    rhs[~solved] = 0
    for k in range(1, normal.shape[0]):
        normal[k][~solved] = 0
        normal[k, :-k][~solved[k:]] = 0


def _next_covariance(solution: _Solution) -> FloatArray:
    """Covariance with the next fibre; NaN where either sample is missing."""
    both = solution.solved[:-1] & solution.solved[1:]
    covariance = solution.band[1, :-1] if solution.band.shape[0] > 1 else np.zeros(both.shape)
    return np.where(both, covariance, np.nan)


def _chi2(slabs: Slabs, pull2: FloatArray, good: BoolArray) -> FloatArray:
    """Reduced chi-squared in the part of each window that matters."""
    chi2 = np.empty((len(slabs), pull2.shape[1]))
    for f, profile in enumerate(slabs.profile):
        core = good[slabs.rows(f)] & (profile > 0.1 * profile.max(axis=0))
        count = core.sum(axis=0)
        chi2[f] = np.einsum("yx,yx->x", pull2[slabs.rows(f)], core) / np.maximum(count - 1, 1)
    return chi2


def _core_has(slabs: Slabs, flagged: BoolArray, core: float) -> BoolArray:
    """Find samples with a flagged pixel in the profile's core (nfib, nx)."""
    hit = np.zeros((len(slabs), flagged.shape[1]), dtype=bool)
    for f, profile in enumerate(slabs.profile):
        rows = flagged[slabs.rows(f)]
        if rows.any():
            hit[f] = np.any(rows & (profile > core * profile.max(axis=0)), axis=0)
    return hit


def extract_sum(image: Signal, trace: FloatArray, width: float) -> Signal:
    """Sum the pixels within ``width`` of each trace, with fractional pixels at the ends.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Image [electron]; its variance must hold all noise, Poisson included [electron²].
    trace : ndarray, shape (nfib, nx)
        Row of each fibre.
    width : float
        Full width of the aperture [pixel].

    Returns
    -------
    Signal, shape (nfib, nx)
        Summed flux; NaN and ``NO_DATA`` where any pixel of the aperture is unusable.

    Raises
    ------
    ValueError
        If the trace and the image differ in columns.
    """
    if trace.ndim != 2 or trace.shape[1] != image.shape[1]:
        raise ValueError(f"image {image.shape} and trace {trace.shape} differ in columns")
    low = np.ceil(trace - width / 2 - 0.5).astype(int)
    offset = np.arange(int(np.ceil(width)) + 2)
    rows = low[:, None, :] + offset[:, None]
    share = np.clip(width / 2 + 0.5 - np.abs(rows - trace[:, None, :]), 0, 1)
    inside = (rows >= 0) & (rows < image.shape[0])
    at = np.clip(rows, 0, image.shape[0] - 1), np.arange(image.shape[1])
    bad = np.any((share > 0) & ~(image.good[at] & inside), axis=1)
    value = np.einsum("fyx,fyx->fx", share, np.nan_to_num(image.value[at]))
    variance = np.einsum("fyx,fyx->fx", share**2, np.nan_to_num(image.variance[at]))
    bits = np.bitwise_or.reduce(np.where(share > 0, image.dq[at], 0).astype(np.uint16), axis=1)
    spectra = Signal(np.where(bad, np.nan, value), np.where(bad, np.nan, variance), bits)
    return spectra.flag(bad, DQ.NO_DATA)
