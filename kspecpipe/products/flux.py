"""Products of flux calibration: the response of the spectrograph and calibrated spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from kspecpipe.products.product import Product, cards, image_hdu, signal_hdu, table_hdu
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.spectra import CORRELATION, GRID_AXIS

#: (erg/s/cm2/Angstrom) per (electron/s/Angstrom), simplified.
RESPONSE_UNIT = "erg/cm2/electron"
FLUX_UNIT = "erg/s/cm2/Angstrom"
#: How a flux calibration came about; HISTORY has one line per star.
CALIBRATION_CARDS = {
    "FLUXCAL": "calibrated in flux",
    "FCALNSTR": "stars in the response",
    "FCALNREJ": "stars left out",
    "FCALRMS": "relative scatter of the stars' responses",
    "FCALGREY": "[mag] scatter of the stars' brightness",
    "FCALZP": "[mag] AB, 1 electron/s/Angstrom",
    "FCALEXT": "extinction curve",
    "FCALAIRM": "airmass, mean of the fibres",
    "FCALRESP": "response of another exposure",
    "HISTORY": "",
}


@dataclass(frozen=True, kw_only=True)
class Response(Product):
    """What one electron/s/Angstrom above the air means, with the stars from which it was derived.

    The rows of VECTORS, VECTVAR, OBSERVED and MODEL are the stars with ``used`` in STARS, in the
    order of that table.
    """

    catg: ClassVar[str] = "RESPONSE"
    response: Signal = signal_hdu(
        unit=RESPONSE_UNIT, doc="(erg/s/cm2/Angstrom) per (electron/s/Angstrom), without extinction"
    )
    extinction: FloatArray = image_hdu(
        "EXTINCT", unit="mag", doc="extinction per airmass that was taken out"
    )
    vectors: FloatArray = image_hdu("VECTORS", unit=RESPONSE_UNIT, doc="response from each star")
    vector_variance: FloatArray = image_hdu(
        "VECTVAR", unit="erg2/cm4/electron2", doc="variance of VECTORS"
    )
    observed: FloatArray = image_hdu(
        "OBSERVED", unit="electron/s/Angstrom", doc="each star as seen, above the air"
    )
    model: FloatArray = image_hdu("MODEL", unit=FLUX_UNIT, doc="its model, of its magnitudes")
    stars: Table = table_hdu("STARS", doc="every standard star, used or the reason why not")
    axis: dict[str, Any] = cards(
        "PRIMARY,VARIANCE,DQ,EXTINCT,VECTORS,VECTVAR,OBSERVED,MODEL",
        *GRID_AXIS,
        doc="wavelength grid",
    )
    calibration: dict[str, Any] = cards(
        "PRIMARY",
        *CALIBRATION_CARDS,
        doc="how the calibration came about",
        comments=CALIBRATION_CARDS,
    )

    @property
    def wavelength(self) -> FloatArray:
        """Air wavelengths of the samples [Angstrom]."""
        return axis_wavelength(self.axis, self.response.shape[-1])


@dataclass(frozen=True, kw_only=True)
class Calibrated(Product):
    """Spectra above the air; PRIMARY = REDUCED x FACTOR.

    VARIANCE = (variance of REDUCED) x FACTOR^2 + (PRIMARY x FACTERR)^2; the last term is common to
    all fibres and does not average out.
    """

    catg: ClassVar[str] = "CALIBRATED"
    spectra: Signal = signal_hdu(unit=FLUX_UNIT, doc="sky-subtracted spectra above the air")
    sky: FloatArray = image_hdu("SKY", unit=FLUX_UNIT, doc="sky that was subtracted, alike")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    factor: FloatArray = image_hdu(
        "FACTOR",
        unit="erg/s/cm2/Angstrom/electron",
        doc="RESPONSE x 10^(0.4 AIRMASS EXTINCT) / (EXPTIME x pixel width)",
    )
    factor_error: FloatArray = image_hdu(
        "FACTERR", unit="", doc="relative error of FACTOR, common to all fibres"
    )
    extinction: FloatArray = image_hdu("EXTINCT", unit="mag", doc="extinction per airmass")
    telluric: FloatArray | None = image_hdu(
        "TELLURIC", unit="", optional=True, doc="transmission of the telluric bands, not applied"
    )
    axis: dict[str, Any] = cards(
        "PRIMARY,VARIANCE,DQ,SKY,LSF,FACTOR,FACTERR,EXTINCT,TELLURIC",
        *GRID_AXIS,
        doc="wavelength grid",
    )
    correlation: dict[str, Any] = cards(
        "PRIMARY", *CORRELATION, doc="correlation of samples 1, 2, 3 pixels apart, median fibre"
    )
    calibration: dict[str, Any] = cards(
        "PRIMARY",
        *CALIBRATION_CARDS,
        doc="how the calibration came about",
        comments=CALIBRATION_CARDS,
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre, with AIRMASS")

    @property
    def wavelength(self) -> FloatArray:
        """Air wavelengths of the samples [Angstrom]."""
        return axis_wavelength(self.axis, self.spectra.shape[-1])


def axis_wavelength(axis: dict[str, Any], count: int) -> FloatArray:
    """Return the wavelengths of the pixel centres of a grid [Angstrom].

    Parameters
    ----------
    axis : dict
        CRVAL1, CDELT1 and CRPIX1.
    count : int
        Number of pixels.
    """
    place = np.arange(count, dtype=float) + 1.0 - float(axis.get("CRPIX1", 1.0))
    wavelength: FloatArray = float(axis["CRVAL1"]) + float(axis["CDELT1"]) * place
    return wavelength
