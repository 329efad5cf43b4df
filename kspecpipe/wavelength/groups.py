"""What each row of an arc has of its own: displacement and flux of blends, and a continuum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.wavelength.scene import (
    Model,
    Rendering,
    Scene,
    in_all_rows,
    model_variance,
    sample_weights,
)

#: Stretch whose reduced chi2 says whether the model is wrong there [FWHM], and what it may be.
_DOUBT_WINDOW, _TOLERATED = 3.0, 1.5
#: Relative error of the model that is expected, its weight in samples, and its range.
_MODEL_ERROR, _EXPECTED_WEIGHT, _MODEL_ERROR_RANGE = 0.01, 50.0, (0.001, 0.05)


@dataclass(frozen=True)
class Measurement:
    """Position of every group in every row.

    Parameters
    ----------
    offset, variance : ndarray, shape (n_row, n_group)
        Displacement against the model's position, and its variance [pixel]; inf when not measured.
    amplitude : ndarray, shape (n_row, n_group)
        Flux against the model's.
    snr : ndarray, shape (n_row, n_group)
        Flux of the group over its error.
    core : ndarray, shape (n_row, n_group)
        Fraction of the position's information that is lost to bad or saturated samples.
    """

    offset: FloatArray
    variance: FloatArray
    amplitude: FloatArray
    snr: FloatArray
    core: FloatArray


def measure_groups(scene: Scene, model: Model, drawn: Rendering, reach: float) -> Measurement:
    """Fit displacement, flux and local background of each group in each row.

    Parameters
    ----------
    scene, model : Scene, Model
        Data and forward model.
    drawn : Rendering
        The model's lines.
    reach : float
        How far the fit goes beyond the outermost lines of a group [pixel].

    Returns
    -------
    Measurement
        All groups in all rows.
    """
    weight = sample_weights(scene, model, drawn)
    residual = scene.value - model.continuum - drawn.lines
    start, length = _group_windows(model, drawn.position, reach)
    columns, index = _group_columns(model, drawn, start, length)
    on_chip = (index >= 0) & (index < scene.nx)
    at = np.clip(index, 0, scene.nx - 1)
    rows = np.arange(len(start))[:, None, None]
    mask = on_chip & (np.arange(index.shape[-1]) < length[None, :, None])
    w = weight[rows, at] * mask
    weighted = columns * w[:, :, None, :]
    normal = weighted @ columns.swapaxes(-1, -2)
    right = np.einsum("rgpk,rgk->rgp", weighted, residual[rows, at])
    power = np.diagonal(normal, axis1=-2, axis2=-1).copy()
    # The flux of a group may differ by 30 % from the model's; displacement and background are free.
    normal[..., 0, 0] += 1 / 0.3**2
    normal += np.einsum("rgp,pq->rgpq", 1e-9 * power + 1e-12, np.eye(columns.shape[2]))
    inverse = np.linalg.inv(normal)
    solution = np.einsum("rgpq,rgq->rgp", inverse, right)
    ideal = 1 / np.maximum(model_variance(scene, model, drawn), 1e-6)
    whole = np.sum(columns[:, :, 1] ** 2 * ideal[rows, at] * mask, axis=-1)
    lost = 1 - power[..., 1] / np.maximum(whole, 1e-30)
    measured = power[..., 1] > 0
    return Measurement(
        solution[..., 1],
        np.where(measured, inverse[..., 1, 1], np.inf),
        1 + solution[..., 0],
        np.sqrt(np.maximum(power[..., 0], 0)),
        np.where(measured, lost, 1.0),
    )


def _group_windows(model: Model, position: FloatArray, reach: float) -> tuple[IntArray, IntArray]:
    """First pixel (n_row, n_group) and length (n_group,) of each group's window."""
    order = np.argsort(model.group, kind="stable")
    first = np.searchsorted(model.group[order], np.arange(model.n_group))
    low = np.minimum.reduceat(position[:, order], first, axis=1)
    high = np.maximum.reduceat(position[:, order], first, axis=1)
    start = np.floor(low - reach).astype(int)
    length = np.ceil(np.max(high - low, axis=0) + 2 * reach).astype(int) + 1
    return start, length


