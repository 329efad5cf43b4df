"""Spectra of what the fibres look at: lamps, sky, galaxies, stars, and the air in front of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kspecpipe.simulate.arrays import FloatArray

#: Something per Angstrom at a wavelength [Angstrom].
Spectrum = Callable[[FloatArray], FloatArray]
#: What is detected at a wavelength [Angstrom] of a flux.
Detection = Callable[[FloatArray, FloatArray], FloatArray]

#: Planck's constant times the speed of light [erg Angstrom].
_PLANCK_LIGHT = 1.98645e-8
#: In km/s.
_LIGHT_SPEED = 299_792.458

#: Night-sky emission: air wavelength [Angstrom] (Hanuschik 2003, A&A 407, 1157), relative strength.
SKY_LINES = (
    (4358.335, 0.25), (5197.928, 0.04), (5460.750, 0.35), (5577.338, 3.0), (5889.951, 0.55),
    (5895.924, 0.35), (6300.304, 2.6), (6363.776, 0.85), (6498.737, 0.10), (6533.050, 0.09),
    (6553.626, 0.08), (6863.971, 0.40), (6912.638, 0.12), (6923.192, 0.20), (6939.542, 0.13),
    (6949.066, 0.28), (6978.424, 0.16), (7276.424, 0.62), (7284.456, 0.19), (7316.290, 0.46),
    (7329.160, 0.21), (7340.901, 0.40), (7358.680, 0.20), (7369.384, 0.47), (7392.210, 0.13),
    (7401.862, 0.28), (7524.007, 0.27), (7571.751, 0.20), (7750.656, 0.59), (7760.011, 0.19),
    (7794.121, 0.43), (7808.480, 0.19), (7821.519, 0.39), (7841.285, 0.18), (7853.391, 0.51),
    (7860.662, 0.19), (7870.738, 0.24), (7878.790, 0.12), (7889.680, 0.14), (7913.718, 0.63),
    (7921.106, 0.17), (7949.212, 0.14), (7964.654, 0.45), (7979.773, 0.18), (7993.334, 0.31),
    (8014.072, 0.15), (8025.824, 0.38), (8052.031, 0.08), (8310.725, 0.13), (8344.613, 0.90),
    (8352.877, 0.18), (8382.402, 0.20), (8399.167, 0.67), (8415.242, 0.28), (8430.147, 0.94),
    (8452.266, 0.24), (8465.374, 0.58), (8493.396, 0.14), (8538.690, 0.13), (8761.337, 0.24),
    (8767.925, 0.30), (8778.344, 0.35), (8791.189, 0.13), (8827.112, 0.80),
)  # fmt: skip

#: Telluric bands: centre, width (sigma) [Angstrom], depth.
_TELLURIC = (
    (6279.0, 6.0, 0.05), (6870.0, 4.5, 0.45), (6884.0, 12.0, 0.28), (7187.0, 14.0, 0.22),
    (7245.0, 18.0, 0.14), (7597.0, 5.0, 0.62), (7607.0, 7.0, 0.55), (7628.0, 14.0, 0.42),
    (8160.0, 22.0, 0.12), (8230.0, 18.0, 0.18), (8290.0, 16.0, 0.10),
)  # fmt: skip

#: Galaxy features: rest wavelength in air [Angstrom], strength (below 0: absorption).
_NEBULAR = (
    (3727.4, 1.0), (4340.5, 0.3), (4861.3, 0.7), (4958.9, 0.5), (5006.8, 1.5), (6548.1, 0.3),
    (6562.8, 2.2), (6583.4, 0.9), (6716.4, 0.5), (6730.8, 0.4),
)  # fmt: skip
_STELLAR = (
    (3933.7, -0.45), (3968.5, -0.40), (4101.7, -0.15), (4304.0, -0.20), (5175.0, -0.18),
    (5269.0, -0.10), (5892.0, -0.15),
)  # fmt: skip
_BALMER = (
    (3889.1, 0.28),
    (3970.1, 0.34),
    (4101.7, 0.38),
    (4340.5, 0.40),
    (4861.3, 0.38),
    (6562.8, 0.30),
)

#: Extinction of Cerro Tololo [mag/airmass] (Stone & Baldwin 1983, MNRAS 204, 347), rounded.
_EXTINCTION = (
    (3200, 1.03), (3500, 0.56), (4000, 0.33), (4500, 0.23), (5000, 0.17), (5500, 0.14),
    (6000, 0.11), (6500, 0.07), (7000, 0.05), (8000, 0.03), (9000, 0.02), (10000, 0.02),
)  # fmt: skip


def flat_lamp(wavelength: FloatArray) -> FloatArray:
    """Return the flat lamp [electron/Angstrom, maximum about 1]: dark below 4150 Angstrom."""
    glow = _black_body(wavelength, 2600.0) * response(wavelength)
    cut = 1 / (1 + np.exp(-(wavelength - 4520.0) / 130.0))
    start = np.clip((wavelength - 4130.0) / 150.0, 0, 1)
    return glow * cut * start * start * (3 - 2 * start) * 0.55


def deuterium_lamp(wavelength: FloatArray) -> FloatArray:
    """Return a blue flat lamp that fades towards the red, in the place of `flat_lamp`."""
    glow: FloatArray = np.exp(-(wavelength - 4000.0) / 700.0) * response(wavelength)
    return glow


def arc_continuum(wavelength: FloatArray) -> FloatArray:
    """Return the glow of discharge lamps, maximum about 1: humps at 4100-5000 Angstrom."""
    humps = ((4180.0, 60.0, 0.5), (4390.0, 110.0, 0.8), (4640.0, 90.0, 1.0), (4905.0, 70.0, 0.6))
    level = 0.04 * np.exp(-0.5 * ((wavelength - 5900.0) / 900.0) ** 2)
    for centre, width, height in humps:
        level = level + height * _bump(wavelength, centre, width)
    return level


def response(wavelength: FloatArray) -> FloatArray:
    """Return grating, optics and chip together, maximum about 1."""
    rise = 1 / (1 + np.exp(-(wavelength - 4000.0) / 330.0))
    fall = 1 / (1 + np.exp((wavelength - 8900.0) / 420.0))
    return rise * fall * np.exp(-0.5 * ((wavelength - 6400.0) / 2300.0) ** 2) * 1.05


def telluric(wavelength: FloatArray, airmass: float) -> FloatArray:
    """Return the transmission of the molecular bands."""
    depth = sum(d * _bump(wavelength, c, s) for c, s, d in _TELLURIC)
    transmission: FloatArray = (1 - np.clip(depth, 0, 0.97)) ** airmass
    return transmission


def extinction(wavelength: FloatArray, airmass: float) -> FloatArray:
    """Return the transmission of the clear atmosphere."""
    at, magnitude = np.array(_EXTINCTION).T
    transmission: FloatArray = 10 ** (-0.4 * airmass * np.interp(wavelength, at, magnitude))
    return transmission


def sky_continuum(wavelength: FloatArray) -> FloatArray:
    """Return the sky's continuum [erg/s/cm2/Angstrom] in the area of one fibre."""
    slope = 0.8 + 0.4 * (wavelength - 5000.0) / 4000.0
    hump = 0.35 * _bump(wavelength, 5900.0, 350.0)
    return 1.6e-17 * (slope + hump)


