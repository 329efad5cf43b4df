"""Spectra of the same fibres in two modes or arms, joined where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kspecpipe.combine.scale import relative_scales
from kspecpipe.combine.smooth import running_mean
from kspecpipe.combine.stack import joined_dq, stack_of
from kspecpipe.signal import DQ, FloatArray, Signal
from kspecpipe.sky.rebin import Grid, plan_rebin

#: Samples over which the variance is averaged for the weights.
_WEIGHT_WIDTH = 31
#: Part of a segment within another over which one gives way to the other, at either end.
_INNER_RAMP = 0.1
#: Pixels that two segments must have in common to be scaled.
_LEAST_OVERLAP = 10
#: Signal-to-noise ratio in the overlap from which a fibre tells of a step.
_BRIGHT = 20.0


@dataclass(frozen=True)
class Segment:
    """Spectra of one mode.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Flux per Angstrom.
    grid : Grid
        Their grid.
    """

    spectra: Signal
    grid: Grid

    def onto(self, grid: Grid) -> Signal:
        """Return the spectra on another grid; samples of the same grid are taken as they are."""
        offset = (self.grid.start - grid.start) / grid.step
        if np.isclose(self.grid.step, grid.step, rtol=1e-9) and abs(offset - round(offset)) < 1e-6:
            return self._placed(grid, round(offset))
        wavelength = np.broadcast_to(self.grid.wavelength, self.spectra.shape)
        plan = plan_rebin(wavelength, grid, self.spectra.good)
        return plan.apply(self.spectra.scale(self.grid.step)).signal.scale(1 / grid.step)

    def _placed(self, grid: Grid, offset: int) -> Signal:
        shape = (len(self.spectra.value), grid.n)
        placed = Signal.of(np.full(shape, np.nan), np.nan, DQ.NO_DATA)
        start, stop = max(0, offset), min(grid.n, offset + self.grid.n)
        for name in ("value", "variance", "dq"):
            part = getattr(self.spectra, name)[:, start - offset : stop - offset]
            getattr(placed, name)[:, start:stop] = part
        return placed


@dataclass(frozen=True)
class Join:
    """What was found where a segment overlaps those before it.

    Parameters
    ----------
    start, stop : float
        Ends of the overlap [Angstrom].
    scale : ndarray, shape (nfib,)
        Flux of the segment over that of those before it, as they were.
    common, error : float
        The same of all fibres together, and its error.
    step : float
        Relative difference left in the overlap after scaling, median of the fibres with light; NaN
        without any.
    """

    start: float
    stop: float
    scale: FloatArray
    common: float
    error: float
    step: float


@dataclass(frozen=True)
class Spliced:
    """Joined spectra.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Flux per Angstrom, at the level of the first segment.
    share : ndarray, shape (nseg, nfib, nw)
        Share of each segment in each sample; they sum to 1, or to 0 where there is no data.
    factor : ndarray, shape (nseg, nfib)
        Factor by which each segment was multiplied.
    joins : list of Join
        One for each segment but the first.
    """

    spectra: Signal
    share: FloatArray
    factor: FloatArray
    joins: list[Join]


def common_grid(grids: Sequence[Grid]) -> Grid:
    """Return a grid that covers all others at the finest step, in phase with the finest one."""
    finest = min(grids, key=lambda grid: grid.step)
    first = min(grid.wavelength[0] for grid in grids)
    last = max(grid.wavelength[-1] for grid in grids)
    before = int(np.ceil((finest.start - first) / finest.step - 1e-6))
    start = finest.start - max(0, before) * finest.step
    return Grid(start, finest.step, int(np.floor((last - start) / finest.step + 1e-6)) + 1)


def splice(
    segments: Sequence[Segment], grid: Grid, *, scale: bool = True, per_fibre: bool = True
) -> Spliced:
    """Join segments one after the other.

    Each is scaled to those before it in the overlap. There the spectra are averaged with their
    inverse variance times a ramp that runs from one to the other, so that neither an edge nor a
    step shows; a segment that lies within another takes its place, with a ramp at either end.

    Parameters
    ----------
    segments : sequence of Segment
        Each overlaps those before it; one that lies within another comes after it.
    grid : Grid
        Grid of the result, see `common_grid`.
    scale : bool
        Scale the segments to each other; the ratio is measured all the same.
    per_fibre : bool
        Each fibre has its own scale as far as its light tells.

    Raises
    ------
    ValueError
        If a segment does not overlap those before it, or no fibre has light there.
    """
    joined = segments[0].onto(grid)
    shares = [np.where(joined.good, 1.0, 0.0)]
    factors: list[FloatArray] = [np.ones(len(joined.value))]
    joins: list[Join] = []
    reach = (segments[0].grid.edges[0], segments[0].grid.edges[-1])
    for segment in segments[1:]:
        own = (segment.grid.edges[0], segment.grid.edges[-1])
        placed = segment.onto(grid)
        joins.append(_measure(joined, placed, grid, _overlap(reach, own, grid.step), per_fibre))
        factors.append(1.0 / joins[-1].scale if scale else np.ones(len(placed.value)))
        placed = placed.scale(factors[-1][:, None])
        joined, share = _blend(joined, placed, _ramp(grid.wavelength, reach, own))
        shares = [part * (1.0 - share) for part in shares] + [share]
        reach = (min(reach[0], own[0]), max(reach[1], own[1]))
    return Spliced(joined, np.stack(shares), np.stack(factors), joins)


def _overlap(
    reach: tuple[float, float], own: tuple[float, float], step: float
) -> tuple[float, float]:
    start, stop = max(reach[0], own[0]), min(reach[1], own[1])
    if stop - start < _LEAST_OVERLAP * step:
        raise ValueError(
            f"one covers {reach[0]:.0f} to {reach[1]:.0f} and the other {own[0]:.0f} to "
            f"{own[1]:.0f} Angstrom; {_LEAST_OVERLAP} common pixels are needed to scale them"
        )
    return start, stop


def _measure(
    first: Signal, second: Signal, grid: Grid, ends: tuple[float, float], per_fibre: bool
) -> Join:
    inside = (grid.wavelength > ends[0]) & (grid.wavelength < ends[1])
    stack = stack_of([part.select((slice(None), inside)) for part in (first, second)])
    both = stack.good.all(axis=0)
    stack = stack.flag(np.broadcast_to(~both, stack.shape), DQ.NO_DATA)
    scales = relative_scales(stack, np.ones(2), per_fibre=per_fibre)
    if not np.isfinite(scales.error).all():
        raise ValueError("there is too little light where they overlap to scale them")
    ratio = scales.value[1] / scales.value[0]
    error = float(np.hypot(*(scales.error / scales.common)))
    common = float(scales.common[1] / scales.common[0])
    return Join(*ends, ratio, common, error * common, _step(stack, ratio))


def _step(stack: Signal, ratio: FloatArray) -> float:
    """Return the median relative difference of the two after scaling, of fibres with light."""
    good = stack.good
    first, second = (np.where(good, stack.value, 0.0)).sum(axis=-1)
    noise = np.sqrt(np.where(good, stack.variance, 0.0).sum(axis=-1).max(axis=0))
    bright = first > _BRIGHT * noise
    if not bright.any():
        return float("nan")
    return float(np.median(second[bright] / ratio[bright] / first[bright] - 1.0))


def _ramp(
    wavelength: FloatArray, reach: tuple[float, float], own: tuple[float, float]
) -> FloatArray:
    """Return the weight of a new segment beside that of those before it, which is 1 minus it."""
    inner = _INNER_RAMP * (own[1] - own[0])
    start = (own[0], reach[1] if own[1] > reach[1] and own[0] > reach[0] else own[0] + inner)
    stop = (reach[0] if own[0] < reach[0] and own[1] < reach[1] else own[1] - inner, own[1])
    rise = np.ones(len(wavelength)) if own[0] < reach[0] else _rise(wavelength, *start)
    fall = np.ones(len(wavelength)) if own[1] > reach[1] else 1.0 - _rise(wavelength, *stop)
    ramp: FloatArray = np.minimum(rise, fall)
    return ramp


def _rise(wavelength: FloatArray, start: float, stop: float) -> FloatArray:
    rise: FloatArray = np.clip((wavelength - start) / (stop - start), 0.0, 1.0)
    return rise


def _blend(first: Signal, second: Signal, ramp: FloatArray) -> tuple[Signal, FloatArray]:
    """Average two spectra; returns the share of the second too, shape (nfib, nw)."""
    stack = stack_of([first, second])
    good = stack.good & (stack.variance > 0)
    level = running_mean(np.where(good, stack.variance, np.nan), _WEIGHT_WIDTH)
    weight = np.stack([1.0 - ramp, ramp])[:, None, :] / np.where(level > 0, level, np.inf)
    weight = np.where(good, weight, 0.0)
    # Where only one has data, or the other's ramp is 0, it counts all the same.
    alone = good & (weight.sum(axis=0) == 0)
    weight = np.where(alone, 1.0, weight)
    total = weight.sum(axis=0)
    share = weight / np.where(total > 0, total, 1.0)
    value = np.sum(share * np.where(good, stack.value, 0.0), axis=0)
    variance = np.sum(share**2 * np.where(good, stack.variance, 0.0), axis=0)
    value, variance = (np.where(total > 0, part, np.nan) for part in (value, variance))
    return Signal(value, variance, joined_dq(stack.dq, share > 0)), share[1]
