"""A flat in blocks of columns: outliers replaced, fluxes solved, centroids measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from kspecpipe.extraction.joint import background_basis, expected_level, solve_joint
from kspecpipe.extraction.slabs import lay_slabs
from kspecpipe.extraction.solve import lay_model
from kspecpipe.signal import BoolArray, FloatArray, IntArray, Signal
from kspecpipe.trace.blocks import block_edges
from kspecpipe.trace.floor import fit_floor, has_floor
from kspecpipe.trace.ghosts import Ghosts, find_ghosts
from kspecpipe.trace.model import Points, Traces
from kspecpipe.trace.table import Profile, sample_at


@dataclass(frozen=True, eq=False)
class BlockSpectra:
    """Collapsed flat with traces and fluxes in each block.

    Parameters
    ----------
    x : ndarray, shape (nb,)
        Flux-weighted mean column of each block.
    raw, value, weight, raw_weight : ndarray, shape (ny, nb)
        Mean over the block's columns [electron], the same without ghosts, and their inverse
        variances; 0 = unusable.
    y, flux, error : ndarray, shape (nfib, nb)
        Traces, fluxes and their errors [electron].
    ghosts : Ghosts
        Faint traces beside the fibres.
    background : ndarray, shape (ny, nb)
        Smooth light under the fibres [electron].
    floor : bool
        Whether a flat floor of scattered light between the traces was subtracted.
    """

    x: FloatArray
    raw: FloatArray
    value: FloatArray
    weight: FloatArray
    raw_weight: FloatArray
    y: FloatArray
    flux: FloatArray
    error: FloatArray
    ghosts: Ghosts
    background: FloatArray
    floor: bool = False

    def significant(self, sigma: float) -> BoolArray:
        """Fluxes above ``sigma`` times their error and not below 1e-3 of the brightest."""
        enough: BoolArray = self.flux > sigma * self.error
        return np.asarray(enough & (self.flux > 1e-3 * self.flux.max()))


def block_width(traces: Traces, least: int) -> int:
    """Columns per block: few enough that no trace moves by more than 0.04 FWHM inside one."""
    steepest = float(np.abs(np.gradient(traces.y, axis=1)).max())
    n_x, fwhm = traces.y.shape[1], float(np.median(traces.width))
    limit = int(0.04 * fwhm / max(steepest, 1e-9))
    return int(max(min(n_x // least, limit), 4))


def clean_blocks(flat: Signal, width: int, traces: Traces, tolerance: float = 0.25) -> BlockSpectra:
    """Average blocks of columns; bad and odd pixels are replaced by what their row suggests.

    A pixel is odd if it is further than 6 sigma and ``tolerance`` of the light near it from its
    row's mean in the block scaled to the brightness of its column.
    """
    edges = block_edges(flat.shape[1], width)
    parts = [
        _average(flat.select((slice(None), slice(a, b))), tolerance)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    x = np.array([part[0] for part in parts]) + edges[:-1].astype(float)
    value, variance = (np.stack([part[i] for part in parts], axis=1) for i in (1, 2))
    # a thousandth of the light keeps few bright pixels from deciding everything
    weight = 1 / np.maximum(variance + (1e-3 * value) ** 2, np.finfo(float).tiny)
    weight = np.where(variance > 0, weight, 0)
    y = trace_at(traces.y, x)
    noise = np.sqrt(np.maximum(variance, 0))
    ghosts = find_ghosts(value, noise, y, float(np.median(traces.width)))
    flat_floor = has_floor(value, y)
    if flat_floor:
        value = value - fit_floor(value, y)
    empty = np.zeros(y.shape)
    return BlockSpectra(
        x, value, value, weight, weight, y, empty, empty, ghosts, 0 * value, flat_floor
    )


def _average(block: Signal, tolerance: float) -> tuple[float, FloatArray, FloatArray]:
    """Flux-weighted mean column, and mean and variance of each row (0 without good pixels)."""
    good, n_x = block.good, block.shape[1]
    value = np.where(good, block.value, np.nan)
    count = good.sum(axis=1)
    level = _middle(value, count)
    bright = level > 0.3 * np.max(level)
    column = np.ones(n_x)
    if bright.any():
        ratio = np.where(np.isfinite(value[bright]), value[bright] / level[bright, None], 1)
        column = np.maximum(np.median(ratio, axis=0), 0)
        column = column / column.mean() if column.sum() > 0 else np.ones(n_x)
    expected = level[:, None] * column
    near = tolerance * ndimage.maximum_filter1d(np.abs(level), 3)[:, None] * column
    noise = np.sqrt(np.where(good, block.variance, 0) + np.maximum(expected, 0))
    odd = ~good | (np.abs(np.nan_to_num(value) - expected) > 6 * noise + near)
    mean = np.where(odd, expected, value).mean(axis=1)
    kept = np.maximum(n_x - odd.sum(axis=1), 1)
    variance = np.where(good, block.variance, 0).sum(axis=1) / np.maximum(count, 1)
    variance = np.where(count > 0, (variance + np.maximum(mean, 0)) / kept, 0)
    return float(column @ np.arange(n_x) / n_x), mean, variance


def _middle(value: FloatArray, count: IntArray) -> FloatArray:
    """Mean of the middle half of the finite values of each row."""
    total = np.insert(np.cumsum(np.sort(value, axis=1), axis=1), 0, 0, axis=1)
    low, high, at = count // 4, count - count // 4, np.arange(value.shape[0])
    mean = (total[at, high] - total[at, low]) / np.maximum(high - low, 1)
    return np.where(count > 0, mean, 0)


def solve_blocks(spectra: BlockSpectra, traces: Traces, profile: Profile) -> BlockSpectra:
    """Solve traces and fluxes of all blocks together with ghosts and a smooth background."""
    ghosts, n_fibre = spectra.ghosts, traces.y.shape[0]
    y = trace_at(traces.y, spectra.x)
    rows, owner = np.concatenate([y, ghosts.beside(y)]), np.append(np.arange(n_fibre), ghosts.fibre)
    window, weights = sample_at(profile, rows, spectra.x, owner)
    slabs = lay_slabs(window, weights, spectra.raw.shape[0])
    basis = floor_basis(traces, spectra.raw.shape[0])
    level = floor_level(spectra, y)
    flux, error, floor = solve_joint(spectra.raw, spectra.raw_weight, slabs, basis, level)
    # what a dead fibre leaks must not be taken for its neighbours' wings
    dead = np.append(~traces.live, np.ones(rows.shape[0] - n_fibre, dtype=bool))[:, None]
    stray = np.where(dead, flux, 0)
    light = lay_model(slabs, stray, spectra.raw.shape, spectra.raw.dtype)
    # a ghost has not quite the profile of a fibre
    weight = spectra.raw_weight / (1 + spectra.raw_weight * (0.3 * light) ** 2)
    return replace(
        spectra,
        y=y,
        value=spectra.raw - light,
        background=floor,
        weight=weight,
        flux=np.where(dead, 0, flux)[:n_fibre],
        error=error[:n_fibre],
    )


def floor_level(spectra: BlockSpectra, y: FloatArray) -> FloatArray:
    """Level that the background may have in each block (nb,)."""
    pitch = float(np.median(np.diff(y, axis=0))) if y.shape[0] > 1 else 12.0
    span = float(y.min()), float(y.max())
    return expected_level(spectra.value, spectra.weight, span, pitch)


def floor_basis(traces: Traces, n_row: int) -> FloatArray:
    """Splines of the background around the fibres: knots three pitches apart."""
    margin = 2.5 * traces.pitch
    span = int(traces.y.min() - margin), int(traces.y.max() + margin) + 1
    return background_basis(n_row, span, 3.0 * traces.pitch)


def reject_rows(spectra: BlockSpectra, profile: Profile, sigma: float = 6.0) -> BlockSpectra:
    """Take weight from rows that the fibres do not explain: ghosts, stray light, hot rows."""
    pull = residuals(spectra, profile)
    model = spectra.value - pull
    pull *= np.sqrt(spectra.weight / (1 + spectra.weight * (0.02 * model) ** 2))
    odd = np.abs(pull) > sigma
    return replace(
        spectra,
        weight=np.where(odd, 0, spectra.weight),
        raw_weight=np.where(odd, 0, spectra.raw_weight),
    )


def residuals(spectra: BlockSpectra, profile: Profile) -> FloatArray:
    """Subtract the fibres' light (ny, nb)."""
    window, weights = sample_at(profile, spectra.y, spectra.x)
    slabs = lay_slabs(window, weights, spectra.value.shape[0])
    model = lay_model(slabs, spectra.flux, spectra.value.shape, spectra.value.dtype)
    return spectra.value - spectra.background - model


