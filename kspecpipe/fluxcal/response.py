"""The response from one star: a smooth curve between what was seen and what the star is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.continuum import spline_basis
from kspecpipe.signal import BoolArray, FloatArray

_HUBER = 1.5
_ROUNDS = 30
#: Reach over which the misfit of lines is averaged [Angstrom], and beyond what a sample is no line.
_NEAR = 300.0
_WILD = 0.3
_SURE = 2.0
_BLANKETED = (3850.0, 4200.0)


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How stiff the response is.

    Parameters
    ----------
    spacing : float
        Knots of the spline [Angstrom].
    bend : float
        Typical third difference of the logarithm of the response from knot to knot; smaller is
        stiffer.
    mismatch : float
        Relative error of the model per sample in the weights, where its lines fit: it makes the
        curve average over lines that the model has not quite right. The reported error follows
        from the residuals.
    lines : float
        How many times the rms by which resolved lines are wrong nearby is added to it.
    blanketing : float
        How many times larger it is blueward of 3850 Angstrom than redward of 4200: there lines
        leave no continuum, and the curve is drawn on smoothly from the red.
    shared : float
        Neighbouring samples that such errors of the model have in common.
    blends : float
        Error of a model's continuum between unresolved lines, in units of the rms by which its
        resolved lines are wrong nearby.
    """

    spacing: float = 100.0
    bend: float = 0.003
    mismatch: float = 0.06
    lines: float = 3.0
    blanketing: float = 4.0
    shared: float = 6.0
    blends: float = 0.4


@dataclass(frozen=True, slots=True)
class SmoothRatio:
    """What lies between a star and its model.

    Parameters
    ----------
    log_ratio, variance : ndarray, shape (nw,)
        Logarithm of observed over model, and its variance.
    misfit : ndarray, shape (nw,)
        Relative rms, within some 300 Angstrom, of the lines which the model has not right; 0 where
        the noise may explain it.
    first, last : float
        Range of the samples which the curve rests on [Angstrom].
    """

    log_ratio: FloatArray
    variance: FloatArray
    misfit: FloatArray
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class RatioData:
    """What `fit_ratio` compares; all arrays have shape (nw,).

    Parameters
    ----------
    wavelength : ndarray
        [Angstrom].
    observed, variance : ndarray
        Spectrum and its smooth variance.
    model : ndarray
        Calibrated model at the observed resolution and velocity.
    use : ndarray of bool
        Samples to fit: no telluric bands, no strong stellar lines.
    """

    wavelength: FloatArray
    observed: FloatArray
    variance: FloatArray
    model: FloatArray
    use: BoolArray


def fit_ratio(data: RatioData, options: ResponseOptions) -> SmoothRatio:
    """Fit observed = model x exp(smooth curve).

    The observation is never divided into the model: the mean of model/observed is biased by the
    inverse square of the signal-to-noise ratio (4 % at 5). The curve is a penalised B-spline,
    fitted by Gauss-Newton steps with Huber's weights; it bridges the masked regions.

    Parameters
    ----------
    data : RatioData
        Observation and model.
    options : ResponseOptions
        Knots and stiffness.

    Returns
    -------
    SmoothRatio
        Curve over all wavelengths; outside of ``first`` to ``last`` it is extrapolated.

    Raises
    ------
    RecipeError
        If too few samples have light.

    References
    ----------
    .. [1] Eilers & Marx 1996, Statistical Science 11, 89.
    """
    use = data.use & np.isfinite(data.observed) & np.isfinite(data.model) & (data.model > 0)
    basis = spline_basis(data.wavelength, options.spacing)
    if use.sum() < basis.shape[1]:
        raise RecipeError(f"only {use.sum()} samples can be compared with the model")
    penalty = _penalty(basis.shape[1], options.bend)
    ratio = np.where(use, data.observed / np.where(use, data.model, 1.0), 0.0)
    noise = np.where(use, data.variance / np.where(use, data.model, 1.0) ** 2, np.inf)
    coefficient = _start(basis, ratio, use, penalty)
    inside = data.wavelength[use]
    misfit: FloatArray = np.zeros(data.wavelength.size)
    for _ in range(2):
        coefficient, inverse, strength = _gauss_newton(
            basis, ratio, noise, (coefficient, penalty, _mismatch(data.wavelength, misfit, options))
        )
        relative, excess = _excess(ratio, noise, np.exp(basis @ coefficient), strength)
        misfit = _local_rms(data.wavelength, relative, excess, strength > 0)
    mean = max(0.0, float(np.sum(strength * excess) / strength.sum()))
    scatter = relative + options.shared * mean
    spread = (basis * (strength**2 * scatter)[:, None]).T @ basis + penalty
    covariance = inverse @ spread @ inverse
    variance = np.einsum("wi,ij,wj->w", basis, covariance, basis)
    return SmoothRatio(basis @ coefficient, variance, misfit, float(inside[0]), float(inside[-1]))


