"""Pseudo-continua: spline, polynomial, running median, or the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import median_filter

from kspecpipe.signal import BoolArray, FloatArray

Method = Literal["bspline", "polynomial", "running_median"]
#: Relative scatter below which a fit cannot become better.
_EXACT = 1e-4


@dataclass(frozen=True, slots=True)
class ContinuumOptions:
    """How to fit a continuum.

    Parameters
    ----------
    method : {"bspline", "polynomial", "running_median"}
        Curve.
    order : int
        Degree of the spline's pieces or of the polynomial.
    spacing : float
        Distance of the spline's knots, or length of the median [Angstrom].
    lower, upper : float
        Samples this many standard deviations below or above the curve are left out.
    iterations : int
        Rounds of rejection.
    """

    method: Method = "bspline"
    order: int = 3
    spacing: float = 250.0
    lower: float = 2.0
    upper: float = 4.0
    iterations: int = 5


def spline_basis(wavelength: FloatArray, spacing: float, order: int = 3) -> FloatArray:
    """B-splines with even knots over the range of the wavelengths, shape (n, nbasis)."""
    low, high = float(wavelength[0]), float(wavelength[-1])
    pieces = max(1, round((high - low) / spacing))
    step = (high - low) / pieces
    knots = low + step * np.arange(-order, pieces + order + 1)
    # The last interval is half open: without this the last sample would have no spline.
    inside = np.clip(wavelength, low, high - 1e-9 * step)
    return np.asarray(BSpline.design_matrix(inside, knots, order).toarray())


def fit_continuum(
    wavelength: FloatArray,
    flux: FloatArray,
    good: BoolArray,
    options: ContinuumOptions | None = None,
) -> FloatArray:
    """Fit the pseudo-continuum of a spectrum with absorption lines.

    Samples below the curve are rejected sooner than those above it, because lines absorb.

    Parameters
    ----------
    wavelength : ndarray, shape (n,)
        Rising wavelength [Angstrom].
    flux : ndarray, shape (n,)
        Flux; samples that are not positive do not count.
    good : ndarray of bool, shape (n,)
        Samples to use.
    options : ContinuumOptions, optional
        Method and limits.

    Returns
    -------
    ndarray, shape (n,)
        The continuum, in the unit of ``flux``.

    Raises
    ------
    ValueError
        If the shapes differ, or fewer samples are left than the curve has parameters.
    """
    chosen = options or ContinuumOptions()
    if not wavelength.shape == flux.shape == good.shape:
        raise ValueError(f"wavelength {wavelength.shape}, flux {flux.shape}, good {good.shape}")
    use = good & np.isfinite(flux) & (flux > 0)
    if chosen.method == "running_median":
        return _running_median(wavelength, flux, use, chosen.spacing)
    basis = _basis(wavelength, chosen)
    if use.sum() < basis.shape[1]:
        raise ValueError(f"{use.sum()} good samples cannot fix a curve of {basis.shape[1]} terms")
    return _clipped_fit(basis, flux, use, chosen)


def normalize_continuum(
    wavelength: FloatArray,
    flux: FloatArray,
    good: BoolArray,
    options: ContinuumOptions | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Divide a spectrum by its pseudo-continuum; return both (NaN where that is not positive)."""
    continuum = fit_continuum(wavelength, flux, good, options)
    return flux / np.where(continuum > 0, continuum, np.nan), continuum


def normalize_by_model(flux: FloatArray, continuum: FloatArray) -> FloatArray:
    """Divide a model by its own continuum, which a template carries."""
    return flux / np.where(continuum > 0, continuum, np.nan)


def _basis(wavelength: FloatArray, options: ContinuumOptions) -> FloatArray:
    if options.method == "bspline":
        return spline_basis(wavelength, options.spacing, options.order)
    span = wavelength[-1] - wavelength[0]
    place = 2 * (wavelength - wavelength[0]) / span - 1
    return np.polynomial.legendre.legvander(place, options.order)


def _clipped_fit(
    basis: FloatArray, flux: FloatArray, use: BoolArray, options: ContinuumOptions
) -> FloatArray:
    """Least squares with rejection, mostly of samples below the curve."""
    scale = np.median(flux[use])
    # A little stiffness carries the curve over pieces whose samples are all rejected.
    bend = np.diff(np.eye(basis.shape[1]), n=min(2, basis.shape[1] - 1), axis=0)
    bridge = 1e-6 * use.sum() * bend.T @ bend if options.method == "bspline" else 0.0
    keep = use.copy()
    curve = np.zeros_like(flux)
    for _ in range(options.iterations + 1):
        part = basis[keep]
        normal = part.T @ part + bridge
        curve = basis @ np.linalg.solve(normal, part.T @ (flux[keep] / scale))
        residual = flux / scale - curve
        spread = 1.4826 * np.median(np.abs(residual[keep]))
        inside = (residual > -options.lower * spread) & (residual < options.upper * spread)
        if spread < _EXACT or (use & inside).sum() < max(basis.shape[1], 0.2 * use.sum()):
            break
        keep = use & inside
    return curve * scale


def _running_median(
    wavelength: FloatArray, flux: FloatArray, use: BoolArray, length: float
) -> FloatArray:
    step = np.median(np.diff(wavelength))
    size = max(3, 2 * int(length / step / 2) + 1)
    bridged = np.interp(wavelength, wavelength[use], flux[use])
    smooth: FloatArray = median_filter(bridged, size, mode="nearest")
    return smooth
