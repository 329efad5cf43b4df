"""Spectra from native pixels onto a wavelength grid, and back."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, ProductSpec, calibration, metric, parameter, product
from kspecpipe.errors import RecipeError
from kspecpipe.reduction.gridding import (
    Gridded,
    GridSettings,
    choose_grid,
    grid_of_reduced,
    onto_grid,
    onto_pixels,
)
from kspecpipe.signal import FloatArray
from kspecpipe.spectra import Extracted, Reduced, WaveSolution


class Rebin(BaseRecipe):
    """Rebin extracted spectra onto a wavelength grid, or back, in one resampling.

    REDUCED is built from EXTRACTED and the factors stored in it: spectra are divided by flat and
    throughput and rebinned with their flux conserved, the stored sky goes through the same map and
    is subtracted. The grid is the parameter's, else that of WAVE_SOLUTION, else that of the
    REDUCED of the same exposure. In reverse REDUCED returns to the native pixels of its EXTRACTED.
    """

    name = "rebin"
    in_chain = False

    class Inputs(Declared):
        extracted: list[Extracted] = calibration(
            "EXTRACTED", several="list", match=("mode",), doc="spectra on native pixels"
        )
        reduced: list[Reduced] = calibration(
            "REDUCED", default=None, several="list", match=("mode",), doc="needed in reverse"
        )
        solution: WaveSolution | None = calibration(
            "WAVE_SOLUTION", default=None, doc="gives the grid, and wavelengths if asked to"
        )

    class Parameters(Declared):
        grid: GridSettings | None = parameter(
            None, doc="wavelength grid {start, step, n}; none: median dispersion"
        )
        wavelengths: Literal["extracted", "solution"] = parameter(
            "extracted", doc="whose wavelengths the spectra have: their own, or WAVE_SOLUTION's"
        )
        kernel: Literal["cubic", "overlap"] = parameter(
            "cubic", doc="cubic: lines stay narrow; overlap: flux is shared by area"
        )
        reverse: bool = parameter(False, doc="from the grid back to native pixels")

    class Products(Declared):
        reduced: list[Reduced] | None = product(
            "REDUCED",
            tech="MOS",
            qualifier="rebin",
            per_exposure=True,
            required=False,
            doc="spectra on the grid, less the stored sky",
        )
        extracted: list[Extracted] | None = product(
            "EXTRACTED",
            tech="MOS",
            qualifier="rebin",
            per_exposure=True,
            required=False,
            doc="in reverse: spectra on native pixels",
        )

    class Metrics(Declared):
        flux: list[float] = metric(
            "FLUX RATIO", scope="exposure", doc="flux after over flux before, median fibre"
        )
        usable: list[float] = metric(
            "USABLE FRACTION", scope="exposure", doc="samples of live fibres that carry a value"
        )
        correlation: list[float] = metric(
            "CORRELATION", scope="exposure", doc="correlation of neighbouring samples, median fibre"
        )

    def promised(self, parameters: Any) -> list[ProductSpec]:
        """Return REDUCED, or EXTRACTED in reverse."""
        return [self.Products.specs["extracted" if parameters.reverse else "reduced"]]

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Rebin each exposure."""
        if parameters.reverse:
            pairs = [(self._partner(one, inputs), one) for one in inputs.extracted]
            results = [onto_pixels(*pair, parameters.kernel) for pair in pairs]
        else:
            results = [self._forward(one, inputs, parameters) for one in inputs.extracted]
        for one, result in zip(inputs.extracted, results, strict=True):
            self.log.info(
                "%s: flux ratio %.5f, neighbours correlate by %.3f",
                one.name,
                result.flux_ratio,
                result.correlation,
            )
        made: Any = [result.product for result in results]
        products = self.Products(
            reduced=None if parameters.reverse else made,
            extracted=made if parameters.reverse else None,
        )
        return products, self.Metrics(
            flux=[result.flux_ratio for result in results],
            usable=[result.usable for result in results],
            correlation=[result.correlation for result in results],
        )

    def _forward(self, extracted: Extracted, inputs: Any, parameters: Any) -> Gridded:
        own = extracted.wavelength
        reference = own if inputs.solution is None else inputs.solution.wavelength.value
        if parameters.wavelengths == "solution":
            own = self._of_solution(extracted, inputs.solution)
        live = np.isfinite(reference).all(axis=1)
        if not live.any():
            raise RecipeError(f"{extracted.name}: no fibre has wavelengths. Are all of them dead?")
        grid = choose_grid(parameters.grid, reference[live])
        if parameters.grid is None and inputs.solution is None:
            grid = grid_of_reduced(extracted) or grid
        return onto_grid(extracted, own, grid, parameters.kernel)

    @staticmethod
    def _of_solution(extracted: Extracted, solution: WaveSolution | None) -> FloatArray:
        found = None if solution is None else solution.wavelength.value
        if found is None or found.shape != extracted.wavelength.shape:
            shape = "there is none" if found is None else f"it has {found.shape}"
            raise RecipeError(
                f"{extracted.name}: wavelengths of WAVE_SOLUTION for "
                f"{extracted.wavelength.shape} samples were asked for, but {shape}"
            )
        return np.where(fibres.live(extracted.fibres)[:, None], found, np.nan)

    @staticmethod
    def _partner(extracted: Extracted, inputs: Any) -> Reduced:
        """Find the REDUCED of the same exposure by its time; without headers by its place."""
        candidates: list[Reduced] = inputs.reduced
        time = extracted.header.get("MJD-OBS")
        if time is None and len(candidates) == len(inputs.extracted):
            pairs = zip(candidates, inputs.extracted, strict=True)
            return next(reduced for reduced, one in pairs if one is extracted)
        same = [one for one in candidates if one.header.get("MJD-OBS") == time]
        if len(same) != 1:
            raise RecipeError(
                f"{extracted.name}: {len(same)} REDUCED of the same exposure among "
                f"{len(candidates)}; one is needed in reverse"
            )
        return same[0]
