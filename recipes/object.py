"""Science exposures: extracted, flat-fielded, sky-subtracted spectra of all fibres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import (
    Declared,
    calibration,
    metric,
    parameter,
    product,
    raw,
    static,
    user_file,
)
from kspecpipe.exposure import (
    ExposureOptions,
    ExtractedExposure,
    extract_exposure,
    keep_images,
)
from kspecpipe.extraction.solve import ExtractionOptions
from kspecpipe.frame import FrameInfo, FrameStack
from kspecpipe.gridding import GridSettings, choose_grid
from kspecpipe.pointing import with_velocity
from kspecpipe.preprocess import DetectorCalibrations, Masters, calibrate_frame
from kspecpipe.science import Calibration, ReducedExposure, pixel_noise, reduce_exposure
from kspecpipe.signal import BoolArray, Signal
from kspecpipe.sky.telluric import TelluricRegion
from kspecpipe.spectra import Extracted, FibreFlat, Reduced, TramlineMap, WaveSolution
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.refine import refine_zero_point, shift_wavelengths


@dataclass(frozen=True)
class ZeroPoint:
    """What the sky lines say of an exposure's wavelengths [pixel]; None: not measured.

    Parameters
    ----------
    applied : (float, float)
        Shift and slope that are applied.
    error : float or None
        Error of the shift.
    slope : float or None
        The slope, where the lines span enough of the chip to show one.
    chi2 : float or None
        Disagreement of the lines with the shifted solution, also where it is too large to shift.
    """

    applied: tuple[float, float] = (0.0, 0.0)
    error: float | None = None
    slope: float | None = None
    chi2: float | None = None


class Object(BaseRecipe):
    """Reduce science exposures to sky-subtracted spectra on one wavelength grid.

    Each exposure is calibrated, freed of cosmic rays, and extracted with the profile of the flat at
    traces moved by the shift that its own light shows. Spectra are divided by fibre flat and
    throughput; the sky is modelled from the sky fibres on their native pixels and subtracted, from
    the sky fibres themselves with a sky made without them. Nothing is resampled more than once.
    """

    name = "object"

    class Inputs(DetectorCalibrations):
        exposures: FrameStack = raw(
            "OBJECT", at_least=1, match=("shape", "mode", "readmode"), doc="science exposures"
        )
        traces: TramlineMap = calibration(
            "TRAMLINE_MAP", match=("shape", "mode"), doc="traces, profile and status of the fibres"
        )
        solution: WaveSolution = calibration(
            "WAVE_SOLUTION", match=("shape", "mode"), doc="wavelengths and LSF"
        )
        fibre_flat: FibreFlat | None = calibration(
            "FIBRE_FLAT", default=None, match=("shape", "mode"), doc="response of the fibres"
        )
        assignment: Table | None = user_file(
            "ASSIGN", default=None, doc="fibre assignment; without it no sky is subtracted"
        )
        sky_lines: LineList = static("sky_lines", doc="night-sky emission lines")
        telluric: tuple[TelluricRegion, ...] = static(
            "telluric_regions", doc="bands of telluric absorption"
        )

    class Parameters(Declared):
        grid: GridSettings | None = parameter(
            None, doc="wavelength grid {start, step, n}; none: median dispersion"
        )
        search_cosmics: bool = parameter(True, doc="look for cosmic rays before the extraction")
        reject_sigma: float = parameter(
            5.5, unit="sigma", at_least=0, doc="cosmic-ray limit against the profile; 0: none"
        )
        subtract_background: bool = parameter(True, doc="subtract scattered light")
        refine_wavelengths: bool = parameter(
            True, doc="move the wavelengths by what the sky lines show"
        )
        subtract_sky: bool = parameter(True, doc="subtract the sky")
        sky_contamination: float = parameter(
            0.08, above=0, doc="continuum above that of the sky at which a sky fibre is dropped"
        )
        sky_components: int = parameter(
            0,
            at_least=0,
            at_most=8,
            doc="principal components of the sky residuals to subtract, with 8 or more sky fibres",
        )
        min_throughput: float = parameter(
            0.2, at_least=0, at_most=1, doc="throughput below which samples are flagged"
        )

    class Products(Declared):
        extracted: list[Extracted] = product(
            "EXTRACTED", tech="MOS", per_exposure=True, doc="native pixels, before flat and sky"
        )
        reduced: list[Reduced] = product(
            "REDUCED", tech="MOS", per_exposure=True, doc="flat-fielded, sky-subtracted, one grid"
        )

    class Metrics(Declared):
        shift: list[float] = metric(
            "TRACE SHIFT", unit="pixel", scope="exposure", doc="traces, exposure minus flat"
        )
        wave_shift: list[float | None] = metric(
            "WAVE SHIFT",
            unit="pixel",
            scope="exposure",
            doc="sky lines minus arc at the middle of the chip, applied",
            needs="sky lines are strong enough",
        )
        wave_slope: list[float | None] = metric(
            "WAVE SLOPE",
            unit="pixel",
            scope="exposure",
            doc="further shift at the red end, applied",
            needs="strong sky lines span the chip",
        )
        wave_error: list[float | None] = metric(
            "WAVE SHIFT ERROR",
            unit="pixel",
            scope="exposure",
            doc="error of the shift",
            needs="sky lines are strong enough",
        )
        wave_chi2: list[float | None] = metric(
            "SKY LINE CHI2",
            scope="exposure",
            doc="disagreement of the sky lines with the shifted arc solution; 1: within errors",
            needs="at least three sky lines are strong enough",
        )
        cosmics: list[float] = metric(
            "COSMIC FRACTION", scope="exposure", doc="pixels of the fibre block hit by cosmic rays"
        )
        chi2: list[float] = metric(
            "PROFILE CHI2", scope="exposure", doc="median reduced chi-squared of the profile fit"
        )
        usable: list[float] = metric(
            "USABLE FRACTION", scope="exposure", doc="samples of live fibres that carry a value"
        )
        sky_fibres: list[int] = metric(
            "SKY FIBRES", scope="exposure", doc="sky fibres that the sky was made of"
        )
        sky_dropped: list[int | None] = metric(
            "SKY FIBRES DROPPED",
            scope="exposure",
            doc="sky fibres that see more than sky, or less",
            needs="there are sky fibres",
        )
        sky_residual: list[float | None] = metric(
            "SKY RESIDUAL",
            scope="exposure",
            doc="robust width of the sky fibres' pulls after subtraction",
            needs="at least two sky fibres",
        )
        snr: list[float] = metric(
            "MEDIAN SNR", scope="exposure", doc="median signal-to-noise of the program fibres"
        )

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Extract each exposure, flat-field it, and subtract its sky."""
        table = fibres.assign(inputs.traces.fibres, inputs.assignment)
        if inputs.assignment is None:
            self.log.warning("no ASSIGN: all fibres are taken as program fibres, no sky subtracted")
        if inputs.fibre_flat is None:
            self.log.warning("no FIBRE_FLAT: fibres keep their colour, fringes and throughput")
        else:
            table["THROUGHPUT"] = inputs.fibre_flat.fibres["THROUGHPUT"]
        live = fibres.live(table)
        if inputs.assignment is not None and not fibres.of_type(table, "S").any():
            self.log.warning("no live sky fibre: no sky is subtracted, SKY is empty")
        grid = choose_grid(parameters.grid, inputs.solution.wavelength.value[live])
        calibration = Calibration(inputs.fibre_flat, table, grid, inputs.telluric)
        extracted = self._extract(inputs, parameters)
        zero_points = [
            self._zero_point(exposure.extraction.spectra, inputs, live, parameters)
            for exposure in extracted
        ]
        reduced = [
            reduce_exposure(
                exposure.extraction.spectra,
                shift_wavelengths(inputs.solution.wavelength.value, *zero.applied),
                inputs.solution.lsf,
                replace(calibration, fibres=self._pointing(table, info)),
                parameters,
            )
            for exposure, zero, info in zip(
                extracted, zero_points, inputs.exposures.infos, strict=True
            )
        ]
        for i, frame in enumerate(inputs.exposures):
            self.log.info(
                "%s: traces moved %.3f, wavelengths %.3f pixel, %d sky fibres, S/N %.1f",
                frame.info.name,
                extracted[i].shift.shift,
                zero_points[i].applied[0],
                reduced[i].sky_fibres,
                reduced[i].snr,
            )
            if reduced[i].dropped:
                self.log.warning(
                    "%s: the sky fibres %s do not see the sky of the others and are left out",
                    frame.info.name,
                    ", ".join(map(str, reduced[i].dropped)),
                )
        noise = zip(reduced, inputs.exposures, extracted, strict=True)
        products = self.Products(
            extracted=[
                result.extracted.replace(
                    **pixel_noise(frame.readout, exposure), noise={"PRNU": _prnu(inputs)}
                )
                for result, frame, exposure in noise
            ],
            reduced=[result.reduced for result in reduced],
        )
        return products, self._metrics(extracted, zero_points, reduced)

    def _pointing(self, table: Table, info: FrameInfo) -> Table:
        site = self.setup.facts.site
        if site is None:
            self.log.warning("the instrument has no site: no airmass, no barycentric velocity")
        return with_velocity(table, site, info.mid_mjd)

    def _extract(self, inputs: Any, parameters: Any) -> list[ExtractedExposure]:
        stack = inputs.exposures
        layout = self.setup.fibre_layout(stack.infos[0], stack.shape[1:])
        masters = Masters.of(inputs, stack, layout.rows_without_light)
        options = ExposureOptions(
            ExtractionOptions(
                prnu=_prnu(inputs),
                reject_sigma=parameters.reject_sigma,
            ),
            search_cosmics=parameters.search_cosmics,
            subtract_background=parameters.subtract_background,
        )
        exposures = []
        for number, frame in enumerate(stack):
            image = calibrate_frame(frame, masters)
            exposures.append(extract_exposure(image, inputs.traces, layout, options))
            keep_images(self, number, image, exposures[-1])
        return exposures

    def _zero_point(
        self, spectra: Signal, inputs: Any, live: BoolArray, parameters: Any
    ) -> ZeroPoint:
        """Measure how far the sky lines lie from where the arc puts them."""
        if not parameters.refine_wavelengths:
            return ZeroPoint()
        solution = inputs.solution
        found = refine_zero_point(
            spectra, solution.wavelength.value, solution.line_shape, inputs.sky_lines, live
        )
        chi2 = found.chi2 if np.isfinite(found.chi2) else None
        if not np.isfinite(found.shift):
            self.log.warning(
                "the sky lines are too weak, or disagree too much (chi-squared %s), to measure the "
                "wavelength zero point",
                "unknown" if chi2 is None else f"{chi2:.1f}",
            )
            return ZeroPoint(chi2=chi2)
        slope = found.slope if np.isfinite(found.slope_error) else None
        return ZeroPoint((found.shift, found.slope), found.shift_error, slope, chi2)

    def _metrics(
        self,
        extracted: list[ExtractedExposure],
        zero_points: list[ZeroPoint],
        reduced: list[ReducedExposure],
    ) -> Metrics:
        return self.Metrics(
            shift=[exposure.shift.shift for exposure in extracted],
            wave_shift=[None if z.error is None else z.applied[0] for z in zero_points],
            wave_slope=[z.slope for z in zero_points],
            wave_error=[z.error for z in zero_points],
            wave_chi2=[z.chi2 for z in zero_points],
            cosmics=[exposure.cosmics for exposure in extracted],
            chi2=[float(np.nanmedian(exposure.extraction.chi2)) for exposure in extracted],
            usable=[result.usable for result in reduced],
            sky_fibres=[result.sky_fibres for result in reduced],
            sky_dropped=[len(result.dropped) if result.sky_fibres else None for result in reduced],
            sky_residual=[result.sky_residual for result in reduced],
            snr=[result.snr for result in reduced],
        )


def _prnu(inputs: Any) -> float:
    """Return the pixel-response scatter that is left in the images."""
    return 0.0 if inputs.pixel_flat else float(inputs.exposures.readout.prnu)
