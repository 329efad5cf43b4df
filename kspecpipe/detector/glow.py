"""Glow of the detector that varies from exposure to exposure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.detector.boxes import BoxGrid, box_means, fill_empty
from kspecpipe.detector.planes import Planes
from kspecpipe.detector.robust import median_of_known
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, Signal


@dataclass(frozen=True)
class Glow:
    """Shapes by which darks differ from each other.

    Parameters
    ----------
    components : ndarray of float32, shape (k, ny, nx)
        Shapes; the largest absolute value of each is 1. There may be none.
    amplitudes : ndarray, shape (n, k)
        Strength in each dark relative to the mean dark (to none, for a single dark) [electron/s].
    """

    components: FloatArray
    amplitudes: FloatArray


@dataclass(frozen=True)
class GlowOptions:
    """How glow is fitted to an image.

    Parameters
    ----------
    box : int
        Size of the boxes whose means are fitted [pixel].
    order : int
        Total order of the smooth background fitted along with the glow; 0 is a constant.
    clip : float
        Boxes further off than this many sigma have no weight (ghosts, stray light).
    limit : float
        Largest amplitude that the glow can have, in the unit of the image: a fit beyond it has
        taken scattered light for glow, and is cut back to it.
    """

    box: int = 24
    order: int = 1
    clip: float = 4.685
    limit: float = np.inf


@dataclass(frozen=True)
class GlowFit:
    """Glow and smooth background of one image.

    Parameters
    ----------
    amplitudes, variance : ndarray, shape (k,)
        Strength of each component and its variance, in the unit of the image.
    used : float
        Fraction of the boxes that had weight.
    coefficients, covariance : ndarray, shape (n,) and (n, n)
        Strength of each term: the components, and the background's, of which the first is constant.
    components : ndarray, shape (k, ny, nx)
        Shapes of the glow.
    order : int
        Order of the background.
    """

    amplitudes: FloatArray
    variance: FloatArray
    used: float
    coefficients: FloatArray
    covariance: FloatArray
    components: FloatArray
    order: int

    @property
    def model(self) -> Signal:
        """Glow plus background (ny, nx), with the variance of the fit."""
        return self._sum(self.order)

    @property
    def glow(self) -> Signal:
        """Glow (ny, nx) with no more of the background than its constant."""
        return self._sum(0)

    def _sum(self, order: int) -> Signal:
        _, ny, nx = self.components.shape
        terms = [*self.components, *_polynomials(ny, nx, order)]
        n = len(terms)
        return _weighted_sum(terms, self.coefficients[:n], self.covariance[:n, :n])


def glow_components(
    planes: Planes,
    exptimes: FloatArray,
    *,
    box: int = 32,
    max_components: int = 3,
    significance: float = 1.5,
) -> Glow:
    """Find the shapes of the glow: that of the mean dark, and what darks differ by besides.

    The first is the smooth shape of the mean dark, if it has one; the others are principal
    components of what the darks' box means differ by beyond that.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Darks without bias [electron]. A level of its own in each of them does not matter.
    exptimes : ndarray, shape (n,)
        Exposure times [s].
    box : int
        Size of the boxes [pixel]; cosmic rays and hot pixels are clipped from their means.
    max_components : int
        Most components returned.
    significance : float
        Components must exceed the largest that noise gives by this factor.

    Returns
    -------
    Glow
        No component at all if the darks are even and do not differ beyond noise.

    Raises
    ------
    ValueError
        If there is not one positive exposure time per dark.
    """
    n, ny, nx = planes.shape
    times = np.asarray(exptimes, float)
    if times.shape != (n,) or not np.all(times > 0):
        raise ValueError(f"{n} darks need {n} positive exposure times, not {times}")
    grid = BoxGrid((ny, nx), box)
    means = box_means(planes, grid)
    rates = np.stack([fill_empty(mean) for mean in means.mean]) / times[:, None, None]
    known = np.where(means.count > 0, np.square(means.error), np.nan)
    error = np.sqrt(np.maximum(np.nanmedian(known, axis=(1, 2)), np.finfo("f4").tiny)) / times
    shapes, amplitudes = _shapes(rates.reshape(n, -1), error, significance, max_components)
    maps = shapes.reshape(len(shapes), *rates.shape[1:])
    # Noise of a shape is multiplied by its strength in every science frame: glow is smooth.
    images = [
        grid.surface(scipy.ndimage.gaussian_filter(shape, 1.0, mode="nearest")) for shape in maps
    ]
    if not images:
        return Glow(np.empty((0, ny, nx), np.float32), np.empty((n, 0)))
    return Glow(np.asarray(images, np.float32), amplitudes)


def fit_glow(
    image: Signal, components: FloatArray, rows: BoolArray, options: GlowOptions | None = None
) -> GlowFit:
    """Fit glow and a smooth background to the rows of an image that hold no fibre light.

    Means of boxes are fitted with weights that vanish for boxes far off (Tukey's biweight), so that
    a ghost in the rows does no harm.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Image without bias and dark [electron].
    components : ndarray, shape (k, ny, nx)
        Shapes of the glow; k may be 0.
    rows : ndarray of bool, shape (ny,)
        True for rows without light.
    options : GlowOptions, optional
        Boxes, order of the background, clipping.

    Returns
    -------
    GlowFit
        Amplitudes with variance and the model for the whole image.

    Raises
    ------
    ValueError
        If shapes disagree.
    RecipeError
        If the rows without light hold too few usable pixels.
    """
    options = options or GlowOptions()
    ny, nx = image.shape
    if components.shape[1:] != (ny, nx) or rows.shape != (ny,):
        raise ValueError(
            f"components {components.shape} and rows {rows.shape} do not fit an image {image.shape}"
        )
    use = image.good & rows[:, None]
    if not use.any():
        raise RecipeError(
            f"none of the {int(rows.sum()) * nx} pixels in {int(rows.sum())} rows without light is "
            "usable; glow and background cannot be measured. Is the frame saturated?"
        )
    # One term at a time: all of them are larger than all else.
    terms = chain(components, _polynomials(ny, nx, options.order))
    means, design = _box_equations(image.value, terms, use, BoxGrid((ny, nx), options.box))
    n_term = design.shape[1]
    if len(means) < 3 * n_term:
        raise RecipeError(
            f"{len(means)} boxes of {options.box} pixels lie in the {int(rows.sum())} rows without "
            f"light; {3 * n_term} are needed to fit {n_term} terms of glow and background"
        )
    coefficients, covariance, used = _robust_fit(design, means, options.clip)
    k = len(components)
    amplitudes = np.clip(coefficients[:k], -options.limit, options.limit)
    if not np.array_equal(amplitudes, coefficients[:k]):
        rest = means - design[:, :k] @ amplitudes
        background, covariance[k:, k:], used = _robust_fit(design[:, k:], rest, options.clip)
        coefficients = np.concatenate([amplitudes, background])
    return GlowFit(
        amplitudes,
        np.diag(covariance)[:k],
        used,
        coefficients,
        covariance,
        components,
        options.order,
    )


def _weighted_sum(
    terms: Sequence[FloatArray], weights: FloatArray, covariance: FloatArray
) -> Signal:
    """Sum of terms (k, ny, nx) and its variance, one at a time: no array of terms squared."""
    value, variance = np.zeros_like(terms[0]), np.zeros_like(terms[0])
    kind = terms[0].dtype.type
    for term, weight in zip(terms, weights, strict=True):
        value += kind(weight) * term
    # The covariance is a sum of squares of its eigenvectors.
    strength, vectors = np.linalg.eigh(covariance)
    for power, vector in zip(np.sqrt(np.maximum(strength, 0)), vectors.T, strict=True):
        part = np.zeros_like(terms[0])
        for term, share in zip(terms, power * vector, strict=True):
            part += kind(share) * term
        variance += part**2
    return Signal.of(value, variance)


def _shapes(
    rates: FloatArray, error: FloatArray, significance: float, most: int
) -> tuple[FloatArray, FloatArray]:
    """Shapes (k, m) with peak 1, and amplitudes (n, k): first that of the mean dark, then more.

    Glow that varies has mostly the shape that it has on average, which is known much better than
    any difference of darks.
    """
    weight = 1 / error**2
    typical = np.average(rates, axis=0, weights=weight)
    shape = typical - np.median(typical)
    differences = rates - typical
    differences -= np.median(differences, axis=1, keepdims=True)
    strength = np.linalg.norm(shape) * np.sqrt(weight.sum())
    if strength <= significance * (1 + np.sqrt(shape.size)):
        return _significant_shapes(differences, error, significance, most)
    first = shape / shape[np.abs(shape).argmax()]
    amplitude = differences @ first / (first @ first)
    left = differences - amplitude[:, None] * first
    more, amplitudes = _significant_shapes(left, error, significance, most - 1)
    return np.vstack([first, more]), np.column_stack([amplitude, amplitudes])


def _significant_shapes(
    variation: FloatArray, error: FloatArray, significance: float, most: int
) -> tuple[FloatArray, FloatArray]:
    """Principal components (k, m) above the noise, with peak 1, and amplitudes (n, k)."""
    n, m = variation.shape
    scaled = variation / error[:, None]
    left, strength, right = np.linalg.svd(scaled, full_matrices=False)
    # The largest singular value of pure noise is close to sqrt(n) + sqrt(m).
    number = int(min(np.sum(strength > significance * (np.sqrt(n) + np.sqrt(m))), most))
    shapes = right[:number]
    peak = np.take_along_axis(shapes, np.abs(shapes).argmax(axis=1)[:, None], axis=1)
    amplitudes = left[:, :number] * strength[:number] * peak[:, 0] * error[:, None]
    return shapes / peak, amplitudes


def _polynomials(ny: int, nx: int, order: int) -> Iterator[FloatArray]:
    """Products of Legendre polynomials up to a total order, each (ny, nx)."""
    y, x = np.linspace(-1, 1, ny), np.linspace(-1, 1, nx)
    along = [np.polynomial.Legendre.basis(k) for k in range(order + 1)]
    up, right = (np.asarray([one(at) for one in along], np.float32) for at in (y, x))
    for i in range(order + 1):
        for j in range(order + 1 - i):
            yield np.outer(up[i], right[j])


def _box_equations(
    value: FloatArray, terms: Iterable[FloatArray], use: BoolArray, grid: BoxGrid
) -> tuple[FloatArray, FloatArray]:
    """Means of image and terms over the usable pixels of each box that has enough of them.

    The image's mean leaves out the tails of each box (cosmic rays); the terms are smooth.
    """
    value = np.where(use, value, np.nan)
    boxes: BoolArray = np.asarray(np.isfinite(grid.pixels(value)).any(axis=-1))
    pixels = grid.pixels_of(value, boxes)
    inside = np.isfinite(pixels)
    off = np.abs(pixels - median_of_known(pixels, inside)[:, None])
    inside &= off <= 4 * 1.4826 * np.median(off[inside])
    count = inside.sum(axis=-1)
    enough = count > 0.25 * pixels.shape[-1]
    weights = np.where(inside, 1 / np.maximum(count, 1)[:, None], 0)[enough]
    means = np.einsum("bp,bp->b", np.where(inside, pixels, 0)[enough], weights)
    boxes[boxes] = enough
    design = [
        np.einsum("bp,bp->b", np.where(np.isfinite(part), part, 0), weights)
        for part in (grid.pixels_of(term, boxes) for term in terms)
    ]
    return means, np.asarray(design).T


def _robust_fit(
    design: FloatArray, values: FloatArray, clip: float
) -> tuple[FloatArray, FloatArray, float]:
    """Iterate a linear fit with biweights: coefficients, covariance, fraction with weight."""
    weight = np.ones(len(values))
    shrink = np.sqrt(len(values) / (len(values) - design.shape[1]))
    for _ in range(20):
        normal = design.T @ (weight[:, None] * design)
        coefficients = np.linalg.pinv(normal, hermitian=True) @ (design.T @ (weight * values))
        residual = values - design @ coefficients
        scale = 1.4826 * shrink * np.median(np.abs(residual - np.median(residual)))
        distance = residual / max(clip * scale, np.finfo(float).tiny)
        weight = np.where(np.abs(distance) < 1, (1 - np.minimum(distance**2, 1)) ** 2, 0)
    use = weight > 0
    # Variance of an M-estimate: mean psi**2 over the squared mean slope of psi (Huber 1981).
    square = np.sum((weight * residual)[use] ** 2) / max(int(use.sum()) - len(coefficients), 1)
    slope = np.mean(((1 - distance**2) * (1 - 5 * distance**2))[use])
    inverse = np.linalg.pinv(design[use].T @ design[use], hermitian=True)
    return coefficients, inverse * square / slope**2, float(np.mean(use))
