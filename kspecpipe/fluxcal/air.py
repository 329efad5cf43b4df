"""Wavelengths in vacuum and in air."""

from __future__ import annotations

from kspecpipe.signal import FloatArray


def vacuum_to_air(wavelength: FloatArray) -> FloatArray:
    """Turn vacuum wavelengths into those in standard air.

    Parameters
    ----------
    wavelength : ndarray
        Vacuum wavelength, 2000 or more [Angstrom].

    References
    ----------
    .. [1] Ciddor 1996, Applied Optics 35, 1566 (15 C, 1 atm, 450 ppm CO2).
    """
    squared = (1e4 / wavelength) ** 2
    index = 1 + 0.05792105 / (238.0185 - squared) + 0.00167917 / (57.362 - squared)
    air: FloatArray = wavelength / index
    return air
