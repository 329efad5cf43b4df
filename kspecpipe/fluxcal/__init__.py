"""Flux calibration: from standard stars to spectra in erg/s/cm2/Angstrom.

Numbers come in and go out as arrays; only `templates` and `download` read and write files, all of
them text or a cache of parsed text. Figures are in `figures`, which alone needs matplotlib.
"""

from kspecpipe.fluxcal.calibration import calibrate_fluxes
from kspecpipe.fluxcal.catalogue import match_positions, parse_refcat2, photometry_from_catalog_row
from kspecpipe.fluxcal.containers import (
    CalibrationVector,
    FilterCurve,
    FluxCalibrationResult,
    Photometry,
    Spectrum1D,
    StarFit,
    StellarTemplate,
    TemplateParameters,
)
from kspecpipe.fluxcal.exposure import (
    Observation,
    Standards,
    apply_flux_calibration,
    require_same_wavelength,
    require_uncalibrated,
)
from kspecpipe.fluxcal.grid import TemplateGrid
from kspecpipe.fluxcal.masks import MaskRegion, combine_regions, parse_mask_regions
from kspecpipe.fluxcal.options import FluxcalOptions, Limits
from kspecpipe.fluxcal.qc import history_lines, quality_metrics, summarize_calibration
from kspecpipe.fluxcal.templates import TemplateLibrary, check_library, write_index

__all__ = [
    "CalibrationVector",
    "FilterCurve",
    "FluxCalibrationResult",
    "FluxcalOptions",
    "Limits",
    "MaskRegion",
    "Observation",
    "Photometry",
    "Spectrum1D",
    "Standards",
    "StarFit",
    "StellarTemplate",
    "TemplateGrid",
    "TemplateLibrary",
    "TemplateParameters",
    "apply_flux_calibration",
    "calibrate_fluxes",
    "check_library",
    "combine_regions",
    "history_lines",
    "match_positions",
    "parse_mask_regions",
    "parse_refcat2",
    "photometry_from_catalog_row",
    "quality_metrics",
    "require_same_wavelength",
    "require_uncalibrated",
    "summarize_calibration",
    "write_index",
]
