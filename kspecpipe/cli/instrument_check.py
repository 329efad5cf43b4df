"""Check an instrument file: what its loader says, and what only a second look shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kspecpipe import ancillary
from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.shipped import mode_files
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.configuration.instrument_rules import place_of
from kspecpipe.configuration.yaml_source import Node, nearest, read_yaml
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.framework.registry import recipe_names
from kspecpipe.instrument import Instrument, instrument_from_file, shipped_instruments

_TYPES = ("P", "S", "C", "U", "N")


@dataclass
class Findings:
    """What was found in an instrument file."""

    instrument: Instrument | None = None
    folder: Path | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine_instrument(name_or_path: str) -> Findings:
    """Check an instrument file and the mode settings beside it.

    Raises
    ------
    SettingsError
        If the file cannot be read as YAML, or there is no such instrument.
    """
    path = _file_of(name_or_path)
    root = read_yaml(path)
    found = Findings(folder=path.parent)
    sections = dict(root.mapping("the instrument file"))
    section = sections.pop("instrument", None)
    try:
        found.instrument = instrument_from_file(root, path.stem, path.name)
    except SettingsError as error:
        found.problems += str(error).splitlines()
    if found.instrument and section:
        found.problems += _inconsistencies(found.instrument, section)
        found.warnings += _doubts(found.instrument)
    found.problems += _problems_of_settings(sections, path.name)
    for beside in mode_files(path.stem, path.parent):
        found.problems += _problems_of_mode_file(beside)
    return found


def _problems_of_settings(sections: dict[str, Node], name: str) -> Iterator[str]:
    """Check the sections named after recipes."""
    known = recipe_names()
    for recipe, node in sections.items():
        if recipe not in known:
            yield f"{node.place}: unknown recipe {recipe!r}; {nearest(recipe, known)}"
            continue
        try:
            described = find_recipe(recipe).describe()
            layered.resolve(described, [layered.Layer(name, {recipe: node})])
        except SettingsError as error:
            yield str(error)


def _problems_of_mode_file(path: Path) -> Iterator[str]:
    try:
        sections = read_yaml(path).mapping("the settings")
    except SettingsError as error:
        yield str(error)
        return
    yield from _problems_of_settings(dict(sections), path.name)


def _inconsistencies(instrument: Instrument, section: Node) -> Iterator[str]:
    """Yield what the loader lets pass: it may never matter to the recipes that are run."""
    facts = instrument.facts
    yield from _wavelength_problems(instrument, section)
    for fibre_class, kind in facts.assignment.type.items():
        if kind not in _TYPES:
            place = place_of(section, "assignment", "type", fibre_class)
            yield f"{place}: assignment.type: {kind!r} is none of {', '.join(_TYPES)}"
    try:
        ancillary.static_line_list(facts.lamps.line_list)
    except InputError as error:
        yield f"{place_of(section, 'lamps', 'line_list')}: lamps.line_list: {error}"


def _wavelength_problems(instrument: Instrument, section: Node) -> Iterator[str]:
    facts, wavelength = instrument.facts, instrument.facts.wavelength
    for name in ("centre", "step") if wavelength else ():
        value = getattr(wavelength, name)
        if isinstance(value, str) and value not in facts.keywords:
            place = place_of(section, "wavelength", name)
            hint = nearest(value, facts.keywords)
            yield f"{place}: wavelength.{name}: no keyword {value!r}; {hint}"
    if wavelength and wavelength.model == "grating":
        for name in {"lines", "centre"} - set(facts.keywords):
            place = place_of(section, "keywords")
            yield f"{place}: keywords lacks {name!r}, which the grating equation needs"


def _doubts(instrument: Instrument) -> Iterator[str]:
    """Yield what may be meant, but is worth a second look."""
    facts, rows = instrument.facts, instrument.fibre_rows
    if not facts.recognise:
        yield "no `recognise`: frames of this instrument must be named with --instrument"
    if not facts.classify:
        yield "no `classify`: every raw frame needs its tag in the SOF"
    for first, last in facts.fibres.rows_without_light:
        inside = rows[(rows >= first) & (rows < last)]
        if inside.size:
            yield f"rows_without_light [{first}, {last}] holds fibre rows: {inside[0]:g}..."
    gaps = np.diff(rows)
    if gaps.size and gaps.min() < 2:
        yield f"two fibres are only {gaps.min():g} pixel apart"
    detector = facts.detector
    if not detector.readout.table and detector.gain is None:
        amplifiers = [a for layout in detector.layouts.values() for a in layout.amplifiers]
        if not amplifiers or any(a.gain is None for a in amplifiers):
            yield "detector: no gain and noise; frames will be refused until settings give them"


def _file_of(name_or_path: str) -> Path:
    """Return the file of a shipped instrument or of the user's."""
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    from importlib.resources import files

    known = {name.casefold(): name for name in shipped_instruments()}
    if name_or_path.casefold() not in known:
        raise SettingsError(
            f"unknown instrument {name_or_path!r}; {nearest(name_or_path, known.values())}; "
            "a file of yours must end in .yaml"
        )
    return Path(str(files("kspecpipe.settings"))) / f"{known[name_or_path.casefold()]}.yaml"
