"""The form of an instrument file: every key with its unit, default and meaning.

All sections ``[y0, y1, x0, x1]`` are zero-based, half-open and in raw pixels; rows of fibres are
zero-based rows of the normalised frame (dispersion along x, wavelength rising with x).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kspecpipe.configuration.schema import key

Section = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class SiteFacts:
    """Where the telescope stands; a card of the header wins."""

    name: str = key("", doc="name of the site")
    longitude: float = key(unit="deg east", at_least=-180, at_most=360, doc="geographic longitude")
    latitude: float = key(unit="deg", at_least=-90, at_most=90, doc="geographic latitude")
    height: float = key(0.0, unit="m", doc="height above the ellipsoid")


@dataclass(frozen=True, kw_only=True)
class KeywordRule:
    """How one keyword of the pipeline is read from the raw header."""

    from_: str | list[str] = key(doc="header card, or several of which the first present wins")
    match: re.Pattern[str] | None = key(
        None, doc="regular expression; its first group is the value"
    )
    scale: float = key(1.0, doc="factor to the unit of the pipeline")
    type: Literal["str", "int", "float"] | None = key(
        None, doc="type of the value; number if a scale or unit is given, else text"
    )
    unit: str = key("", doc="unit, for documentation")
    optional: bool = key(False, doc="the card may be missing")
    default: str | int | float | None = key(None, doc="value when no card is present")

    @property
    def cards(self) -> list[str]:
        """The cards to look at, in order."""
        return [self.from_] if isinstance(self.from_, str) else self.from_

    @property
    def kind(self) -> str:
        """Type of the value after the defaults of `type`."""
        numeric = self.scale != 1.0 or bool(self.unit)
        return self.type or ("float" if numeric else "str")


@dataclass(frozen=True, kw_only=True)
class ClassifyRule:
    """One rule that tells what a raw frame is; all patterns must match wholly, in any case."""

    tag: str = key(doc="raw tag of the frames that match")
    file: re.Pattern[str] | None = key(None, doc="pattern of the file name without extension")
    keywords: dict[str, re.Pattern[str]] = key({}, doc="patterns of keywords or header cards")


@dataclass(frozen=True, kw_only=True)
class FlipRule:
    """Which axes to mirror, after the transposition that `dispersion_axis: y` asks for."""

    cards: list[str] = key([], doc="header cards that tell of mirroring")
    rule: Literal["even", "odd", "any"] = key(
        "any", doc="mirror when this many of the cards hold the word: an even or odd number, or any"
    )
    x: bool | str = key(False, doc="mirror x (dispersion): true, false, or the word in the cards")
    y: bool | str = key(False, doc="mirror y: true, false, or the word in the cards")


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How the raw frame lies."""

    dispersion_axis: Literal["x", "y"] = key("x", doc="raw axis along which light is dispersed")
    flip: FlipRule = key(FlipRule(), doc="mirroring of the axes")


