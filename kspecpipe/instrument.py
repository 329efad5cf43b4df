"""An instrument: what its YAML file says, applied to headers, file names and shapes."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from kspecpipe.configuration.instrument_rules import inconsistencies
from kspecpipe.configuration.instrument_schema import (
    Amplifier,
    FlipRule,
    InstrumentFacts,
    KeywordRule,
    Layout,
)
from kspecpipe.configuration.schema import build
from kspecpipe.configuration.yaml_source import Node, nearest, read_yaml
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.frame import FrameInfo, Geometry, Orient
from kspecpipe.signal import FloatArray
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.wavelength.predict import Prediction, predict_grating, predict_linear

HeaderValues = Mapping[str, Any]
_MJD_EPOCH = dt.datetime(1858, 11, 17, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Instrument:
    """One spectrograph.

    Parameters
    ----------
    facts : InstrumentFacts
        The ``instrument:`` section of its file.
    recipes : Node
        The recipe sections of the same file.
    name : str
        Stem of the file; mode settings are looked up as ``<name>_<mode>.yaml``.
    node : Node
        The ``instrument:`` section as it was written.
    """

    facts: InstrumentFacts
    recipes: Node = field(default_factory=lambda: Node({}, "no settings"))
    name: str = ""
    node: Node = field(default_factory=lambda: Node({}, "no file"))

    @property
    def digest(self) -> str:
        """Checksum of the instrument section, for the content key."""
        return hashlib.md5(repr(self.node.plain).encode(), usedforsecurity=False).hexdigest()

    def recognises(self, header: HeaderValues) -> bool:
        """Return whether a raw header is of this instrument."""
        patterns = self.facts.recognise
        return bool(patterns) and all(
            card in header and pattern.search(str(header[card]))
            for card, pattern in patterns.items()
        )

    def describe(self, header: HeaderValues, path: Path) -> FrameInfo:
        """Describe a raw frame by its header and file name.

        Raises
        ------
        InputError
            If a keyword is missing or cannot be understood.
        """
        keywords = {
            name: _keyword(name, rule, header) for name, rule in self.facts.keywords.items()
        }
        tag, groups = self._classify(keywords, header, path)
        keywords.update(groups)
        date = _date(keywords.get("date_obs"))
        return FrameInfo(
            name=path.name,
            tag=tag,
            mode=_expand(self.facts.mode, keywords, "mode"),
            readmode=_readmode(_expand(self.facts.readmode, keywords, "readmode")),
            date_obs=date.isoformat(timespec="milliseconds").removesuffix("+00:00"),
            mjd=(date - _MJD_EPOCH).total_seconds() / 86400.0,
            exptime=_exptime(keywords.get("exptime")),
            keywords=keywords,
            flips=self._flips(header),
        )

    def geometry(self, raw_shape: tuple[int, int], info: FrameInfo) -> Geometry:
        """Return how a raw frame of a shape becomes a normalised one.

        Raises
        ------
        InputError
            If the instrument has no layout for the shape.
        """
        layouts = {key.replace(" ", ""): v for key, v in self.facts.detector.layouts.items()}
        name = f"{raw_shape[0]}x{raw_shape[1]}"
        whole = Layout(amplifiers=[Amplifier(data=(0, raw_shape[0], 0, raw_shape[1]))])
        if layouts and name not in layouts:
            raise InputError(
                f"{info.name}: no detector layout for a frame of {name} pixels; "
                f"{self.facts.name} has {', '.join(layouts)}"
            )
        layout = layouts.get(name, whole)
        axis = self.facts.orientation.dispersion_axis
        return Geometry.of(layout, Orient(axis == "y", *info.flips))

    def readout(self, geometry: Geometry, info: FrameInfo) -> ReadOut:
        """Return gain, read noise and saturation of a frame.

        Raises
        ------
        InputError
            If gain or noise of the read-out mode is not known.
        """
        detector = self.facts.detector
        pairs = [self._gain_and_noise(amplifier, info) for amplifier in geometry.amplifiers]
        gain, noise = (geometry.paint([pair[i] for pair in pairs]) for i in (0, 1))
        along = detector.charge_transfer == self.facts.orientation.dispersion_axis
        return ReadOut(
            gain=gain,
            ron=noise,
            saturation=detector.saturation,
            prnu=detector.prnu,
            bleed_axis=1 if along else 0,
        )

    def fibre_layout(self, info: FrameInfo, shape: tuple[int, int]) -> FibreLayout:
        """Return the nominal rows of the fibres in the normalised frame of ``shape``."""
        del info, shape  # the same for all frames of an instrument today
        fibres = self.facts.fibres
        return FibreLayout(
            rows=self.fibre_rows,
            tolerance=fibres.tolerance,
            rows_without_light=tuple(fibres.rows_without_light),
        )

    def assignment_name(self, keywords: Mapping[str, Any]) -> str:
        """Return the name of the file that says what each fibre looks at; empty if unknown."""
        return _expand(self.facts.assignment.file, keywords, "assignment.file")

    @property
    def fibre_rows(self) -> FloatArray:
        """Nominal row of every fibre, rising."""
        fibres = self.facts.fibres
        blocks = [b.first_row + b.pitch * np.arange(b.count) for b in fibres.blocks]
        rows = np.concatenate(blocks) if blocks else np.array(fibres.rows, dtype=float)
        return np.sort(rows)

    @property
    def fibre_ids(self) -> list[int]:
        """FIBRE_ID of the fibres in trace order (rising row)."""
        numbers = range(1, self.facts.fibres.number + 1)
        return list(numbers if self.facts.fibres.id_order == "rising_y" else reversed(numbers))

    def prediction(self, info: FrameInfo, nx: int) -> Prediction:
        """Return the nominal wavelength of every column.

        Raises
        ------
        InputError
            If the header lacks what the prediction needs.
        SettingsError
            If the instrument has no ``wavelength`` section.
        """
        facts = self.facts.wavelength
        if facts is None:
            raise SettingsError(f"the instrument {self.facts.name} has no `wavelength` section")
        limits = {"scale_range": facts.scale_range, "shift_range": facts.shift_range}
        if facts.model == "linear":
            centre = _number(facts.centre, info, "wavelength.centre")
            step = _number(facts.step, info, "wavelength.step")
            return predict_linear(centre=centre, step=step, nx=nx, **limits)  # type: ignore[arg-type]
        return predict_grating(
            lines=_number("lines", info, "lines"),
            centre=10.0 * _number("centre", info, "centre"),
            nx=nx,
            focal_length=_number(facts.focal_length, info, "wavelength.focal_length"),
            pixel=_number(facts.pixel, info, "wavelength.pixel"),
            dispersion=_number(facts.dispersion, info, "wavelength.dispersion"),
            dispersion_lines=_number(facts.dispersion_lines, info, "wavelength.dispersion_lines"),
            **limits,  # type: ignore[arg-type]
        )

    def species(self, lamp: str | None) -> tuple[str, ...]:
        """Return the species of a named lamp, or of the default lamps.

        Raises
        ------
        InputError
            If the lamp is not known.
        """
        lamps = self.facts.lamps
        by_name = {name.casefold(): species for name, species in lamps.by_name.items()}
        if not lamp:
            return tuple(lamps.default)
        if lamp.casefold() not in by_name:
            raise InputError(f"unknown lamp {lamp!r}; {nearest(lamp, lamps.by_name)}")
        return tuple(by_name[lamp.casefold()])

    def _classify(
        self, keywords: Mapping[str, Any], header: HeaderValues, path: Path
    ) -> tuple[str | None, dict[str, str]]:
        stem = _stem(path)
        for rule in self.facts.classify:
            groups: dict[str, str] = {}
            texts = [(rule.file, stem)] if rule.file else []
            for card, pattern in rule.keywords.items():
                value = keywords.get(card)
                value = header.get(card) if value is None else value
                texts.append((pattern, "" if value is None else str(value)))
            matches = [pattern.fullmatch(text.strip()) for pattern, text in texts]
            if not all(matches) or not matches:
                continue
            for match in matches:
                groups |= match.groupdict() if match else {}
            return rule.tag, {name: value for name, value in groups.items() if value}
        return None, {}

    def _flips(self, header: HeaderValues) -> tuple[bool, bool]:
        rule = self.facts.orientation.flip
        texts = [str(header.get(card, "")) for card in rule.cards]
        return _flip(rule, rule.x, texts), _flip(rule, rule.y, texts)

    def _gain_and_noise(self, amplifier: Amplifier, info: FrameInfo) -> tuple[float, float]:
        detector, table = self.facts.detector, self.facts.detector.readout
        gain = amplifier.gain if amplifier.gain is not None else detector.gain
        noise = amplifier.noise if amplifier.noise is not None else detector.noise
        if gain is not None and noise is not None:
            return gain, noise
        found = [info.keywords.get(name) for name in table.by]
        for *values, row_gain, row_noise in table.table:
            if len(values) == len(found) and all(map(_same, values, found)):
                return float(row_gain), float(row_noise)
        raise InputError(
            f"{info.name}: gain and read noise of the read-out mode {info.readmode!r} are not "
            "measured; give them in a settings file as `instrument: {detector: {gain: ..., "
            "noise: ...}}`"
        )


def load_instrument(name_or_path: str) -> Instrument:
    """Load a shipped instrument by name, or one from a file.

    Raises
    ------
    SettingsError
        If there is no such instrument, or its file is wrong.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return instrument_from_file(read_yaml(path), path.stem, path.name)
    known = shipped_instruments()
    folded = {name.casefold(): name for name in known}
    if name_or_path.casefold() not in folded:
        raise SettingsError(f"unknown instrument {name_or_path!r}; {nearest(name_or_path, known)}")
    return known[folded[name_or_path.casefold()]]


