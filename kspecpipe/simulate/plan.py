"""What a night consists of, and which of the instrument's accidents happen in it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from kspecpipe.simulate.standards import LibraryPlan, StandardStar

LAMPS = ("Hg", "Ar", "Ne", "Kr", "Cd")


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames of each class; all but bias and dark per mode."""

    bias: int = 5
    dark: int = 2
    flat: int = 3
    arc: int = 2
    object: int = 2
    skyflat: int = 0
    lflat: int = 0
    flatoff: int = 0


@dataclass(frozen=True, slots=True)
class Traps:
    """Accidents of the real instrument, each of which can be switched off."""

    noise: bool = True
    cosmic_rays: bool = True
    detector_structure: bool = True
    bad_pixels: bool = True
    saturation: bool = True
    dark_glow: bool = True
    scattered_light: bool = True
    ghosts: bool = True
    fringes: bool = True
    throughput: bool = True
    dead_fibre: bool = True
    distortion: bool = True
    varying_kernels: bool = True
    irregular_slit: bool = True
    centre_error: bool = True
    trace_shifts: bool = True
    flexure: bool = True
    lamp_drift: bool = True
    lamp_ratios: bool = True
    arc_continuum: bool = True
    second_order: bool = True
    unlisted_lines: bool = True
    telluric: bool = True
    broken_cards: bool = True

    @classmethod
    def none(cls) -> Traps:
        """Return a night without any accident: perfect optics, no noise."""
        return cls(**{item.name: False for item in fields(cls)})

    def but(self, **changes: bool) -> Traps:
        """Return a copy with some traps switched."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class NightPlan:
    """Everything that may differ between nights.

    Parameters
    ----------
    instrument : {"isoplane", "kspec"}
        Which spectrograph.
    modes : tuple of str
        Settings of the disperser; empty: the first of the instrument.
    counts : FrameCounts
        Frames of each class.
    traps : Traps
        Accidents.
    size : {"full", "small"}
        The whole chip, or a corner of it with the same pitch and dispersion.
    n_fibres : int or None
        None: 14 for ISOPLANE, 150 for K-SPEC. 16 for ISOPLANE: two of them nearly dark.
    dead : tuple of int or None
        FIBRE_IDs (from 1) that pass almost no light; None: one is chosen by the instrument.
    layout : str
        Raw ISOPLANE frame: "1300x1340", or "1330x1340" with overscan rows.
    mirrored : tuple of bool
        Whether the raw frame is mirrored along the dispersion and across it.
    readout : tuple
        ISOPLANE read-out port, speed [MHz] and gain.
    names : {"new", "old"}
        Style of LightField's file names.
    separate_lamps : bool
        One arc lamp a file instead of all together.
    missing_lamp : str or None
        A lamp that has failed.
    flat_lamps : tuple of {"D2", "QTH"}
        Flats are taken with each of these lamps; empty: with the usual lamp.
    cube : bool
        All biases in one file of several planes.
    tile : int
        Number of the science tile.
    standards : tuple of StandardStar
        What the fibres of class 8 look at; their places become those of the fibres. Empty: F dwarfs
        are drawn.
    library : LibraryPlan or None
        Template library that is written beside the frames; None: none is.
    """

    instrument: Literal["isoplane", "kspec"] = "isoplane"
    modes: tuple[str, ...] = ()
    counts: FrameCounts = field(default_factory=FrameCounts)
    traps: Traps = field(default_factory=Traps)
    size: Literal["full", "small"] = "full"
    n_fibres: int | None = None
    dead: tuple[int, ...] | None = None
    layout: str = "1300x1340"
    mirrored: tuple[bool, bool] | None = None
    readout: tuple[str, float, str] = ("LowNoise", 0.1, "High")
    names: Literal["new", "old"] = "new"
    separate_lamps: bool = False
    missing_lamp: str | None = None
    flat_lamps: tuple[str, ...] = ()
    cube: bool = False
    tile: int = 46
    standards: tuple[StandardStar, ...] = ()
    library: LibraryPlan | None = None
