"""Interstellar reddening."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from kspecpipe.signal import FloatArray

#: Fitzpatrick 1999, table 3 (R_V = 3.1): wavelength [Angstrom] and A / E(B-V); the first is
#: infinite.
_INVERSE = 1e4 / np.array([np.inf, 26500.0, 12200, 6000, 5470, 4670, 4110, 2700, 2600])
_EXTINCTION = np.array([0.0, 0.265, 0.829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591])
_CURVE = CubicSpline(_INVERSE, _EXTINCTION, bc_type="natural")


def reddening_law(wavelength: FloatArray) -> FloatArray:
    """Extinction per unit E(B-V) in the mean Galactic law.

    Parameters
    ----------
    wavelength : ndarray
        Wavelength [Angstrom], 2600 or more; below, the value at 2600 is returned.

    Returns
    -------
    ndarray
        A(wavelength) / E(B-V) [mag].

    References
    ----------
    .. [1] Fitzpatrick 1999, PASP 111, 63.
    """
    return np.asarray(_CURVE(1e4 / np.clip(wavelength, 2600.0, None)))
