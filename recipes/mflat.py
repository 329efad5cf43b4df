"""Fibre flat: how much light each fibre passes, relative to the typical fibre."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, calibration, metric, parameter, product
from kspecpipe.errors import RecipeError
from kspecpipe.extraction.blaze import BlazeSplineOptions
from kspecpipe.extraction.fringes import flat_rms, fringe_amplitude
from kspecpipe.extraction.response import Response, ResponseOptions, split_response
from kspecpipe.frame import FrameStack
from kspecpipe.products.images import BadPixelMap
from kspecpipe.reduction.flat_spectra import FlatSpectra, SpectraOptions, flat_spectra
from kspecpipe.reduction.flats import (
    FlatInputs,
    FlatParameters,
    MasterFlat,
    TraceMetrics,
    lamp_flats,
    predicted_wavelengths,
    trace_metrics,
    traced_flat,
)
from kspecpipe.signal import DQ, BoolArray, FloatArray
from kspecpipe.spectra import FibreFlat, TramlineMap, blaze_cards


class MFlat(BaseRecipe):
    """Measure the fibre-to-fibre response from lamp flats.

    The flats of each lamp are calibrated, scaled to a common level of fibre light in two passes,
    and averaged; unless a TRAMLINE_MAP is given they are traced as in tlm. All fibres are extracted
    at once with the empirical profile; pixels that see much less light than profile and neighbours
    along the dispersion say are bad. Several lamps (FLAT:D2, FLAT:QTH) are stitched where they are
    about equally good. The spectra are split into one smooth shape common to all fibres (the
    blaze), the throughput of each fibre, and what is left: fibre colour and fringes, the fibre
    flat.
    """

    name = "mflat"

    class Inputs(FlatInputs):
        flats: FrameStack = lamp_flats(recommended=5)
        traces: TramlineMap | None = calibration(
            "TRAMLINE_MAP", default=None, match=("shape", "mode"), doc="traces; none: made here"
        )

    class Parameters(FlatParameters):
        min_response: float = parameter(
            0.2, at_least=0, at_most=1, doc="throughput below which a fibre counts as LOW"
        )
        low_sensitivity_response: float = parameter(
            0.7, above=0, at_most=1, doc="fraction of the expected light that makes a pixel bad"
        )
        low_sensitivity_clipping_sigma: float = parameter(
            8.0, unit="sigma", above=0, doc="significance that the lack of light must have"
        )
        max_dead: float = parameter(
            0.5, at_least=0, at_most=1, doc="fraction of dead fibres from which there is no product"
        )
        blaze: Literal["spline", "sinc"] = parameter(
            "spline", doc="shape of the blaze: robust spline, or squared sinc of an echelle order"
        )
        scale_lamps: bool = parameter(True, doc="bring several lamps to one scale when stitching")
        min_lamp_snr: float = parameter(
            20.0, above=0, doc="signal-to-noise that lamps need where they are stitched"
        )

    class Products(Declared):
        fibre_flat: FibreFlat = product("FIBRE_FLAT", tech="MOS", doc="response of each fibre")
        traces: TramlineMap | None = product(
            "TRAMLINE_MAP",
            tech="MOS",
            qualifier="mflat",
            required=False,
            doc="traces and profile, unless they were given",
        )
        bad_pixels: BadPixelMap = product(
            "BAD_PIXEL_MAP", qualifier="mflat", doc="pixels of low sensitivity"
        )

    class Metrics(TraceMetrics):
        spread: float = metric("THROUGHPUT RMS", doc="spread of the live fibres' throughput")
        throughput: list[float | None] = metric(
            "THROUGHPUT",
            scope="fibre",
            doc="light relative to the median live fibre",
            needs="the fibre has light",
        )
        level: float = metric(
            "FLAT LEVEL", unit="electron", doc="median extracted flat of the live fibres"
        )
        inner_mean: float = metric(
            "INNER FIBRE MEAN", unit="electron", doc="mean pixel of the fibres' inner windows"
        )
        inner_sum: float = metric(
            "INNER FIBRE SUM", unit="electron", doc="sum of the same over all live fibres"
        )
        exposure_10: float = metric(
            "FIBREXP10", unit="electron", doc="10th percentile of pixels of the inner windows"
        )
        exposure_50: float = metric(
            "FIBREXP50", unit="electron", doc="median pixel of the inner windows"
        )
        exposure_90: float = metric(
            "FIBREXP90", unit="electron", doc="90th percentile of pixels of the inner windows"
        )
        flat_rms: list[float | None] = metric(
            "FLAT RMS",
            scope="fibre",
            doc="rms of the fibre flat about its smooth course",
            needs="the fibre has enough light",
        )
        fringes: float | None = metric(
            "FRINGE AMPLITUDE",
            doc="90th percentile of the fringes' amplitude, median live fibre",
            needs="the flat has enough light",
        )
        blaze_rms: float = metric(
            "BLAZE RMS", doc="relative scatter of the median live fibre about the blaze"
        )
        low: int = metric("N LOW SENS", unit="pixel", doc="pixels of low sensitivity found")
        cold: int = metric(
            "COLDPIX NUM", unit="pixel", doc="pixels with fibre light that are dull or known as bad"
        )
        cold_fraction: float = metric("COLDPIX FRAC", doc="the same as a fraction of lit pixels")
        chi2: float = metric("PROFILE CHI2", doc="median reduced chi-squared of the profile fit")

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Average, trace, extract, stitch the lamps, and split the response."""
        flat = traced_flat(self, inputs, parameters, inputs.traces)
        live = flat.traces.live
        if np.mean(~live) > parameters.max_dead:
            raise RecipeError(
                f"{int((~live).sum())} of {live.size} fibres have no light; at most "
                f"{parameters.max_dead:.0%} may. Was the lamp on?"
            )
        options = SpectraOptions(
            prnu=0.0 if inputs.pixel_flat else inputs.flats.readout.prnu,
            low_sigma=parameters.low_sensitivity_clipping_sigma,
            low_response=parameters.low_sensitivity_response,
            min_lamp_snr=parameters.min_lamp_snr,
            scale_lamps=parameters.scale_lamps,
            window=parameters.centre_fibre_window,
        )
        found = flat_spectra(flat, options)
        for left, right, column in found.stitched.joints:
            self.log.info("lamp %s up to column %d, %s from there", left, column - 1, right)
        spline = BlazeSplineOptions(corners=found.stitched.crossovers)
        response = split_response(
            found.spectra, live, options=ResponseOptions(blaze=parameters.blaze, spline=spline)
        )
        self.log.info(
            "throughput %.2f to %.2f, %d pixels of low sensitivity, blaze fits to %.3f",
            np.nanmin(response.throughput[live]),
            np.nanmax(response.throughput[live]),
            found.low.sum(),
            response.blaze_rms,
        )
        products = self._products(flat, found, response, inputs, parameters)
        return products, self._metrics(flat, found, response)

    def _products(
        self, flat: MasterFlat, found: FlatSpectra, response: Response, inputs: Any, parameters: Any
    ) -> Products:
        table = fibres.fibre_table(self.setup.fibre_ids, flat.traces.status)
        low = flat.traces.live & ~(response.throughput >= parameters.min_response)
        table["STATUS"][low] = "LOW"
        table["THROUGHPUT"] = response.throughput
        table = fibres.assign(table, inputs.assignment)
        traces = None
        if not inputs.traces:
            predicted = predicted_wavelengths(self, inputs.flats, flat.traces.y.shape)
            traces = TramlineMap.of(flat.traces, flat.profile, table, predicted, flat.halo)
        return self.Products(
            fibre_flat=FibreFlat(
                flat=response.fibre_flat,
                extracted=fibres.without_dead(found.spectra, table).value,
                blaze=response.blaze,
                blaze_fit=blaze_cards(response),
                lamps=found.lamp_table(flat),
                fibres=table,
            ),
            traces=traces,
            bad_pixels=BadPixelMap(dq=np.where(found.low, np.uint16(DQ.BAD), np.uint16(0))),
        )

    def _metrics(self, flat: MasterFlat, found: FlatSpectra, response: Response) -> Metrics:
        live, light = flat.traces.live, found.light
        return self.Metrics(
            **trace_metrics(flat),
            spread=float(np.std(response.throughput[live])),
            throughput=_of_live(response.throughput, live),
            level=float(np.nanmedian(found.spectra.value[live])),
            inner_mean=light.mean,
            inner_sum=light.total,
            exposure_10=light.percentiles[0],
            exposure_50=light.percentiles[1],
            exposure_90=light.percentiles[2],
            flat_rms=_of_live(flat_rms(response.fibre_flat), live),
            fringes=_median(fringe_amplitude(response.fibre_flat)[live]),
            blaze_rms=response.blaze_rms,
            low=int(found.low.sum()),
            cold=found.cold,
            cold_fraction=found.cold / found.lit,
            chi2=found.chi2,
        )


def _median(values: FloatArray) -> float | None:
    """Return the median of the finite values; None without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def _of_live(values: FloatArray, live: BoolArray) -> list[float | None]:
    """Return one value per fibre; None for those without light, or without a value."""
    known = live & np.isfinite(values)
    return [float(value) if k else None for value, k in zip(values, known, strict=True)]
