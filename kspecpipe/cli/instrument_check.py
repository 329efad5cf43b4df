"""Check an instrument file: what its loader says, and what only a second look shows."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kspecpipe import ancillary
from kspecpipe import layered_settings as layered
from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.shipped import mode_files
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.instrument import Instrument, instrument_from_file, shipped_instruments
from kspecpipe.registry import recipe_names
from kspecpipe.sof import RAW_TAGS
from kspecpipe.yaml_source import Node, nearest, read_yaml

_TYPES = ("P", "S", "C", "U", "N")
_EXAMPLES: dict[str, Any] = {"str": "text", "int": 1, "float": 1.5}


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
    """Yield what each value by itself does not show, and what the loader lets pass."""
    facts = instrument.facts
    for i, rule in enumerate(facts.classify):
        place = _place(section, "classify", i)
        if rule.tag not in RAW_TAGS:
            yield f"{place}: classify: unknown tag {rule.tag!r}; {nearest(rule.tag, RAW_TAGS)}"
        if rule.file is None and not rule.keywords:
            yield f"{place}: classify: the rule for {rule.tag} has neither `file` nor `keywords`"
    yield from _readout_problems(instrument, section)
    yield from _template_problems(instrument, section)
    yield from _wavelength_problems(instrument, section)
    for fibre_class, kind in facts.assignment.type.items():
        if kind not in _TYPES:
            place = _place(section, "assignment", "type", fibre_class)
            yield f"{place}: assignment.type: {kind!r} is none of {', '.join(_TYPES)}"
    try:
        ancillary.static_line_list(facts.lamps.line_list)
    except InputError as error:
        yield f"{_place(section, 'lamps', 'line_list')}: lamps.line_list: {error}"


def _wavelength_problems(instrument: Instrument, section: Node) -> Iterator[str]:
    facts, wavelength = instrument.facts, instrument.facts.wavelength
    for name in ("centre", "step") if wavelength else ():
        value = getattr(wavelength, name)
        if isinstance(value, str) and value not in facts.keywords:
            place = _place(section, "wavelength", name)
            yield f"{place}: wavelength.{name}: {nearest_keyword(value, instrument)}"
    if wavelength and wavelength.model == "grating":
        for name in {"lines", "centre"} - set(facts.keywords):
            place = _place(section, "keywords")
            yield f"{place}: keywords lacks {name!r}, which the grating equation needs"


def _readout_problems(instrument: Instrument, section: Node) -> Iterator[str]:
    table = instrument.facts.detector.readout
    for name in table.by:
        if name not in instrument.facts.keywords:
            place = _place(section, "detector", "readout", "by")
            yield f"{place}: detector.readout.by: {nearest_keyword(name, instrument)}"
    for i, row in enumerate(table.table):
        if len(row) != len(table.by) + 2:
            place = _place(section, "detector", "readout", "table", i)
            yield (
                f"{place}: detector.readout.table: {len(row)} values found, {len(table.by) + 2} "
                f"expected ({', '.join([*table.by, 'gain', 'noise'])})"
            )


def _template_problems(instrument: Instrument, section: Node) -> Iterator[str]:
    """Try the templates of mode and readmode with values of the declared types."""
    keywords = instrument.facts.keywords
    values = {name: _EXAMPLES[rule.kind] for name, rule in keywords.items()}
    for name in ("mode", "readmode"):
        template = getattr(instrument.facts, name)
        try:
            string.Formatter().vformat(template, (), values)
        except (ValueError, KeyError, IndexError) as error:
            yield f"{_place(section, name)}: {name}: {template!r} cannot be filled: {error}"


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


def nearest_keyword(name: str, instrument: Instrument) -> str:
    """Say that a keyword is unknown and which one may be meant."""
    return f"no keyword {name!r}; {nearest(name, instrument.facts.keywords)}"


def _place(node: Node, *path: str | int) -> str:
    """Return where a value stands, as deep as the file goes along the path."""
    for name in path:
        children: Any = node.value
        try:
            node = children[name]
        except (KeyError, IndexError, TypeError):
            break
    return node.place


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