def sky_line_flux(scale: float) -> tuple[FloatArray, FloatArray]:
    """Return wavelengths [Angstrom] and fluxes [erg/s/cm2] of the sky's lines."""
    wavelength, strength = np.array(SKY_LINES).T
    return wavelength, 1e-15 * scale * strength


def star(wavelength: FloatArray, temperature: float, flux: float) -> FloatArray:
    """Return a star with Balmer lines [erg/s/cm2/Angstrom]; ``flux`` is at 6000 Angstrom."""
    spectrum = _black_body(wavelength, temperature) * 6000.0 / wavelength
    for centre, depth in _BALMER:
        u = (wavelength - centre) / 7.0
        spectrum = spectrum * (1 - depth * (0.6 * np.exp(-0.5 * u**2) + 0.4 / (1 + (u / 1.6) ** 2)))
    return flux * spectrum / _black_body(np.array([6000.0]), temperature)


def galaxy(wavelength: FloatArray, redshift: float, emission: float, flux: float) -> FloatArray:
    """Return a galaxy [erg/s/cm2/Angstrom]; ``flux`` is near 6000 Angstrom."""
    rest = wavelength / (1 + redshift)
    spectrum = 0.45 + 0.55 / (1 + np.exp(-(rest - 4000.0) / 40.0)) - 0.05 * (rest - 5500.0) / 2000.0
    for centre, depth in _STELLAR:
        spectrum = spectrum * (1 + depth * _bump(rest, centre, centre * 230.0 / _LIGHT_SPEED))
    for centre, height in _NEBULAR:
        spectrum = spectrum + emission * height * _bump(rest, centre, centre * 140.0 / _LIGHT_SPEED)
    return flux * spectrum


def daylight(wavelength: FloatArray) -> FloatArray:
    """Return the twilight sky [erg/s/cm2/Angstrom]: the sun and Rayleigh's blue."""
    return star(wavelength, 5800.0, 2e-13) * (wavelength / 6000.0) ** -2.5


def photons(wavelength: FloatArray, flux: FloatArray) -> FloatArray:
    """Return photons/s/cm2/Angstrom of a flux in erg/s/cm2/Angstrom (or without the Angstrom)."""
    return flux * wavelength / _PLANCK_LIGHT


def _black_body(wavelength: FloatArray, temperature: float) -> FloatArray:
    """Return photons of a black body per Angstrom, 1 at its strongest."""
    u = 1.43877e8 / (wavelength * temperature)
    photon = 1 / (wavelength**4 * np.expm1(u))
    peak = 1.43877e8 / (3.92069 * temperature)
    top: FloatArray = photon * peak**4 * np.expm1(3.92069)
    return top


def _bump(wavelength: FloatArray, centre: float, width: float) -> FloatArray:
    bump: FloatArray = np.exp(-0.5 * ((wavelength - centre) / width) ** 2)
    return bump
