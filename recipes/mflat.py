"""Fibre flat: how much light each fibre passes, relative to the typical fibre."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, calibration, metric, parameter, product
from kspecpipe.detector.badpixels import find_cold_pixels
from kspecpipe.errors import RecipeError
from kspecpipe.extraction.response import Response, split_response
from kspecpipe.extraction.solve import ExtractionOptions, extract_fibres
from kspecpipe.flats import (
    FlatInputs,
    FlatParameters,
    TraceMetrics,
    predicted_wavelengths,
    trace_metrics,
    traced_flat,
)
from kspecpipe.images import BadPixelMap
from kspecpipe.signal import DQ, Signal
from kspecpipe.spectra import FibreFlat, TramlineMap
from kspecpipe.trace.table import sample_profile


class MFlat(BaseRecipe):
    """Measure the fibre-to-fibre response from lamp flats.

    The flats are calibrated, scaled to a common level of fibre light in two passes, and averaged;
    unless a TRAMLINE_MAP is given they are traced as in tlm. All fibres are extracted at once with
    the empirical profile. The spectra are split into one smooth shape common to all fibres, the
    throughput of each fibre, and what is left: fibre colour and fringes, the fibre flat. Pixels
    that see much less light than their neighbours along the dispersion are bad.
    """

    name = "mflat"

    class Inputs(FlatInputs):
        traces: TramlineMap | None = calibration(
            "TRAMLINE_MAP", default=None, match=("shape", "mode"), doc="traces; none: made here"
        )

    class Parameters(FlatParameters):
        min_response: float = parameter(
            0.2, at_least=0, at_most=1, doc="throughput below which a fibre counts as LOW"
        )
        low_sensitivity_response: float = parameter(
            0.5, above=0, at_most=1, doc="fraction of its neighbours' light that makes a pixel bad"
        )
        low_sensitivity_clipping_sigma: float = parameter(
            8.0, unit="sigma", above=0, doc="significance that the lack of light must have"
        )
        max_dead: float = parameter(
            0.5, at_least=0, at_most=1, doc="fraction of dead fibres from which there is no product"
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
        flat_rms: float = metric(
            "FLAT RMS", doc="median rms of the live fibres' flats about their smooth shape"
        )
        cold: int = metric("COLDPIX NUM", unit="pixel", doc="pixels of low sensitivity found")
        cold_fraction: float = metric("COLDPIX FRAC", doc="the same as a fraction of lit pixels")
        chi2: float = metric("PROFILE CHI2", doc="median reduced chi-squared of the profile fit")

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Average, trace, extract, and split the response."""
        flat = traced_flat(self, inputs, parameters, inputs.traces)
        image, cold = self._cold_pixels(flat.image, parameters)
        window, weights = sample_profile(flat.profile, flat.traces.y)
        prnu = 0.0 if inputs.pixel_flat else inputs.flats.readout.prnu
        options = ExtractionOptions(prnu=prnu, frames=len(inputs.flats), reject_sigma=0.0)
        extraction = extract_fibres(image, window, weights, options=options)
        spectra, live = extraction.spectra, flat.traces.live
        if np.mean(~live) > parameters.max_dead:
            raise RecipeError(
                f"{int((~live).sum())} of {live.size} fibres have no light; at most "
                f"{parameters.max_dead:.0%} may. Was the lamp on?"
            )
        response = split_response(spectra, live)
        self.log.info(
            "throughput %.2f to %.2f, %d cold pixels",
            np.nanmin(response.throughput[live]),
            np.nanmax(response.throughput[live]),
            cold.sum(),
        )
        table = fibres.fibre_table(self.setup.fibre_ids, flat.traces.status)
        low = live & ~(response.throughput >= parameters.min_response)
        table["STATUS"][low] = "LOW"
        table["THROUGHPUT"] = response.throughput
        table = fibres.assign(table, inputs.assignment)
        products = self.Products(
            fibre_flat=FibreFlat(
                flat=response.fibre_flat,
                extracted=fibres.without_dead(spectra, table).value,
                blaze=response.blaze,
                fibres=table,
            ),
            traces=None
            if inputs.traces
            else TramlineMap.of(
                flat.traces,
                flat.profile,
                table,
                predicted_wavelengths(self, inputs.flats, flat.traces.y.shape),
                flat.halo,
            ),
            bad_pixels=BadPixelMap(dq=np.where(cold, np.uint16(DQ.BAD), np.uint16(0))),
        )
        n_lit = max(int(np.sum(weights > 0.05)), 1)
        metrics = self.Metrics(
            **trace_metrics(flat),
            spread=float(np.std(response.throughput[live])),
            throughput=[
                float(value) if lit else None
                for value, lit in zip(response.throughput, live, strict=True)
            ],
            level=float(np.nanmedian(spectra.value[live])),
            flat_rms=_flat_rms(response, live),
            cold=int(cold.sum()),
            cold_fraction=float(cold.sum() / n_lit),
            chi2=float(np.nanmedian(extraction.chi2[live])),
        )
        return products, metrics

    def _cold_pixels(self, image: Signal, parameters: Any) -> tuple[Signal, Any]:
        """Find pixels of low sensitivity and flag them bad in the flat itself."""
        cold = find_cold_pixels(
            image,
            response=parameters.low_sensitivity_response,
            sigma=parameters.low_sensitivity_clipping_sigma,
        )
        return image.flag(cold, DQ.BAD), cold


def _flat_rms(response: Response, live: Any) -> float:
    flat = response.fibre_flat.select(live)
    values = np.where(flat.good, flat.value, np.nan)
    return float(np.nanmedian(np.nanstd(values, axis=1)))
