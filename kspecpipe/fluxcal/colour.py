"""What the catalogue's magnitudes say: temperature, brightness, reddening, colour correction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.grid import BANDS, TemplateGrid
from kspecpipe.fluxcal.photometry import band_weights, load_filter_curves
from kspecpipe.fluxcal.reddening import reddening_law
from kspecpipe.signal import BoolArray, FloatArray, IntArray

#: Colours from which a temperature is estimated, the best first.
_COLOURS = (
    ("gaia_bp", "gaia_rp"),
    ("ps1_g", "ps1_i"),
    ("ps1_g", "ps1_r"),
    ("ps1_g", "2mass_k"),
    ("2mass_j", "2mass_k"),
)
_DEGREE = 3
#: Variance of the unknown brightness [mag2]: large, but not so large that the inverse suffers.
_GREY = 25.0


@dataclass(frozen=True, slots=True)
class ColourOptions:
    """How far a model's colours may be wrong, and why.

    Parameters
    ----------
    scale : float
        Smooth error of the spectrum of a model whose lines are right [mag].
    blue : float
        How many times larger it is at 4000 Angstrom than redward of 4800, where lines are few.
    length : float
        Over which change of the logarithm of wavelength this error changes.
    ebv : float
        Typical reddening E(B-V) [mag].
    law : float
        Typical error of the reddening law per E(B-V) [mag].
    law_length : float
        Over which change of the logarithm of wavelength that error changes.
    negative : float
        How far below 0 E(B-V) may be fitted, where models are too red [mag].
    floor : float
        Error of zero points and transmission curves, added to every magnitude's error [mag].
    infrared_floor : float
        The same beyond 1 micron.
    outlier : float
        A band this many standard deviations from what the others predict is left out.
    misfit : float
        Relative rms by which lines are wrong that doubles the smooth error of a model.
    """

    scale: float = 0.008
    blue: float = 2.0
    length: float = 0.4
    ebv: float = 0.1
    law: float = 0.04
    law_length: float = 0.12
    negative: float = 0.06
    floor: float = 0.004
    infrared_floor: float = 0.02
    outlier: float = 5.0
    misfit: float = 0.016

    def for_misfit(self, misfit: float) -> ColourOptions:
        """Return the options for models whose lines are wrong by ``misfit`` (relative rms)."""
        return replace(self, scale=self.scale * (1 + (misfit / self.misfit) ** 2))


@dataclass(frozen=True, slots=True)
class TeffEstimate:
    """Temperature from a colour: value and error [K], the colour, and how far off the library's.

    ``beyond`` is how much bluer (negative) or redder (positive) than every model the star is [mag].
    """

    teff: float
    error: float
    colour: tuple[str, str]
    beyond: float


@dataclass(frozen=True, slots=True)
class ColourFit:
    """Brightness, reddening and colour correction of several models against one star.

    Parameters
    ----------
    bands : ndarray of bool, shape (nband,)
        Bands of `BANDS` that were used.
    difference : ndarray, shape (n, nband)
        Observed minus synthetic magnitude.
    linear : ndarray, shape (n, nband)
        The same less what reddening does in wide bands beyond its mean law.
    chi2 : ndarray, shape (n,)
        How well the bands agree, given all the allowed errors.
    grey, ebv : ndarray, shape (n,)
        Offset [mag] and E(B-V) [mag].
    solution : ndarray, shape (n, nband)
        Inverse covariance times the differences.
    inverse : ndarray, shape (n, nband, nband)
        Inverse covariance.
    share : ndarray, shape (n, nband, nbin)
        How much each wavelength bin of the model counts in each band.
    """

    bands: BoolArray
    difference: FloatArray
    linear: FloatArray
    chi2: FloatArray
    grey: FloatArray
    ebv: FloatArray
    solution: FloatArray
    inverse: FloatArray
    share: FloatArray


def estimate_teff_from_colors(grid: TemplateGrid, photometry: Photometry) -> TeffEstimate | None:
    """Estimate the temperature from the best colour there is.

    The relation is a cubic fitted to the library's own synthetic colours, so that it can have no
    other zero points than the models which it selects.

    Parameters
    ----------
    grid : TemplateGrid
        The library.
    photometry : Photometry
        Of the star.

    Returns
    -------
    TeffEstimate or None
        None if no colour was measured.
    """
    for first, second in _COLOURS:
        value = photometry.colour(first, second)
        models = grid.colour(first, second)
        if np.isfinite(value) and np.isfinite(models).all():
            return _teff_from(grid, models, value, (first, second))
    return None


def fit_colours(
    grid: TemplateGrid,
    index: IntArray,
    photometry: Photometry,
    options: ColourOptions,
) -> ColourFit | None:
    """Compare models with a star's magnitudes.

    A magnitude differs from its model by the brightness, the reddening, a smooth error of the
    model (a Gaussian process in the logarithm of wavelength: a ridge regression of a curve) and
    the error of the measurement. All are solved for at once; bands that contradict the others are
    left out.

    Parameters
    ----------
    grid : TemplateGrid
        The library.
    index : ndarray of int, shape (n,)
        Its models to compare.
    photometry : Photometry
        Of the star.
    options : ColourOptions
        Sizes of the allowed errors.

    Returns
    -------
    ColourFit or None
        None if no band is left.
    """
    use = _measured(photometry) & np.isfinite(grid.magnitude[index]).all(axis=0)
    while use.any():
        fit = _fit_bands(grid, index, photometry, options, use)
        worst = _worst_band(fit, options.outlier)
        if worst is None or use.sum() <= 2:
            return fit
        use = use.copy()
        use[worst] = False
    return None


@dataclass(frozen=True, slots=True)
class CorrectionBasis:
    """What `colour_correction` needs of wavelengths, the same for all models.

    Parameters
    ----------
    kernel, law_kernel : ndarray, shape (nw, nbin)
        Covariance of a model's error there and in the library's coarse bins [mag2]; the same of
        the reddening law's, per E(B-V)^2.
    law, coarse_law : ndarray, shape (nw,) and (nbin,)
        Extinction per E(B-V).
    prior : ndarray, shape (nw,)
        Variance before any magnitude is known [mag2].
    """

    kernel: FloatArray
    law_kernel: FloatArray
    law: FloatArray
    coarse_law: FloatArray
    prior: FloatArray

    @classmethod
    def of(
        cls, grid: TemplateGrid, wavelength: FloatArray, options: ColourOptions
    ) -> CorrectionBasis:
        """Prepare for wavelengths [Angstrom]."""
        law = reddening_law(wavelength)
        return cls(
            _kernel(wavelength, grid.sed_wavelength, options),
            _law_kernel(wavelength, grid.sed_wavelength, options),
            law,
            reddening_law(grid.sed_wavelength),
            _amplitude(wavelength, options) ** 2 + options.ebv**2 * law**2 + _GREY,
        )


def colour_correction(
    fit: ColourFit, row: int, basis: CorrectionBasis, options: ColourOptions
) -> tuple[FloatArray, FloatArray]:
    """Magnitudes to add to a model of the fit, and their variance.

    Parameters
    ----------
    fit : ColourFit
        From `fit_colours`.
    row : int
        Which of its models.
    basis : CorrectionBasis
        Where.
    options : ColourOptions
        As for the fit.

    Returns
    -------
    correction, variance : ndarray, shape (nw,)
        Brightness, reddening and smooth correction together [mag, mag2].
    """
    share, use = fit.share[row], fit.bands
    dust = fit.ebv[row] ** 2
    cross = (basis.kernel + dust * basis.law_kernel) @ share[use].T + _GREY
    cross += options.ebv**2 * basis.law[:, None] * (share[use] @ basis.coarse_law)
    inverse = fit.inverse[row][np.ix_(use, use)]
    prior = basis.prior + dust * options.law**2
    variance = prior - np.sum((cross @ inverse) * cross, axis=1)
    mean = float(fit.linear[row][use].mean())
    return mean + cross @ fit.solution[row][use], np.clip(variance, 0, None)


def predicted_residual(
    fit: ColourFit, row: int, grid: TemplateGrid, options: ColourOptions
) -> FloatArray:
    """Observed minus corrected model magnitude of every used band, NaN elsewhere [mag]."""
    basis = CorrectionBasis.of(grid, grid.sed_wavelength, options)
    curve = colour_correction(fit, row, basis, options)[0]
    residual = fit.linear[row] - fit.share[row] @ curve
    return np.where(fit.bands, residual, np.nan)


def _measured(photometry: Photometry) -> BoolArray:
    return np.isfinite([photometry.get_band(name)[0] for name in BANDS])


def _teff_from(
    grid: TemplateGrid, models: FloatArray, value: float, colour: tuple[str, str]
) -> TeffEstimate:
    """Fit temperature against the colour of the models, and read it at the star's."""
    degree = min(_DEGREE, np.unique(grid.teff).size - 1)
    centre, span = models.mean(), max(float(np.ptp(models)), 1e-6)
    curve = np.polynomial.Polynomial.fit((models - centre) / span, grid.teff, degree)
    scatter = float(np.std(grid.teff - curve((models - centre) / span)))
    inside = float(np.clip(value, models.min(), models.max()))
    teff = float(curve((inside - centre) / span))
    return TeffEstimate(teff, scatter, colour, value - inside)


