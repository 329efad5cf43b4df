"""What the values of an instrument file must keep to besides their types."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from typing import Any

from kspecpipe.configuration.instrument_schema import InstrumentFacts, Layout, Section
from kspecpipe.configuration.yaml_source import Node, nearest
from kspecpipe.errors import SettingsError
from kspecpipe.frame import Geometry, Orient
from kspecpipe.sof import RAW_TAGS

_EXAMPLES: dict[str, Any] = {"str": "text", "int": 1, "float": 1.5}
_NEEDED = {
    "grating": ("focal_length", "pixel", "dispersion", "dispersion_lines"),
    "linear": ("centre", "step"),
}


def inconsistencies(facts: InstrumentFacts, rows: Sequence[float], section: Node) -> Iterator[str]:
    """Yield every problem of the ``instrument`` section with its place.

    Parameters
    ----------
    facts : InstrumentFacts
        The section after its types were checked.
    rows : sequence of float
        Nominal row of every fibre.
    section : Node
        The same section as it was written.
    """
    if len(rows) != facts.fibres.number:
        yield (
            f"{place_of(section, 'fibres', 'number')}: fibres.number is {facts.fibres.number}, "
            f"but blocks or rows place {len(rows)} fibres"
        )
    for name in ("date_obs", "exptime"):
        if name not in facts.keywords:
            place = place_of(section, "keywords")
            yield f"{place}: keywords lacks {name!r}, which every frame needs"
    yield from _template_problems(facts, section)
    yield from _rule_problems(facts, section)
    for name, layout in facts.detector.layouts.items():
        place = place_of(section, "detector", "layouts", name)
        yield from _layout_problems(name, layout, place)
    yield from _readout_problems(facts, section)
    wavelength = facts.wavelength
    for name in _NEEDED[wavelength.model] if wavelength else ():
        if getattr(wavelength, name) is None:
            yield f"{place_of(section, 'wavelength')}: instrument.wavelength lacks {name!r}"


def place_of(node: Node, *path: str | int) -> str:
    """Return where a value stands, as deep as the file goes along the path."""
    for name in path:
        children: Any = node.value
        try:
            node = children[name]
        except (KeyError, IndexError, TypeError):
            break
    return node.place


def _template_problems(facts: InstrumentFacts, section: Node) -> Iterator[str]:
    """Try the templates of mode and read-out mode with values of the declared types."""
    values = {name: _EXAMPLES[rule.kind] for name, rule in facts.keywords.items()}
    for name in ("mode", "readmode"):
        template, place = getattr(facts, name), place_of(section, name)
        try:
            fields = [part[1] for part in string.Formatter().parse(template) if part[1] is not None]
            unknown = next((field for field in fields if field not in values), None)
            if unknown is not None:
                hint = nearest(unknown, values)
                yield f"{place}: {name}: the template {template!r} uses {unknown!r}; {hint}"
            else:
                string.Formatter().vformat(template, (), values)
        except ValueError as error:
            yield f"{place}: {name}: the template {template!r} cannot be filled: {error}"


def _rule_problems(facts: InstrumentFacts, section: Node) -> Iterator[str]:
    for i, rule in enumerate(facts.classify):
        place = place_of(section, "classify", i)
        if rule.tag not in RAW_TAGS:
            yield f"{place}: classify: unknown tag {rule.tag!r}; {nearest(rule.tag, RAW_TAGS)}"
        if rule.file is None and not rule.keywords:
            yield f"{place}: classify: the rule for {rule.tag} has neither `file` nor `keywords`"


def _readout_problems(facts: InstrumentFacts, section: Node) -> Iterator[str]:
    table = facts.detector.readout
    for name in table.by:
        if name not in facts.keywords:
            place = place_of(section, "detector", "readout", "by")
            yield f"{place}: detector.readout.by: no keyword {name!r}; " + nearest(
                name, facts.keywords
            )
    for i, row in enumerate(table.table):
        place = f"{place_of(section, 'detector', 'readout', 'table', i)}: detector.readout.table"
        if len(row) != len(table.by) + 2:
            names = ", ".join([*table.by, "gain", "noise"])
            yield f"{place}: {len(row)} values found, {len(table.by) + 2} expected ({names})"
            continue
        for name, value in zip(("gain", "noise"), row[-2:], strict=True):
            if isinstance(value, str) or not 0 < value < float("inf"):
                yield f"{place}: the {name} must be a number above 0, found {value!r}"


def _layout_problems(name: str, layout: Layout, place: str) -> Iterator[str]:
    place = f"{place}: detector.layouts.{name}"
    match = re.fullmatch(r"(\d+) ?x ?(\d+)", name)
    if not match:
        yield f"{place}: {name!r} is not of the form 'ny x nx'"
        return
    ny, nx = int(match[1]), int(match[2])
    read = [s for a in layout.amplifiers for s in (a.data, a.overscan) if s]
    outside = [s for s in read + layout.bad if not _inside(s, ny, nx)]
    for section in outside:
        yield f"{place}: the section {list(section)} is not inside {ny} rows and {nx} columns"
    for i, section in enumerate(read):
        for other in read[:i]:
            if _overlap(section, other):
                yield f"{place}: the data or overscan {list(section)} overlaps {list(other)}"
    for amplifier in layout.amplifiers:
        data, overscan = amplifier.data, amplifier.overscan
        if overscan and data[:2] != overscan[:2] and data[2:] != overscan[2:]:
            yield (
                f"{place}: the overscan {list(overscan)} spans neither the same rows nor the same "
                f"columns as its data {list(data)}"
            )
    if not outside:
        try:
            Geometry.of(layout, Orient(False, False, False), place)
        except SettingsError as error:
            yield str(error)


def _inside(section: Section, ny: int, nx: int) -> bool:
    y0, y1, x0, x1 = section
    return 0 <= y0 < y1 <= ny and 0 <= x0 < x1 <= nx


def _overlap(a: Section, b: Section) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1]) and max(a[2], b[2]) < min(a[3], b[3])
