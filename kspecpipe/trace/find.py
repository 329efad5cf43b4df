"""Find the traces of all fibres in a flat."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.trace.blocks import Blocks, collapse, narrow_light
from kspecpipe.trace.identify import Match, MatchOptions, identify_fibres
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Points, SurfaceOptions, Traces, fit_surface


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """How traces are found.

    Parameters
    ----------
    blocks : int
        Number of column blocks in which centroids are measured.
    low, dead : float
        Light relative to the neighbouring fibres below which a fibre is LOW or DEAD.
    min_blocks : float
        Fraction of the lit blocks in which a fibre must be seen, else it is DEAD.
    match : MatchOptions
        Identification.
    surface : SurfaceOptions
        Stiffness of the trace surface.
    """

    blocks: int = 48
    low: float = 0.2
    dead: float = 0.015
    min_blocks: float = 0.15
    match: MatchOptions = field(default_factory=MatchOptions)
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)


def find_traces(
    flat: Signal, layout: FibreLayout, *, options: TraceOptions | None = None
) -> Traces:
    """Trace all fibres of a flat.

    The flat is collapsed into blocks of columns; near the middle column its light is matched with
    the nominal rows, then each fibre is followed to both ends, and one stiff surface is fitted to
    all centroids, so that columns and fibres without light are extrapolated from the others.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Bias-subtracted flat [electron]; its variance holds read noise and calibration terms.
        Unusable pixels are left out.
    layout : FibreLayout
        Nominal rows at the middle column.
    options : TraceOptions, optional
        Block number, limits, stiffness.

    Returns
    -------
    Traces

    Raises
    ------
    RecipeError
        No light, fewer traces than half the expected, more than expected, or two identifications
        that are about equally good.
    ValueError
        If the flat is not an image.
    """
    options = options or TraceOptions()
    if flat.value.ndim != 2:
        raise ValueError(f"flat has shape {flat.shape}; an image (ny, nx) is needed")
    width = max(flat.shape[1] // options.blocks, 4)
    blocks = collapse(flat, width)
    light, noise = narrow_light(blocks, layout.pitch)
    start, match = _identify(blocks, layout, options, flat.shape[1])
    rows, seen = _follow(light, noise, match, layout, start)
    points, peak, fwhm = _measure(blocks, rows, seen, layout)
    status = _judge(seen, peak, layout, options)
    points = points.select(status[points.fibre] != "DEAD")
    if points.x.size < 2:
        raise RecipeError("no light: every fibre is dead. Was the lamp on?")
    y, table = fit_surface(points, layout.rows, flat.shape[1], options.surface)
    widths = np.broadcast_to(_fill(fwhm, layout)[:, None], y.shape).copy()
    return Traces(y, widths, status, match.score, match.runner_up, table)


def _identify(
    blocks: Blocks, layout: FibreLayout, options: TraceOptions, n_x: int
) -> tuple[int, Match]:
    """Identify the fibres in the mean of the blocks around the middle column."""
    near = np.abs(blocks.x - (n_x - 1) / 2) <= max(n_x / 16, 0.51 * n_x / blocks.x.size)
    filled = np.isfinite(blocks.value[:, near])
    if not filled.any():
        raise RecipeError("no light: the middle of the frame is masked; nothing can be identified")
    count = np.maximum(filled.sum(axis=1, keepdims=True), 1)
    value = np.where(filled, blocks.value[:, near], 0).sum(axis=1, keepdims=True) / count
    error = np.where(filled, blocks.error[:, near], 0) ** 2
    error = np.sqrt(error.sum(axis=1, keepdims=True)) / count
    light, noise = narrow_light(Blocks(np.zeros(1), value, error), layout.pitch)
    match = identify_fibres(light[:, 0], noise[:, 0], layout, options.match)
    return int(np.argmin(np.abs(blocks.x - (n_x - 1) / 2))), match


def _follow(
    light: FloatArray, noise: FloatArray, match: Match, layout: FibreLayout, start: int
) -> tuple[FloatArray, BoolArray]:
    """Rows of all fibres in all blocks, each predicted from the blocks before, and where seen."""
    n_block = light.shape[1]
    rows = np.empty((layout.number, n_block))
    seen = np.zeros((layout.number, n_block), dtype=bool)
    for step in (1, -1):
        position, slope = match.rows.copy(), np.zeros(layout.number)
        for count, b in enumerate(range(start, n_block if step > 0 else -1, step)):
            predicted = position + slope * (count > 0)
            found, ok = _nearest_peak(light[:, b], noise[:, b], predicted, layout)
            common = _common_move(found - predicted, ok, layout)
            ok &= np.abs(found - predicted - common) < 0.2 * layout.local_pitch
            moved = common + np.where(ok, 0.5 * (found - predicted - common), 0)
            if count > 0:
                slope = slope + 0.3 * common
            position = predicted + moved
            rows[:, b], seen[:, b] = np.where(ok, found, position), ok
    return rows, seen


def _nearest_peak(
    light: FloatArray, noise: FloatArray, predicted: FloatArray, layout: FibreLayout
) -> tuple[FloatArray, BoolArray]:
    """Brightest row within 0.35 pitch of each prediction, and whether it is a significant peak."""
    reach = np.maximum((0.35 * layout.local_pitch).astype(int), 1)
    offset = np.arange(-reach.max(), reach.max() + 1)
    index = np.round(predicted).astype(int)[:, None] + offset
    inside = (index >= 0) & (index < light.size) & (np.abs(offset) <= reach[:, None])
    index = np.clip(index, 0, light.size - 1)
    window = np.where(inside, light[index], -np.inf)
    best = np.argmax(window, axis=1)
    fibre = np.arange(predicted.size)
    top = window[fibre, best]
    at_end = (np.abs(offset[best]) >= reach) | (index[fibre, best] <= 1)
    at_end |= index[fibre, best] >= light.size - 2
    ok = (top > 6 * noise[index[fibre, best]]) & ~at_end
    return index[fibre, best] + _parabola(window, best), ok


def _parabola(window: FloatArray, best: npt.NDArray[np.intp]) -> FloatArray:
    """Sub-pixel offset of the maximum from three points."""
    fibre, inner = np.arange(best.size), np.clip(best, 1, window.shape[1] - 2)
    left, mid, right = (window[fibre, inner + k] for k in (-1, 0, 1))
    usable = np.isfinite(left) & np.isfinite(mid) & np.isfinite(right)
    left, mid, right = (np.where(usable, part, 0) for part in (left, mid, right))
    curvature = np.minimum(left - 2 * mid + right, -1e-30)
    return np.where(usable, np.clip(0.5 * (left - right) / curvature, -0.5, 0.5), 0)


def _common_move(moves: FloatArray, ok: BoolArray, layout: FibreLayout) -> FloatArray:
    """Robust straight line through the moves of all fibres seen in a block."""
    if not ok.any():
        return np.zeros(layout.number)
    middle, half = layout.rows.mean(), max(float(np.ptp(layout.rows)) / 2, 1.0)
    unit = (layout.rows - middle) / half
    used = ok.copy()
    for _ in range(4):
        order = min(2, int(used.sum()) // 5)
        line: FloatArray = np.polynomial.Polynomial.fit(unit[used], moves[used], order)(unit)
        scatter = 1.5 * np.median(np.abs(moves - line)[used])
        keep = ok & (np.abs(moves - line) <= max(4 * float(scatter), 0.3))
        if not keep.any() or np.array_equal(keep, used):
            break
        used = keep
    return line


def _measure(
    blocks: Blocks, rows: FloatArray, seen: BoolArray, layout: FibreLayout
) -> tuple[Points, FloatArray, FloatArray]:
    """Centroid, peak and width of each fibre in each block in which it is seen."""
    fibre, block = np.nonzero(seen)
    reach = int(np.ceil(0.5 * layout.local_pitch.max()))
    offset = np.arange(-reach, reach + 1)
    row, limit = rows[fibre, block], 0.5 * layout.local_pitch[fibre]
    index = np.round(row).astype(int)[:, None] + offset
    inside = (index >= 0) & (index < blocks.value.shape[0])
    clipped = np.clip(index, 0, blocks.value.shape[0] - 1)
    value = blocks.value[clipped, block[:, None]]
    inside &= (np.abs(index - row[:, None]) <= limit[:, None]) & np.isfinite(value)
    value = np.where(inside, value, np.inf)
    floor = value.min(axis=1, keepdims=True)
    value = np.where(inside & np.isfinite(floor), value - floor, 0)
    peak, total = value.max(axis=1), value.sum(axis=1)
    fwhm = 0.94 * total / np.maximum(peak, 1e-30)
    centre = _windowed_centroid(index - row[:, None], value, fwhm)
    noise = np.nan_to_num(blocks.error[clipped, block[:, None]]).max(axis=1)
    error = 0.7 * fwhm * noise / np.maximum(peak, 1e-30) + 0.01
    good = np.isfinite(centre) & (peak > 0)
    points = Points(fibre[good], blocks.x[block[good]], (row + centre)[good], error[good])
    return (
        points,
        _per_fibre(peak, fibre, rows.shape[0], 90),
        _per_fibre(fwhm, fibre, rows.shape[0], 50),
    )


def _windowed_centroid(offset: FloatArray, value: FloatArray, fwhm: FloatArray) -> FloatArray:
    """Centroid in a Gaussian window that moves with it: no step when a pixel enters or leaves."""
    sigma = np.maximum(0.6 * fwhm, 0.8)[:, None]
    centre = np.zeros(value.shape[0])
    for _ in range(8):
        weight = value * np.exp(-0.5 * ((offset - centre[:, None]) / sigma) ** 2)
        total = np.maximum(weight.sum(axis=1), 1e-30)
        # the window halves the move for profiles as wide as itself: go further
        centre = centre + 1.6 * ((weight * offset).sum(axis=1) / total - centre)
    return np.where(np.abs(centre) < 0.7 * np.abs(offset).max(axis=1), centre, np.nan)


def _per_fibre(
    value: FloatArray, fibre: npt.NDArray[np.intp], number: int, percent: float
) -> FloatArray:
    """Percentile of the measurements of each fibre; NaN without any."""
    return np.array(
        [
            np.percentile(value[fibre == f], percent) if np.any(fibre == f) else np.nan
            for f in range(number)
        ]
    )


def _fill(fwhm: FloatArray, layout: FibreLayout) -> FloatArray:
    """Widths of fibres without a measurement from the others."""
    known = np.isfinite(fwhm)
    filled: FloatArray = np.interp(layout.rows, layout.rows[known], fwhm[known])
    return filled


def _judge(
    seen: BoolArray, peak: FloatArray, layout: FibreLayout, options: TraceOptions
) -> npt.NDArray[np.str_]:
    """OK, LOW or DEAD by the brightness relative to the neighbours."""
    brightness = np.nan_to_num(peak)
    lit_blocks = max(int(np.any(seen, axis=0).sum()), 1)
    near = np.abs(layout.rows[:, None] - layout.rows) < 4.5 * layout.pitch
    typical = np.array([np.median(brightness[n & (brightness > 0)]) for n in near])
    relative = brightness / np.maximum(typical, 1e-30)
    dead = (seen.sum(axis=1) < options.min_blocks * lit_blocks) | ~(relative > options.dead)
    return np.where(dead, "DEAD", np.where(relative < options.low, "LOW", "OK"))
