"""A forward model of arc spectra: lines with the empirical LSF on a smooth continuum.

Here are the data, the state of the model, and the lines laid on pixels; `shape` fits what all rows
share, `groups` what each row has of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.wavelength.lsf import Lsf, place_terms

#: Relative error of the model in the flanks of lines that have lost their cores.
_BLUNT = 0.07


@dataclass(frozen=True)
class Scene:
    """The data: one row for each fibre of each exposure.

    Parameters
    ----------
    value, variance : ndarray, shape (n_row, nx)
        Spectra [electron]; 0 where not good.
    good : ndarray of bool, shape (n_row, nx)
        Samples to use.
    fibre, exposure : ndarray of int, shape (n_row,)
        What each row is.
    place : ndarray, shape (n_row,)
        Place of its fibre along the slit, -1 to 1.
    seen : ndarray of bool, shape (n_exposure, n_line)
        Which lines' lamps burn in which exposure.
    """

    value: FloatArray
    variance: FloatArray
    good: BoolArray
    fibre: IntArray
    exposure: IntArray
    place: FloatArray
    seen: BoolArray

    @property
    def nx(self) -> int:
        """Pixels along the dispersion."""
        return int(self.value.shape[1])

    def rows(self, index: IntArray) -> Scene:
        """Return some of the rows."""
        return Scene(
            self.value[index],
            self.variance[index],
            self.good[index],
            self.fibre[index],
            self.exposure[index],
            self.place[index],
            self.seen,
        )


def some_rows(scene: Scene, count: int) -> IntArray:
    """Choose at most ``count`` rows, spread over the slit and the exposures."""
    rows = len(scene.value)
    if rows <= count:
        return np.arange(rows)
    return np.unique(np.linspace(0, rows - 1, count).astype(int))


@dataclass(frozen=True)
class Model:
    """The state of the forward model.

    Parameters
    ----------
    lsf : Lsf
        Shape of a line.
    intensity : ndarray, shape (n_line,)
        Flux of each line in a typical row [electron].
    group : ndarray of int, shape (n_line,)
        Blend to which each line belongs.
    response : ndarray, shape (n_row, n_line)
        Flux of each row's lines against the typical row.
    continuum : ndarray, shape (n_row, nx)
        Everything smooth [electron].
    floor : float
        Relative error of the model, for the weights.
    """

    lsf: Lsf
    intensity: FloatArray
    group: IntArray
    response: FloatArray
    continuum: FloatArray
    floor: float

    def rows(self, index: IntArray) -> Model:
        """Return the model of some of the rows."""
        return replace(self, response=self.response[index], continuum=self.continuum[index])

    @property
    def n_group(self) -> int:
        """Number of blends."""
        return int(np.max(self.group, initial=-1)) + 1


@dataclass(frozen=True)
class Rendering:
    """Lines of a model laid on pixels.

    Parameters
    ----------
    position : ndarray, shape (n_row, n_line)
        Where the lines are [pixel].
    lost : ndarray of bool, shape (n_row, n_line)
        Lines that have lost their cores: their strength is a guess.
    pixel : ndarray of int, shape (n_row, n_line, n_window)
        Pixels under each line, clipped to the chip.
    value, slope : ndarray, same shape
        Flux of the line [electron], 0 outside the chip; its derivative by position.
    unit : ndarray, same shape
        Flux of a line of intensity 1.
    lines : ndarray, shape (n_row, nx)
        Sum of all lines.
    blunt : ndarray, shape (n_row, nx)
        Sum of those that have lost their cores.
    """

    position: FloatArray
    lost: BoolArray
    pixel: IntArray
    value: FloatArray
    slope: FloatArray
    unit: FloatArray
    lines: FloatArray
    blunt: FloatArray

    def within(self, reach: float) -> Rendering:
        """Windows cut to the pixels nearer than ``reach`` [pixel], and half a pixel more."""
        middle, kept = self.pixel.shape[-1] // 2, int(reach + 0.5)
        if kept >= middle:
            return self
        near = slice(middle - kept, middle + kept + 1)
        return replace(
            self,
            pixel=self.pixel[..., near],
            value=self.value[..., near],
            slope=self.slope[..., near],
            unit=self.unit[..., near],
        )

    def relit(self, response: FloatArray, intensity: FloatArray) -> Rendering:
        """Lines with other fluxes at the same places: both factors of shape (n_row, n_line)."""
        value = self.value * (response * intensity)[..., None]
        lines, blunt = _sums(self.pixel, value, self.lost, self.lines.shape)
        return replace(
            self,
            value=value,
            slope=self.slope * (response * intensity)[..., None],
            unit=self.unit * response[..., None],
            lines=lines,
            blunt=blunt,
        )


def blend_groups(position: FloatArray, active: BoolArray, distance: float) -> IntArray:
    """Join active lines closer than ``distance`` [pixel] to the next into numbered blends."""
    order = np.argsort(position, kind="stable")
    step = np.diff(position[order], prepend=position[order[:1]])
    both = active[order] & np.append(True, active[order][:-1])
    label = np.cumsum((step > distance) | ~both)
    group = np.empty(order.size, int)
    group[order] = label - label[:1]
    return group


def render(scene: Scene, model: Model, position: FloatArray) -> Rendering:
    """Lay the lines at ``position`` (n_row, n_line) on the pixels."""
    reach = model.lsf.basis.reach
    nearest = np.rint(position).astype(int)
    pixel = nearest[..., None] + np.arange(-reach, reach + 1)
    inside = (pixel >= 0) & (pixel < scene.nx)
    half = (scene.nx - 1) / 2
    terms = place_terms(position / half - 1, scene.place[:, None])
    shape, slope = model.lsf.evaluate(pixel[..., 0] - position, 2 * reach + 1, terms)
    scale = model.response * scene.seen[scene.exposure]
    unit = scale[..., None] * shape * inside
    value = unit * model.intensity[:, None]
    gradient = -scale[..., None] * model.intensity[:, None] * slope * inside
    pixel = np.clip(pixel, 0, scene.nx - 1)
    lost = lost_cores(scene, position, model.lsf.basis.fwhm)
    sums = _sums(pixel, value, lost, scene.value.shape)
    return Rendering(position, lost, pixel, value, gradient, unit, *sums)


def _sums(
    pixel: IntArray, value: FloatArray, lost: BoolArray, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Sum (n_row, nx) of all lines, and of those without their cores."""
    flat = in_all_rows(pixel, shape[1])
    size = shape[0] * shape[1]
    lines = np.bincount(flat.ravel(), value.ravel(), size)
    blunt = np.bincount(flat[lost].ravel(), value[lost].ravel(), size)
    return np.asarray(lines, float).reshape(shape), np.asarray(blunt, float).reshape(shape)


