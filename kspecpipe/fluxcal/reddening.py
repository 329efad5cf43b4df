"""Interstellar reddening."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from kspecpipe.signal import FloatArray

_RV = 3.1
#: Fitzpatrick 1999, table 3 (R_V = 3.1): wavelength [Angstrom] and A / E(B-V); the first is
#: infinite.
_INVERSE = 1e4 / np.array([np.inf, 26500.0, 12200, 6000, 5470, 4670, 4110, 2700, 2600])
_EXTINCTION = np.array([0.0, 0.265, 0.829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591])
_CURVE = CubicSpline(_INVERSE, _EXTINCTION, bc_type="natural")
#: Cardelli, Clayton & Mathis 1989, equations 2 and 3: powers of 1 / wavelength [micron] less 1.82.
_OPTICAL_A = np.polynomial.Polynomial(
    [1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999]
)
_OPTICAL_B = np.polynomial.Polynomial(
    [0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002]
)
_INFRARED = (0.574, -0.527)
_ULTRAVIOLET = 3030.0


def reddening_law(wavelength: FloatArray) -> FloatArray:
    """Extinction per unit E(B-V) in the mean Galactic law.

    The two laws in widest use differ by some 0.1 mag per E(B-V) within the optical range, even
    after a fit of E(B-V); nobody knows which one the dust before a star obeys. Their mean is never
    far from either.

    Parameters
    ----------
    wavelength : ndarray
        Wavelength [Angstrom], 2600 or more; below, the value at 2600 is returned.

    Returns
    -------
    ndarray
        A(wavelength) / E(B-V) [mag], R_V = 3.1.

    References
    ----------
    .. [1] Fitzpatrick 1999, PASP 111, 63. [2] Cardelli, Clayton & Mathis 1989, ApJ 345, 245.
    """
    first = _CURVE(1e4 / np.clip(wavelength, 2600.0, None))
    # The second law's optical part ends at 3030 Angstrom; beyond, its distance is kept.
    second = (
        first
        + _cardelli(np.maximum(wavelength, _ULTRAVIOLET))
        - _CURVE(1e4 / np.maximum(wavelength, _ULTRAVIOLET))
    )
    return np.asarray((first + second) / 2)


def _cardelli(wavelength: FloatArray) -> FloatArray:
    """Return the law of Cardelli, Clayton & Mathis, 3030 Angstrom and redward [mag]."""
    inverse = 1e4 / wavelength
    optical = np.clip(inverse, 1.1, 3.3) - 1.82
    power = np.minimum(inverse, 1.1) ** 1.61
    blue = _RV * _OPTICAL_A(optical) + _OPTICAL_B(optical)
    red = (_RV * _INFRARED[0] + _INFRARED[1]) * power
    return np.asarray(np.where(inverse > 1.1, blue, red))
