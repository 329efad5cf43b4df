"""Tramline map: where the light of each fibre falls, and its profile."""

from __future__ import annotations

from typing import Any

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, product
from kspecpipe.reduction.flats import (
    FlatInputs,
    FlatParameters,
    TraceMetrics,
    predicted_wavelengths,
    trace_metrics,
    traced_flat,
)
from kspecpipe.spectra import TramlineMap


class Tlm(BaseRecipe):
    """Trace all fibres on lamp flats and measure their cross-dispersion profile.

    The flats are calibrated, scaled to a common level of fibre light and averaged. The light is
    identified with the nominal fibres by position and gap pattern; ghosts and stray light are left
    alone. One smooth surface describes all traces, so that dead fibres and columns without light
    follow from the others. The profile is empirical, sampled below the pixel, with its wings, and
    changes smoothly over the detector; a trace is its flux centroid.
    """

    name = "tlm"
    in_chain = False

    class Inputs(FlatInputs):
        pass

    class Parameters(FlatParameters):
        pass

    class Products(Declared):
        traces: TramlineMap = product("TRAMLINE_MAP", tech="MOS", doc="traces and profile")

    class Metrics(TraceMetrics):
        pass

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Average the flats, trace them, and measure the profile."""
        flat = traced_flat(self, inputs, parameters, None)
        table = fibres.fibre_table(self.setup.fibre_ids, flat.traces.status)
        traces = TramlineMap.of(
            flat.traces,
            flat.profile,
            fibres.assign(table, inputs.assignment),
            predicted_wavelengths(self, inputs.flats, flat.traces.y.shape),
            flat.halo,
        )
        return self.Products(traces=traces), self.Metrics(**trace_metrics(flat))