def _kernel(first: FloatArray, second: FloatArray, options: ColourOptions) -> FloatArray:
    """Covariance of a model's error at two wavelengths [mag2]."""
    distance = (np.log(first)[:, None] - np.log(second)) / options.length
    sizes = np.outer(_amplitude(first, options), _amplitude(second, options))
    kernel: FloatArray = sizes * np.exp(-0.5 * distance**2)
    return kernel


def _law_kernel(first: FloatArray, second: FloatArray, options: ColourOptions) -> FloatArray:
    """Covariance of the reddening law's error at two wavelengths [mag2 per E(B-V)^2]."""
    distance = (np.log(first)[:, None] - np.log(second)) / options.law_length
    kernel: FloatArray = options.law**2 * np.exp(-0.5 * distance**2)
    return kernel


def _amplitude(wavelength: FloatArray, options: ColourOptions) -> FloatArray:
    """Typical error of a model [mag]."""
    blueness = np.clip((4800.0 - wavelength) / 800.0, 0, 1.5)
    amplitude: FloatArray = options.scale * (1 + (options.blue - 1) * blueness)
    return amplitude


def _shares(grid: TemplateGrid, index: IntArray) -> FloatArray:
    """Part of each band's light from each coarse bin, shape (n, nband, nbin)."""
    curves = load_filter_curves(BANDS).values()
    weights = [band_weights(grid.sed_wavelength, curve)[0] for curve in curves]
    light = grid.sed[index][:, None, :] * np.array(weights)
    total = light.sum(axis=2, keepdims=True)
    share: FloatArray = light / np.where(total > 0, total, 1.0)
    return share


