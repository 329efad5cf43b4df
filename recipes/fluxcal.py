"""Flux calibration: from electrons to erg/s/cm2/Angstrom with standard stars of the exposure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from astropy.table import Table

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import (
    Declared,
    calibration,
    parameter,
    product,
    static,
    user_file,
)
from kspecpipe.errors import CalibrationMissingError, RecipeError
from kspecpipe.fluxcal import (
    FluxcalOptions,
    Limits,
    TemplateGrid,
    calibrate_fluxes,
    summarize_calibration,
)
from kspecpipe.fluxcal.broaden import describe_coarse_library
from kspecpipe.fluxcal.extinction import ExtinctionCurve
from kspecpipe.fluxcal.lines import MatchOptions
from kspecpipe.fluxcal.response import ResponseOptions
from kspecpipe.products.flux import Calibrated, Response
from kspecpipe.reduction.flux import (
    FluxExposure,
    borrowed,
    calibrate_exposure,
    choose_extinction,
    nearest_in_time,
    open_exposure,
    response_product,
)
from kspecpipe.reduction.flux_metrics import Derived, FluxMetrics, flux_metrics
from kspecpipe.regions import WavelengthRegion
from kspecpipe.spectra import Reduced


class Fluxcal(BaseRecipe):
    """Calibrate spectra in erg/s/cm2/Angstrom with the standard stars of the same exposure.

    Each star of type C is found in the catalogue by its position and compared with the models of
    the library, by its lines and by its colours. The models that agree, moved to its velocity,
    broadened like its spectrum and corrected smoothly to agree with all its magnitudes, tell its
    flux; a smooth curve through observed over model, bridging telluric bands and strong lines, is
    its response. Responses of several stars are combined, shape and brightness apart; odd stars are
    left out and the reason is kept. An exposure without a usable star takes the RESPONSE that was
    given, or that of another exposure of the run.
    """

    name = "fluxcal"
    bytes_per_pixel = 150.0

    class Inputs(Declared):
        reduced: list[Reduced] = calibration(
            "REDUCED",
            several="list",
            match=("mode",),
            doc="sky-subtracted spectra in electrons, not yet calibrated",
        )
        catalogue: Table | None = user_file(
            "STD_CATALOG",
            default=None,
            doc="magnitudes of the standards (ATLAS Refcat2 CSV); needed without a RESPONSE",
        )
        templates: TemplateGrid | None = user_file(
            "TEMPLATES",
            default=None,
            doc="folder of template spectra in the layout of BOSZ; needed without a RESPONSE",
        )
        response: Response | None = calibration(
            "RESPONSE",
            default=None,
            match=("mode",),
            doc="of another exposure or night: taken where no star is usable, else compared with",
        )
        assignment: Table | None = user_file(
            "ASSIGN", default=None, doc="fibre assignment, if not that in REDUCED"
        )
        extinction: dict[str, ExtinctionCurve] = static(
            "extinction", doc="extinction curves of observatories"
        )
        telluric: tuple[WavelengthRegion, ...] = static(
            "telluric_regions", doc="bands of telluric absorption"
        )
        stellar: tuple[WavelengthRegion, ...] = static(
            "stellar_lines", doc="strong lines that are left out of the response"
        )

    class Parameters(Declared):
        extinction: Literal["site", "ctio", "la_silla", "siding_spring", "none"] = parameter(
            "site", doc="extinction curve; site: that of the nearest observatory"
        )
        radius: float = parameter(
            2.0, unit="arcsec", above=0, doc="largest distance of a fibre from its star"
        )
        min_snr: float = parameter(
            2.0, above=0, doc="least median signal-to-noise ratio per pixel of a star"
        )
        max_ebv: float = parameter(
            0.5, unit="mag", above=0, doc="largest E(B-V) of a star where nothing is known of it"
        )
        metric: Literal["chi2", "huber"] = parameter(
            "chi2", doc="penalty of a star's difference from a model; huber forgives odd samples"
        )
        knots: float = parameter(
            100.0, unit="Angstrom", above=0, doc="spacing of the knots of a star's response"
        )

    class Products(Declared):
        response: list[Response | None] | None = product(
            "RESPONSE",
            tech="MOS",
            per_exposure=True,
            required=False,
            doc="response and its stars, of every exposure with a usable one",
        )
        calibrated: list[Calibrated] = product(
            "CALIBRATED", tech="MOS", per_exposure=True, doc="spectra above the air"
        )

    class Metrics(FluxMetrics):
        pass

    def check_tags(self, tags: Collection[str]) -> None:
        """Ask for a catalogue with templates, or a response."""
        lack = {"STD_CATALOG", "TEMPLATES"} - set(tags)
        if lack and "RESPONSE" not in tags:
            raise CalibrationMissingError(
                f"no {' and no '.join(sorted(lack))}: STD_CATALOG with TEMPLATES is needed, or a "
                "RESPONSE of another exposure or night of this mode"
            )

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Derive the response of each exposure, or take one, and apply it."""
        exposures = [
            open_exposure(reduced, inputs.assignment, self.setup.facts.site)
            for reduced in inputs.reduced
        ]
        curve = choose_extinction(inputs.extinction, parameters.extinction, self.setup.facts.site)
        derived = [self._derive(one, curve, inputs, parameters) for one in exposures]
        own = [response for response, _ in derived]
        applied = [
            response or self._fallback(one, list(zip(exposures, own, strict=True)), inputs)
            for one, response in zip(exposures, own, strict=True)
        ]
        calibrated = [
            calibrate_exposure(one, response)
            for one, response in zip(exposures, applied, strict=True)
        ]
        products = self.Products(
            response=own if any(response is not None for response in own) else None,
            calibrated=calibrated,
        )
        return products, self.Metrics(**flux_metrics(derived, applied, inputs.response))

    def _derive(
        self, exposure: FluxExposure, curve: ExtinctionCurve, inputs: Any, parameters: Any
    ) -> Derived:
        """Return the response from the stars of an exposure, or nothing if there is a way out."""
        name = exposure.reduced.name
        if inputs.catalogue is None or inputs.templates is None:
            return None, {}
        if not np.isfinite(exposure.airmass).all():
            self.log.warning("%s: no airmass: the response contains the extinction", name)
            curve = choose_extinction({}, "none", None)
        coarse = describe_coarse_library(
            inputs.templates.resolution, exposure.wavelength, exposure.reduced.lsf
        )
        if coarse:
            self.log.warning("%s: %s", name, coarse)
        try:
            result = calibrate_fluxes(
                exposure.reduced.spectra,
                exposure.observation(curve),
                exposure.standards,
                inputs.catalogue,
                inputs.templates,
                _options(inputs, parameters),
            )
        except RecipeError as error:
            if inputs.response is None and len(inputs.reduced) == 1:
                raise
            self.log.warning("%s: %s", name, error)
            return None, {}
        for line in summarize_calibration(result).splitlines():
            self.log.info("%s: %s", name, line.strip())
        return response_product(exposure, result, curve), result.metrics

    def _fallback(
        self,
        exposure: FluxExposure,
        others: Sequence[tuple[FluxExposure, Response | None]],
        inputs: Any,
    ) -> Response:
        """Return the response that was given, or that of the nearest exposure."""
        if inputs.response is not None:
            response, name = inputs.response, inputs.response.name
        else:
            found = nearest_in_time(exposure, others)
            if found is None:
                raise RecipeError(
                    f"none of {len(others)} exposures has a usable standard star; the reasons are "
                    "in the warnings. Give a RESPONSE of another night"
                )
            response, name = found[1], found[0].reduced.name
        self.log.warning("%s: calibrated with the response of %s", exposure.reduced.name, name)
        return borrowed(response, name)


def _options(inputs: Any, parameters: Any) -> FluxcalOptions:
    standard = Limits()
    return FluxcalOptions(
        telluric=inputs.telluric,
        stellar=inputs.stellar,
        limits=Limits(
            radius=parameters.radius,
            snr=parameters.min_snr,
            ebv=(standard.ebv[0], parameters.max_ebv),
        ),
        match=MatchOptions(metric=parameters.metric),
        response=ResponseOptions(spacing=parameters.knots),
    )
