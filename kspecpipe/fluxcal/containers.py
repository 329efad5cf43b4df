"""What flux calibration hands from step to step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe.fluxcal.air import vacuum_to_air
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal


@dataclass(frozen=True, slots=True)
class Spectrum1D:
    """One spectrum in a notebook's hands.

    Parameters
    ----------
    wavelength : ndarray, shape (n,)
        Air wavelength [Angstrom].
    flux, variance : ndarray, shape (n,)
        Counts or flux density, and its variance.
    good : ndarray of bool, shape (n,)
        True where the sample can be used.
    meta : mapping
        For instance ``continuum`` (n,), ``rv`` [km/s], ``name``.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """

    wavelength: FloatArray
    flux: FloatArray
    variance: FloatArray
    good: BoolArray
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shapes = [a.shape for a in (self.wavelength, self.flux, self.variance, self.good)]
        if len(set(shapes)) > 1:
            raise ValueError(f"wavelength, flux, variance and good have the shapes {shapes}")

    @property
    def ivar(self) -> FloatArray:
        """Inverse variance; 0 where nothing is known."""
        known = self.good & (self.variance > 0)
        return np.where(known, 1 / np.where(known, self.variance, 1.0), 0.0)

    @property
    def n_pixels(self) -> int:
        """Number of samples."""
        return int(self.wavelength.size)

    @property
    def n_good(self) -> int:
        """Number of samples that can be used."""
        return int(np.count_nonzero(self.good))

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last wavelength [Angstrom]."""
        return float(self.wavelength[0]), float(self.wavelength[-1])


@dataclass(frozen=True, slots=True)
class Photometry:
    """Broad-band AB magnitudes of one star; NaN is a band without a measurement.

    Parameters
    ----------
    filter_names : tuple of str
        Names, for instance ``ps1_g``.
    magnitudes, mag_errors : ndarray, shape (nband,)
        AB magnitudes and their errors [mag].
    meta : mapping
        ``objid``, ``ra``, ``dec``, ``teff_catalog``, ``a_gaia``, ``a_g``, ``parallax`` and what
        else the catalogue tells.
    """

    filter_names: tuple[str, ...]
    magnitudes: FloatArray
    mag_errors: FloatArray
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shape = (len(self.filter_names),)
        if self.magnitudes.shape != shape or self.mag_errors.shape != shape:
            raise ValueError(
                f"{len(self.filter_names)} bands, but magnitudes {self.magnitudes.shape} "
                f"and errors {self.mag_errors.shape}"
            )

    @property
    def valid(self) -> BoolArray:
        """True for bands with a magnitude and a positive error."""
        known = np.isfinite(self.magnitudes) & np.isfinite(self.mag_errors)
        return known & (self.mag_errors > 0)

    def valid_bands(self) -> tuple[str, ...]:
        """Names of the bands with a magnitude and a positive error."""
        return tuple(itertools.compress(self.filter_names, self.valid))

    def get_band(self, name: str) -> tuple[float, float]:
        """Magnitude and error of one band [mag]; NaN if it was not measured."""
        if name not in self.valid_bands():
            return float("nan"), float("nan")
        index = self.filter_names.index(name)
        return float(self.magnitudes[index]), float(self.mag_errors[index])

    def colour(self, first: str, second: str) -> float:
        """Difference of two bands [mag]."""
        return self.get_band(first)[0] - self.get_band(second)[0]


@dataclass(frozen=True, slots=True)
class FilterCurve:
    """Transmission of a band per photon.

    Parameters
    ----------
    name : str
        Our name, for instance ``gaia_bp``.
    wavelength : ndarray, shape (m,)
        Wavelength [Angstrom].
    transmission : ndarray, shape (m,)
        Relative response to photons.
    vega_to_ab : float
        What to add to catalogue magnitudes to have AB magnitudes; 0 for AB catalogues.
    """

    name: str
    wavelength: FloatArray
    transmission: FloatArray
    vega_to_ab: float = 0.0

    @property
    def system(self) -> str:
        """Of the catalogue's magnitudes: AB or Vega."""
        return "Vega" if self.vega_to_ab else "AB"

    @property
    def wave_eff(self) -> float:
        """Mean wavelength weighted by the transmission [Angstrom]."""
        weight = self.transmission * np.gradient(self.wavelength)
        return float(np.sum(weight * self.wavelength) / np.sum(weight))

    @property
    def pivot_wavelength(self) -> float:
        """Wavelength at which the means of f_nu and f_lambda over the band agree [Angstrom]."""
        weight = self.transmission * np.gradient(self.wavelength)
        return float(np.sqrt(np.sum(weight * self.wavelength) / np.sum(weight / self.wavelength)))

    @property
    def half_width(self) -> float:
        """Scatter of the wavelengths of the band's photons [Angstrom]."""
        weight = self.transmission * np.gradient(self.wavelength)
        offset = self.wavelength - self.wave_eff
        return float(np.sqrt(np.sum(weight * offset**2) / np.sum(weight)))

    @property
    def wave_range(self) -> tuple[float, float]:
        """Where the transmission exceeds 1 % of its maximum [Angstrom]."""
        inside = self.wavelength[self.transmission > 0.01 * self.transmission.max()]
        return float(inside[0]), float(inside[-1])


