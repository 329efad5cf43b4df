"""Smooth background and scattered light, from rows that no fibre reaches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.bsplines import spline_basis
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, IntArray, Signal
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces

#: Part of the frame without free rows across which a curve is not to be trusted, and beyond the
#: outermost free rows a slope.
_WIDE_GAP, _WIDE_EDGE = 0.5, 0.3


@dataclass(frozen=True, kw_only=True)
class BackgroundOptions:
    """How the background is fitted.

    Parameters
    ----------
    bspline_deg : int
        Degree of the B-spline along the rows; 0 = one value per column.
    gaussian_blur_sigma : float
        Smoothing along the dispersion [pixel].
    knot_distance : float
        Distance of the spline's knots, in units of the extent of the frame.
    clear : float
        Distance from any trace, in FWHM, at which a row counts as free of fibre light.
    clip_sigma : float
        Rejection limit of bands of rows: ghosts and stray light.

    Where fibres fill most of the frame, the spline is a straight line between the free rows on
    both sides, or one value per column if they are on one side only.
    """

    bspline_deg: int = 3
    gaussian_blur_sigma: float = 40.0
    knot_distance: float = 0.5
    clear: float = 4.0
    clip_sigma: float = 4.0


def fit_background(
    image: Signal,
    traces: Traces,
    layout: FibreLayout,
    *,
    options: BackgroundOptions | None = None,
) -> FloatArray:
    """Fit a smooth surface to the rows without fibre light.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Frame [electron]; unusable pixels are left out.
    traces : Traces
        Where the fibres are.
    layout : FibreLayout
        Its ``rows_without_light`` are used where given; rows near a trace never are.
    options : BackgroundOptions, optional
        Stiffness and limits.

    Returns
    -------
    ndarray, shape (ny, nx)
        The background [electron].

    Raises
    ------
    RecipeError
        If no row is free of fibre light.
    ValueError
        If the image and the traces differ in columns.
    """
    options = options or BackgroundOptions()
    if image.shape[1] != traces.y.shape[1]:
        raise ValueError(f"image {image.shape} and traces {traces.y.shape} differ in columns")
    free = rows_without_light(image.shape[0], traces, layout, options.clear)
    bands = _bands(free)
    if bands.shape[0] == 0:
        raise RecipeError(
            f"no row is further than {options.clear:g} FWHM from every trace, so there is no "
            "background to measure; set subtract_background to False"
        )
    options = _stiffened(options, bands, image.shape[0])
    level, count = _band_levels(image, bands, options.gaussian_blur_sigma)
    used = _keep_bands(level, count, bands, image.shape[0], options)
    return _surface(level, count * used[:, None], bands, image.shape, options)


def has_background(
    image: Signal,
    traces: Traces,
    layout: FibreLayout,
    *,
    options: BackgroundOptions | None = None,
) -> bool:
    """Return whether any row is far enough from the fibres to measure a background in."""
    clear = (options or BackgroundOptions()).clear
    return bool(rows_without_light(image.shape[0], traces, layout, clear).any())


def rows_without_light(n_row: int, traces: Traces, layout: FibreLayout, clear: float) -> BoolArray:
    """Find rows that no fibre reaches at any column, shape (ny,)."""
    free = np.zeros(n_row, dtype=bool)
    for low, high in layout.rows_without_light or ((0, n_row),):
        free[max(low, 0) : high] = True
    reach = clear * np.nanmax(traces.width, axis=1)
    for low, high in zip(traces.y.min(axis=1) - reach, traces.y.max(axis=1) + reach, strict=True):
        free[max(int(np.floor(low)), 0) : max(int(np.ceil(high)) + 1, 0)] = False
    return free


def _bands(free: BoolArray, height: int = 16) -> IntArray:
    """Cut the free rows into bands of at most ``height`` rows, shape (nband, 2)."""
    edge = np.flatnonzero(np.diff(np.pad(free.astype(int), 1)))
    bands = [
        (low, min(low + height, stop))
        for start, stop in edge.reshape(-1, 2).tolist()
        for low in range(start, stop, height)
    ]
    return np.array(bands, dtype=int).reshape(-1, 2)


def _stiffened(options: BackgroundOptions, bands: IntArray, n_row: int) -> BackgroundOptions:
    """Take no more freedom than the free rows can tell: the noise of their slope reaches far."""
    beyond = max(int(bands[0, 0]), n_row - int(bands[-1, 1]))
    gap = int(np.max(bands[1:, 0] - bands[:-1, 1], initial=0))
    degree = 0 if beyond > _WIDE_EDGE * n_row else 1 if gap > _WIDE_GAP * n_row else None
    if degree is None or degree >= options.bspline_deg:
        return options
    return replace(options, bspline_deg=degree, knot_distance=1.0)


def _band_levels(image: Signal, bands: IntArray, sigma: float) -> tuple[FloatArray, FloatArray]:
    """Clipped mean of each band at each column, smoothed along x, and its number of pixels."""
    level = np.empty((bands.shape[0], image.shape[1]))
    count = np.empty_like(level)
    for i, (low, high) in enumerate(bands):
        rows = image.select(slice(low, high))
        good = rows.good
        value = np.where(good, rows.value, 0).astype(float)
        for _ in range(3):
            number = good.sum(axis=0)
            total = scipy.ndimage.gaussian_filter1d(np.where(good, value, 0).sum(axis=0), sigma)
            smooth = scipy.ndimage.gaussian_filter1d(number.astype(float), sigma)
            level[i] = np.where(smooth > 0, total / np.maximum(smooth, 1e-9), 0)
            off = np.abs(value - level[i])
            scatter = 1.4826 * float(np.median(off[good])) if good.any() else 0.0
            good = good & (off <= max(4 * scatter, 1e-12))
        count[i] = smooth
    return level, count


def _keep_bands(
    level: FloatArray, count: FloatArray, bands: IntArray, n_row: int, options: BackgroundOptions
) -> BoolArray:
    """Drop bands that stand out upwards from a smooth course: ghosts and stray light."""
    mean = np.average(level, axis=1, weights=np.maximum(count, 1e-9))
    used: BoolArray = np.asarray(np.any(count > 0, axis=1))
    design = _spline(bands.mean(axis=1), n_row, options)
    for _ in range(10):
        weight = used * (bands[:, 1] - bands[:, 0])
        fit = design @ _solve_smooth(design, weight, mean)
        off = mean - fit
        scatter = 1.4826 * float(np.median(np.abs(off[used])))
        keep: BoolArray = used & (off < max(options.clip_sigma * scatter, 1e-9))
        if np.array_equal(keep, used) or keep.sum() < max(3, used.sum() // 3):
            break
        used = keep
    return used


def _surface(
    level: FloatArray,
    weight: FloatArray,
    bands: IntArray,
    shape: tuple[int, ...],
    options: BackgroundOptions,
) -> FloatArray:
    """Spline along the rows through the bands of every column."""
    design = _spline(bands.mean(axis=1), shape[0], options)
    height = weight.mean(axis=1)
    surface: FloatArray = _spline(np.arange(shape[0]), shape[0], options) @ _solve_smooth(
        design, height, level
    )
    return surface


def _spline(rows: FloatArray | IntArray, n_row: int, options: BackgroundOptions) -> FloatArray:
    """B-splines over the frame (nrow, nspline)."""
    if options.bspline_deg == 0:
        return np.ones((np.size(rows), 1))
    degree = options.bspline_deg
    inner = np.linspace(0, n_row - 1, max(int(round(1 / options.knot_distance)), 1) + 1)
    knots = np.concatenate([np.full(degree, inner[0]), inner, np.full(degree, inner[-1])])
    return spline_basis(rows, knots, degree)


def _solve_smooth(design: FloatArray, weight: FloatArray, value: FloatArray) -> FloatArray:
    """Weighted least squares; differences of coefficients are held small where rows are missing."""
    scaled = design * weight[:, None]
    gram = design.T @ scaled
    bend = np.diff(np.eye(gram.shape[0]), axis=0)
    gram += 1e-3 * np.trace(gram) / gram.shape[0] * (bend.T @ bend)
    gram += 1e-9 * np.trace(gram) * np.eye(gram.shape[0])
    solution: FloatArray = np.linalg.solve(gram, scaled.T @ value)
    return solution
