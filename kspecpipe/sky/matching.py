"""How the sky of one fibre differs from the mean sky: scale, shift, width and skewness of lines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from kspecpipe.signal import BoolArray, FloatArray

#: Terms of the matching, in this order: scale; shift and its slope; width and its slope; skewness.
TERMS = 6
#: Pixels over which the object's continuum is averaged before lines are compared.
_WINDOW = 25
_CLIP = 4.0
#: Fibres that tell how much scales scatter, and the least scatter that is believed.
_MIN_SCALES, _LEAST_SCALE = 5, 0.003
#: Height of the lines that are compared, in units of the noise of a sample.
_SIGNIFICANCE = 2.0
#: Parts of the spectrum whose scales are compared.
_PARTS = 12


@dataclass(frozen=True, slots=True)
class Priors:
    """Expected size (standard deviation) of each difference, before the lines are looked at.

    Parameters
    ----------
    scale : float or ndarray, shape (nfib,)
        Relative error of the throughput.
    shift : float
        Error of the wavelengths [pixel].
    width : float
        Relative error of the LSF's variance (twice that of its FWHM).
    skewness : float
        Differences of the third moment, in units of the LSF's sigma cubed.
    """

    scale: float | FloatArray = 0.02
    shift: float = 0.05
    width: float = 0.1
    skewness: float = 0.1

    def sigma(self, lsf_sigma: FloatArray) -> FloatArray:
        """Return the standard deviation of every term, (nfib, TERMS); ``lsf_sigma`` in pixel."""
        one = np.ones_like(lsf_sigma)
        width = self.width * lsf_sigma**2
        terms = [self.scale * one, self.shift * one, self.shift * one, width, width]
        sigma = np.stack([*terms, self.skewness * lsf_sigma**3], axis=1)
        return np.maximum(sigma, 1e-9)


@dataclass(frozen=True, slots=True)
class Matching:
    """Differences of each fibre's sky lines from the mean sky.

    Parameters
    ----------
    terms : ndarray, shape (nfib, TERMS)
        Scale - 1, shift [pixel] at mid-spectrum and its change to the red end, added variance of
        the LSF [pixel²] and its change to the red end, third-derivative term [pixel³].
    covariance : ndarray, shape (nfib, TERMS, TERMS)
        Posterior covariance of the terms.
    fitted : ndarray of bool, shape (nfib, nx), optional
        Samples that told the terms; None: none did.
    """

    terms: FloatArray
    covariance: FloatArray
    fitted: BoolArray | None = None

    @classmethod
    def none(cls, nfib: int) -> Matching:
        """No differences, known exactly."""
        return cls(np.zeros((nfib, TERMS)), np.zeros((nfib, TERMS, TERMS)))

    @property
    def scale(self) -> FloatArray:
        """Sky of each fibre in units of the mean sky, shape (nfib,)."""
        return 1 + self.terms[:, 0]

    @property
    def scale_error(self) -> FloatArray:
        """Standard deviation of `scale`."""
        return np.sqrt(self.covariance[:, 0, 0])

    def expected_scale(self, prior: float, known: BoolArray) -> FloatArray:
        """Return how far the scale of each fibre is expected to be from 1, judged by all of them.

        Parameters
        ----------
        prior : float
            Standard deviation that was expected beforehand.
        known : ndarray of bool, shape (nfib,)
            Fibres to be compared.

        Returns
        -------
        ndarray, shape (nfib,)
            Scatter and common offset of the scales beyond their errors, between 0.3 % and
            ``prior``, for all if too few have lines. A fibre far off the others passes less light
            than was known, or more: its own distance from 1, if larger than ``prior``.
        """
        # Without the prior: what the lines alone say, and how well.
        told = np.maximum(1 / np.maximum(self.scale_error, 1e-12) ** 2 - prior**-2, 1e-12)
        scale = self.terms[:, 0] * (told + prior**-2) / told
        use = known & (told > 0.25 * prior**-2)
        if use.sum() < _MIN_SCALES:
            return np.full(len(told), prior)
        middle = float(np.median(scale[use]))
        size = 1.4826 * float(np.median(np.abs(scale[use] - middle)))
        far = known & (np.abs(scale - middle) > _CLIP * np.sqrt(size**2 + 1 / told))
        near = use & ~far
        weight = told[near] / told[near].sum()
        square = float(weight @ ((scale[near] - middle) ** 2 - 1 / told[near])) + middle**2
        common = np.sqrt(np.clip(square, _LEAST_SCALE**2, prior**2))
        return np.where(far, np.maximum(np.abs(scale), prior), common)

    def operators(self, extra_width: FloatArray) -> tuple[FloatArray, ...]:
        """Factors of the sky and its first four derivatives, each shape (nfib, nx).

        ``extra_width`` (nfib, nx) is the variance of the fibre's LSF above the mean's [pixel²]; a
        convolution with a narrow kernel is the series of its moments.
        """
        x = centred(extra_width.shape[1])
        scale, shift, shift_slope, width, width_slope, skew = self.terms.T[:, :, None]
        half = (extra_width + width + width_slope * x) / 2
        parts = (1.0, shift + shift_slope * x, half, skew, half**2 / 2)
        return tuple((1 + scale) * np.broadcast_to(part, half.shape) for part in parts)

    def centred_on(self, weight: FloatArray) -> Matching:
        """Differences from the weighted mean of the fibres, weights of shape (nfib,)."""
        mean = np.average(self.terms, axis=0, weights=weight)
        return replace(self, terms=self.terms - mean)


def centred(nx: int) -> FloatArray:
    """Columns from -1 to 1."""
    return np.linspace(-1, 1, nx)


def regressors(derivatives: FloatArray, width: FloatArray) -> FloatArray:
    """Work out what a unit of each term adds to a fibre's spectrum, shape (TERMS, nfib, nx).

    Parameters
    ----------
    derivatives : ndarray, shape (4, nfib, nx)
        The sky and its first three derivatives [electron/pixel, per pixel, ...].
    width : ndarray, shape (nfib, nx)
        Factor from density to the fibre's samples.
    """
    value, first, second, third = derivatives * width
    x = centred(value.shape[1])
    return np.stack([value, first, x * first, second / 2, x * second / 2, third])


def match_lines(
    residual: FloatArray,
    terms: FloatArray,
    variance: FloatArray,
    good: BoolArray,
    prior: FloatArray,
) -> Matching:
    """Fit the terms to what is left of the sky lines.

    Object and sky continua are removed from residuals and terms by the same moving average, which
    keeps the fit linear. Weights come from smoothed variances: those of single samples follow their
    noise. Samples which no term explains (object lines, cosmic rays) are clipped.

    Parameters
    ----------
    residual : ndarray, shape (nfib, nx)
        Spectrum minus sky [electron].
    terms : ndarray, shape (TERMS, nfib, nx)
        From `regressors`.
    variance : ndarray, shape (nfib, nx)
        Variance of the spectrum [electron²].
    good : ndarray of bool, shape (nfib, nx)
        Samples to use.
    prior : ndarray, shape (nfib, TERMS)
        Standard deviation of the prior of each term, centred on 0.

    Returns
    -------
    Matching
        Posterior mean and covariance; errors grow with the scatter where that exceeds the variance.
    """
    clear = good & np.isfinite(residual)
    clean = np.where(clear, residual, 0.0)
    smooth = _moving_average(np.where(good, variance, 0.0), good, 5)
    weight = np.where(smooth > 0, 1 / np.where(smooth > 0, smooth, 1.0), 0.0)
    # Off the lines the terms are noise of the model, on which a fit would pull the scale down.
    height = np.abs(remove_continuum(terms[0], good))
    on_line = maximum_filter1d(height, 5, axis=1) > _SIGNIFICANCE * np.sqrt(smooth)
    both = np.concatenate([terms, clean[None]])
    for _ in range(3):
        *lines, rest = remove_continuum(both, clear)
        posterior, excess = _solve(np.stack(lines), rest, weight * (clear & on_line), prior)
        left = rest - sum(
            share[:, None] * line for share, line in zip(posterior.terms.T, lines, strict=True)
        )
        odd = np.abs(left) >= _CLIP * np.sqrt(excess[:, None] * np.maximum(smooth, 1e-30))
        if not (odd & clear).any():
            break
        clear = clear & ~odd
    told = weight * (clear & on_line)
    parts = weigh_parts(lines[0], left + posterior.terms[:, :1] * lines[0], told)
    posterior, _ = _solve(np.stack(lines), rest, told * parts, prior)
    return replace(posterior, fitted=clear & on_line)


def weigh_parts(line: FloatArray, residual: FloatArray, weight: FloatArray) -> FloatArray:
    """Lessen the weight of strong lines where parts of the spectrum disagree about the scale.

    An object's own line under a single strong sky line looks like more sky, with a small error.
    Where the scales of the parts scatter more than their errors allow, the scatter is an error of
    each part, whatever its lines tell.

    Parameters
    ----------
    line : ndarray, shape (nfib, nx)
        What a unit of scale adds, without continuum [electron].
    residual : ndarray, shape (nfib, nx)
        What is left when all terms but the scale are taken off [electron].
    weight : ndarray, shape (nfib, nx)
        Inverse variance; 0 for samples that are not used.

    Returns
    -------
    ndarray, shape (nfib, nx)
        Factors of the weights, at most 1.

    References
    ----------
    .. [1] DerSimonian & Laird 1986, Controlled Clinical Trials 7, 177.
    """
    edges = np.linspace(0, line.shape[1], _PARTS + 1).astype(np.intp)[:-1]
    told = np.add.reduceat(weight * line**2, edges, axis=1)
    scale = np.add.reduceat(weight * line * residual, edges, axis=1) / np.maximum(told, 1e-30)
    total = np.maximum(told.sum(axis=1, keepdims=True), 1e-30)
    mean = (told * scale).sum(axis=1, keepdims=True) / total
    chi2 = (told * (scale - mean) ** 2).sum(axis=1, keepdims=True)
    free = np.maximum((told > 0).sum(axis=1, keepdims=True) - 1, 0)
    spread = total - (told**2).sum(axis=1, keepdims=True) / total
    scatter = np.maximum(chi2 - free - np.sqrt(2 * free), 0.0) / np.maximum(spread, 1e-30)
    length = np.diff(np.append(edges, line.shape[1]))
    factors: FloatArray = np.repeat(1 / (1 + scatter * told), length, axis=1)
    return factors


def _solve(
    lines: FloatArray, rest: FloatArray, weight: FloatArray, prior: FloatArray
) -> tuple[Matching, FloatArray]:
    """Posterior of the terms and the excess of the scatter over the variance (at least 1)."""
    weighted = (lines * weight).transpose(1, 0, 2)
    normal = weighted @ lines.transpose(1, 2, 0)
    vector = np.einsum("ftx,fx->ft", weighted, rest)
    # Without lines or with wild data the excess of the previous solution is not needed: start from
    # the scatter of the residuals themselves.
    excess = _excess(rest, weight)
    precision = normal / excess[:, None, None] + np.eye(TERMS) / prior[:, None, :] ** 2
    covariance = np.linalg.inv(precision)
    terms = np.einsum("fts,fs->ft", covariance, vector / excess[:, None])
    return Matching(terms, covariance), excess


def _excess(rest: FloatArray, weight: FloatArray) -> FloatArray:
    used = weight > 0
    number = used.sum(axis=1)
    chi = np.sort(np.where(used, np.abs(rest) * np.sqrt(weight), np.inf), axis=1)
    middle = np.stack([np.maximum(number - 1, 0) // 2, number // 2], axis=1)
    median = np.take_along_axis(chi, middle, axis=1).mean(axis=1)
    return np.where(number > 0, np.maximum((1.4826 * median) ** 2, 1.0), 1.4826**2)


def remove_continuum(samples: FloatArray, use: BoolArray) -> FloatArray:
    """Subtract the moving average, shape (..., nfib, nx); 0 where not to be used."""
    return np.where(use, samples - _moving_average(samples, use, _WINDOW), 0.0)


def _moving_average(samples: FloatArray, use: BoolArray, size: int) -> FloatArray:
    average: FloatArray = uniform_filter1d(
        np.where(use, samples, 0.0), size, axis=-1, mode="constant"
    )
    count = uniform_filter1d(use.astype(float), size, axis=-1, mode="constant")
    average *= np.where(count > 1e-9, 1 / np.maximum(count, 1e-9), 0.0)
    return average
