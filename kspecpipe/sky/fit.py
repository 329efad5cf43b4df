"""Fit the sky spline to the sky fibres: weights, rejection, matching, each fibre left out once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter1d, uniform_filter1d

from kspecpipe.signal import BoolArray, FloatArray
from kspecpipe.sky.contamination import SkyDensity, find_contaminated, find_outliers, robust_sky
from kspecpipe.sky.matching import Matching
from kspecpipe.sky.sampling import LineComparison, Sampling, SkySpline, rows_through_lsf
from kspecpipe.sky.spline import NormalEquations, Rows, SplineSpace, amplitude_of, solve, stack

#: Systematic error of a strong line in the rejection of samples, relative to its height.
_LINE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Knots per FWHM of the LSF, rejection limit [sigma], passes, tolerated continuum excess."""

    knot: float
    clip: float
    iterations: int
    contamination: float


@dataclass(frozen=True, slots=True)
class SkySamples:
    """Samples of the sky fibres.

    Parameters
    ----------
    value, variance : ndarray, shape (nsky, nx)
        Spectra [electron] and their variance.
    good : ndarray of bool, shape (nsky, nx)
        Samples to use.
    sampling : Sampling
        Where they read the sky.
    """

    value: FloatArray
    variance: FloatArray
    good: BoolArray
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class FittedSky:
    """What the fit of some sky fibres ends with.

    Parameters
    ----------
    spline : SkySpline
        Model 0 of all used fibres, model k without the k-th used fibre (none of one fibre alone).
    used : ndarray of bool, shape (nsky,)
        Fibres without contamination.
    good : ndarray of bool, shape (nsky, nx)
        Samples that were used.
    distance : ndarray, shape (nmodel, nu)
        Distance of whole pixels, from the start of the spline on, to the nearest sample [pixel].
    """

    spline: SkySpline
    used: BoolArray
    good: BoolArray
    distance: FloatArray


def fit_samples(
    samples: SkySamples, limits: tuple[float, float], options: FitOptions, lines: LineComparison
) -> FittedSky:
    """Fit the sky between two positions [pixel] to the samples of all sky fibres.

    Parameters
    ----------
    samples : SkySamples
        Samples of at least one fibre.
    limits : tuple of float
        Range of positions that the model covers.
    options : FitOptions
        Knots and rejection.
    lines : LineComparison
        How fibres are matched.
    """
    space = _space(samples.sampling, limits, options.knot)
    used, good, first = _first_look(samples, space, options.contamination)
    kept = np.flatnonzero(used)
    fitter = _Fitter(
        space,
        SkySamples(
            samples.value[kept],
            samples.variance[kept],
            good[kept],
            samples.sampling.select(kept),
        ),
        options,
        lines,
    )
    spline, kept_good = fitter.run(first[kept])
    good = np.zeros_like(good)
    good[kept] = kept_good
    return FittedSky(spline, used, good, fitter.distances(kept_good))


def _space(sampling: Sampling, limits: tuple[float, float], knot: float) -> SplineSpace:
    fwhm = float(np.median(np.sqrt(sampling.lsf_variance))) * np.sqrt(8 * np.log(2))
    return SplineSpace.covering(*limits, float(np.clip(knot * fwhm, 0.6, 1.0)))


def _first_look(
    samples: SkySamples, space: SplineSpace, tolerance: float
) -> tuple[BoolArray, BoolArray, FloatArray]:
    """Fibres without contamination, samples without outliers, and a robust sky at the samples."""
    sampling = samples.sampling
    high = space.start + space.step * space.n
    pixels: FloatArray = np.arange(np.floor(space.start), np.ceil(high), dtype=float)
    width = np.where(sampling.width > 0, sampling.width, 1.0)
    density = SkyDensity.of(
        sampling.position,
        samples.value / width,
        samples.variance / width**2,
        samples.good,
        pixels,
    )
    used = ~find_contaminated(density, tolerance)
    sky = robust_sky(density.value[used], lower=True)
    good = samples.good.copy()
    if used.sum() > 1:
        outlier = find_outliers(density, sky)
        nearest = np.rint(sampling.position - pixels[0]).astype(np.intp)
        good &= ~np.take_along_axis(outlier, np.clip(nearest, 0, len(pixels) - 1), axis=1)
    first = np.stack([np.interp(at, pixels, sky) for at in sampling.position])
    return used, good, first * width


