"""Light that the optics scatter around every fibre, much wider than its profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.extraction.background import BackgroundOptions, fit_background
from kspecpipe.signal import DQ, UNUSABLE, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces


@dataclass(frozen=True)
class Halo:
    """A mixture of Gaussians across the dispersion, in fractions of the light of a fibre.

    Parameters
    ----------
    sigma : ndarray, shape (k,)
        Standard deviations [pixel].
    fraction : ndarray, shape (k,)
        Scattered light of each width relative to the light itself.
    """

    sigma: FloatArray
    fraction: FloatArray

    def image(self, light: FloatArray) -> FloatArray:
        """Return the halo (ny, nx) of an image of the light itself [electron]."""
        total = np.zeros_like(light)
        for sigma, fraction in zip(self.sigma, self.fraction, strict=True):
            if fraction > 0:
                smeared = _smear(light, float(sigma))
                smeared *= light.dtype.type(fraction)
                total += smeared
        return total


@dataclass(frozen=True, kw_only=True)
class HaloOptions:
    """How the halo is measured.

    Parameters
    ----------
    widths : tuple of float
        Standard deviations of its Gaussians in units of the pitch (but not below ``narrowest``
        profile widths): what is narrower belongs to the profile. They are close to each other,
        because what two of them say of the space between the fibres, where no row tells, differs.
    narrowest : float
        Least standard deviation in units of the profile's FWHM.
    clear : float
        Rows further than this from the outermost traces are looked at, in FWHM.
    reach : float
        Rows up to this far, in pitches.
    blocks : int
        Number of column blocks.
    clip : float
        Rows off the halo by this factor of the typical residual have no weight (ghosts).
    tolerance : float
        Difference that is no ghost, relative to the halo: no optics scatter light just as the model
        does, and without the rows near the fibres, where this shows most, nothing tells the halo.
    """

    widths: tuple[float, ...] = (1.0, 1.5, 2.25, 3.4, 5.0, 10.0)
    narrowest: float = 2.5
    clear: float = 2.5
    reach: float = 20.0
    blocks: int = 12
    clip: float = 4.0
    tolerance: float = 0.3


def measure_halo(flat: Signal, traces: Traces, *, options: HaloOptions | None = None) -> Halo:
    """Measure the halo of the fibres in the rows beyond the outermost ones.

    Between the fibres halo and wings of the profile cannot be told apart; beyond the first and the
    last fibre the sum of all halos stands alone. There it is fitted as the light itself, smeared
    by Gaussians of several widths, without ghosts, which are brighter than their surroundings.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Flat [electron].
    traces : Traces
        Where the fibres are.
    options : HaloOptions, optional
        Widths and rows.

    Returns
    -------
    Halo
        With fractions of 0 when there is no halo, or no row to measure it in.
    """
    options = options or HaloOptions()
    width, pitch = float(np.median(traces.width)), traces.pitch
    sigma = np.maximum(np.array(options.widths) * pitch, options.narrowest * width)
    rows = _outer_rows(flat.shape[0], traces, options.clear * width, options.reach * pitch)
    if not rows.any():
        return Halo(sigma, np.zeros(sigma.size))
    light = fibre_light_image(flat, traces).astype(float)
    # The halos of the neighbours lie on top of the light: known once, they are taken off.
    first = Halo(sigma, _fractions(flat, light, sigma, rows, options))
    return Halo(sigma, _fractions(flat, _without(first, light), sigma, rows, options))


def _fractions(
    flat: Signal, light: FloatArray, sigma: FloatArray, rows: BoolArray, options: HaloOptions
) -> FloatArray:
    """Fit the fractions of the light that reach the outer rows."""
    edges = np.linspace(0, flat.shape[1], options.blocks + 1).astype(int)
    smeared = [_smeared_means(light, float(s), rows, edges) for s in sigma]
    seen = _block_means(np.where(flat.good, flat.value, 0.0), edges)
    # One equation for each outer row and block, in units of the block's light: all count alike.
    scale = np.maximum(_block_means(light, edges).sum(axis=0), 1e-30)
    use = np.flatnonzero(scale > 0.05 * scale.max())
    design = np.stack([(s / scale)[:, use].ravel() for s in smeared], axis=1)
    # Every block has a level of its own besides: the background far from the fibres.
    levels = np.tile(np.eye(use.size), (int(rows.sum()), 1))
    target = (seen[rows] / scale)[:, use].ravel()
    return _robust_fit(design, levels, target, options)


def _without(halo: Halo, light: FloatArray) -> FloatArray:
    """Take the halo off an image of the light, where there is any."""
    return np.where(light == 0, light, light - halo.image(light))


def _smear(light: FloatArray, sigma: float) -> FloatArray:
    """Scatter light alike in both directions; none comes back from beyond the first and last row.

    What is this smooth needs few samples: the image is binned, smeared and interpolated.
    """
    smooth, (rows, columns) = _smear_bins(light, sigma)
    smeared: FloatArray = rows @ (columns @ smooth.T).T
    return smeared


def _smeared_means(light: FloatArray, sigma: float, rows: BoolArray, edges: IntArray) -> FloatArray:
    """Return block means of some rows of the smeared light, without making all of it."""
    smooth, (up, along) = _smear_bins(light, sigma)
    means = _block_means(along.toarray().T, edges)
    smeared: FloatArray = up[rows] @ (smooth @ means)
    return smeared


def _smear_bins(light: FloatArray, sigma: float) -> tuple[FloatArray, list[scipy.sparse.csr_array]]:
    """Return the smeared light in bins, and the matrices that interpolate rows and columns."""
    step = max(int(sigma / 4), 1)
    into, back = zip(*(_binning(n, step, light.dtype) for n in light.shape), strict=True)
    coarse = into[0] @ light @ into[1].T
    # Binning and interpolation smear too: by a box and a triangle of this width.
    narrow = np.sqrt(sigma**2 - (step**2 - 1) / 4) / step
    across = scipy.ndimage.gaussian_filter1d(coarse, narrow, axis=0, mode="constant")
    smooth = scipy.ndimage.gaussian_filter1d(across, narrow, axis=1, mode="nearest")
    return smooth, list(back)


def _binning(
    n: int, step: int, dtype: np.dtype[np.floating]
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Return the matrix that averages bins of ``step`` pixels, and the one that interpolates."""
    edges = np.append(np.arange(0, n, step), n)
    count = np.diff(edges)
    index = np.repeat(np.arange(count.size), count)
    part = (1 / count[index]).astype(dtype)
    into = scipy.sparse.csr_array((part, (index, np.arange(n))), shape=(count.size, n))
    centre = 0.5 * (edges[:-1] + edges[1:] - 1)
    place = np.interp(np.arange(n), centre, np.arange(count.size))
    lower = np.minimum(place.astype(int), max(count.size - 2, 0))
    upper = np.minimum(lower + 1, count.size - 1)
    share = np.stack([1 - (place - lower), place - lower]).astype(dtype)
    at = np.tile(np.arange(n), 2), np.concatenate([lower, upper])
    back = scipy.sparse.csr_array((share.ravel(), at), shape=(n, count.size))
    return into, back