@dataclass(frozen=True, slots=True)
class TemplateParameters:
    """What a template's file name tells: K, cgs, dex, dex, dex, km/s, code of the atmosphere."""

    teff: float
    logg: float
    feh: float
    alpha_m: float = 0.0
    carbon_m: float = 0.0
    vmicro: float = 1.0
    atmos: str = ""

    @property
    def label(self) -> str:
        """Short text for tables and figures."""
        return f"T{self.teff:.0f} g{self.logg:.1f} m{self.feh:+.2f} a{self.alpha_m:+.2f}"


@dataclass(frozen=True, slots=True)
class StellarTemplate:
    """A model spectrum over its full range.

    Parameters
    ----------
    wavelength : ndarray, shape (k,)
        **Vacuum** wavelength [Angstrom].
    flux, continuum : ndarray, shape (k,)
        Flux at the star's surface [erg/s/cm2/Angstrom].
    parameters : TemplateParameters
        Of the atmosphere.
    resolution : float
        Resolving power (wavelength / FWHM).
    source : str
        Library.
    """

    wavelength: FloatArray
    flux: FloatArray
    continuum: FloatArray
    parameters: TemplateParameters
    resolution: float
    source: str = "BOSZ2024"

    @property
    def teff(self) -> float:
        """Effective temperature [K]."""
        return self.parameters.teff

    @property
    def logg(self) -> float:
        """Logarithm of the surface gravity [cgs]."""
        return self.parameters.logg

    @property
    def feh(self) -> float:
        """Metallicity [dex]."""
        return self.parameters.feh

    @property
    def label(self) -> str:
        """Short text for tables and figures."""
        return self.parameters.label

    def to_spectrum1d(self) -> Spectrum1D:
        """Return it on air wavelengths, with its continuum in ``meta``."""
        meta = {"name": self.label, "continuum": self.continuum}
        good = np.isfinite(self.flux)
        return Spectrum1D(
            vacuum_to_air(self.wavelength), self.flux, np.zeros_like(self.flux), good, meta
        )


@dataclass(frozen=True, slots=True)
class CalibrationVector:
    """Response derived from one star.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    response : Signal, shape (nw,)
        (erg/s/cm2/Angstrom) per (electron/s/Angstrom); TELLURIC and EXTRAPOLATED are flagged.
    meta : mapping
        As in the table of stars: ``name``, ``fibre``, ``objid``, ``template``, ``teff``,
        ``logg``, ``feh``, ``velocity``, ``chi2``, ``ebv``, ``snr``...
    """

    wavelength: FloatArray
    response: Signal
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cal_factor(self) -> FloatArray:
        """(erg/s/cm2/Angstrom) per (electron/s/Angstrom)."""
        return self.response.value

    @property
    def cal_error(self) -> FloatArray:
        """Standard deviation of the factor."""
        return self.response.error

    @property
    def n_good(self) -> int:
        """Number of samples that rest on data: known, neither bridged nor extrapolated."""
        guessed = (self.response.dq & np.uint16(DQ.TELLURIC | DQ.EXTRAPOLATED)) > 0
        return int(np.count_nonzero(self.response.good & ~guessed))


@dataclass(frozen=True, slots=True)
class StarFit:
    """All that figures and quality control need to know about one used star.

    Parameters
    ----------
    vector : CalibrationVector
        Response from this star.
    observed : Signal, shape (nw,)
        Its spectrum above the air [electron/s/Angstrom].
    model : ndarray, shape (nw,)
        Its calibrated model at the observed resolution [erg/s/cm2/Angstrom].
    fitted : ndarray of bool, shape (nw,)
        Samples that entered the vector.
    photometry : Photometry
        Catalogue magnitudes.
    residual : ndarray, shape (nband,)
        Observed minus model magnitude before the grey scale and the colour correction, less their
        mean [mag]; NaN where the band was not used.
    final_residual : ndarray, shape (nband,)
        The same after them.
    """

    vector: CalibrationVector
    observed: Signal
    model: FloatArray
    fitted: BoolArray
    photometry: Photometry
    residual: FloatArray
    final_residual: FloatArray


@dataclass(frozen=True, slots=True)
class FluxCalibrationResult:
    """The response of an exposure and how it came about.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        Air wavelength [Angstrom].
    response : Signal, shape (nw,)
        (erg/s/cm2/Angstrom) per (electron/s/Angstrom) above the air; its variance holds noise,
        photometry, model and a systematic floor and is common to all spectra it is applied to.
    stars : Table
        One row per candidate: numbers, ``used``, and ``reason`` if it was rejected.
    fits : tuple of StarFit
        Of the used stars.
    metrics : mapping of str to float
        Quality; NaN where a number is unknown (scatter of one star).
    """

    wavelength: FloatArray
    response: Signal
    stars: Table
    fits: tuple[StarFit, ...]
    metrics: Mapping[str, float]

    @property
    def per_star_vectors(self) -> tuple[CalibrationVector, ...]:
        """Responses of the single stars."""
        return tuple(fit.vector for fit in self.fits)

    @property
    def per_star_residuals(self) -> tuple[FloatArray, ...]:
        """Responses of the single stars relative to the combined one, less 1."""
        return tuple(v.cal_factor / self.response.value - 1 for v in self.per_star_vectors)

    @property
    def n_stars(self) -> int:
        """Number of stars that were used."""
        return len(self.fits)

    @property
    def combined_vector(self) -> CalibrationVector:
        """The response as a calibration vector."""
        return CalibrationVector(self.wavelength, self.response, dict(self.metrics))