def _group_columns(
    model: Model, drawn: Rendering, start: IntArray, length: IntArray
) -> tuple[FloatArray, IntArray]:
    """Columns flux, displacement, constant and slope on each group's window, and the pixels."""
    n_row, n_group = start.shape
    size = int(length.max())
    index = start[..., None] + np.arange(size)
    columns = np.ones((n_row, n_group, 4, size))
    at = drawn.pixel - start[:, model.group, None]
    inside = (at >= 0) & (at < size)
    row = np.arange(n_row)[:, None, None] * n_group + model.group[None, :, None]
    flat = (row * size + at)[inside]
    total = n_row * n_group * size
    for k, part in enumerate((drawn.value, drawn.slope)):
        columns[:, :, k] = np.bincount(flat, part[inside], minlength=total).reshape(
            n_row, n_group, size
        )
    columns[:, :, 3] = (2 * np.arange(size) - (length[:, None] - 1)) / length[:, None]
    return columns, index


def update_response(
    model: Model, drawn: Rendering, measured: Measurement, half: float
) -> tuple[Model, Rendering]:
    """Let responses follow the measured fluxes: bright groups their own, faint a parabola."""
    trusted = (measured.snr > 30) & (measured.core < 0.2) & (measured.amplitude > 0.1)
    change = np.log(np.where(trusted, measured.amplitude, 1.0))
    weight = np.where(trusted, 1 / (1e-3 + 1 / np.maximum(measured.snr, 1) ** 2), 0.0)
    count = np.maximum(np.bincount(model.group, minlength=model.n_group), 1)
    at = np.stack([np.bincount(model.group, row, model.n_group) / count for row in drawn.position])
    columns = (at[..., None] / half - 1) ** np.arange(3)
    normal = np.einsum("rgp,rg,rgq->rpq", columns, weight, columns) + np.diag([1e-3, 10.0, 100.0])
    right = np.einsum("rgp,rg,rg->rp", columns, weight, change)
    smooth = np.einsum("rgp,rp->rg", columns, np.linalg.solve(normal, right[..., None])[..., 0])
    change = np.exp(np.where(trusted, change, smooth))[:, model.group]
    typical = np.median(model.response * change, axis=0)
    changed = replace(
        model, response=model.response * change / typical, intensity=model.intensity * typical
    )
    return changed, drawn.relit(change / typical, typical)


def update_continuum(scene: Scene, model: Model, drawn: Rendering, length: float) -> Model:
    """Let each row's continuum follow what the lines leave over, but no structure that is short.

    The continuum minimises its distance from the data and its curvature; structure shorter than
    2 pi ``length`` [pixel] is not followed where there are no lines, nor longer one under lines.
    """
    light = scene.value - drawn.lines
    return replace(model, continuum=followed(scene, model, drawn, light, length))


def followed(
    scene: Scene, model: Model, drawn: Rendering, light: FloatArray, length: float
) -> FloatArray:
    """Return what a continuum as of `update_continuum` makes of ``light`` (n_row, nx)."""
    weight = sample_weights(scene, model, drawn)
    # Under lines the model's errors, and the wings that it does not know, exceed the continuum.
    weight = weight / (1 + drawn.lines**2 / np.maximum(scene.variance, 1e-6))
    stiffness = length**4 / _variance_between_lines(scene, int(16 * length))
    return _smooth_rows(weight, weight * light, stiffness)


def _variance_between_lines(scene: Scene, window: int) -> FloatArray:
    """Smallest variance (n_row, nx) near each sample: light scattered by saturated lines is noisy.

    What is followed must not depend on how bright it is somewhere else on the chip.
    """
    seen = np.where(scene.good, np.maximum(scene.variance, 1e-6), np.inf)
    least = minimum_filter1d(seen, window, axis=1)
    largest = np.max(least, axis=1, keepdims=True, where=np.isfinite(least), initial=1e-6)
    return np.asarray(np.minimum(least, largest))


def _smooth_rows(weight: FloatArray, pull: FloatArray, stiffness: FloatArray) -> FloatArray:
    """Whittaker-Eilers smoothing (n_row, nx) of ``pull / weight``, as stiff as each place says."""
    size = weight.shape[1]
    smooth = np.empty_like(pull)
    second = (1.0, -2.0, 1.0)
    for row, stiff in enumerate(stiffness[:, 1:-1]):
        band = np.zeros((3, size))
        for i in range(3):
            for j in range(i, 3):
                band[2 - (j - i), j : j + size - 2] += second[i] * second[j] * stiff
        band[2] += weight[row] + 1e-9 * stiffness[row].max()
        smooth[row] = solveh_banded(band, pull[row], check_finite=False, overwrite_ab=True)
    return smooth