def in_all_rows(pixel: IntArray, nx: int) -> IntArray:
    """Index of pixels (n_row, n_line, n_window) in the spectra of all rows laid end to end."""
    return pixel + (np.arange(len(pixel)) * nx)[:, None, None]


def lost_samples(scene: Scene, position: FloatArray, reach: float) -> IntArray:
    """Count the samples (n_row, n_line) within ``reach`` of lines that are saturated or bad."""
    total = np.cumsum(np.pad(~scene.good, ((0, 0), (1, 0))), axis=1)
    first = np.clip(np.rint(position - reach), 0, scene.nx).astype(int)
    end = np.clip(np.rint(position + reach) + 1, 0, scene.nx).astype(int)
    rows = np.arange(len(position))[:, None]
    lost: IntArray = total[rows, end] - total[rows, first]
    return lost


def lost_cores(scene: Scene, position: FloatArray, fwhm: float) -> BoolArray:
    """Tell the lines (n_row, n_line) that miss two samples of their core, or leave the chip."""
    outside = (position < 0.6 * fwhm) | (position > scene.nx - 1 - 0.6 * fwhm)
    return np.asarray(outside | (lost_samples(scene, position, 0.6 * fwhm) >= 2))


def model_variance(scene: Scene, model: Model, drawn: Rendering) -> FloatArray:
    """Variance of the data around the model (n_row, nx), which is not perfect."""
    error = model.floor * drawn.lines + _BLUNT * drawn.blunt
    return np.asarray(scene.variance + error**2)


def sample_weights(scene: Scene, model: Model, drawn: Rendering) -> FloatArray:
    """Weights (n_row, nx) of the samples; samples far from the model count little or nothing."""
    variance = model_variance(scene, model, drawn)
    residual = scene.value - model.continuum - drawn.lines
    weight = np.where(scene.good, 1 / np.maximum(variance, 1e-6), 0.0)
    spike = residual**2 > 36 * scene.variance + (0.3 * drawn.lines + 4 * model.floor) ** 2
    narrow = np.abs(residual) > 3 * np.maximum(
        np.abs(np.roll(residual, 1, axis=1)), np.abs(np.roll(residual, -1, axis=1))
    )
    return np.where(spike & narrow, 0.0, weight)
