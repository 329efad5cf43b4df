"""The night sky of one exposure, modelled on native pixels from all sky fibres together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.sky.fit import FitOptions, FittedSky, SkySamples, fit_samples
from kspecpipe.sky.matching import Matching, Priors, regressors
from kspecpipe.sky.sampling import LineComparison, Match, Sampling, SkySpline
from kspecpipe.sky.spline import PixelAxis

#: Distances from the nearest sample [pixel] beyond which the model is extrapolated, or unknown.
_EXTRAPOLATED, _UNKNOWN = 1.5, 4.0
#: Part of a sky fibre's samples that must be usable.
_MIN_USABLE = 0.2
#: Every so many columns the correlation of the model's error is worked out.
_SOME = 5


@dataclass(frozen=True, slots=True)
class SkyOptions:
    """How the sky is modelled.

    Parameters
    ----------
    knot : float
        Distance of the knots in units of the LSF's FWHM; between 0.6 and 1 pixel in any case.
    clip : float
        Samples which differ by more from the sky of the other fibres are rejected [sigma].
    iterations : int
        Passes of rejection and matching.
    match : {"full", "scale", "none"}
        What is fitted to the sky lines of each fibre: scale, shift, width and skewness; or scale.
    contamination : float
        Continuum in excess of the sky at which a sky fibre is dropped, relative to the sky.
    components : int
        Principal components of the residuals to be removed; used with at least 8 sky fibres.
    priors : Priors
        How large the differences of fibres are expected to be.
    blaze : ndarray, shape (nx,) or (nfib, nx), optional
        Smooth factor that is known to remain in the spectra, so that fibres which see a wavelength
        at different columns can be compared; it is part of the modelled sky of each fibre.
    """

    knot: float = 0.25
    clip: float = 5.0
    iterations: int = 3
    match: Match = "full"
    contamination: float = 0.08
    components: int = 0
    priors: Priors = field(default_factory=Priors)
    blaze: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class SkyModel:
    """The sky as a function of wavelength, and the same without each of the sky fibres.

    Parameters
    ----------
    axis : PixelAxis
        Pixel scale on which the sky is modelled.
    spline : SkySpline
        Model 0 uses all good sky fibres, the others leave one out each.
    distance : ndarray, shape (nmodel, nu)
        Distance of whole pixels, from the start of the spline on, to the nearest sample
        used [pixel].
    leave_out : ndarray of int, shape (nfib,)
        Model without this fibre; -1 if nothing is left without it.
    used, dropped : ndarray of bool, shape (nfib,)
        Sky fibres that the model is made of, and those left out because of contamination.
    rejected : int
        Samples rejected in the fibres that are used.
    options : SkyOptions
        The options of the fit.
    """

    axis: PixelAxis
    spline: SkySpline
    distance: FloatArray
    leave_out: IntArray
    used: BoolArray
    dropped: BoolArray
    rejected: int
    options: SkyOptions

    def sampling(self, wavelength: FloatArray, lsf: FloatArray) -> Sampling:
        """Where all fibres, shape (nfib, nx) [Angstrom], read the sky."""
        return Sampling.of(self.axis, wavelength, lsf, self.options.blaze)

    def match(self, spectra: Signal, wavelength: FloatArray, lsf: FloatArray) -> Matching:
        """Measure how the sky lines of each fibre differ from the model made without it.

        Parameters
        ----------
        spectra : Signal, shape (nfib, nx)
            Spectra divided by flat and throughput [electron].
        wavelength, lsf : ndarray, shape (nfib, nx)
            Wavelength of pixel centres and FWHM of the LSF [Angstrom].

        Returns
        -------
        Matching
            Zero within its prior where a fibre has no lines to measure.
        """
        sampling = self.sampling(wavelength, lsf)
        model = np.maximum(self.leave_out, 0)[:, None]
        samples = (spectra.value, spectra.variance, spectra.good)
        priors, none = self.options.priors, Matching.none(len(wavelength))
        lines = LineComparison(self.options.match, priors)
        found = lines.run(self.spline, samples, sampling, model, none)
        # A throughput that is known better than a fibre's few lines tell is not to follow them.
        expected = found.expected_scale(float(np.max(priors.scale)), sampling.known)
        narrow = replace(priors, scale=expected)
        lines = LineComparison(self.options.match, narrow)
        # Twice: moments of the LSF act in second order on strong lines.
        return lines.run(self.spline, samples, sampling, model, found, passes=2)

    def predict(
        self,
        wavelength: FloatArray,
        lsf: FloatArray,
        matching: Matching | None = None,
        *,
        leave_one_out: bool = False,
    ) -> Signal:
        """Evaluate the sky on the native pixels of every fibre.

        Parameters
        ----------
        wavelength, lsf : ndarray, shape (nfib, nx)
            Wavelength of pixel centres and FWHM of the LSF [Angstrom].
        matching : Matching, optional
            From `match`; the mean sky with the fibre's LSF without it.
        leave_one_out : bool
            Sky fibres get the sky made without them; NaN if there is no other.

        Returns
        -------
        Signal, shape (nfib, nx)
            Sky [electron per native pixel]. EXTRAPOLATED where the nearest sample is more than 1.5
            pixels away, NaN with NO_DATA beyond 4 pixels or for fibres without wavelengths.
        """
        sampling = self.sampling(wavelength, lsf)
        matched = Matching.none(len(wavelength)) if matching is None else matching
        model = self._model(leave_one_out=leave_one_out)
        existing = np.maximum(model, 0)
        rows = self.spline.rows(sampling, matched)
        value = rows.dot(self.spline.fit.coefficients, existing) * sampling.width
        variance = rows.variance(self.spline.fit.band, existing) * sampling.width**2
        if matching is not None:
            terms = regressors(self.spline.derivatives(sampling, existing)[:4], sampling.width)
            error = _projected_variance(terms, matched.covariance)
            # Where the fibre's own lines told the terms, the fit took at least as much noise out
            # of what is left there as its errors brought in.
            variance += error if matched.fitted is None else np.where(matched.fitted, 0.0, error)
        gap = self._gap(sampling.position, existing)
        # In a gap the band of the covariance is cut short: without its sign nothing is known.
        lost = (gap > _UNKNOWN) | ~sampling.known[:, None] | (model < 0) | (variance < 0)
        sky = Signal.of(np.where(lost, np.nan, value), np.where(lost, np.nan, variance))
        return sky.flag(gap > _EXTRAPOLATED, DQ.EXTRAPOLATED).flag(lost, DQ.NO_DATA)

    def correlation(
        self, wavelength: FloatArray, lsf: FloatArray, *, leave_one_out: bool = False
    ) -> FloatArray:
        """Mean correlation of the model's error between neighbouring native pixels.

        Returns
        -------
        ndarray, shape (nfib, 2)
            Correlation coefficients at lags of one and two pixels.
        """
        # Some columns of the middle half are enough for a mean.
        some = np.arange(wavelength.shape[1] // 4, wavelength.shape[1] * 3 // 4 - 2, _SOME)
        position = self.sampling(wavelength, lsf).position
        model = np.maximum(self._model(leave_one_out=leave_one_out), 0)
        rows = [self.spline.space.rows(position[:, some + lag]) for lag in range(3)]
        variance = [row.variance(self.spline.fit.band, model) for row in rows]
        result = np.empty((len(wavelength), 2))
        for lag in (1, 2):
            shared = rows[0].covariance_with(rows[lag], self.spline.fit.band, model)
            norm = np.sqrt(np.maximum(variance[0] * variance[lag], 0.0))
            result[:, lag - 1] = np.median(shared / np.maximum(norm, 1e-30), axis=1)
        return np.clip(result, -1, 1)

    def _model(self, *, leave_one_out: bool) -> IntArray:
        """Which model each fibre uses, shape (nfib, 1)."""
        return (self.leave_out if leave_one_out else np.zeros_like(self.leave_out))[:, None]

    def _gap(self, position: FloatArray, model: IntArray) -> FloatArray:
        """Distance of positions from the nearest sample [pixel]."""
        index = np.rint(position - self.spline.space.start).astype(np.intp)
        inside = np.clip(index, 0, self.distance.shape[1] - 1)
        gap: FloatArray = self.distance[model, inside] + np.abs(index - inside)
        return gap


def fit_sky(
    spectra: Signal,
    wavelength: FloatArray,
    lsf: FloatArray,
    sky_fibres: BoolArray,
    *,
    options: SkyOptions | None = None,
) -> SkyModel:
    """Fit one sky to the samples of all sky fibres, each fibre with its own LSF.

    Fibres sample the sky at different phases; one B-spline against wavelength is fitted to all
    their samples, in which each fibre sees the spline through the difference of its LSF from the
    mean one. Weights come from the variance expected from the model: those of the data follow
    their noise.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Spectra divided by flat and throughput [electron per native pixel].
    wavelength, lsf : ndarray, shape (nfib, nx)
        Wavelength of pixel centres, rising, and FWHM of the LSF [Angstrom]; NaN for dead fibres.
    sky_fibres : ndarray of bool, shape (nfib,)
        Fibres on blank sky.
    options : SkyOptions, optional
        How the sky is modelled.

    Returns
    -------
    SkyModel
        With contaminated fibres found and dropped, and a model without each of the fibres used.

    Raises
    ------
    ValueError
        If there is no sky fibre or shapes disagree.
    RecipeError
        If no sky fibre has usable samples.

    References
    ----------
    .. [1] Kelson 2003, PASP 115, 688.
    .. [2] Bolton & Burles 2007, New Journal of Physics 9, 443.
    """
    _check(spectra, wavelength, lsf, sky_fibres)
    chosen = options or SkyOptions()
    axis = PixelAxis.of(wavelength)
    sampling = Sampling.of(axis, wavelength, lsf, chosen.blaze)
    good = spectra.good & sampling.known[:, None] & (sampling.width > 0) & (spectra.variance > 0)
    fibres = np.flatnonzero(sky_fibres & (good.mean(axis=1) > _MIN_USABLE))
    if fibres.size == 0:
        raise RecipeError(
            f"none of the {sky_fibres.sum()} sky fibres is usable in {_MIN_USABLE:.0%} of its "
            "pixels; at least one is needed. Are they alive, and is the assignment that of this "
            "exposure?"
        )
    samples = SkySamples(
        spectra.value[fibres], spectra.variance[fibres], good[fibres], sampling.select(fibres)
    )
    fitted = fit_samples(
        samples,
        (sampling.position[sampling.known].min(), sampling.position[sampling.known].max()),
        FitOptions(chosen.knot, chosen.clip, chosen.iterations, chosen.contamination),
        LineComparison(chosen.match, chosen.priors),
    )
    return _assemble(axis, fitted, fibres, good, chosen)


def _assemble(
    axis: PixelAxis,
    fitted: FittedSky,
    fibres: IntArray,
    good: BoolArray,
    options: SkyOptions,
) -> SkyModel:
    """Refer what is known of the sky fibres to all fibres, of which ``good`` are the samples."""
    nfib = len(good)
    used, dropped = np.zeros(nfib, bool), np.zeros(nfib, bool)
    used[fibres[fitted.used]] = True
    dropped[fibres[~fitted.used]] = True
    leave_out = np.zeros(nfib, np.intp)
    count = int(used.sum())
    leave_out[used] = np.arange(count) + 1 if count > 1 else -1
    rejected = int((good[fibres] & ~fitted.good)[fitted.used].sum())
    return SkyModel(
        axis, fitted.spline, fitted.distance, leave_out, used, dropped, rejected, options
    )


def _projected_variance(terms: FloatArray, covariance: FloatArray) -> FloatArray:
    """Variance that the errors of the terms give to each sample, shape (nfib, nx)."""
    total = np.zeros(terms.shape[1:])
    for index, term in enumerate(terms):
        total += term * np.einsum("fs,sfx->fx", covariance[:, index], terms)
    return np.maximum(total, 0.0)


def _check(spectra: Signal, wavelength: FloatArray, lsf: FloatArray, sky_fibres: BoolArray) -> None:
    if spectra.value.ndim != 2 or not (spectra.shape == wavelength.shape == lsf.shape):
        raise ValueError(
            f"spectra {spectra.shape}, wavelength {wavelength.shape} and lsf {lsf.shape} must be "
            "equal and (nfib, nx)"
        )
    if sky_fibres.shape != (len(wavelength),):
        raise ValueError(f"sky_fibres {sky_fibres.shape} is not ({len(wavelength)},)")
    if not sky_fibres.any():
        raise ValueError("no sky fibre among the fibres; without one there is no sky to model")
