"""Pixel flat: the response of each pixel relative to its neighbourhood."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, calibration, metric, parameter, product, raw
from kspecpipe.detector.bias import smooth_bias
from kspecpipe.detector.pixel_flat import PixelFlatOptions, pixel_flat
from kspecpipe.detector.stack import Noise
from kspecpipe.detector.structure import SmoothOptions
from kspecpipe.frame import ElectronPlanes, FrameStack
from kspecpipe.products.images import MasterBias, MasterDark, PixelFlat
from kspecpipe.signal import DQ, Signal


class LFlat(BaseRecipe):
    """Measure the response of each pixel from evenly lit detector flats.

    The flats are scaled to a common level and averaged without outliers; the smooth illumination
    is divided out, so that a typical pixel is 1. Later recipes divide by the result, and then need
    no pixel-response term in their errors.
    """

    name = "lflat"
    bytes_per_pixel = 150.0
    by_readmode = True

    class Inputs(Declared):
        flats: FrameStack = raw(
            "LFLAT", at_least=1, recommended=5, doc="flats of the bare, evenly lit detector"
        )
        master_bias: MasterBias | None = calibration(
            "MASTER_BIAS", default=None, match=("shape", "layout", "readmode"), doc="zero level"
        )
        master_dark: MasterDark | None = calibration(
            "MASTER_DARK",
            default=None,
            match=("shape", "readmode"),
            several="nearest_exptime",
            doc="its hot pixels are left out",
        )

    class Parameters(Declared):
        box: int = parameter(
            32, unit="pixel", at_least=4, at_most=512, doc="scale of the smooth illumination"
        )

    class Products(Declared):
        pixel_flat: PixelFlat = product("PIXEL_FLAT", doc="response of each pixel, 1 = typical")

    class Metrics(Declared):
        prnu: float = metric("PRNU", doc="rms response of the pixels beyond noise")
        level: float = metric("FLAT LEVEL", unit="electron", doc="median level of one flat")
        bad: float = metric("BAD FRACTION", doc="fraction of pixels that cannot be corrected")

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Average the flats and divide the illumination out."""
        flats, readout = inputs.flats, inputs.flats.readout
        sections = SmoothOptions(sections=flats.amplifier_sections)
        bias = smooth_bias(inputs.master_bias.image, sections).value if inputs.master_bias else None
        planes = ElectronPlanes(flats, bias)
        noise = Noise(ron=readout.ron, per_unit=1.0)
        flat = pixel_flat(planes, noise, PixelFlatOptions(box=parameters.box))
        flat = Signal(flat.value, flat.variance, flat.dq | flats.bad_pixels)
        if inputs.master_dark:
            hot = inputs.master_dark.image.dq & np.uint16(DQ.HOT | DQ.UNSTABLE) > 0
            flat = flat.flag(hot, DQ.BAD)
        good = flat.good
        spread = float(np.var(flat.value[good]) - np.mean(flat.variance[good]))
        level = float(np.nanmedian(planes.rows(flats.shape[1] // 2, flats.shape[1] // 2 + 8)))
        self.log.info("response rms %.4f at %.0f electron", np.sqrt(max(spread, 0.0)), level)
        metrics = self.Metrics(
            prnu=float(np.sqrt(max(spread, 0.0))), level=level, bad=float(np.mean(~good))
        )
        return self.Products(pixel_flat=PixelFlat(image=flat)), metrics
