"""Masks of a spectrum by the regions that the package ships: telluric bands, stellar lines.

The regions themselves are in `kspecpipe.regions`, which everything else uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kspecpipe.ancillary import load_mask_regions
from kspecpipe.fluxcal.containers import Spectrum1D
from kspecpipe.regions import WavelengthRegion, inside_regions
from kspecpipe.signal import BoolArray, FloatArray


def load_mask_array(wavelength: FloatArray, mask_name: str = "telluric_regions") -> BoolArray:
    """Tell which samples lie outside the regions of a name and can be used."""
    return ~inside_regions(wavelength, load_mask_regions(mask_name))


def apply_mask_regions(spectrum: Spectrum1D, regions: Sequence[WavelengthRegion]) -> Spectrum1D:
    """Return the spectrum with the samples inside the regions no longer good."""
    good = spectrum.good & ~inside_regions(spectrum.wavelength, regions)
    return replace(spectrum, good=good)


def apply_named_mask(spectrum: Spectrum1D, mask_name: str = "telluric_regions") -> Spectrum1D:
    """Do the same with the regions of a name, see `kspecpipe.ancillary.load_mask_regions`."""
    return apply_mask_regions(spectrum, load_mask_regions(mask_name))


def mask_coverage_fraction(wavelength: FloatArray, mask_name: str = "telluric_regions") -> float:
    """Part of the samples inside the regions of a name; 0, or nearly 1, hints at a wrong unit."""
    return float(1 - load_mask_array(wavelength, mask_name).mean())