def shipped_instruments() -> dict[str, Instrument]:
    """Return the instruments in ``settings/`` by the stem of their file."""
    found = {}
    for entry in sorted(Path(str(files("kspecpipe.settings"))).glob("*.yaml")):
        node = read_yaml(entry, trusted=True)
        if "instrument" in node.mapping("the settings file"):
            found[entry.stem] = instrument_from_file(node, entry.stem, entry.name)
    return found


def instrument_from_file(node: Node, name: str, source: str) -> Instrument:
    """Build an instrument from the nodes of its whole file."""
    sections = dict(node.mapping("the instrument file"))
    if "instrument" not in sections:
        raise SettingsError(f"{source}: lacks the section `instrument`")
    section = sections.pop("instrument")
    return instrument_from(section, name, Node(sections, node.place))


def instrument_from(section: Node, name: str, recipes: Node) -> Instrument:
    """Build an instrument from its ``instrument:`` section and check what a schema cannot."""
    facts = build(InstrumentFacts, section, "instrument")
    instrument = Instrument(facts, recipes, name, section)
    problems = list(inconsistencies(facts, list(instrument.fibre_rows), section))
    if problems:
        raise SettingsError("\n".join(problems))
    return instrument


def _stem(path: Path) -> str:
    name = re.sub(r"\.(gz|fz|bz2)$", "", path.name, flags=re.IGNORECASE)
    return re.sub(r"\.(fits?|fts)$", "", name, flags=re.IGNORECASE)


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, str) or isinstance(found, str):
        return str(expected).casefold() == str(found).strip().casefold()
    return found is not None and abs(float(expected) - float(found)) < 1e-6


