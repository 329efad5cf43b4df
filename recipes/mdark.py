"""Master dark: the dark current of every pixel, and pixels that misbehave in the dark."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, calibration, metric, parameter, product, raw
from kspecpipe.detector.bias import smooth_bias
from kspecpipe.detector.dark import DarkOptions, dark_rate, group_exposures
from kspecpipe.detector.glow import glow_components
from kspecpipe.detector.structure import SmoothOptions
from kspecpipe.frame import ElectronPlanes, FrameInfo, FrameStack
from kspecpipe.products.images import BadPixelMap, MasterBias, MasterDark
from kspecpipe.reduction.preprocess import refuse_constant
from kspecpipe.signal import DQ, Signal

_BAD = np.uint16(DQ.BAD | DQ.HOT | DQ.UNSTABLE)


class MDark(BaseRecipe):
    """Measure the dark rate of each pixel from dark frames of one or several exposure times.

    The bias is subtracted and the rate of each pixel is fitted against the exposure time, without
    the cosmic rays that the frames do not share. Pixels far brighter than their surroundings are
    hot, those that scatter more than noise are unstable, those far below are dead. Shapes by which
    the darks differ as a whole (glow of varying strength) are kept, so that later recipes can fit
    their strength in each frame.
    """

    name = "mdark"
    bytes_per_pixel = 150.0
    by_readmode = True

    class Inputs(Declared):
        darks: FrameStack = raw("DARK", at_least=1, recommended=5, doc="dark frames")
        master_bias: MasterBias = calibration(
            "MASTER_BIAS", match=("shape", "layout", "readmode"), doc="zero level"
        )

    class Parameters(Declared):
        clipping_sigma: float = parameter(
            5.0, unit="sigma", above=0, doc="significance of cosmic rays and hot pixels"
        )
        exposure_tolerance: float = parameter(
            0.02, at_least=0, at_most=0.5, doc="relative difference within an exposure group"
        )
        hot_rate: float | None = parameter(
            None, unit="electron/s", above=0, doc="excess that makes a pixel hot; none: from noise"
        )
        glow_components: int = parameter(3, at_least=0, at_most=10, doc="most shapes of glow kept")

    class Products(Declared):
        master_dark: MasterDark = product("MASTER_DARK", doc="dark rate of each pixel")
        bad_pixels: BadPixelMap = product(
            "BAD_PIXEL_MAP", qualifier="mdark", doc="hot, unstable and dead pixels"
        )

    class Metrics(Declared):
        rate: float = metric("DARK RATE", unit="electron/s", doc="median dark rate")
        hot: float = metric("HOT FRACTION", doc="fraction of hot pixels")
        unstable: float = metric("UNSTABLE FRACTION", doc="fraction of unstable pixels")
        dead: float = metric("DEAD FRACTION", doc="fraction of dead pixels")
        cosmics: float = metric(
            "COSMIC RATE", unit="pixel/s", doc="pixels hit by cosmic rays per second"
        )
        groups: int = metric("EXPOSURE GROUPS", doc="different exposure times")
        glow: float = metric(
            "GLOW VARIATION", unit="electron", doc="largest deviation of one dark by varying glow"
        )

    def representative(self, infos: list[FrameInfo]) -> FrameInfo:
        """Name the product after the longest exposure."""
        return max(infos, key=lambda info: info.exptime)

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Fit the rates, find the pixels that differ, and the shapes of varying glow."""
        darks, times = inputs.darks, inputs.darks.exptimes
        refuse_constant(darks)
        groups = group_exposures(times, parameters.exposure_tolerance)
        self.log.info(
            "%d darks in %d groups of %s s",
            len(darks),
            len(groups),
            ", ".join(f"{np.mean(times[group]):g}" for group in groups),
        )
        sections = SmoothOptions(sections=darks.amplifier_sections)
        planes = ElectronPlanes(darks, smooth_bias(inputs.master_bias.image, sections).value)
        options = DarkOptions(sigma=parameters.clipping_sigma, hot_rate=parameters.hot_rate)
        fit = dark_rate(planes, times, float(np.max(darks.readout.ron)), options)
        rate = Signal(fit.rate.value, fit.rate.variance, fit.rate.dq | darks.bad_pixels)
        rate = rate.flag((rate.dq & np.uint16(DQ.NO_DATA)) > 0, DQ.BAD)  # saturated in every dark
        glow = glow_components(planes, times, max_components=max(parameters.glow_components, 1))
        shapes = glow.components[: parameters.glow_components]
        strength = np.abs(glow.amplitudes[:, : len(shapes)]) * times[:, None]
        self.log.info("%d shapes of glow", len(shapes))

        fraction = {bit: float(np.mean(rate.dq & bit > 0)) for bit in (DQ.HOT, DQ.UNSTABLE, DQ.BAD)}
        metrics = self.Metrics(
            rate=float(np.median(rate.value[rate.good])),
            hot=fraction[DQ.HOT],
            unstable=fraction[DQ.UNSTABLE],
            dead=fraction[DQ.BAD],
            cosmics=float(fit.rejected.sum() / times.sum()),
            groups=len(groups),
            glow=float(strength.max(initial=0.0)),
        )
        products = self.Products(
            master_dark=MasterDark(image=rate, glow=shapes if len(shapes) else None),
            bad_pixels=BadPixelMap(dq=rate.dq & _BAD),
        )
        return products, metrics