def _mismatch(wavelength: FloatArray, misfit: FloatArray, options: ResponseOptions) -> FloatArray:
    """Relative error of the model per sample, largest where lines cover everything."""
    blanketing = np.interp(wavelength, _BLANKETED, (options.blanketing, 1.0))
    return np.asarray(np.hypot(options.mismatch, options.lines * misfit) * blanketing)


def _penalty(size: int, bend: float) -> FloatArray:
    """Inverse covariance of the third differences of the coefficients."""
    difference = np.diff(np.eye(size), n=3, axis=0)
    penalty: FloatArray = difference.T @ difference / bend**2
    return penalty


def _start(basis: FloatArray, ratio: FloatArray, use: BoolArray, penalty: FloatArray) -> FloatArray:
    """Fit the logarithm of running medians, which are positive wherever there is light."""
    place = np.flatnonzero(use)
    pieces = np.array_split(place, max(8, place.size // 25))
    median = np.array([np.median(ratio[piece]) for piece in pieces])
    middle = np.array([int(piece[piece.size // 2]) for piece in pieces])
    if not (median > 0).any():
        raise RecipeError("the star shows no light")
    level = np.log(np.maximum(median, 1e-3 * median.max()))
    part = basis[middle]
    normal = part.T @ part / 0.1**2 + penalty + 1e-6 * np.eye(basis.shape[1])
    solution: FloatArray = np.linalg.solve(normal, part.T @ level / 0.1**2)
    return solution


def _gauss_newton(
    basis: FloatArray,
    ratio: FloatArray,
    noise: FloatArray,
    setup: tuple[FloatArray, FloatArray, FloatArray],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return coefficients, inverse of the normal matrix, and the weight of each sample."""
    coefficient, penalty, mismatch = setup
    inverse, strength = np.empty_like(penalty), np.zeros_like(ratio)
    for _ in range(_ROUNDS):
        curve = np.exp(np.clip(basis @ coefficient, -700, 700))
        weight = 1 / (noise + (mismatch * curve) ** 2)
        # Outliers are judged by the sharpest samples: low weight is no licence to be wild.
        pull = (ratio - curve) / np.sqrt(noise + (mismatch.min() * curve) ** 2)
        robust = np.minimum(1.0, _HUBER / np.maximum(np.abs(pull), 1e-9))
        strength = weight * robust * curve**2
        normal = (basis * strength[:, None]).T @ basis + penalty
        inverse = np.linalg.inv(
            normal + 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal))
        )
        gradient = basis.T @ (strength * (ratio - curve) / curve) - penalty @ coefficient
        step = np.clip(inverse @ gradient, -1.0, 1.0)
        coefficient = coefficient + step
        if np.abs(step).max() < 1e-6:
            break
    return coefficient, inverse, strength


def _excess(
    ratio: FloatArray, noise: FloatArray, curve: FloatArray, strength: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Relative variance of each sample by noise, and the square of its residual beyond that."""
    known = strength > 0
    relative = np.where(known, noise, 0.0) / curve**2
    return relative, np.where(known, (ratio / curve - 1) ** 2 - relative, 0.0)


def _local_rms(
    wavelength: FloatArray, relative: FloatArray, excess: FloatArray, known: BoolArray
) -> FloatArray:
    """Root of the running mean of the excess, as far as it is surely no noise."""
    reach = _NEAR / float(np.median(np.diff(wavelength)))
    weight = np.where(known, 1 / (relative + 1e-3) ** 2, 0.0)
    total = np.maximum(gaussian_filter1d(weight, reach), 1e-12 * weight.max())
    mean = gaussian_filter1d(weight * np.minimum(excess, _WILD**2), reach) / total
    # A mean of n samples with a Gaussian window of sigma s rests on 2 sqrt(pi) s of them.
    spread = gaussian_filter1d(weight**2 * 2 * relative**2, reach) / total**2
    error = np.sqrt(spread / (2 * np.sqrt(np.pi) * reach))
    return np.asarray(np.sqrt(np.clip(mean - _SURE * error, 0, None)))