def trace_at(y: FloatArray, x: FloatArray) -> FloatArray:
    """Traces at fractional columns."""
    low = np.clip(np.floor(x).astype(int), 0, y.shape[1] - 1)
    high = np.minimum(low + 1, y.shape[1] - 1)
    at: FloatArray = y[:, low] + (x - low) * (y[:, high] - y[:, low])
    return at


def measure_centroids(spectra: BlockSpectra, traces: Traces, profile: Profile) -> Points:
    """Flux centroid of each live fibre in each lit block, from the shift of its profile."""
    left = residuals(spectra, profile)
    window, weights = sample_at(profile, spectra.y, spectra.x)
    _, slope = sample_at(profile.derivative(), spectra.y, spectra.x)
    rows = window[:, None, :] + np.arange(weights.shape[1])[:, None]
    inside = (rows >= 0) & (rows < left.shape[0])
    rows = np.clip(rows, 0, left.shape[0] - 1)
    core = inside & (weights > 0.05 * weights.max(axis=1, keepdims=True))
    weight = spectra.weight[rows, np.arange(spectra.x.size)] * core
    power = np.maximum(np.einsum("fyx,fyx->fx", weight, weights**2), 1e-300)
    slope = (
        slope - weights * (np.einsum("fyx,fyx,fyx->fx", weight, weights, slope) / power)[:, None]
    )
    strength = np.maximum(np.einsum("fyx,fyx->fx", weight, slope**2), 1e-300)
    value = left[rows, np.arange(spectra.x.size)]
    flux = np.maximum(spectra.flux, 1e-30)
    move = np.einsum("fyx,fyx,fyx->fx", weight, slope, value) / np.maximum(strength * flux, 1e-300)
    error = 1 / np.maximum(flux * np.sqrt(strength), 1e-300)
    # a core that is partly outside the frame or masked gives no centroid
    whole = np.einsum("fyx,fyx->fx", weight > 0, weights) > 0.7
    good = spectra.significant(5.0) & traces.live[:, None] & whole
    good &= (error < 0.3) & (np.abs(move) < 0.5 * np.median(traces.width))
    fibre, block = np.nonzero(good)
    return Points(fibre, spectra.x[block], (spectra.y + move)[good], error[good])