def local_residual(
    scene: Scene, model: Model, drawn: Rendering, measured: Measurement
) -> FloatArray:
    """Subtract the model (n_row, nx) with each row's own displacements and fluxes."""
    taken = np.isfinite(measured.variance)
    offset = np.where(taken, np.clip(measured.offset, -1, 1), 0.0)[:, model.group, None]
    gain = np.where(taken, np.clip(measured.amplitude - 1, -0.9, 0.9), 0.0)[:, model.group, None]
    flat = in_all_rows(drawn.pixel, scene.nx).ravel()
    change = (offset * drawn.slope + gain * drawn.value).ravel()
    fitted = np.bincount(flat, change, minlength=scene.value.size).reshape(scene.value.shape)
    residual: FloatArray = scene.value - model.continuum - drawn.lines - fitted
    return residual


def doubting_weights(
    scene: Scene, model: Model, drawn: Rendering, measured: Measurement
) -> FloatArray:
    """Weights (n_row, nx) of the samples, smaller where the lines are not what the model says.

    Blends with lines that no list has, lines at the chip's edge and the light around saturated ones
    miss the model by more than its errors. Their squared residuals would shape all other lines.
    """
    weight = sample_weights(scene, model, drawn)
    window = int(_DOUBT_WINDOW * model.lsf.basis.fwhm) | 1
    missed = uniform_filter1d(weight * local_residual(scene, model, drawn, measured) ** 2, window)
    seen = uniform_filter1d((weight > 0).astype(float), window)
    return np.asarray(weight / np.maximum(missed / np.maximum(seen, 0.1) / _TOLERATED, 1.0))


def explained_scatter(
    scene: Scene, model: Model, drawn: Rendering, measured: Measurement
) -> tuple[float, float]:
    """Reduced chi2 of the faint samples, and relative error of the model in the cores of lines."""
    residual = local_residual(scene, model, drawn, measured)
    faint = scene.good & (drawn.lines < 30 * np.sqrt(scene.variance))
    chi2 = np.nan
    if faint.any():
        chi2 = float(np.median(residual[faint] ** 2 / scene.variance[faint]) / 0.4549)
    # Only cores of whole, single lines say how well the shape is known.
    reach = 0.8 * model.lsf.basis.fwhm
    near = drawn.within(reach)
    rows = np.arange(len(near.pixel))[:, None, None]
    core = np.abs(near.pixel - near.position[..., None]) < reach
    core &= ~near.lost[..., None]
    core &= scene.good[rows, near.pixel] & (near.value > 0.8 * near.lines[rows, near.pixel])
    variance = scene.variance[rows, near.pixel]
    core &= near.value > 10 * np.sqrt(variance)
    flux = near.value[core]
    return chi2, model_error(residual[rows, near.pixel][core] / flux, variance[core] / flux**2)


def model_error(error: FloatArray, noise: FloatArray) -> float:
    """Relative error of a model of which samples (n,) miss by ``error``, with variance ``noise``.

    Samples count as far as their noise lets them tell: few or faint ones leave it at the expected.
    """
    low, high = np.log(_MODEL_ERROR_RANGE)
    for _ in range(12):
        middle = (low + high) / 2
        variance = np.exp(2 * middle)
        telling = variance / (noise + variance)
        excess = _weighted_median(error**2 / (noise + variance), telling) / 0.4549
        known = telling.sum() * np.log(max(excess, 1e-9))
        surprise = known - _EXPECTED_WEIGHT * 2 * (middle - np.log(_MODEL_ERROR))
        low, high = (middle, high) if surprise > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _weighted_median(value: FloatArray, weight: FloatArray) -> float:
    """Value below which half of the weight lies; 1 without any."""
    if not value.size:
        return 1.0
    order = np.argsort(value)
    total = np.cumsum(weight[order])
    return float(value[order][np.searchsorted(total, total[-1] / 2)])
