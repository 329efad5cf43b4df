"""What a frame is taken with: optics, fibres, lamps; drawn once per night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.fibres import Fibres, transmission
from kspecpipe.simulate.instruments import Instrument, Mode
from kspecpipe.simulate.optics import Optics, Shift
from kspecpipe.simulate.plan import LAMPS, Traps

#: Largest error of the header's central wavelength [pixel].
_CENTRE_ERROR = 25.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Optics, fibres and lamps of one mode, with the traps that are switched on."""

    optics: Optics
    fibres: Fibres
    traps: Traps
    lamp_ratio: dict[str, float]

    def through_fibres(self, light: FloatArray) -> FloatArray:
        """Apply throughput and fringes."""
        return light * transmission(self.optics, self.fibres)


def draw_bench(
    instrument: Instrument, mode: Mode, fibres: Fibres, traps: Traps, rng: np.random.Generator
) -> Bench:
    """Draw the accidents of the optics in one mode, and how bright the lamps are."""
    slit, camera = instrument.slit, instrument.camera
    ratios = rng.lognormal(0, 0.35 * traps.lamp_ratios, len(LAMPS))
    optics = Optics(
        instrument=instrument,
        mode=mode,
        row_offset=rng.normal(0, slit.irregularity, slit.fibres) * traps.irregular_slit,
        column_offset=rng.normal(0, camera.jitter, slit.fibres) * traps.irregular_slit,
        centre_error=rng.uniform(-_CENTRE_ERROR, _CENTRE_ERROR) * traps.centre_error,
        distorted=traps.distortion,
        varying=traps.varying_kernels,
    )
    return Bench(optics, fibres, traps, {k: float(v) for k, v in zip(LAMPS, ratios, strict=True)})


def draw_shift(tag: str, traps: Traps, rng: np.random.Generator) -> Shift:
    """Return how far a frame has moved: arcs and objects move more than flats."""
    rows = rng.normal(0, 0.05) if tag == "FLAT" else rng.uniform(0.4, 1.35) * rng.choice((-1, 1))
    flexure = rng.normal(0, 0.03) if tag == "ARC" else rng.uniform(0.15, 0.4) * rng.choice((-1, 1))
    rotation = rng.normal(0, 0.015)
    moved, bent = traps.trace_shifts, traps.flexure
    return Shift(float(rows) * moved, float(flexure) * bent, float(rotation) * moved)