def _band_errors(photometry: Photometry, options: ColourOptions) -> FloatArray:
    error = np.array([photometry.get_band(name)[1] for name in BANDS])
    infrared = np.array([name.startswith("2mass") for name in BANDS])
    floor = np.where(infrared, options.infrared_floor, options.floor)
    return np.asarray(np.hypot(error, floor))


def _fit_bands(
    grid: TemplateGrid,
    index: IntArray,
    photometry: Photometry,
    options: ColourOptions,
    use: BoolArray,
) -> ColourFit:
    share = _shares(grid, index)
    observed = np.array([photometry.get_band(name)[0] for name in BANDS])
    difference = observed - grid.magnitude[index]
    wavelength = grid.sed_wavelength
    law = share @ reddening_law(wavelength)
    covariance = _band_covariance(share, _kernel(wavelength, wavelength, options))
    covariance += options.ebv**2 * law[:, :, None] * law[:, None, :] + _GREY
    covariance += np.diag(np.nan_to_num(_band_errors(photometry, options)) ** 2)
    dusty = _band_covariance(share, _law_kernel(wavelength, wavelength, options))
    linear, ebv = difference, np.zeros(len(index))
    for _ in range(3):
        inverse = _inverse(covariance + ebv[:, None, None] ** 2 * dusty, use)
        centred = np.where(use, linear - linear[:, use].mean(axis=1, keepdims=True), 0.0)
        solution = np.einsum("nbc,nc->nb", inverse, centred)
        ebv = options.ebv**2 * np.einsum("nb,nb->n", law, solution)
        linear = difference - _band_curvature(share, law, wavelength, ebv)
    # No dust makes a star bluer: a model that asks for it is too cool.
    doubt = (np.minimum(ebv, 0) / options.negative) ** 2
    return ColourFit(
        bands=use,
        difference=difference,
        linear=linear,
        chi2=np.einsum("nb,nb->n", centred, solution) + doubt,
        grey=linear[:, use].mean(axis=1) + _GREY * solution.sum(axis=1),
        ebv=ebv,
        solution=solution,
        inverse=inverse,
        share=share,
    )


def _band_covariance(share: FloatArray, kernel: FloatArray) -> FloatArray:
    """Covariance of the bands, shape (n, nband, nband), from that of the wavelengths."""
    return np.asarray(np.einsum("nbi,ncj,ij->nbc", share, share, kernel, optimize=True))


def _inverse(covariance: FloatArray, use: BoolArray) -> FloatArray:
    """Inverse of the part that belongs to the bands used; 0 elsewhere."""
    inverse = np.zeros_like(covariance)
    part = np.linalg.inv(covariance[:, use][:, :, use])
    inverse[:, np.outer(use, use)] = part.reshape(len(covariance), -1)
    return inverse


def _band_curvature(
    share: FloatArray, law: FloatArray, wavelength: FloatArray, ebv: FloatArray
) -> FloatArray:
    """Return what dust does to a band beyond E(B-V) times its mean law, shape (n, nband) [mag].

    Dust shifts the light of a wide band to the red, where it absorbs less: 5 mmag in Gaia's G at
    E(B-V) = 0.15.
    """
    dust = 10 ** (-0.4 * ebv[:, None] * reddening_law(wavelength))
    passed = np.einsum("nbi,ni->nb", share, dust)
    # A band without any light from the templates is never used.
    curvature: FloatArray = -2.5 * np.log10(np.where(passed > 0, passed, 1.0)) - ebv[:, None] * law
    return curvature


def _worst_band(fit: ColourFit, limit: float) -> int | None:
    """Find the band that contradicts the others in the best model (leave one out)."""
    best = int(np.argmin(fit.chi2))
    weight = np.diag(fit.inverse[best])
    pull = np.where(
        fit.bands, np.abs(fit.solution[best]) / np.sqrt(np.where(weight > 0, weight, 1)), 0
    )
    worst = int(np.argmax(pull))
    return worst if pull[worst] > limit else None