@dataclass(frozen=True, kw_only=True)
class Amplifier:
    """One amplifier of the detector."""

    data: Section = key(doc="pixels with light")
    overscan: Section | None = key(None, doc="pixels without light read by the same amplifier")
    gain: float | None = key(None, unit="electron/adu", above=0, doc="gain; else from `readout`")
    noise: float | None = key(None, unit="electron", above=0, doc="read noise; else `readout`")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the amplifiers tile a raw frame of one shape."""

    amplifiers: list[Amplifier] = key(doc="the amplifiers")
    bad: list[Section] = key([], doc="sections that are never usable")


@dataclass(frozen=True, kw_only=True)
class ReadOutTable:
    """Gain and noise by read-out mode."""

    by: list[str] = key([], doc="keywords that select the row")
    table: list[list[str | int | float]] = key(
        [], doc="rows: values of the keywords, gain [electron/adu], noise [electron]"
    )


@dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """The detector."""

    layouts: dict[str, Layout] = key({}, doc="layout by raw shape 'ny x nx'; none: one amplifier")
    readout: ReadOutTable = key(ReadOutTable(), doc="gain and noise by read-out mode")
    gain: float | None = key(None, unit="electron/adu", above=0, doc="gain of all amplifiers")
    noise: float | None = key(None, unit="electron", above=0, doc="noise of all amplifiers")
    saturation: float = key(65535.0, unit="adu", above=0, doc="level from which a pixel is full")
    prnu: float = key(0.0, at_least=0, at_most=0.5, doc="rms pixel-to-pixel response")
    charge_transfer: Literal["x", "y"] = key(
        "y", doc="raw axis along which charge is moved, and saturated pixels bleed"
    )


@dataclass(frozen=True, kw_only=True)
class FibreBlock:
    """A run of equally spaced fibres."""

    first_row: float = key(unit="pixel", doc="row of the block's first fibre at the middle column")
    pitch: float = key(unit="pixel", above=0, doc="distance between neighbours")
    count: int = key(at_least=1, doc="number of fibres")


@dataclass(frozen=True, kw_only=True)
class FibreFacts:
    """Where the fibres are expected; rows are nominal, the data decide."""

    number: int = key(at_least=1, doc="number of fibres")
    blocks: list[FibreBlock] = key([], doc="runs of equally spaced fibres")
    rows: list[float] = key([], unit="pixel", doc="instead of blocks: row of every fibre")
    tolerance: float = key(5.0, unit="pixel", above=0, doc="how far the nominal rows may be off")
    id_order: Literal["rising_y", "falling_y"] = key("rising_y", doc="direction of FIBRE_ID")
    rows_without_light: list[tuple[int, int]] = key(
        [], unit="pixel", doc="[first, last) rows free of fibres, ghosts and stray light"
    )


@dataclass(frozen=True, kw_only=True)
class WavelengthFacts:
    """Nominal wavelength prediction."""

    model: Literal["grating", "linear"] = key(doc="grating equation, or constant step")
    focal_length: float | None = key(None, unit="mm", above=0, doc="camera (grating)")
    pixel: float | None = key(None, unit="mm", above=0, doc="pixel size (grating)")
    dispersion: float | None = key(None, unit="Angstrom/mm", above=0, doc="nominal (grating)")
    dispersion_lines: float | None = key(None, unit="1/mm", above=0, doc="grating it is quoted for")
    centre: float | str | None = key(
        None, unit="Angstrom", doc="wavelength at the middle column (linear), or a keyword with it"
    )
    step: float | str | None = key(
        None, unit="Angstrom/pixel", doc="step (linear), or a keyword with it"
    )
    scale_range: tuple[float, float] = key((0.9, 1.1), doc="how far the dispersion may be off")
    shift_range: float = key(80.0, unit="pixel", at_least=0, doc="how far the zero may be off")


@dataclass(frozen=True, kw_only=True)
class LampFacts:
    """Arc lamps and their lines."""

    default: list[str] = key([], doc="species of an arc whose lamp is not named")
    by_name: dict[str, list[str]] = key({}, doc="species of each named lamp, in any case")
    line_list: str = key("arc_lines.ecsv", doc="static calibration with the lines")


@dataclass(frozen=True, kw_only=True)
class AssignmentFacts:
    """The file that says what each fibre looks at."""

    file: str = key("", doc="its name, with {keywords} of the object frame")
    columns: list[str] = key([], doc="its blank-separated columns")
    type: dict[str, str] = key({}, doc="TYPE for each CLASS; 'default' for all others")


@dataclass(frozen=True, kw_only=True)
class InstrumentFacts:
    """Everything that makes one spectrograph differ from another."""

    name: str = key(doc="name, written to INSTRUME")
    recognise: dict[str, re.Pattern[str]] = key(
        {}, doc="header cards with patterns of which all must be found"
    )
    site: SiteFacts | None = key(None, doc="where the telescope stands")
    keywords: dict[str, KeywordRule] = key(doc="keyword map; date_obs and exptime are needed")
    mode: str = key(doc="name of the instrument mode, with {keywords}")
    readmode: str = key("", doc="name of the read-out mode, with {keywords}")
    classify: list[ClassifyRule] = key([], doc="rules that tell what a frame is; the first wins")
    orientation: Orientation = key(Orientation(), doc="how the raw frame lies")
    detector: DetectorFacts = key(DetectorFacts(), doc="the detector")
    fibres: FibreFacts = key(doc="where the fibres are")
    wavelength: WavelengthFacts | None = key(None, doc="wavelength prediction; none: no arcs")
    lamps: LampFacts = key(LampFacts(), doc="arc lamps")
    assignment: AssignmentFacts = key(AssignmentFacts(), doc="fibre assignment files")
