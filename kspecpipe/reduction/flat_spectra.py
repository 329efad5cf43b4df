"""Spectra of the master flats of all lamps: extracted, without dull pixels, stitched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from kspecpipe.extraction.flats import (
    FibreLight,
    FibreLightOptions,
    fibre_light,
    lit_pixels,
    low_sensitivity_pixels,
    smooth_model,
)
from kspecpipe.extraction.lamps import StitchedFlat, stitch_lamps
from kspecpipe.extraction.solve import Extraction, ExtractionOptions, extract_fibres
from kspecpipe.reduction.flats import LampFlat, MasterFlat
from kspecpipe.signal import DQ, BoolArray, Signal
from kspecpipe.trace.table import sample_profile


@dataclass(frozen=True)
class SpectraOptions:
    """How spectra are taken from master flats.

    Parameters
    ----------
    prnu : float
        Relative pixel response that no pixel flat has removed.
    low_sigma, low_response : float
        Significance and response below which a pixel is dull.
    min_lamp_snr : float
        Signal-to-noise ratio that lamps need where they are joined.
    scale_lamps : bool
        Whether lamps are brought to one scale.
    window : int
        Rows about each trace in which the level of the fibre light is measured [pixel].
    """

    prnu: float = 0.0
    low_sigma: float = 8.0
    low_response: float = 0.7
    min_lamp_snr: float = 20.0
    scale_lamps: bool = True
    window: int = 3


@dataclass(frozen=True)
class FlatSpectra:
    """Spectra of the flats and what was found on the way.

    Parameters
    ----------
    stitched : StitchedFlat
        Spectra of all lamps on one scale.
    chi2 : float
        Median reduced chi-squared of the live fibres' profile fits.
    low : ndarray of bool, shape (ny, nx)
        Pixels of low sensitivity that were found.
    lit, cold : int
        Pixels with fibre light, and how many of them are bad or dull.
    light : FibreLight
        Light in the inner windows of the live fibres, of the brightest lamp.
    """

    stitched: StitchedFlat
    chi2: float
    low: BoolArray
    lit: int
    cold: int
    light: FibreLight

    @property
    def spectra(self) -> Signal:
        """Spectra of all lamps on one scale, shape (nfib, nx) [electron]."""
        return self.stitched.spectra

    def lamp_table(self, flat: MasterFlat) -> Table | None:
        """Return which lamp the columns are from and its scale; None for a single lamp."""
        if len(flat.lamps) == 1:
            return None
        found = self.stitched
        at = [np.flatnonzero(found.lamp == i) for i in range(len(found.names))]
        return Table(
            {
                "LAMP": np.array(found.names, dtype="U16"),
                "FRAMES": [len(lamp.levels) for lamp in flat.lamps],
                "FIRST": [int(columns[0]) if columns.size else -1 for columns in at],
                "LAST": [int(columns[-1]) if columns.size else -1 for columns in at],
                "SCALE": found.scales,
            }
        )


def flat_spectra(flat: MasterFlat, options: SpectraOptions) -> FlatSpectra:
    """Extract the master flat of each lamp and stitch the spectra.

    Raises
    ------
    RecipeError
        If two lamps have no wavelength with enough light in common.
    """
    parts = [_extract(lamp, flat, options) for lamp in flat.lamps]
    live = flat.traces.live
    stitched = stitch_lamps(
        {
            lamp.lamp: part.extraction.spectra.flag(_rows(~live, lamp.image.shape[1]), DQ.NO_DATA)
            for lamp, part in zip(flat.lamps, parts, strict=True)
        },
        min_snr=options.min_lamp_snr,
        scale=options.scale_lamps,
    )
    chi2 = np.stack([part.extraction.chi2 for part in parts])[:, live]
    low = np.logical_or.reduce([part.low for part in parts])
    lit = np.logical_or.reduce([part.lit for part in parts])
    bad = np.logical_or.reduce([lamp.image.dq & np.uint16(DQ.BAD) > 0 for lamp in flat.lamps])
    brightest = max(flat.lamps, key=lambda lamp: float(np.nanmean(lamp.image.value)))
    light = fibre_light(
        brightest.image,
        flat.traces,
        options=FibreLightOptions(centre_fibre_window=options.window),
    )
    return FlatSpectra(
        stitched,
        float(np.nanmedian(chi2)),
        low,
        max(int(lit.sum()), 1),
        int(np.sum(lit & (low | bad))),
        light,
    )


@dataclass(frozen=True)
class _LampSpectra:
    extraction: Extraction
    low: BoolArray
    lit: BoolArray


def _extract(lamp: LampFlat, flat: MasterFlat, options: SpectraOptions) -> _LampSpectra:
    """Extract, find the pixels that see too little of the light, and extract without them."""
    window, weights = sample_profile(flat.profile, flat.traces.y)
    solving = ExtractionOptions(prnu=options.prnu, frames=len(lamp.levels), reject_sigma=0.0)
    extraction = extract_fibres(lamp.image, window, weights, options=solving)
    model = smooth_model(extraction.spectra, window, weights, lamp.image.shape[0])
    low = low_sensitivity_pixels(
        lamp.image,
        model,
        low_sensitivity_clipping_sigma=options.low_sigma,
        response=options.low_response,
    )
    if low.any():
        image = lamp.image.flag(low, DQ.BAD)
        extraction = extract_fibres(image, window, weights, options=solving)
    return _LampSpectra(extraction, low, lit_pixels(lamp.image, model))


def _rows(which: BoolArray, n_x: int) -> BoolArray:
    return np.broadcast_to(which[:, None], (which.size, n_x))
