"""Products of several exposures or modes: coadded and spliced spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from kspecpipe.products.flux import Calibrated, axis_wavelength
from kspecpipe.products.product import (
    Product,
    cards,
    image_hdu,
    signal_hdu,
    squared_unit,
    table_hdu,
)
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.sky.rebin import Grid
from kspecpipe.spectra import CORRELATION, GRID_AXIS, Reduced

#: Time cards of a product of several exposures, as in ESO's science data products.
EXPOSURE_CARDS = ("NCOMBINE", "TEXPTIME", "MJD-END", "SPECSYS")


@dataclass(frozen=True, kw_only=True)
class Coadded(Product):
    """Mean of the exposures of one tile, in their unit and at their mean level."""

    catg: ClassVar[str] = "COADDED"
    spectra: Signal = signal_hdu(unit="electron", doc="mean spectra, in the unit of the inputs")
    sky: FloatArray = image_hdu("SKY", unit="electron", doc="mean of the sky that was subtracted")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    exposure_map: FloatArray = image_hdu("EXPMAP", unit="s", doc="exposure time in each sample")
    axis: dict[str, Any] = cards(
        "PRIMARY,VARIANCE,DQ,SKY,LSF,EXPMAP", *GRID_AXIS, doc="wavelength grid"
    )
    unit: dict[str, Any] = cards("PRIMARY,SKY", "BUNIT", doc="unit of the inputs")
    squared: dict[str, Any] = cards("VARIANCE", "BUNIT", doc="its square")
    exposures: dict[str, Any] = cards("PRIMARY", *EXPOSURE_CARDS, doc="number and times")
    correlation: dict[str, Any] = cards(
        "PRIMARY", *CORRELATION, doc="correlation of samples 1, 2, 3 pixels apart, median fibre"
    )
    scales: Table = table_hdu("SCALES", doc="factor, zero point and rejections per exposure, fibre")
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")


@dataclass(frozen=True, kw_only=True)
class Spliced(Product):
    """Spectra of several modes of the same fibres, joined where they overlap."""

    catg: ClassVar[str] = "SPLICED"
    spectra: Signal = signal_hdu(unit="electron", doc="joined spectra, in the unit of the inputs")
    sky: FloatArray = image_hdu("SKY", unit="electron", doc="sky that was subtracted, alike")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    axis: dict[str, Any] = cards("PRIMARY,VARIANCE,DQ,SKY,LSF", *GRID_AXIS, doc="wavelength grid")
    unit: dict[str, Any] = cards("PRIMARY,SKY", "BUNIT", doc="unit of the inputs")
    squared: dict[str, Any] = cards("VARIANCE", "BUNIT", doc="its square")
    joins: Table = table_hdu("JOINS", doc="overlap and scale of each join and fibre")
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")


Gridded = Reduced | Calibrated | Coadded | Spliced


def grid_of(product: Gridded) -> Grid:
    """Return the wavelength grid of spectra."""
    wavelength = axis_wavelength(product.axis, 1)
    return Grid(float(wavelength[0]), float(product.axis["CDELT1"]), product.spectra.shape[-1])


def unit_of(product: Gridded) -> str:
    """Return the unit of the flux."""
    own = product.unit.get("BUNIT") if isinstance(product, Coadded | Spliced) else None
    return str(own or product.hdus()["spectra"].unit)


def unit_cards(unit: str) -> dict[str, dict[str, Any]]:
    """Return the fields ``unit`` and ``squared`` of a product."""
    return {"unit": {"BUNIT": unit}, "squared": {"BUNIT": squared_unit(unit)}}


def per_angstrom(product: Gridded) -> float:
    """Return the factor that makes the flux one per Angstrom: 1 if it is so already."""
    return 1.0 if "Angstrom" in unit_of(product) else 1.0 / float(product.axis["CDELT1"])


def per_pixel(product: Gridded, step: float) -> float:
    """Return the factor that takes a flux per Angstrom back to the unit of a product."""
    return 1.0 if "Angstrom" in unit_of(product) else step


def correlation_of(product: Reduced | Calibrated) -> FloatArray:
    """Return the correlation of neighbouring samples, shape (nfib, nlag)."""
    row = [float(product.correlation.get(card, 0.0)) for card in CORRELATION]
    return np.tile(row, (len(product.fibres), 1))
