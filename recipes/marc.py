"""Wavelength calibration: the air wavelength of every pixel of every fibre, from arc lamps."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.beside import spread
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
from kspecpipe.extraction.solve import ExtractionOptions
from kspecpipe.frame import FrameStack, RawFrame
from kspecpipe.products.arc import wave_solution
from kspecpipe.reduction.exposure import (
    ExposureOptions,
    ExtractedExposure,
    extract_exposure,
)
from kspecpipe.reduction.preprocess import DetectorCalibrations, Masters, calibrate_frame
from kspecpipe.reduction.transmission import fine_response
from kspecpipe.signal import DQ, Signal
from kspecpipe.spectra import FibreFlat, TramlineMap, WaveSolution
from kspecpipe.wavelength.arcs import ArcSpectra
from kspecpipe.wavelength.drift import predict_from_solution
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.predict import Prediction
from kspecpipe.wavelength.solve import solve_arcs


class MArc(BaseRecipe):
    """Identify arc lines and fit the dispersion of all fibres together.

    Every arc exposure is extracted with the traces of the flat, moved by the shift that its own
    light shows. The lines are identified with the list of the lamps, free in zero point and scale,
    and the identification must stand out from all others. The empirical line shape, skewed as it
    is, gives line positions; grating equation, camera distortion and slit shape give every pixel
    its wavelength and its error. Without a trustworthy solution there is no product.
    """

    name = "marc"

    class Inputs(DetectorCalibrations):
        arcs: FrameStack = raw(
            "ARC",
            at_least=1,
            recommended=2,
            match=("shape", "mode", "readmode"),
            doc="arc exposures of one mode",
        )
        traces: TramlineMap = calibration(
            "TRAMLINE_MAP", match=("shape",), doc="traces, profile and status of the fibres"
        )
        fibre_flat: FibreFlat | None = calibration(
            "FIBRE_FLAT", default=None, match=("shape", "mode"), doc="response of the fibres"
        )
        earlier: WaveSolution | None = calibration(
            "WAVE_SOLUTION",
            default=None,
            match=("shape", "mode"),
            doc="an earlier solution to start from",
        )
        arc_lines: LineList | None = user_file(
            "ARC_LINES", default=None, doc="line list in place of the shipped one"
        )
        shipped_lines: LineList = static("arc_lines", doc="lines of the lamps of the instrument")

    class Parameters(Declared):
        # What lies between the fibres of an arc holds the blue wings of bright lines, too, without
        # which lines seem to lie 0.02 pixel further to the red. Smooth light is fitted with them.
        subtract_background: bool = parameter(
            False, doc="subtract scattered light, which takes some of the lines' wings along"
        )
        reject_sigma: float = parameter(
            5.5, unit="sigma", at_least=0, doc="cosmic-ray limit against the profile; 0: none"
        )

    class Products(Declared):
        solution: WaveSolution = product("WAVE_SOLUTION", tech="MOS", doc="wavelengths and LSF")

    class Metrics(Declared):
        identified: int = metric("LINES IDENTIFIED", doc="peaks of the stacked arc identified")
        used: int = metric("LINES USED", doc="lines or blends used in the fit")
        rms: float = metric("WAVE RMS", unit="pixel", doc="scatter of the lines about the fit")
        held_out: float = metric(
            "WAVE HELD OUT", unit="pixel", doc="distance of lines left out from their prediction"
        )
        margin: float = metric("WAVE MARGIN", doc="lead of the identification over the next-best")
        coverage: float = metric("WAVE COVERAGE", doc="fraction of the chip between used lines")
        lsf: float = metric("LSF FWHM", unit="pixel", doc="median width of the lines")
        shift: list[float] = metric(
            "TRACE SHIFT", unit="pixel", scope="exposure", doc="traces, arc minus flat"
        )
        drift: list[float] | None = metric(
            "ARC DRIFT",
            unit="pixel",
            scope="exposure",
            doc="shift of the lines against the mean of the arcs, positive to the red",
            needs="at least two arcs",
        )
        lamp_flux: float | None = metric(
            "LAMP FLUX MIN",
            doc="flux of the faintest species over its listed one, typical species = 1",
            needs="at least two species",
        )
        lamps_off: int = metric("LAMPS OFF", doc="lamps of which no line was found")
        saturated: list[float] = metric(
            "SATURATED FRACTION",
            scope="exposure",
            doc="samples of live fibres with a saturated pixel in their core",
        )

    def qualifier(self, inputs: Any) -> str:
        """Keep solutions of single lamps apart."""
        lamps = {info.keywords.get("lamp") for info in inputs.arcs.infos}
        return str(lamps.pop() or "") if len(lamps) == 1 else ""

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Extract the arcs, identify their lines, and fit the dispersion."""
        exposures = self._extract(inputs, parameters)
        table = inputs.traces.fibres
        live = fibres.live(table)
        arcs = [
            ArcSpectra(
                _without_fringes(exposure.spectra, inputs.fibre_flat),
                self.setup.species(frame.info.keywords.get("lamp")),
                max(frame.info.exptime, 1e-3),
            )
            for exposure, frame in zip(exposures, inputs.arcs, strict=True)
        ]
        prediction = predict(inputs, self.setup)
        lines = inputs.arc_lines or inputs.shipped_lines
        solved = solve_arcs(arcs, lines, prediction, live)
        found: dict[str, Any] = solved.diagnostics
        ratios = solved.flux_ratio
        self.log.info(
            "%s lines used, rms %.4f pixel, margin %.2f",
            found["n_used"],
            found["rms"],
            solved.margin,
        )
        names = [str(info.keywords.get("lamp") or "") for info in inputs.arcs.infos]
        product = wave_solution(solved, table, names, [each.spectra for each in exposures])
        step = np.gradient(solved.wavelength, axis=1)
        metrics = self.Metrics(
            identified=found["n_identified"],
            used=found["n_used"],
            rms=found["rms"],
            held_out=found["held_out"],
            margin=solved.margin,
            coverage=found["coverage"],
            lsf=float(np.nanmedian(solved.lsf / step)),
            shift=[exposure.shift.shift for exposure in exposures],
            drift=list(solved.drift) if len(arcs) > 1 else None,
            lamp_flux=min(ratios.values()) if len(ratios) > 1 else None,
            lamps_off=len(found["lamps_off"]),
            saturated=[arc.spectra.select(live).fraction(DQ.SATURATED) for arc in arcs],
        )
        return self.Products(solution=product), metrics

    def _extract(self, inputs: Any, parameters: Any) -> list[ExtractedExposure]:
        layout = self.setup.fibre_layout(inputs.arcs.infos[0], inputs.arcs.shape[1:])
        masters = Masters.of(
            inputs, inputs.arcs, layout.rows_without_light, cores=self.options.cores
        )
        options = ExposureOptions(
            ExtractionOptions(
                prnu=0.0 if inputs.pixel_flat else inputs.arcs.readout.prnu,
                reject_sigma=parameters.reject_sigma,
                reject_tolerance=0.05,  # the image of a line is not quite that of a continuum
            ),
            search_cosmics=False,  # lines are as sharp as cosmic rays; the profile tells them apart
            subtract_background=parameters.subtract_background,
        )

        def extract(frame: RawFrame) -> ExtractedExposure:
            return extract_exposure(
                calibrate_frame(frame, masters), inputs.traces, layout, options
            )[0]

        exposures = spread(extract, list(inputs.arcs), self.options.cores)
        for exposure, info in zip(exposures, inputs.arcs.infos, strict=True):
            self.log.info("%s: trace shift %.3f pixel", info.name, exposure.shift.shift)
        return exposures


def _without_fringes(spectra: Signal, flat: FibreFlat | None) -> Signal:
    """Divide by the fibre flat: fringes displace lines by up to a tenth of a pixel."""
    return spectra if flat is None else spectra.divide(fine_response(flat.flat))


def predict(inputs: Any, setup: Any) -> Prediction:
    """Predict the wavelengths from the earlier solution, or from what the instrument says."""
    if inputs.earlier is not None:
        return predict_from_solution(inputs.earlier.wavelength.value)
    prediction: Prediction = setup.prediction(inputs.arcs.infos[0], inputs.arcs.shape[2])
    return prediction
