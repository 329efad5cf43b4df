"""What flux calibration must know of an exposure, and how counts become flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, FloatArray, IntArray, Signal


@dataclass(frozen=True, slots=True)
class Observation:
    """Circumstances of an exposure.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        Centres of the grid's pixels, air [Angstrom].
    lsf : ndarray, shape (nfib, nw)
        FWHM of the line-spread function [Angstrom].
    exptime : float
        [s].
    airmass : float or ndarray, shape (nfib,)
        Of the middle of the exposure.
    extinction : ndarray, shape (nw,)
        [mag per airmass].
    mjd : float
        Epoch for proper motions; NaN: none are applied.

    Raises
    ------
    ValueError
        If shapes disagree, or exposure time or airmass are not positive.
    """

    wavelength: FloatArray
    lsf: FloatArray
    exptime: float
    airmass: float | FloatArray
    extinction: FloatArray
    mjd: float = float("nan")

    def __post_init__(self) -> None:
        """Refuse what cannot be an exposure."""
        size = self.wavelength.size
        if self.lsf.ndim != 2 or self.lsf.shape[1] != size or self.extinction.shape != (size,):
            raise ValueError(
                f"wavelength {self.wavelength.shape}, lsf {self.lsf.shape} and extinction "
                f"{self.extinction.shape} do not fit together"
            )
        if not self.exptime > 0 or not np.all(np.asarray(self.airmass) >= 1 - 1e-6):
            raise ValueError(f"exposure time {self.exptime} s, airmass {self.airmass}")

    def rate_factor(self, n_fibres: int) -> FloatArray:
        """Turn electron per pixel into electron/s/Angstrom above the air, shape (nfib, nw)."""
        width = np.gradient(self.wavelength)
        airmass = np.broadcast_to(np.asarray(self.airmass, float), (n_fibres,))
        clear = 10 ** (0.4 * airmass[:, None] * self.extinction)
        factor: FloatArray = clear / (self.exptime * width)
        return factor


@dataclass(frozen=True, slots=True)
class Standards:
    """Fibres that look at standard stars, shape (n,) each: row in the spectra, place [degree]."""

    fibre: IntArray
    ra: FloatArray
    dec: FloatArray
    names: tuple[str, ...] = ()


def require_uncalibrated(unit: str) -> None:
    """Refuse spectra that are in flux already.

    Parameters
    ----------
    unit : str
        BUNIT of the spectra.

    Raises
    ------
    RecipeError
        If it is a flux.
    """
    if "erg" in unit.lower():
        raise RecipeError(
            f"the spectra are in {unit}: they are flux-calibrated already, and calibrating twice "
            "would spoil them. Give the REDUCED spectra"
        )


def require_same_wavelength(spectra: FloatArray, response: FloatArray) -> None:
    """Refuse a response of another mode: its wavelengths must be those of the spectra.

    Raises
    ------
    RecipeError
        If they differ by more than a tenth of a pixel.
    """
    same = spectra.shape == response.shape
    if same:
        step = np.abs(np.gradient(spectra))
        same = bool((np.abs(spectra - response) < 0.1 * step).all())
    if not same:
        raise RecipeError(
            f"the response covers {response[0]:.1f} to {response[-1]:.1f} Angstrom in "
            f"{response.size} pixels, the spectra {spectra[0]:.1f} to {spectra[-1]:.1f} in "
            f"{spectra.size}: it belongs to another mode. Use a RESPONSE of this mode"
        )


def apply_flux_calibration(
    spectra: Signal,
    observation: Observation,
    response: Signal,
    response_wavelength: FloatArray | None = None,
) -> Signal:
    """Turn electrons into flux above the air.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nw)
        Electron per pixel of the grid.
    observation : Observation
        Circumstances of these spectra.
    response : Signal, shape (nw,)
        (erg/s/cm2/Angstrom) per (electron/s/Angstrom).
    response_wavelength : ndarray, shape (nw,), optional
        Wavelengths of the response, if they may be others than those of the spectra.

    Returns
    -------
    Signal, shape (nfib, nw)
        [erg/s/cm2/Angstrom]. The variance holds that of the spectra and that of the response (which
        is common to all fibres and does not average out). DQ bits join; NaN and NO_DATA where
        there is no response.

    Raises
    ------
    ValueError
        If the shapes disagree.
    RecipeError
        If the response belongs to other wavelengths.
    """
    if response_wavelength is not None:
        require_same_wavelength(observation.wavelength, response_wavelength)
    if spectra.shape[-1:] != response.shape:
        raise ValueError(f"spectra {spectra.shape} and response {response.shape} do not fit")
    rate = spectra.scale(observation.rate_factor(spectra.shape[0]))
    value = rate.value * response.value
    variance = rate.variance * response.value**2 + rate.value**2 * response.variance
    known = np.isfinite(response.value)
    lost = np.where(known, np.uint16(0), np.uint16(DQ.NO_DATA))
    return Signal(value, variance, rate.dq | response.dq | lost)
