"""Lamp flats in two dimensions: exposure level on fibre light, low-sensitivity pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.solve import model_image
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.trace.model import Traces


@dataclass(frozen=True)
class FibreLight:
    """Light of one flat in the inner window of the live fibres.

    Parameters
    ----------
    mean, total : float
        Clipped mean and sum of the pixels [electron], or of their ratio to a master.
    percentiles : tuple of float
        10th, 50th and 90th percentile.
    number : int
        Pixels used.
    """

    mean: float
    total: float
    percentiles: tuple[float, float, float]
    number: int


@dataclass(frozen=True, kw_only=True)
class FibreLightOptions:
    """How the exposure level is measured.

    Parameters
    ----------
    centre_fibre_window : int
        Rows around each trace that count.
    clip_sigma : float
        Rejection limit.
    clip_iterations : int
        Largest number of rejection rounds.
    min_light : float
        Pixels of a master below this fraction of its 90th percentile are left out; without a
        master pixels of the flat below this fraction of its 99th.
    """

    centre_fibre_window: int = 3
    clip_sigma: float = 5.0
    clip_iterations: int = 5
    min_light: float = 0.1


def fibre_light(
    image: Signal,
    traces: Traces,
    *,
    master: Signal | None = None,
    options: FibreLightOptions | None = None,
) -> FibreLight:
    """Measure the exposure level of one flat on fibre light, never on background.

    Without a master the mean of the inner pixels is a first approximation; divided by a first-pass
    master, which takes out the illumination, the mean tells the level of this flat alone.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        One flat [electron].
    traces : Traces
        Where the fibres are; dead ones are left out.
    master : Signal, shape (ny, nx), optional
        First-pass master flat.
    options : FibreLightOptions, optional
        Window and clipping.

    Raises
    ------
    RecipeError
        If no usable pixel has light.
    ValueError
        If the shapes disagree.
    """
    options = options or FibreLightOptions()
    if master is not None and master.shape != image.shape:
        raise ValueError(f"flat {image.shape} and master {master.shape} differ in shape")
    rows = inner_rows(traces, options.centre_fibre_window)
    at = (
        np.clip(rows, 0, image.shape[0] - 1),
        np.broadcast_to(np.arange(rows.shape[-1]), rows.shape),
    )
    good = image.good[at] & (rows >= 0) & (rows < image.shape[0])
    value, weight = image.value[at].astype(float), np.ones(rows.shape)
    if master is not None:
        weight = master.value[at].astype(float)
        good &= master.good[at] & np.isfinite(weight)
        if good.any():
            good &= weight > options.min_light * np.percentile(weight[good], 90)
        value = value / np.where(good, weight, 1)
    else:
        good &= _lit(value, good, image.variance[at], options.min_light)
    if not good.any():
        raise RecipeError("no usable pixel of this flat has fibre light; was the lamp on?")
    return _summarise(value[good], weight[good], options)


def _lit(value: FloatArray, good: BoolArray, variance: FloatArray, min_light: float) -> BoolArray:
    """Leave out pixels where the lamp gives no light, if it clearly gives some elsewhere.

    A lamp may light the red end only: the median of all pixels is then that of the dark ones.
    """
    if not good.any():
        return good
    top = float(np.percentile(value[good], 99))
    clear = top > 5 * float(np.sqrt(np.median(variance[good])))
    return (value > min_light * top) | (not clear)


def _summarise(value: FloatArray, weight: FloatArray, options: FibreLightOptions) -> FibreLight:
    used = np.ones(value.size, dtype=bool)
    for _ in range(options.clip_iterations):
        centre = np.median(value[used])
        scatter = 1.4826 * np.median(np.abs(value[used] - centre))
        keep = np.abs(value - centre) <= options.clip_sigma * max(float(scatter), 1e-30)
        if np.array_equal(keep, used) or not keep.any():
            break
        used = keep
    low, middle, high = (float(p) for p in np.percentile(value[used], (10, 50, 90)))
    mean = float(np.average(value[used], weights=weight[used]))
    return FibreLight(mean, float(value[used].sum()), (low, middle, high), int(used.sum()))


def inner_rows(traces: Traces, window: int) -> IntArray:
    """Rows of the inner window of the live fibres (nlive, window, nx)."""
    centre = np.round(traces.y[traces.live]).astype(int)
    rows: IntArray = centre[:, None, :] + (np.arange(window) - window // 2)[:, None]
    return rows


def exposure_levels(
    planes: Iterable[Signal],
    traces: Traces,
    *,
    master: Signal | None = None,
    options: FibreLightOptions | None = None,
) -> FloatArray:
    """Level of every flat by which it is to be divided before combination, shape (nplane,).

    First without a master; then, with the first-pass master made of the flats divided by these
    levels, once more: the second levels are the good ones.

    Parameters
    ----------
    planes : iterable of Signal
        The flats, one at a time.
    traces : Traces
        Where the fibres are.
    master : Signal, optional
        First-pass master.
    options : FibreLightOptions, optional
        Window and clipping.

    Raises
    ------
    RecipeError
        If a flat has no light.
    """
    levels = [fibre_light(plane, traces, master=master, options=options).mean for plane in planes]
    dark = [i for i, level in enumerate(levels) if not level > 0]
    if dark:
        raise RecipeError(
            f"{len(dark)} of {len(levels)} flats (first: {dark[:3]}) have no light on the fibres. "
            "Was the lamp on in all of them?"
        )
    return np.array(levels)


def low_sensitivity_pixels(
    flat: Signal,
    model: FloatArray,
    *,
    low_sensitivity_clipping_sigma: float = 5.0,
    response: float = 1.0,
    min_model: float = 0.1,
) -> BoolArray:
    """Find pixels that see less light than the profile says.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Master flat [electron]; its variance without Poisson noise.
    model : ndarray, shape (ny, nx)
        What the fibres' profiles and smooth spectra predict, see `smooth_model`.
    low_sensitivity_clipping_sigma : float
        Robust standard deviations (and at least as many of the pixel's own noise) below the
        median ratio of light to model.
    response : float
        Fraction of the median ratio that a pixel must not reach besides.
    min_model : float
        Only pixels with at least this fraction of the brightest model pixel of their column are
        judged.

    Returns
    -------
    ndarray of bool, shape (ny, nx)

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    judged = lit_pixels(flat, model, min_model) & flat.good
    low = np.zeros(flat.shape, dtype=bool)
    if judged.any():
        ratio = flat.value[judged] / model[judged]
        centre = float(np.median(ratio))
        scatter = 1.4826 * np.median(np.abs(ratio - centre))
        noise = np.sqrt(flat.variance[judged] + np.maximum(model[judged], 0)) / model[judged]
        limit = centre - low_sensitivity_clipping_sigma * np.hypot(scatter, noise)
        low[judged] = (ratio < limit) & (ratio < response * centre)
    others = flat.flag(low, DQ.BAD)
    return low | _dull_columns(others, model, low_sensitivity_clipping_sigma, response)


def _dull_columns(flat: Signal, model: FloatArray, sigma: float, response: float) -> BoolArray:
    """Find pieces of columns that see less light than the columns beside them (ny, nx).

    Where the light is faint no pixel of a dead column stands out by itself, but many do together.
    """
    height = 24  # rows: one or two fibres, a small part of most dead columns
    judged = (model > 0.1 * model.max(axis=0)) & flat.good
    low = np.zeros(flat.shape, dtype=bool)
    for first in (0, height // 2):
        starts = np.arange(first, flat.shape[0], height)
        light, expected, variance = (
            np.add.reduceat(np.where(judged, image, 0.0), starts, axis=0)
            for image in (flat.value, model, flat.variance + np.maximum(model, 0))
        )
        ratio = np.divide(light, expected, out=np.ones_like(light), where=expected > 0)
        usual = np.maximum(ndimage.median_filter(ratio, (1, 21), mode="nearest"), 0) * expected
        dull = (light < response * usual) & (light < usual - sigma * np.sqrt(variance))
        for piece, column in zip(*np.nonzero(dull), strict=True):
            rows = slice(starts[piece], starts[piece] + height)
            # a piece may reach beyond the end of the dead part
            least = response * model[rows, column]
            noise = np.sqrt(flat.variance[rows, column] + np.maximum(model[rows, column], 0))
            low[rows, column] |= flat.value[rows, column] < least + noise
    return low


def lit_pixels(flat: Signal, model: FloatArray, min_model: float = 0.1) -> BoolArray:
    """Find pixels with fibre light of which a lack could be seen, usable or not (ny, nx).

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    if flat.shape != model.shape:
        raise ValueError(f"flat {flat.shape} and model {model.shape} differ in shape")
    noise = np.sqrt(np.nan_to_num(flat.variance) + np.maximum(model, 0))
    return np.asarray((model > min_model * model.max(axis=0)) & (model > 20 * noise))


def smooth_model(
    spectra: Signal, window: IntArray, weights: FloatArray, n_row: int, width: int = 15
) -> FloatArray:
    """Image (n_row, nx) of the fibres' light without what single bad pixels did to the spectra.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted flat [electron].
    window, weights : ndarray
        As for `extract_fibres`.
    n_row : int
        Rows of the image.
    width : int
        Columns of the running median [pixel].
    """
    known = np.isfinite(spectra.value)
    column = np.arange(spectra.shape[1])
    filled = np.zeros(spectra.shape)
    for f in np.flatnonzero(known.any(axis=1)):
        filled[f] = np.interp(column, column[known[f]], spectra.value[f, known[f]])
    smooth = ndimage.median_filter(filled, (1, width), mode="nearest")
    return model_image(replace(spectra, value=smooth), window, weights, n_row)
