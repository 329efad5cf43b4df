"""Reference pages that belong to no single recipe: the instrument file and the products."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import kspecpipe.products.images
import kspecpipe.spectra  # noqa: F401 - registers its products
from kspecpipe.cli.document import Block, Document, Heading, Paragraph, Table
from kspecpipe.configuration import instrument_schema
from kspecpipe.configuration.schema import Rule, describe_type, yaml_keys
from kspecpipe.products.product import HduSpec, Product, squared_unit
from kspecpipe.signal import DQ, UNUSABLE

_BITS = {
    DQ.BAD: "bad pixel",
    DQ.HOT: "hot pixel",
    DQ.UNSTABLE: "unstable pixel",
    DQ.SATURATED: "saturated",
    DQ.BLEED: "bleeding of a saturated pixel",
    DQ.COSMIC: "cosmic ray",
    DQ.NO_DATA: "no data",
    DQ.EXTRAPOLATED: "extrapolated calibration",
    DQ.LOW_THROUGHPUT: "low throughput",
    DQ.TELLURIC: "telluric absorption",
}


def instrument_page() -> Document:
    """Return the reference of the instrument file, from its schema."""
    blocks: list[Block] = [
        Paragraph(
            "An instrument is one YAML file. Its section ``instrument`` has the keys below; "
            "further sections, named after recipes, hold settings. ``kspec check --instrument "
            "FILE`` validates a file."
        ),
        Paragraph(" ".join((instrument_schema.__doc__ or "").split("\n\n", 1)[1].split())),
    ]
    for path, schema in sections(instrument_schema.InstrumentFacts, "instrument"):
        text = (inspect.getdoc(schema) or "").split("\n\n")[0]
        blocks += [Heading(path), Paragraph(text.replace("\n", " ")), key_table(schema)]
    return Document("The instrument file", blocks)


def sections(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each mapping of a schema with the path under which it stands."""
    yield path, schema
    hints = typing.get_type_hints(schema)
    for name, field in yaml_keys(schema).items():
        nested, suffix = nested_schema(hints[field.name])
        if nested is not None:
            yield from sections(nested, f"{path}.{name}{suffix}")


def nested_schema(kind: Any) -> tuple[Any, str]:
    """Return the dataclass inside a type and how its place in the file is written, or None."""
    if dataclasses.is_dataclass(kind):
        return kind, ""
    suffix = {list: "[]", dict: ".NAME"}.get(typing.get_origin(kind), "")
    for member in typing.get_args(kind):
        nested, below = nested_schema(member)
        if nested is not None:
            return nested, suffix + below
    return None, ""


def key_table(schema: Any) -> Table:
    """Return the table of the keys of one mapping."""
    hints = typing.get_type_hints(schema)
    rows = []
    for name, field in yaml_keys(schema).items():
        rule: Rule = field.metadata.get("rule", Rule())
        kind = describe_kind(hints[field.name])
        rows.append((name, _default(field), rule.unit, kind, rule.range, rule.doc))
    return Table(("key", "default", "unit", "type", "range", "meaning"), rows)


def describe_kind(kind: Any) -> str:
    """Name a type as it is written in YAML."""
    nested, suffix = nested_schema(kind)
    if nested is not None:
        keys = f"mapping of {', '.join(yaml_keys(nested))}"
        return {"": keys, "[]": "list of mappings"}.get(suffix, "mapping of mappings")
    words = {"Pattern": "pattern", " , ": ", ", "nothing": "null"}
    text = describe_type(kind)
    for word, plain in words.items():
        text = text.replace(word, plain)
    return text


def describe_default(value: Any) -> str:
    """Write a value as it stands in YAML."""
    if value is None:
        return "null"
    if dataclasses.is_dataclass(value):
        return "as below"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe_default, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value) or "empty"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return describe_default(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    return "required"


def product_page() -> Document:
    """Return the reference of all products, from their dataclasses."""
    blocks: list[Block] = [
        Paragraph(
            "Every product is a FITS file: PRIMARY holds the signal, VARIANCE its variance and DQ "
            "its data-quality bits; QC and SETTINGS are tables. A sample is NaN exactly where "
            "nothing usable is left. Wavelengths are in air, in Angstrom; rows of spectra are "
            "fibres in trace order."
        )
    ]
    for catg, cls in Product.known.items():
        rows = [row for part in cls.hdus().values() for row in hdu_rows(part)]
        text = (inspect.getdoc(cls) or "").split("\n\n")[0]
        blocks += [Heading(catg), Paragraph(text)]
        blocks.append(Table(("HDU", "unit", "type", "content"), rows))
    blocks += [Heading("Data-quality bits"), _bit_table()]
    return Document("Products", blocks)


def _bit_table() -> Table:
    rows = [
        (str(int(bit)), _BITS.get(bit, str(bit.name)), "yes" if bit & UNUSABLE else "no")
        for bit in DQ
    ]
    return Table(("bit", "meaning", "sample is lost"), rows)


def hdu_rows(spec: HduSpec) -> list[tuple[str, str, str, str]]:
    """Return the table rows of one part of a product."""
    optional = " (not always present)" if spec.optional else ""
    if spec.kind == "cards":
        place = f"{spec.hdu.replace(',', ', ')} (header)"
        return [(place, "", "cards", f"{spec.doc}: {', '.join(spec.keys)}")]
    if spec.kind == "table":
        return [(spec.hdu, "", "table", spec.doc + optional)]
    kind = {"f4": "float32", "f8": "float64", "u2": "uint16"}.get(spec.dtype, spec.dtype)
    rows = [(spec.hdu, spec.unit, kind, spec.doc + optional)]
    if spec.kind == "signal":
        rows.append(("VARIANCE", squared_unit(spec.unit), kind, "variance of the values"))
        rows.append(("DQ", "", "uint16", "data-quality bits"))
    return rows
