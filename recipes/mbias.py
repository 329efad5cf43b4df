"""Master bias: the zero level of the detector in one read-out mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.declare import Declared, metric, parameter, product, raw
from kspecpipe.detector.bias import level_drift, light_leak, read_noise, structure
from kspecpipe.detector.stack import clip_stack
from kspecpipe.frame import ElectronPlanes, FrameStack, UnsaturatedPlanes
from kspecpipe.products.images import MasterBias
from kspecpipe.reduction.preprocess import refuse_constant


class MBias(BaseRecipe):
    """Average bias frames of one read-out mode, and measure the read noise.

    The frames are averaged pixel by pixel without outliers, a block of rows at a time. The read
    noise comes from the differences of successive frames, in which structure cancels. The row and
    column structure of the average, the drift of the level through the set and the bright side of
    the distribution (light that leaks onto the detector) are judged.
    """

    name = "mbias"
    bytes_per_pixel = 110.0
    by_readmode = True

    class Inputs(Declared):
        biases: FrameStack = raw(
            "BIAS",
            at_least=3,
            recommended=10,
            match=("shape", "layout", "readmode"),
            doc="bias frames of one read-out mode",
        )

    class Parameters(Declared):
        stacked_clipping_sigma: float = parameter(
            5.0, unit="sigma", above=0, doc="rejection limit of the average"
        )
        stacked_clipping_iterations: int = parameter(
            5, at_least=1, at_most=50, doc="rejection passes"
        )

    class Products(Declared):
        master_bias: MasterBias = product("MASTER_BIAS", doc="zero level of each pixel")

    class Metrics(Declared):
        level: float = metric("BIAS LEVEL", unit="adu", doc="typical level")
        ron: float = metric("READ NOISE", unit="electron", doc="noise of one pixel of one frame")
        ron_ratio: float = metric("READ NOISE RATIO", doc="measured over nominal read noise")
        rows: float = metric("ROW STRUCTURE", unit="adu", doc="rms of row levels beyond noise")
        columns: float = metric("COLUMN STRUCTURE", unit="adu", doc="the same for columns")
        drift: float = metric("BIAS DRIFT", unit="adu", doc="largest minus smallest frame level")
        leak: float = metric(
            "LIGHT LEAK", unit="adu", doc="98th percentile beyond what the noise explains"
        )
        rejected: float = metric("REJECTED", doc="largest fraction of a frame that was rejected")

    def run(self, inputs: Any, parameters: Any) -> tuple[Products, Metrics]:
        """Average the frames and measure noise, structure, drift and stray light."""
        biases, readout = inputs.biases, inputs.biases.readout
        refuse_constant(biases)
        planes = UnsaturatedPlanes(biases)
        noise = read_noise(ElectronPlanes(biases))
        self.log.info("read noise %.2f electron from %d differences", noise.ron, len(noise.pairs))

        # The floor keeps small sets from losing values to a lucky, small deviation.
        stacked = clip_stack(
            planes,
            sigma=parameters.stacked_clipping_sigma,
            iterations=parameters.stacked_clipping_iterations,
            floor=max(noise.ron, 1e-3) / np.asarray(readout.gain, dtype=np.float32),
        )
        self.drop_contradicted([info.name for info in biases.infos], stacked.rejected_fraction)
        master = stacked.signal
        pattern, drift, leak = structure(master), level_drift(planes), light_leak(master)
        self.log.info("level %.2f adu, drift %.2f adu", pattern.level, drift.peak_to_peak)
        metrics = self.Metrics(
            level=pattern.level,
            ron=noise.ron,
            ron_ratio=noise.ron / float(np.mean(readout.ron)) if np.any(readout.ron) else np.nan,
            rows=pattern.row_rms,
            columns=pattern.column_rms,
            drift=drift.peak_to_peak,
            leak=leak.excess,
            rejected=float(np.max(stacked.rejected_fraction)),
        )
        return self.Products(master_bias=MasterBias(image=master)), metrics
