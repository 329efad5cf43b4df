"""Science exposures: extracted, flat-fielded, sky-subtracted spectra of all fibres."""

from __future__ import annotations

from typing import Any, Literal

from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.beside import spread
from kspecpipe.declare import Declared, calibration, parameter, product, raw, static, user_file
from kspecpipe.errors import InputError
from kspecpipe.frame import FrameInfo, FrameStack
from kspecpipe.reduction.exposure import extract_stack, prnu_left
from kspecpipe.reduction.gridding import GridSettings, choose_grid
from kspecpipe.reduction.pointing import with_velocity
from kspecpipe.reduction.preprocess import DetectorCalibrations
from kspecpipe.reduction.science import Calibration, ReducedExposure, reduce_exposure
from kspecpipe.reduction.science_metrics import ScienceMetrics, science_metrics
from kspecpipe.reduction.transmission import TrustedThroughput, trusted_throughput
from kspecpipe.reduction.zero_point import ZeroPoint, measure_zero_point
from kspecpipe.regions import WavelengthRegion
from kspecpipe.signal import FloatArray
from kspecpipe.spectra import Extracted, FibreFlat, Reduced, TramlineMap, WaveSolution
from kspecpipe.wavelength.linelist import LineList


class Object(BaseRecipe):
    """Reduce science exposures to sky-subtracted spectra on one wavelength grid.

    Each exposure is calibrated, freed of cosmic rays, and extracted with the profile of the flat at
    traces moved by the shift that its own light shows. Spectra are divided by fibre flat and
    throughput, which comes from twilight if there is a SKYFLAT, else from the lamp flat, else from
    the sky lines. The sky is modelled from the sky fibres on their native pixels and subtracted,
    from the sky fibres themselves with a sky made without them; sky fibres that see a star are left
    out, and what their lines show beyond all known errors is an error of every fibre's lines.
    Nothing is resampled more than once. The transmission of the air can be stored in TELLURIC (to
    be divided out by who wants it), from the standards or from a table.
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
        sky_flats: FrameStack | None = raw(
            "SKYFLAT",
            at_least=0,
            match=("shape", "mode"),
            doc="twilight sky, the best measure of throughput",
        )
        assignment: Table | None = user_file(
            "ASSIGN", default=None, doc="fibre assignment; without it no sky is subtracted"
        )
        transmission: tuple[FloatArray, FloatArray] | None = user_file(
            "TELLURIC", default=None, doc="transmission of the air at airmass 1"
        )
        sky_lines: LineList = static("sky_lines", doc="night-sky emission lines")
        telluric: tuple[WavelengthRegion, ...] = static(
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

        telluric: Literal["none", "standards", "table"] = parameter(
            "none",
            doc="store the air's transmission: from the C fibres, or from the table TELLURIC",
        )

    class Products(Declared):
        extracted: list[Extracted] = product(
            "EXTRACTED", tech="MOS", per_exposure=True, doc="native pixels, before flat and sky"
        )
        reduced: list[Reduced] = product(
            "REDUCED", tech="MOS", per_exposure=True, doc="flat-fielded, sky-subtracted, one grid"
        )

    class Metrics(ScienceMetrics):
        pass

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Extract each exposure, flat-field it, and subtract its sky."""
        trusted = self._throughput(inputs, parameters)
        table, solution = trusted.fibres, inputs.solution
        live = fibres.live(table)
        grid = choose_grid(parameters.grid, solution.wavelength.value[live])

        exposures = extract_stack(self, inputs, inputs.exposures, parameters)

        def reduce(number: int) -> tuple[ZeroPoint, ReducedExposure]:
            spectra, info = exposures[number].spectra, inputs.exposures.infos[number]
            zero = ZeroPoint()
            if parameters.refine_wavelengths:
                zero = measure_zero_point(spectra, solution, inputs.sky_lines, live)
            pointed = with_velocity(table, self.setup.facts.site, info.mid_mjd)
            shared = Calibration(
                inputs.fibre_flat, pointed, grid, inputs.telluric, inputs.transmission
            )
            wavelength = zero.apply(solution)
            return zero, reduce_exposure(spectra, wavelength, solution.lsf, shared, parameters)

        found = spread(reduce, range(len(exposures)), self.options.cores)
        zero_points, reduced = [zero for zero, _ in found], [result for _, result in found]
        for info, exposure, (zero, result) in zip(
            inputs.exposures.infos, exposures, found, strict=True
        ):
            self._report(info, exposure.shift.shift, zero, result)

        # What an audit needs to predict the variance stands beside the spectra.
        noise = {"PRNU": prnu_left(inputs, inputs.exposures)}
        products = self.Products(
            extracted=[
                result.extracted.replace(**exposure.noise, noise=noise)
                for result, exposure in zip(reduced, exposures, strict=True)
            ],
            reduced=[result.reduced for result in reduced],
        )
        return products, self.Metrics(**science_metrics(exposures, zero_points, reduced, trusted))

    def _throughput(self, inputs: Any, parameters: Any) -> TrustedThroughput:
        """Take the throughput of the best source, and say what is missing."""
        if parameters.telluric == "table" and inputs.transmission is None:
            raise InputError("telluric is 'table', but there is no TELLURIC file among the inputs")
        table = fibres.assign(inputs.traces.fibres, inputs.assignment)
        if inputs.assignment is None:
            self.log.warning("no ASSIGN: all fibres are taken as program fibres, no sky subtracted")
        elif not fibres.of_type(table, "S").any():
            self.log.warning("no live sky fibre: no sky is subtracted, SKY is empty")
        if inputs.fibre_flat is None:
            self.log.warning("no FIBRE_FLAT: fibres keep their colour and fringes")
        if self.setup.facts.site is None:
            self.log.warning("the instrument has no site: no airmass, no barycentric velocity")
        if parameters.telluric == "standards" and not fibres.of_type(table, "C").any():
            self.log.warning("no live standard: the transmission of the air is not measured")
        twilight = []
        if inputs.sky_flats is not None:
            flats = extract_stack(self, inputs, inputs.sky_flats, parameters)
            twilight = [flat.spectra for flat in flats]
        wavelength = inputs.solution.wavelength.value
        trusted = trusted_throughput(table, inputs.fibre_flat, twilight, wavelength)
        self.log.info("throughput of the fibres from %s", trusted.source)
        return trusted

    def _report(
        self, info: FrameInfo, shift: float, zero: ZeroPoint, result: ReducedExposure
    ) -> None:
        """Tell what happened to an exposure."""
        self.log.info(
            "%s: traces moved %.3f, wavelengths %.3f pixel, %d sky fibres, S/N %.1f",
            info.name,
            shift,
            zero.applied[0],
            result.sky_fibres,
            result.snr,
        )
        if zero.unknown:
            self.log.warning("%s: %s, to measure the wavelength zero point", info.name, zero.reason)
        if result.dropped:
            self.log.warning(
                "%s: the sky fibres %s do not see the sky of the others and are left out",
                info.name,
                ", ".join(map(str, result.dropped)),
            )
        if result.changed:
            self.log.warning(
                "%s: fibres do not pass what their throughput says, by their sky lines: %s",
                info.name,
                ", ".join(f"{number} ({part:.0%} of it)" for number, part in result.changed),
            )