@dataclass(frozen=True, slots=True)
class _Fitter:
    """The samples of the fibres that are used, and the space in which their sky is sought."""

    space: SplineSpace
    samples: SkySamples
    options: FitOptions
    lines: LineComparison

    def run(self, first: FloatArray) -> tuple[SkySpline, BoolArray]:
        """Iterate fit, rejection and matching from a first sky at the samples (nsky, nx)."""
        good, sky = self.samples.good, first
        matching = Matching.none(len(first))
        amplitude = None
        for last in [False] * self.options.iterations + [True]:
            variance = expected_variance(self.samples.variance, sky, good)
            spline, rows = self._fit(good, variance, matching, amplitude, covariance=last)
            if last:
                break
            amplitude = amplitude_of(spline.fit.coefficients[0])
            sky, alone = self._predictions(spline, rows)
            if len(first) > 1:
                good = good & ~self._outliers(good, variance, sky, alone)
            matching = self._match(spline, variance, good, matching)
        return spline, good

    def _fit(
        self,
        good: BoolArray,
        variance: FloatArray,
        matching: Matching,
        amplitude: FloatArray | None,
        *,
        covariance: bool,
    ) -> tuple[SkySpline, Rows]:
        """All fibres together, then each of them left out; and how the samples read the sky."""
        sampling, reference = self.samples.sampling, self._reference()
        rows = rows_through_lsf(self.space, reference, sampling, matching)
        weight = np.where(good, sampling.width**2 / variance, 0.0)
        density = np.where(good, self.samples.value, 0.0) / np.where(good, sampling.width, 1.0)
        normal = NormalEquations.of(rows, density, weight, self.space.n)
        matrix, vector = normal.matrix.sum(axis=0), normal.vector.sum(axis=0)
        fits = [solve(matrix, vector, amplitude, covariance=covariance)]
        if len(good) > 1:
            fits += [
                solve(matrix - own, vector - right, amplitude, covariance=covariance)
                for own, right in zip(normal.matrix, normal.vector, strict=True)
            ]
        return SkySpline(self.space, stack(fits), reference), rows

    def _reference(self) -> FloatArray:
        """LSF to which the model refers: the mean of the fibres."""
        mean: FloatArray = self.samples.sampling.lsf_variance.mean(axis=0)
        return mean

    def _without_own(self) -> np.ndarray:
        """Model of each fibre that does not know it; of a fibre alone, the only one."""
        count = len(self.samples.value)
        return (np.arange(count) + 1 if count > 1 else np.zeros(1, np.intp))[:, None]

    def _predictions(self, spline: SkySpline, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """Sky at the samples from all fibres, and from the others only."""
        width = self.samples.sampling.width
        together = rows.dot(spline.fit.coefficients) * width
        return together, rows.dot(spline.fit.coefficients, self._without_own()) * width

    def _outliers(
        self, good: BoolArray, variance: FloatArray, sky: FloatArray, alone: FloatArray
    ) -> BoolArray:
        """Find samples that disagree with the other fibres, of several near each other the worst.

        A bad sample spoils the prediction for its neighbours in other fibres, which are right.
        """
        number = len(good)
        others = 1 + 1 / (number - 1)
        height = maximum_filter1d(np.abs(sky), 5, axis=1) - np.median(sky, axis=1, keepdims=True)
        tolerance = _LINE_TOLERANCE * np.maximum(height, 0)
        pull = (self.samples.value - alone) / np.sqrt(variance * others + tolerance**2)
        # Of two fibres the lower is right: light of objects only adds.
        size = np.where(good, pull if number == 2 else np.abs(pull), 0.0)
        return (size > self.options.clip) & (size >= self._worst_of_others(size))

    def _worst_of_others(self, size: FloatArray) -> FloatArray:
        """Largest pull of the other fibres within a pixel, shape (nsky, nx)."""
        column = np.rint(self.samples.sampling.position - self.space.start).astype(np.intp)
        worst = np.zeros((len(size), int(column.max()) + 1))
        for row, at, pulls in zip(worst, column, size, strict=True):
            np.maximum.at(row, at, pulls)
        near = maximum_filter1d(worst, 3, axis=1)
        order = np.sort(near, axis=0)
        is_top = near >= order[-1]
        rest = np.where(is_top, order[-2], order[-1])
        found: FloatArray = np.take_along_axis(rest, column, axis=1)
        return found

    def _match(
        self, spline: SkySpline, variance: FloatArray, good: BoolArray, matching: Matching
    ) -> Matching:
        """Differences of the fibres from the sky of the others, referred to their mean."""
        if len(good) == 1:
            return matching
        samples = (self.samples.value, variance, good)
        found = self.lines.run(
            spline, samples, self.samples.sampling, self._without_own(), matching
        )
        weight = np.where(good, 1 / variance, 0).sum(axis=1)
        return found.centred_on(weight)

    def distances(self, good: BoolArray) -> FloatArray:
        """Distance to the nearest sample for the model of all fibres and for those without one."""
        column = np.rint(self.samples.sampling.position - self.space.start).astype(np.intp)
        count = np.zeros((len(good), int(np.ceil(self.space.step * self.space.n)) + 1))
        for row, at, use in zip(count, column, good, strict=True):
            np.add.at(row, at[use], 1)
        total = count.sum(axis=0)
        left = np.concatenate([total[None], total - count]) if len(good) > 1 else total[None]
        return np.stack([_distance(row > 0) for row in left])


def _distance(covered: BoolArray) -> FloatArray:
    if not covered.any():
        return np.full(len(covered), np.inf)
    distance: FloatArray = distance_transform_edt(~covered)
    return distance


def expected_variance(variance: FloatArray, sky: FloatArray, good: BoolArray) -> FloatArray:
    """Variance of sky samples as the model predicts it, without the noise of the data.

    The variance of a fibre rises linearly with its sky; slope and offset change smoothly along the
    spectrum. Samples whose given variance is far larger (partly masked) keep it.

    Parameters
    ----------
    variance : ndarray, shape (nsky, nx)
        Given variance [electron²].
    sky : ndarray, shape (nsky, nx)
        Model of the sky at the samples [electron].
    good : ndarray of bool, shape (nsky, nx)
        Usable samples.

    Returns
    -------
    ndarray, shape (nsky, nx)
        Positive variance [electron²].
    """
    given = np.where(good, variance, 0.0)
    smooth = _running_mean(given, good)
    weight = np.where(good & (smooth > 0), 1 / np.maximum(smooth, 1e-30), 0.0)
    predicted = _regress(given, _photon_terms(sky), weight)
    positive = np.where(smooth > 0, smooth, 1.0)
    predicted = np.clip(predicted, positive / 4, positive * 6)
    return np.asarray(np.where(given > 2.5 * predicted, given, predicted))


def _photon_terms(sky: FloatArray) -> FloatArray:
    """Offset and slope of the variance against the sky, both quadratic in x; (nsky, 6, nx)."""
    x = np.linspace(-1, 1, sky.shape[1]) * np.ones((len(sky), 1))
    terms = np.stack([x**0, x, x**2, sky, x * sky, x**2 * sky], axis=1)
    scaled: FloatArray = terms / (np.abs(terms).mean(axis=2, keepdims=True) + 1e-30)
    return scaled


def _regress(values: FloatArray, terms: FloatArray, weight: FloatArray) -> FloatArray:
    """Fit of each row by its terms, with relative weights."""
    weighted = terms * weight[:, None] ** 2
    normal = weighted @ terms.transpose(0, 2, 1)
    size = np.trace(normal, axis1=1, axis2=2)[:, None, None]
    # A sky without features leaves offset and slope undistinguished.
    regular = normal + (1e-9 * size + 1e-300) * np.eye(terms.shape[1])
    coefficients = np.linalg.solve(regular, weighted @ values[..., None])
    return np.asarray((coefficients * terms).sum(axis=1))


def _running_mean(samples: FloatArray, good: BoolArray) -> FloatArray:
    total = uniform_filter1d(samples, 15, axis=1, mode="nearest")
    count = uniform_filter1d(good.astype(float), 15, axis=1, mode="nearest")
    typical = samples.sum(axis=1, keepdims=True) / np.maximum(good.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(count > 0.05, total / np.maximum(count, 0.05), typical))