def _outer_rows(ny: int, traces: Traces, clear: float, reach: float) -> BoolArray:
    rows = np.arange(ny)
    low, high = traces.y.min(), traces.y.max()
    below = (rows < low - clear) & (rows > low - reach)
    above = (rows > high + clear) & (rows < high + reach)
    return np.asarray(below | above)


def fibre_light_image(image: Signal, traces: Traces, reach: float = 1.5) -> FloatArray:
    """Return the light (ny, nx) within ``reach`` FWHM of the live fibres, 0 elsewhere."""
    lit = np.zeros(image.shape, dtype=bool)
    rows = np.round(traces.y[traces.live]).astype(int)
    columns = np.broadcast_to(np.arange(image.shape[1]), rows.shape)
    half = int(np.ceil(reach * float(np.median(traces.width))))
    for offset in range(-half, half + 1):
        inside = (rows + offset >= 0) & (rows + offset < image.shape[0])
        lit[(rows + offset)[inside], columns[inside]] = True
    # saturated light is scattered too: at least as much as was recorded
    spoilt = np.uint16(UNUSABLE & ~DQ.SATURATED)
    known = ((image.dq & spoilt) == 0) & np.isfinite(image.value)
    return np.where(lit & known, image.value, image.value.dtype.type(0))


def _block_means(image: FloatArray, edges: IntArray) -> FloatArray:
    means: FloatArray = np.add.reduceat(image, edges[:-1], axis=1) / np.diff(edges)
    return means


