"""Splice: spectra of several modes or arms of the same fibres as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.combine.segments import best_level, join_table, mean_plane, ordered, segment_of
from kspecpipe.combine.splice import common_grid, splice
from kspecpipe.combine.targets import mean_fibres, require_same_targets
from kspecpipe.declare import Declared, calibration, metric, parameter, product
from kspecpipe.errors import RecipeError
from kspecpipe.frame import FrameInfo
from kspecpipe.products.combined import (
    Coadded,
    Spliced,
    grid_of,
    per_angstrom,
    per_pixel,
    unit_cards,
    unit_of,
)
from kspecpipe.products.flux import Calibrated
from kspecpipe.reduction.science import grid_cards, median_snr
from kspecpipe.spectra import Reduced


class Splice(BaseRecipe):
    """Join spectra of several modes or arms of the same fibres where they overlap.

    From blue to red each segment is scaled to those before it, by the ratio of the two in their
    overlap: fibre by fibre as far as the light of each fibre supports it. In the overlap both are
    averaged with a weight that runs from one to the other; a segment that lies within another, of
    finer dispersion, takes its place. The level of the segment of most light is kept. The grid is
    that of the finest segment, continued.
    """

    name = "splice"
    in_chain = False

    class Inputs(Declared):
        segments: list[Reduced | Calibrated | Coadded] = calibration(
            "CALIBRATED",
            "COADDED",
            "REDUCED",
            at_least=2,
            several="list",
            doc="spectra of the same fibres in different modes",
        )

    class Parameters(Declared):
        scale: bool = parameter(True, doc="scale the segments to each other")
        per_fibre: bool = parameter(True, doc="each fibre has its own scale, if its light tells")

    class Products(Declared):
        spliced: Spliced = product("SPLICED", tech="MOS", doc="joined spectra")

    class Metrics(Declared):
        scale: float = metric(
            "SPLICE SCALE", doc="flux over that of the segments before, of the join farthest from 1"
        )
        error: float = metric("SPLICE SCALE ERROR", doc="largest error of a join's scale")
        step: float = metric(
            "SPLICE STEP", doc="largest relative step left at a join, median of the fibres"
        )
        usable: float = metric("USABLE FRACTION", doc="samples of live fibres that carry a value")
        snr: float = metric("MEDIAN SNR", doc="median signal-to-noise of the program fibres")

    def qualifier(self, inputs: Any) -> str:
        """Return the target."""
        return str(inputs.segments[0].header.get("OBJECT", ""))

    def representative(self, infos: list[FrameInfo]) -> FrameInfo:
        """Return the first exposure, with the modes of all."""
        first = min(infos, key=lambda info: info.mjd)
        return replace(first, mode="+".join(sorted({info.mode for info in infos})))

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Scale the segments to each other and join them."""
        products: list[Reduced | Calibrated | Coadded] = ordered(inputs.segments)
        tables = [one.fibres for one in products]
        require_same_targets(tables, [one.name for one in products])
        grids = [grid_of(one) for one in products]
        grid = common_grid(grids)

        try:
            whole = splice(
                [segment_of(one) for one in products],
                grid,
                scale=parameters.scale,
                per_fibre=parameters.per_fibre,
            )
        except ValueError as error:
            raise RecipeError(f"the modes cannot be joined: {error}") from None
        for one, join in zip(products[1:], whole.joins, strict=True):
            self.log.info(
                "%s: joined at %.0f to %.0f A, %.4f +- %.4f of the flux before it",
                one.name,
                join.start,
                join.stop,
                join.common,
                join.error,
            )

        level = best_level(products, whole) * per_pixel(products[0], grid.step)
        spectra = whole.spectra.scale(level[:, None])
        sky = [
            one.sky * per_angstrom(one) * factor[:, None]
            for one, factor in zip(products, whole.factor, strict=True)
        ]
        table = mean_fibres(tables, [1.0] * len(tables))
        spliced = Spliced(
            spectra=spectra,
            sky=mean_plane(sky, grids, whole, grid) * level[:, None],
            lsf=mean_plane([one.lsf for one in products], grids, whole, grid),
            axis=grid_cards(grid),
            joins=join_table(products, whole, table),
            fibres=table,
            **unit_cards(unit_of(products[0])),
        )
        joins = whole.joins
        live = fibres.live(table)
        return self.Products(spliced=spliced), self.Metrics(
            scale=max((join.common for join in joins), key=lambda ratio: abs(np.log(ratio))),
            error=max(join.error for join in joins),
            step=max(abs(join.step) for join in joins),
            usable=float(spectra.good[live].mean()),
            snr=median_snr(spectra, table),
        )
