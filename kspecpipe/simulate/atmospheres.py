"""Model atmospheres: the stars of simulated nights and the templates that match them.

The atmospheres are grey in temperature and crude in opacity, but they have what flux calibration
lives on: continua with Balmer and Paschen jumps, hydrogen lines that grow with temperature, blends
of metal lines that grow towards the blue, with metallicity and towards cool stars.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kspecpipe.simulate.arrays import FloatArray

#: Metal lines: air wavelength [Angstrom], strength at solar composition and 5800 K, width [A].
_METALS = (
    (3933.7, 9.0, 7.0),
    (3968.5, 8.0, 6.5),
    (4226.7, 1.6, 1.5),
    (4300.0, 0.55, 9.0),
    (4310.0, 0.55, 7.0),
    (5167.3, 1.4, 1.2),
    (5172.7, 1.8, 1.6),
    (5183.6, 2.0, 1.8),
    (5890.0, 1.5, 1.0),
    (5895.9, 1.3, 1.0),
    (8498.0, 1.0, 1.8),
    (8542.1, 2.2, 3.0),
    (8662.1, 1.8, 2.6),
)
_BLENDS = 2600


def eddington_flux(
    vacuum: FloatArray, atmosphere: tuple[float, float, float], resolution: float = 2000.0
) -> tuple[FloatArray, FloatArray]:
    """Return Eddington flux H and continuum of an atmosphere (teff, logg, feh).

    Parameters
    ----------
    vacuum : ndarray
        Vacuum wavelength [Angstrom].
    atmosphere : tuple of float
        Effective temperature [K], log gravity [cgs], metallicity [dex].
    resolution : float
        Resolving power to which lines are broadened.

    Returns
    -------
    flux, continuum : ndarray
        [erg/s/cm2/Angstrom/sr].
    """
    teff, logg, _ = atmosphere
    depth = (2.0 / 3.0) / _opacity(vacuum, teff, logg)
    temperature = teff * (0.75 * (depth + 2.0 / 3.0)) ** 0.25
    continuum = 0.25 * _planck(vacuum, temperature)
    optical = _line_depth(vacuum, atmosphere, resolution)
    # Lines form where the atmosphere is coolest; the floor is that of its surface.
    surface = 0.25 * _planck(vacuum, np.full(vacuum.shape, 0.8 * teff))
    dark = np.minimum(0.9, surface / continuum * 0.55)
    flux = continuum * (dark + (1 - dark) * np.exp(-optical))
    return flux, continuum


def to_vacuum(air: FloatArray) -> FloatArray:
    """Turn air into vacuum wavelengths (Morton 1991, inverse by one iteration)."""
    vacuum = np.array(air, float)
    for _ in range(2):
        s = (1e4 / vacuum) ** 2
        vacuum = air * (1 + 2.735182e-4 + 131.4182e-8 * s + 2.76249e-12 * s**2)
    return vacuum


def _planck(wavelength: FloatArray, temperature: FloatArray) -> FloatArray:
    """Return B of a black body per Angstrom [erg/s/cm2/A/sr]."""
    radiation: FloatArray = 1.191043e27 / wavelength**5
    return radiation / np.expm1(1.438777e8 / (wavelength * temperature))


def _opacity(wavelength: FloatArray, teff: float, logg: float) -> FloatArray:
    """Return the continuous opacity relative to its mean: negative ion and hydrogen."""
    u = np.log(wavelength / 8500.0)
    bound = np.where(wavelength < 16400.0, np.exp(-0.5 * (u / np.where(u < 0, 0.75, 0.42)) ** 2), 0)
    ion = (bound + 0.35 * (wavelength / 16400.0) ** 2) / 0.8
    hydrogen = 0.25 * np.exp((teff - 7500.0) / 650.0) * 10 ** (-0.3 * (logg - 4.0))
    edges = np.zeros_like(wavelength)
    for edge, weight in ((3646.0, 6.0), (8204.0, 1.0), (14580.0, 0.35)):
        below = 1 / (1 + np.exp(np.clip((wavelength - edge) / 8.0, -50, 50)))
        edges += weight * (wavelength / edge) ** 3 * below
    opacity: FloatArray = 0.15 + ion + hydrogen * edges
    return opacity


def _line_depth(
    vacuum: FloatArray, atmosphere: tuple[float, float, float], resolution: float
) -> FloatArray:
    """Return the optical depth of hydrogen and metal lines."""
    teff, logg, feh = atmosphere
    depth = np.zeros_like(vacuum)
    power = 1.9 * np.exp((teff - 6000.0) / 1900.0)
    for series, edge, weight in ((2, 3645.07, 1.0), (3, 8201.4, 0.12)):
        for upper in range(series + 1, series + 17):
            centre = edge / (1 - (series / upper) ** 2) * 1.00028
            strength = weight * power * (3.0 / (upper - series + 2)) ** 0.7
            wing = 2.2 * 10 ** (0.12 * (logg - 4)) * centre / 4861.0
            _add(depth, vacuum, (centre, strength, wing, 2.4), resolution)
    metals = 10 ** (0.55 * feh) * (5800.0 / teff) ** 5
    return depth + metals * _metal_depth(vacuum.tobytes(), resolution)


@lru_cache(maxsize=4)
def _metal_depth(grid: bytes, resolution: float) -> FloatArray:
    """Return the depth of all metal lines at unit abundance, once for all models of a grid."""
    vacuum = np.frombuffer(grid)
    depth = np.zeros_like(vacuum)
    wave, strength, width = _metal_lines().T
    for line in zip(to_vacuum(wave), strength, width, strict=True):
        _add(depth, vacuum, (*line, 3.0), resolution)
    return depth


def _add(
    depth: FloatArray, vacuum: FloatArray, line: tuple[float, float, float, float], r: float
) -> None:
    """Add one line (centre, strength, width, slope of the wings) in place."""
    centre, strength, width, slope = line
    broad = np.hypot(width, centre / r / 2.0)
    reach = 40 * broad
    part = slice(*np.searchsorted(vacuum, [centre - reach, centre + reach]))
    u = np.abs(vacuum[part] - centre) / broad
    depth[part] += strength * width / broad / (1 + u**slope)


@lru_cache(maxsize=1)
def _metal_lines() -> FloatArray:
    """Return strong lines and random blends, denser and stronger towards the blue."""
    rng = np.random.default_rng(20240229)
    wave = 3000.0 * (1 - rng.uniform(0, 1, _BLENDS) * (1 - (3000.0 / 9500.0) ** 2.2)) ** (-1 / 2.2)
    strength = rng.exponential(0.22, _BLENDS) * (4300.0 / wave) ** 3
    blends = np.stack([wave, strength, rng.uniform(0.4, 1.2, _BLENDS)], axis=1)
    return np.concatenate([np.array(_METALS), blends])
