"""Coaddition: the exposures of a tile as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from kspecpipe import fibres
from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.combine.coadd import coadd
from kspecpipe.combine.exposures import (
    align,
    none_if_nan,
    scale_table,
    snr_gain,
    time_cards,
    with_shared_error,
)
from kspecpipe.combine.scale import relative_scales, unit_scales
from kspecpipe.combine.stack import weighted_mean
from kspecpipe.combine.targets import mean_fibres, require_same_targets
from kspecpipe.declare import Declared, calibration, metric, parameter, product
from kspecpipe.frame import FrameInfo
from kspecpipe.products.combined import Coadded, unit_cards, unit_of
from kspecpipe.products.flux import Calibrated
from kspecpipe.reduction.science import correlation_cards, median_snr
from kspecpipe.spectra import Reduced


class Coadd(BaseRecipe):
    """Average the exposures of one tile into spectra without cosmic rays.

    The exposures are brought onto one wavelength scale by their sky lines and onto one flux scale,
    fibre by fibre as far as the light of each fibre supports it. Samples that the other exposures
    contradict are left out, and the rest is averaged with the inverse of the smooth part of its
    variance, sky noise included. The mean is at the mean level of the exposures, in their unit.
    """

    name = "coadd"
    bytes_per_pixel = 150.0

    class Inputs(Declared):
        exposures: list[Reduced | Calibrated] = calibration(
            "REDUCED",
            "CALIBRATED",
            at_least=2,
            several="list",
            match=("mode", "target"),
            doc="exposures of one tile",
        )

    class Parameters(Declared):
        scale: Literal["fibre", "exposure", "none"] = parameter(
            "fibre", doc="factors between exposures: of each fibre, common to all fibres, or none"
        )
        reject_sigma: float = parameter(
            4.5, unit="sigma", at_least=0, doc="deviation from the other exposures; 0: keep all"
        )
        model_error: float = parameter(
            0.01, at_least=0, at_most=1, doc="relative difference that is no outlier"
        )
        align_above: float = parameter(
            0.05, unit="pixel", at_least=0, doc="shift from which an exposure is resampled"
        )
        velocity: Literal["topocentric", "barycentric"] = parameter(
            "topocentric", doc="rest frame of the wavelengths"
        )

    class Products(Declared):
        coadded: Coadded = product("COADDED", tech="MOS", doc="mean spectra of the tile")

    class Metrics(Declared):
        scales: list[float] = metric(
            "EXPOSURE SCALE", scope="exposure", doc="level of the exposure over the mean level"
        )
        zero_points: list[float | None] = metric(
            "WAVE ZERO POINT",
            unit="pixel",
            scope="exposure",
            doc="sky lines of the exposure minus the mean of all",
            needs="sky lines are strong enough",
        )
        rejected: list[float] = metric(
            "REJECTED FRACTION", scope="exposure", doc="samples that the other exposures contradict"
        )
        chi2: float = metric(
            "EXPOSURE CHI2", doc="reduced chi-squared of the exposures about their mean, median"
        )
        usable: float = metric("USABLE FRACTION", doc="samples of live fibres that carry a value")
        snr: float = metric("MEDIAN SNR", doc="median signal-to-noise of the program fibres")
        gain: float = metric(
            "SNR GAIN", doc="signal-to-noise over what the exposures together allow"
        )

    def qualifier(self, inputs: Any) -> str:
        """Return the tile."""
        return str(inputs.exposures[0].header.get("OBJECT", ""))

    def representative(self, infos: list[FrameInfo]) -> FrameInfo:
        """Return the first exposure; the mean has the mean exposure time."""
        first = min(infos, key=lambda info: info.mjd)
        return replace(first, exptime=float(np.mean([info.exptime for info in infos])))

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Align, scale, reject and average."""
        exposures: list[Reduced | Calibrated] = inputs.exposures
        tables = [one.fibres for one in exposures]
        require_same_targets(tables, [one.name for one in exposures])
        times = np.array([float(one.header.get("EXPTIME", 1.0)) for one in exposures])

        aligned = align(
            exposures,
            least=parameters.align_above,
            barycentric=parameters.velocity == "barycentric",
        )
        scales = unit_scales(aligned.stack.shape[:2])
        if parameters.scale != "none":
            scales = relative_scales(aligned.stack, times, per_fibre=parameters.scale == "fibre")
        level = aligned.stack.scale(1.0 / scales.value[:, :, None])
        mean = coadd(
            level, reject_sigma=parameters.reject_sigma, model_error=parameters.model_error
        )
        spectra = with_shared_error(mean, aligned.shared)
        for i, one in enumerate(exposures):
            self.log.info(
                "%s: level %.3f, zero point %.3f pixel, %d samples rejected",
                one.name,
                scales.common[i],
                aligned.zero_points.shift[i],
                mean.rejected[i].sum(),
            )
        table = mean_fibres(tables, times)
        live, program = fibres.live(table), fibres.of_type(table, "P")
        rejected = [float(part[live].mean()) for part in mean.rejected]
        self.drop_contradicted([one.name for one in exposures], rejected)
        coadded = Coadded(
            spectra=spectra,
            sky=weighted_mean(aligned.sky / scales.value[:, :, None], mean.weight),
            lsf=weighted_mean(aligned.lsf, mean.weight),
            exposure_map=np.tensordot(times, mean.weight > 0, axes=1),
            axis=exposures[0].axis,
            exposures=time_cards(exposures, parameters.velocity),
            correlation=correlation_cards(aligned.correlation),
            scales=scale_table([one.name for one in exposures], table, scales, aligned, mean),
            fibres=table,
            **unit_cards(unit_of(exposures[0])),
        )
        metrics = self.Metrics(
            scales=[float(factor) for factor in scales.common],
            zero_points=[none_if_nan(shift) for shift in aligned.zero_points.shift],
            rejected=rejected,
            chi2=float(np.nanmedian(mean.chi2[live])),
            usable=float(spectra.good[live].mean()),
            snr=median_snr(spectra, table),
            gain=snr_gain(level, mean.spectra, program if program.any() else live),
        )
        return self.Products(coadded=coadded), metrics