def _robust_fit(
    design: FloatArray, levels: FloatArray, target: FloatArray, options: HaloOptions
) -> FloatArray:
    """Least squares, halo not negative, in which rows far above the fit (ghosts) have no weight.

    Ghosts and stray light only add: rows below the fit say that it took some of them for halo.
    """
    free, weight = levels.shape[1], np.ones(target.size)
    matrix = np.hstack([levels, design])
    solution = np.zeros(matrix.shape[1])
    for _ in range(8):
        # The small triangle has the same solution; its lower right corner is of the halo alone.
        turn, triangle = np.linalg.qr(matrix * weight[:, None])
        right = turn.T @ (target * weight)
        solution[free:] = _not_negative(triangle[free:, free:], right[free:])
        rest = right[:free] - triangle[:free, free:] @ solution[free:]
        solution[:free] = np.linalg.lstsq(triangle[:free, :free], rest, rcond=None)[0]
        residual = target - matrix @ solution
        scatter = 1.4826 * float(np.median(np.abs(residual)))
        tolerated = options.clip * scatter + options.tolerance * (design @ solution[free:])
        weight = (residual < np.maximum(tolerated, 1e-12)).astype(float)
    return np.asarray(solution[free:])


def _not_negative(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Least squares with a few parameters of which none may be negative: the best of all choices.

    Written out, because `scipy.optimize` takes longer to load than a halo to measure.
    """
    number = matrix.shape[1]
    best, least = np.zeros(number), float(target @ target)
    for chosen in product((False, True), repeat=number):
        share = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)[0]
        left = target - matrix[:, chosen] @ share
        if (share >= 0).all() and left @ left < least:
            least, best = float(left @ left), np.zeros(number)
            best[list(chosen)] = share
    return best


def subtract_scattered(
    image: Signal,
    traces: Traces,
    layout: FibreLayout,
    halo: Halo | None,
    *,
    options: BackgroundOptions | None = None,
) -> tuple[Signal, FloatArray]:
    """Subtract the halo of the fibres, and then the background in the rows without fibre light.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Frame [electron].
    traces : Traces
        Where its fibres are.
    layout : FibreLayout
        Rows without light.
    halo : Halo or None
        Halo of the flat; None: only the background is subtracted.
    options : BackgroundOptions, optional
        How the background is fitted.

    Returns
    -------
    Signal, shape (ny, nx)
        The frame without scattered light, whose shot noise is in the variance.
    ndarray of float32, shape (ny, nx)
        What was subtracted [electron].
    """
    scattered: FloatArray = np.zeros(image.shape, dtype=image.value.dtype)
    if halo is not None:
        scattered = halo.image(_without(halo, fibre_light_image(image, traces)))
    near = replace(image, value=image.value - scattered)
    scattered = (scattered + fit_background(near, traces, layout, options=options)).astype(
        np.float32
    )
    # Its photons were counted with all others: their noise stays when they are taken off.
    variance = image.variance + np.maximum(scattered, 0)
    return replace(image, value=image.value - scattered, variance=variance), scattered
