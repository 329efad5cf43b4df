"""One response from several stars: shapes and grey scales apart, and what becomes of odd ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray

_MAG = 2.5 / np.log(10.0)


@dataclass(frozen=True, slots=True)
class CombineOptions:
    """Which stars to believe.

    Parameters
    ----------
    outlier : float
        A star this many robust standard deviations from the others is left out...
    min_grey : float
        ...but only if its brightness is off by this much [mag]...
    min_shape : float
        ...or its shape by this relative rms.
    pair_grey : float
        Of two stars which differ by more than this [mag], the one that lost light is left out.
    shared : float
        Part of the models' error that is common to all stars, because they share a library.
    floor : float
        Relative systematic error of the shape that several stars share.
    single_floor : float
        The same if there is only one star.
    """

    outlier: float = 4.0
    min_grey: float = 0.15
    min_shape: float = 0.04
    pair_grey: float = 0.3
    shared: float = 0.7
    floor: float = 0.003
    single_floor: float = 0.004


@dataclass(frozen=True, slots=True)
class Combined:
    """Combined response.

    Parameters
    ----------
    log_response, variance : ndarray, shape (nw,)
        Logarithm of the response and its variance.
    reasons : tuple of str, length nstar
        Why a star was left out; empty if it was used.
    grey : ndarray, shape (nstar,)
        Brightness of each star relative to the combination [mag]; positive: its fibre received
        less than the model says.
    shape_rms : ndarray, shape (nstar,)
        Relative rms of each star's shape against the combination.
    grey_scatter, shape_scatter : float
        Between the used stars [mag; relative]; NaN for one star.
    """

    log_response: FloatArray
    variance: FloatArray
    reasons: tuple[str, ...]
    grey: FloatArray
    shape_rms: FloatArray
    grey_scatter: float
    shape_scatter: float


def combine_calibration_vectors(
    log_response: FloatArray,
    variance: FloatArray,
    good: BoolArray,
    model_variance: FloatArray,
    options: CombineOptions,
) -> Combined:
    """Combine the responses of several stars.

    Light lost at a fibre's face is grey, so brightness and shape are judged and averaged apart:
    each response is divided by its own median, the shapes are averaged with weights, the medians
    without.

    Parameters
    ----------
    log_response, variance : ndarray, shape (nstar, nw)
        Logarithms of the responses and their variances.
    good : ndarray of bool, shape (nstar, nw)
        Where a star's response rests on data.
    model_variance : ndarray, shape (nstar, nw)
        The part of ``variance`` which stems from the models and the magnitudes; some of it is
        common to all stars and does not average out.
    options : CombineOptions
        Limits and floors.

    Returns
    -------
    Combined
        The response; at least one star is used.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    shapes = {a.shape for a in (log_response, variance, good, model_variance)}
    if len(shapes) > 1:
        raise ValueError(f"responses, variances and masks differ in shape: {sorted(shapes)}")
    every, some = np.all(good, axis=0), np.any(good, axis=0)
    common: BoolArray = np.asarray(every if every.sum() >= 10 else some)
    grey = np.median(log_response[:, common], axis=1)
    shape = log_response - grey[:, None]
    reasons = _judge(grey, shape[:, common], options)
    # Beyond its data a star's curve is a guess.
    known = np.where(good, variance, variance + 1.0)
    return _average((shape, grey, known, model_variance), common, reasons, options)


def _judge(grey: FloatArray, shape: FloatArray, options: CombineOptions) -> list[str]:
    """Say which stars are odd; those left are judged again, for odd ones hide each other."""
    reasons = [""] * grey.size
    while True:
        left = [star for star, reason in enumerate(reasons) if not reason]
        found = _judge_shapes(shape[left], _judge_brightness(grey[left], options), options)
        for star, reason in zip(left, found, strict=True):
            reasons[star] = reason
        if not any(found):
            return reasons


def _judge_brightness(grey: FloatArray, options: CombineOptions) -> list[str]:
    """Say which stars are too bright or too faint for the others."""
    off = _MAG * (grey - np.median(grey))
    if grey.size == 1:
        return [""]
    if grey.size == 2:
        # Light can be lost, not gained: the smaller response is nearer to the truth.
        apart = float(abs(off[0] - off[1]))
        if apart <= options.pair_grey:
            return ["", ""]
        text = f"{apart:.2f} mag less light than the other star; half off its fibre, or variable?"
        return [text if star == int(np.argmax(grey)) else "" for star in range(2)]
    spread = 1.4826 * float(np.median(np.abs(off)))
    limit = max(options.outlier * spread, options.min_grey)
    return [_brightness_reason(value) if abs(value) > limit else "" for value in off]


def _brightness_reason(off: float) -> str:
    if off > 0:
        return f"{off:.2f} mag less light than the other stars; half off its fibre, or variable?"
    return f"{-off:.2f} mag more light than the other stars; variable or a wrong match?"


def _judge_shapes(shape: FloatArray, reasons: list[str], options: CombineOptions) -> list[str]:
    """Say which stars have another shape than the others."""
    used = np.array([not reason for reason in reasons])
    if used.sum() < 3:
        return reasons
    off = np.sqrt(np.mean((shape - np.median(shape[used], axis=0)) ** 2, axis=1))
    limit = max(options.outlier * float(np.median(off[used])), options.min_shape)
    text = "response differs in shape from the other stars by {:.1%}; wrong match or model?"
    return [
        reason or (text.format(value) if value > limit else "")
        for reason, value in zip(reasons, off, strict=True)
    ]


def _average(
    stars: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    common: BoolArray,
    reasons: list[str],
    options: CombineOptions,
) -> Combined:
    """Average shapes with weights and brightness without; ``stars`` has shape, grey, variances."""
    shape, grey, variance, model_variance = stars
    used = np.array([not reason for reason in reasons], bool)
    count = int(used.sum())
    weight = np.where(used[:, None], 1 / variance, 0.0)
    weight /= weight.sum(axis=0)
    mean = (weight * shape).sum(axis=0)
    level = float(grey[used].mean())
    rms = np.sqrt(np.mean((shape - mean)[:, common] ** 2, axis=1))
    formal = (weight**2 * variance).sum(axis=0)
    # Errors that correlate between stars: sum over pairs, weights times common variance.
    alike = options.shared * (weight * model_variance).sum(axis=0)
    formal = formal + alike * (1 - (weight**2).sum(axis=0))
    floor = options.single_floor if count == 1 else options.floor
    grey_scatter = _MAG * float(np.std(grey[used], ddof=1)) if count > 1 else float("nan")
    shape_scatter = _scatter((shape - mean)[used][:, common])
    total = formal + floor**2
    if count > 1:
        total = total + (grey_scatter / _MAG) ** 2 / count
        own = variance[used] - options.shared * model_variance[used]
        total += _excess((shape - mean)[used][:, common], own[:, common]) / count
    return Combined(
        mean + level, total, tuple(reasons), _MAG * (grey - level), rms, grey_scatter, shape_scatter
    )


def _excess(residual: FloatArray, variance: FloatArray) -> float:
    """Variance between stars beyond their own errors, told by the samples that know it best."""
    expected = variance.mean(axis=0)
    spread = np.sum(residual**2, axis=0) / (len(residual) - 1)
    weight = 1 / expected**2
    return max(0.0, float(np.sum(weight * (spread - expected)) / weight.sum()))


def _scatter(residual: FloatArray) -> float:
    """Rms between stars; NaN for one, whose scatter is unknown, not zero."""
    count = len(residual)
    if count < 2:
        return float("nan")
    return float(np.sqrt(np.sum(residual**2) / (count - 1) / residual.shape[1]))
