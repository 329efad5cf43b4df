"""Shift of the traces of an arc or object against the flat, from its own light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kspecpipe.extraction.banded import factorise_band, invert_band, solve_band
from kspecpipe.extraction.joint import local_background
from kspecpipe.extraction.slabs import Slabs, lay_slabs, normal_equations
from kspecpipe.extraction.solve import (
    ExtractionOptions,
    extract_fibres,
    isolate_samples,
    lay_model,
    usable_weight,
)
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.trace.model import Traces
from kspecpipe.trace.table import Profile, sample_at

#: Fraction of a sample's profile that must be usable.
_MIN_WEIGHT = 0.3


@dataclass(frozen=True)
class TraceShift:
    """Displacement of the traces, frame minus flat.

    Parameters
    ----------
    shift : float
        Shift at ``middle`` [pixel]; NaN when it could not be measured.
    stretch : float
        Change of the shift per row [pixel/pixel].
    error : float
        Standard deviation of ``shift`` [pixel].
    middle : float
        Row to which ``shift`` belongs [pixel].
    """

    shift: float
    stretch: float
    error: float
    middle: float

    @property
    def measured(self) -> bool:
        """Whether the frame had enough light."""
        return bool(np.isfinite(self.shift))

    def apply(self, y: FloatArray) -> FloatArray:
        """Move the flat's traces to where the frame has them.

        Raises
        ------
        ValueError
            If the shift could not be measured: taking it as zero is the caller's decision.
        """
        if not self.measured:
            raise ValueError("the trace shift was not measured; it cannot be applied")
        moved: FloatArray = y + self.shift + self.stretch * (y - self.middle)
        return moved


@dataclass(frozen=True, kw_only=True)
class ShiftOptions:
    """How the shift is measured.

    Parameters
    ----------
    max_shift : float
        Largest shift [pixel]; cut to half a pitch.
    max_samples : int
        Number of samples (fibre and column) used; the brightest columns are taken.
    everywhere : bool
        Take columns all along the lit part instead: a lamp is bright at one end of it, and traces
        that turn by a hundredth of a pixel move less or more there than on the whole.
    coarse_samples : int
        Number of samples that tell the shift to a pixel.
    iterations : int
        Largest number of rounds of the fine fit, before cosmic rays are rejected and after.
    settled : tuple of float
        Steps below which no further round is needed, before and after [pixel].
    max_error : float
        Error beyond which the shift counts as unmeasurable [pixel].
    detection : float
        Significance with which one shift must explain more light than the others [sigma].
    floor : float
        No single sample counts as more precise than this [pixel].
    outlier : float
        Distance from the shift beyond which a significant sample is a cosmic ray [pixel].
    systematic : float
        Error that all samples share: traces and profile of a flat are no better [pixel].
    """

    max_shift: float = 4.0
    max_samples: int = 30_000
    everywhere: bool = False
    coarse_samples: int = 12_000
    iterations: int = 3
    settled: tuple[float, float] = (0.01, 0.0003)
    max_error: float = 0.1
    detection: float = 5.0
    floor: float = 0.05
    outlier: float = 0.3
    systematic: float = 0.003


def measure_shift(
    image: Signal, traces: Traces, profile: Profile, *, options: ShiftOptions | None = None
) -> TraceShift:
    """Measure how far the traces of a frame lie from those of the flat.

    Any light serves: arc lines, sky, lamp. A grid of shifts gives the pixel; then flux and shift
    of every sample are solved with the profile and its derivative, and combined robustly.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Frame without bias [electron]; its variance holds read noise and calibration terms.
    traces : Traces
        Traces of the flat.
    profile : Profile
        Profile of the flat.
    options : ShiftOptions, optional
        Range and limits.

    Returns
    -------
    TraceShift
        Frame minus flat; NaN when the frame has too little light.

    Raises
    ------
    ValueError
        If the frame and the traces differ in columns.
    """
    options = options or ShiftOptions()
    if image.shape[1] != traces.y.shape[1]:
        raise ValueError(f"image {image.shape} and traces {traces.y.shape} differ in columns")
    middle = traces.y[:, traces.y.shape[1] // 2]
    centre = float((middle[0] + middle[-1]) / 2)
    scene = _Scene(image, traces, profile, options)
    start = scene.coarse()
    if not np.isfinite(start):
        return TraceShift(np.nan, np.nan, np.nan, centre)
    line, error = np.array([start, 0.0]), np.inf
    for strict, settled in enumerate(options.settled):
        if strict:  # not before the shift is nearly right: edges of lines look like rays
            scene.reject_cosmic(scene.lay(line))
        for _ in range(options.iterations):
            laid = scene.lay(line)
            scene.measure_background(laid)
            step, error = scene.refine(laid, strict=bool(strict))
            line = line + step
            if not np.isfinite(line).all() or abs(line[0] - start) > 1.0:
                return TraceShift(np.nan, np.nan, np.nan, centre)
            if np.abs(step).max() < settled:
                break
    half = max(float(middle[-1] - middle[0]) / 2, 1.0)
    error = float(np.hypot(error, options.systematic))
    if error > options.max_error:
        return TraceShift(np.nan, np.nan, np.nan, centre)
    return TraceShift(float(line[0]), float(line[1]) / half, error, centre)


@dataclass(frozen=True, eq=False)
class _Laid:
    """Profiles laid on the columns that are used, at one shift."""

    centre: FloatArray
    window: IntArray
    weights: FloatArray
    slabs: Slabs


class _Scene:
    """The columns of a frame that are used, and what is fitted to them."""

    def __init__(
        self, image: Signal, traces: Traces, profile: Profile, options: ShiftOptions
    ) -> None:
        self.profile, self.options = profile, options
        self.derivative = profile.derivative()
        live = np.flatnonzero(traces.live)
        margin = traces.pitch + options.max_shift
        first = int(max(traces.y.min() - margin, 0))
        rows = slice(first, int(min(traces.y.max() + margin, image.shape[0] - 1)) + 1)
        part = image.select(rows)
        number = max(options.max_samples // live.size, 64)
        self.columns = _bright_columns(part, number, everywhere=options.everywhere)
        part = part.select((slice(None), self.columns))
        self.good = part.good
        self.value = np.where(self.good, part.value, 0)
        self.noise = np.where(self.good, part.variance, 1)
        self.electrons = np.maximum(self.value, 0)
        self.fibre = live
        self.y = traces.y[np.ix_(live, self.columns)] - first
        middle = traces.y[:, traces.y.shape[1] // 2]
        half = max(float(middle[-1] - middle[0]) / 2, 1.0)
        self.unit = (middle[live] - (middle[0] + middle[-1]) / 2) / half
        self.pitch = traces.pitch

    def coarse(self) -> float:
        """Shift of a grid at which the profile explains most light; NaN if that may be chance."""
        reach = min(self.options.max_shift, 0.5 * self.pitch)
        grid = np.linspace(-reach, reach, 2 * int(np.ceil(reach / 0.5)) + 1)
        number = min(
            self.columns.size, 200, max(self.options.coarse_samples // self.fibre.size, 24)
        )
        keep = np.linspace(0, self.columns.size - 1, number).astype(int)
        powers = np.stack([self._power(shift, keep) for shift in grid])
        # capped: a cosmic ray must not outweigh the others
        typical = np.percentile(powers.max(axis=0), 80)
        powers = np.minimum(powers, max(float(typical), 1e-30))
        total = powers.sum(axis=(1, 2))
        best = int(np.argmax(total))
        far = np.abs(grid - grid[best]) > 0.4 * reach
        gain = powers[best] - powers[far].mean(axis=0)
        if gain.mean() < self.options.detection * gain.std() / np.sqrt(gain.size):
            return float("nan")
        near = np.clip(best, 1, grid.size - 2)
        left, mid, right = total[near - 1 : near + 2]
        curvature = left - 2 * mid + right
        fine = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
        return float(grid[near] + np.clip(fine, -1, 1) * (grid[1] - grid[0]))

    def _power(self, shift: float, keep: IntArray) -> FloatArray:
        """Explained chi-squared per sample for one shift, a constant background apart."""
        window, weights = self._sample(self.profile, self.y[:, keep] + shift, keep)
        rows, inside = self._rows(window, weights.shape[1])
        at = rows, keep
        inside &= self.good[at]
        scale = inside / (self.noise[at] + np.maximum(self.value[at], 0))
        total = np.maximum(scale.sum(axis=1, keepdims=True), 1e-30)
        shape = weights - (scale * weights).sum(axis=1, keepdims=True) / total
        product = np.einsum("fyx,fyx->fx", scale * shape, self.value[at])
        power = np.maximum(np.einsum("fyx,fyx->fx", scale, shape**2), 1e-30)
        explained: FloatArray = np.maximum(product, 0) ** 2 / power
        return explained

    def _sample(
        self, profile: Profile, centre: FloatArray, keep: IntArray
    ) -> tuple[IntArray, FloatArray]:
        return sample_at(profile, centre, self.columns[keep], self.fibre)

    def _rows(self, window: IntArray, number: int) -> tuple[IntArray, BoolArray]:
        rows = window[:, None, :] + np.arange(number)[:, None]
        inside = (rows >= 0) & (rows < self.value.shape[0])
        return np.clip(rows, 0, self.value.shape[0] - 1), inside

    def lay(self, line: FloatArray) -> _Laid:
        """Lay the profiles at one shift and stretch."""
        centre = self.y + (line[0] + line[1] * self.unit)[:, None]
        window, weights = self._sample(self.profile, centre, np.arange(self.columns.size))
        return _Laid(centre, window, weights, lay_slabs(window, weights, self.value.shape[0]))

    def refine(self, laid: _Laid, *, strict: bool) -> tuple[FloatArray, float]:
        """Correction of shift and stretch, and the error of the shift."""
        keep = np.arange(self.columns.size)
        centre, window, weights = laid.centre, laid.window, laid.weights
        flux, error, left, weight = self._solve(laid.slabs)
        _, slope = self._sample(self.derivative, centre, keep)
        rows, inside = self._rows(window, weights.shape[1])
        core = inside & (np.abs(rows - centre[:, None, :]) < 0.5 * self.pitch)
        weight = weight[rows, keep] * core
        slope = _free_of(slope, weights, weight)
        strength = np.einsum("fyx,fyx->fx", weight, slope**2)
        product = np.einsum("fyx,fyx,fyx->fx", weight, slope, left[rows, keep])
        expected = _significant_flux(flux, error)
        known = (expected > 0) & (strength > 0)
        moves = np.where(known, product / np.where(known, expected * strength, 1), 0)
        errors = np.where(known, 1 / np.where(known, expected * np.sqrt(strength), 1), 1e6)
        return self._combine(moves, errors, strict=strict)

    def measure_background(self, laid: _Laid) -> None:
        """Take a smooth background away: it must not pass for light of the fibres."""
        weight = self.good / (self.noise + self.electrons)
        floor = local_background(self.value, weight, laid.slabs, 129)
        self.value = np.where(self.good, self.value - floor, 0)

    def reject_cosmic(self, laid: _Laid) -> None:
        """Mask pixels that no profile, even one shifted a little more, explains."""
        image = Signal.of(self.value, self.noise, np.where(self.good, 0, int(DQ.BAD)))
        options = ExtractionOptions(reject_tolerance=0.3)
        found = extract_fibres(image, laid.window, laid.weights, options=options).cosmic
        self.good = self.good & ~found

    def _solve(self, slabs: Slabs) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Fluxes, their errors, residual image and the pixels' inverse variance."""
        weight = self.good / (self.noise + self.electrons)
        normal, rhs = normal_equations(slabs, weight, weight * self.value)
        # Of a sample with wings alone nothing is known but what its neighbour leaves.
        solved = (usable_weight(slabs, self.good) > _MIN_WEIGHT) & (normal[0] > 0)
        isolate_samples(normal, rhs, solved)
        factor = factorise_band(normal)
        flux = np.where(solved, solve_band(factor, rhs), 0)
        model = lay_model(slabs, flux, self.value.shape, self.value.dtype)
        # weights of the next round: those from the pixels themselves make faint light too faint
        self.electrons = np.maximum(model, 0)
        return flux, np.sqrt(invert_band(factor)[0]), self.value - model, weight

    def _combine(
        self, moves: FloatArray, errors: FloatArray, *, strict: bool
    ) -> tuple[FloatArray, float]:
        """Robust line through the moves of all samples, by cells of fibre and columns."""
        weight = 1 / (errors**2 + self.options.floor**2)
        if strict:
            odd = np.abs(moves) > self.options.outlier + 5 * errors
            weight = np.where(odd, 0, weight)
        else:
            moves = np.clip(moves, -1, 1)
        edges = np.linspace(0, moves.shape[1], min(16, moves.shape[1]) + 1).astype(int)[:-1]
        total = np.add.reduceat(weight, edges, axis=1)
        mean = np.add.reduceat(weight * moves, edges, axis=1) / np.maximum(total, 1e-30)
        unit = np.broadcast_to(self.unit[:, None], mean.shape)
        return _robust_line(unit.ravel(), mean.ravel(), total.ravel())


