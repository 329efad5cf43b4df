"""Flux calibration: from standard stars to spectra in erg/s/cm2/Angstrom.

Numbers come in and go out as arrays; only `templates` and `download` read and write files, all of
them text or a cache of parsed text. Figures are in `figures`, which alone needs matplotlib. The
names below are those that serve in a notebook.
"""

from kspecpipe.ancillary import load_mask_regions, load_standard_star_catalog
from kspecpipe.fluxcal.broaden import prepare_template
from kspecpipe.fluxcal.calibration import calibrate_fluxes, scale_template_to_photometry
from kspecpipe.fluxcal.catalogue import match_positions, parse_refcat2, photometry_from_catalog_row
from kspecpipe.fluxcal.colour import estimate_teff_from_colors
from kspecpipe.fluxcal.combine import combine_calibration_vectors
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
from kspecpipe.fluxcal.continuum import ContinuumOptions, fit_continuum, normalize_continuum
from kspecpipe.fluxcal.exposure import (
    Observation,
    Standards,
    apply_flux_calibration,
    require_same_wavelength,
    require_uncalibrated,
)
from kspecpipe.fluxcal.grid import TemplateGrid, resample_spectrum
from kspecpipe.fluxcal.masks import (
    apply_mask_regions,
    apply_named_mask,
    load_mask_array,
    mask_coverage_fraction,
)
from kspecpipe.fluxcal.matching import cross_correlate_rv, select_best_template
from kspecpipe.fluxcal.options import FluxcalOptions, Limits
from kspecpipe.fluxcal.photometry import (
    FILTER_INFO,
    ab_mag_to_flam,
    ab_mag_to_fnu,
    fnu_to_ab_mag,
    load_filter_curve,
    load_filter_curves,
    synthetic_color,
    synthetic_photometry,
)
from kspecpipe.fluxcal.qc import history_lines, quality_metrics, summarize_calibration
from kspecpipe.fluxcal.star import compute_calibration_vector_for_star
from kspecpipe.fluxcal.templates import (
    TemplateLibrary,
    check_library,
    parse_bosz_filename,
    write_index,
)
from kspecpipe.regions import combine_regions

__all__ = [
    "FILTER_INFO",
    "CalibrationVector",
    "ContinuumOptions",
    "FilterCurve",
    "FluxCalibrationResult",
    "FluxcalOptions",
    "Limits",
    "Observation",
    "Photometry",
    "Spectrum1D",
    "Standards",
    "StarFit",
    "StellarTemplate",
    "TemplateGrid",
    "TemplateLibrary",
    "TemplateParameters",
    "ab_mag_to_flam",
    "ab_mag_to_fnu",
    "apply_flux_calibration",
    "apply_mask_regions",
    "apply_named_mask",
    "calibrate_fluxes",
    "check_library",
    "combine_calibration_vectors",
    "combine_regions",
    "compute_calibration_vector_for_star",
    "cross_correlate_rv",
    "estimate_teff_from_colors",
    "fit_continuum",
    "fnu_to_ab_mag",
    "history_lines",
    "load_filter_curve",
    "load_filter_curves",
    "load_mask_array",
    "load_mask_regions",
    "load_standard_star_catalog",
    "mask_coverage_fraction",
    "match_positions",
    "normalize_continuum",
    "parse_bosz_filename",
    "parse_refcat2",
    "photometry_from_catalog_row",
    "prepare_template",
    "quality_metrics",
    "require_same_wavelength",
    "require_uncalibrated",
    "resample_spectrum",
    "scale_template_to_photometry",
    "select_best_template",
    "summarize_calibration",
    "synthetic_color",
    "synthetic_photometry",
    "write_index",
]