def _flip(rule: FlipRule, word: bool | str, texts: list[str]) -> bool:
    if isinstance(word, bool):
        return word
    count = sum(word.casefold() in text.casefold() for text in texts)
    if rule.rule == "any":
        return count > 0
    return count % 2 == (0 if rule.rule == "even" else 1)


def _keyword(name: str, rule: KeywordRule, header: HeaderValues) -> Any:
    card = next((card for card in rule.cards if card in header), None)
    if card is None:
        if rule.optional or rule.default is not None:
            return rule.default
        raise InputError(f"the header lacks {' and '.join(rule.cards)} (needed for {name!r})")
    text = str(header[card]).strip()
    if rule.match:
        match = rule.match.search(text)
        if not match:
            raise InputError(
                f"{card} = {text!r} does not match {rule.match.pattern!r} (needed for {name!r})"
            )
        text = match[1] if match.groups() else match[0]
    if rule.kind == "str":
        return text
    try:
        number = float(text) * rule.scale
    except ValueError:
        raise InputError(f"{card} = {text!r} is not a number (needed for {name!r})") from None
    if not np.isfinite(number):
        raise InputError(f"{card} = {text!r} is not finite (needed for {name!r})")
    return round(number) if rule.kind == "int" else number


class _Template(string.Formatter):
    """Formats numbers without a format as short as possible: 2.0 as 2."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, float) and not format_spec:
            format_spec = "g"
        return str(super().format_field(value, format_spec))


def _expand(template: str, keywords: Mapping[str, Any], what: str) -> str:
    present = {name: value for name, value in keywords.items() if value is not None}
    try:
        return _Template().vformat(template, (), present)
    except (KeyError, ValueError, TypeError):
        fields = [part[1] for part in string.Formatter().parse(template) if part[1]]
        if all(name in present for name in fields):
            raise InputError(f"the header values do not fit the {what} {template!r}") from None
        return ""  # a bias need not know a grating; the recipe asks for a mode when it needs one


def _readmode(text: str) -> str:
    """Write frequencies below 1 MHz in kHz: 0.1mhz becomes 100khz."""

    def in_khz(match: re.Match[str]) -> str:
        value = float(match[1])
        return f"{1000 * value:g}khz" if value < 1 else match[0]

    return re.sub(r"(\d*\.?\d+)mhz", in_khz, text.lower())


def _date(text: Any) -> dt.datetime:
    try:
        date = dt.datetime.fromisoformat(str(text).strip())
        return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise InputError(f"the observing date {text!r} is not an ISO date and time") from None


def _exptime(value: Any) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise InputError(f"the exposure time {value!r} is not a number >= 0")
    if value != 0 and not 1e-6 <= value <= 1e8:
        raise InputError(f"the exposure time of {value:g} s is neither 0 nor within 1e-6 to 1e8 s")
    return float(value)


def _number(value: float | str | None, info: FrameInfo, what: str) -> float:
    found = info.keywords.get(value) if isinstance(value, str) else value
    if not isinstance(found, int | float):
        raise InputError(f"{info.name}: {what} is not known ({found!r}); it is needed here")
    return float(found)