def _bright_columns(part: Signal, number: int, *, everywhere: bool) -> IntArray:
    """Columns with most light, not counting the brightest rows (cosmic rays) of each.

    Or evenly spread ones with a tenth of the light of the brightest.
    """
    n_x = part.shape[1]
    if number >= n_x:
        return np.arange(n_x)
    ordered = np.sort(np.where(part.good, part.value, 0), axis=0)
    n_row = ordered.shape[0]
    light = ordered[n_row // 2 : int(0.97 * n_row) + 1].mean(axis=0) - ordered[n_row // 5]
    if everywhere:
        lit = np.flatnonzero(light > 0.1 * np.percentile(light, 95))
        number = min(number, lit.size)
        spread: IntArray = lit[np.linspace(0, lit.size - 1, number).astype(int)]
        return spread
    return np.sort(np.argsort(light)[-number:])


def _significant_flux(flux: FloatArray, error: FloatArray, width: int = 51) -> FloatArray:
    """Flux with which a sample counts: its own if significant, else the continuum's, else 0.

    Fluxes that are only noise would pretend that they can tell a shift.
    """
    # scipy filters single rows ten times faster than rows of an image
    continuum = np.stack([ndimage.median_filter(row, width, mode="nearest") for row in flux])
    spread = 1.25 * np.sqrt(
        ndimage.uniform_filter1d(error**2, width, axis=1, mode="nearest") / width
    )
    faint = np.where(continuum > 3 * spread, continuum, 0)
    expected: FloatArray = np.where(flux > 5 * error, flux, faint)
    return expected


def _free_of(slope: FloatArray, weights: FloatArray, weight: FloatArray) -> FloatArray:
    """Part of the derivative which neither flux nor a constant background can imitate."""
    s_0 = np.maximum(weight.sum(axis=1), 1e-30)
    mean_p = np.einsum("fyx,fyx->fx", weight, weights) / s_0
    flat_p = weights - mean_p[:, None]
    flat_s = slope - (np.einsum("fyx,fyx->fx", weight, slope) / s_0)[:, None]
    power = np.maximum(np.einsum("fyx,fyx->fx", weight, flat_p**2), 1e-30)
    share = np.einsum("fyx,fyx,fyx->fx", weight, flat_p, flat_s) / power
    free: FloatArray = flat_s - share[:, None] * flat_p
    return free


def _robust_line(
    unit: FloatArray, value: FloatArray, weight: FloatArray
) -> tuple[FloatArray, float]:
    """Constant and slope with Huber weights, and the error of the constant."""
    if not np.any(weight > 0):
        return np.array([np.nan, np.nan]), np.inf
    n_term = 2 if np.ptp(unit[weight > 0]) > 0.5 and np.sum(weight > 0) > 4 else 1
    design = np.stack([np.ones_like(unit), unit])[:n_term]
    taper: FloatArray = np.ones_like(value)
    line: FloatArray = np.zeros(n_term)
    for _ in range(10):
        gram = (design * weight * taper) @ design.T
        line = np.linalg.solve(gram, design @ (weight * taper * value))
        pull = np.abs(value - line @ design) * np.sqrt(weight)
        scatter = max(1.0, 1.4826 * float(np.median(pull[weight > 0])))
        taper = 1 / np.maximum(pull / (2 * scatter), 1)
    covariance = np.linalg.inv(gram) * scatter**2
    return np.append(line, np.zeros(2 - n_term)), float(np.sqrt(covariance[0, 0]))
