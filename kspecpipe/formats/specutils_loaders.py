"""Loaders for specutils: importing this module lets ``SpectrumList.read`` open our products.

Needs ``pip install kspecpipe[specutils]``. ``import kspecpipe`` imports it where specutils has been
imported before; else::

    import kspecpipe.formats.specutils_loaders
    from specutils import SpectrumList

    spectra = SpectrumList.read("20260129_150_620_reduced_tile_046_145308.fits")
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.nddata import StdDevUncertainty
from specutils import Spectrum as SpecutilsSpectrum
from specutils import SpectrumList
from specutils.io.registers import data_loader

from kspecpipe.errors import InputError
from kspecpipe.formats.fibre_spectra import CATEGORIES, FibreSpectra, Spectrum, read_spectra
from kspecpipe.io import read_header

LABEL = "kspecpipe"


def to_spectrum(spectrum: Spectrum) -> SpecutilsSpectrum:
    """Return one spectrum as specutils has it, with its row of FIBRES in ``meta``.

    The wavelengths are in air, as ``meta["AIRORVAC"]`` says.
    """
    meta: dict[str, Any] = {"header": dict(spectrum.meta), "AIRORVAC": "air"}
    meta |= {str(name): _plain(value) for name, value in spectrum.fibre.items()}
    return SpecutilsSpectrum(
        flux=np.asarray(spectrum.flux, dtype=float) * unit_of_flux(spectrum.unit),
        spectral_axis=np.asarray(spectrum.wavelength, dtype=float) * units.AA,
        uncertainty=StdDevUncertainty(np.asarray(spectrum.uncertainty, dtype=float)),
        mask=np.asarray(spectrum.mask),
        meta=meta,
    )


def to_spectrum_list(spectra: FibreSpectra) -> SpectrumList:
    """Return the spectra of all fibres with data, one specutils spectrum each."""
    known = [one for one in spectra if np.isfinite(one.wavelength).all() and not one.mask.all()]
    return SpectrumList([to_spectrum(one) for one in known])


def unit_of_flux(name: str) -> units.UnitBase:
    """Return an astropy unit; our products write a slash before every divisor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", units.UnitsWarning)
        return units.Unit(name)


def is_ours(origin: str, *arguments: Any, **options: Any) -> bool:
    """Return whether a file is a product with spectra; called by astropy's registry."""
    del origin, options
    path = next((each for each in arguments if isinstance(each, str | Path)), None)
    if path is None or not Path(path).is_file():
        return False
    try:
        return read_header(Path(path)).get("ESO PRO CATG") in CATEGORIES
    except InputError:
        return False


def read_spectrum_list(file: Any, **options: Any) -> SpectrumList:
    """Read the spectra of all live fibres of a product: a path, or the file that astropy opened."""
    del options
    return to_spectrum_list(read_spectra(getattr(file, "name", file)))


data_loader(LABEL, identifier=is_ours, dtype=SpectrumList, extensions=["fits"], priority=20)(
    read_spectrum_list
)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
