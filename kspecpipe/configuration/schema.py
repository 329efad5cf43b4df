"""Typed settings: one dataclass is schema, documentation and validator of a YAML mapping."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from kspecpipe.configuration.yaml_source import Node, nearest
from kspecpipe.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """What a single value must be: unit, limits, and one line of documentation."""

    doc: str = ""
    unit: str = ""
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def check(self, value: Any) -> str | None:
        """Return what is wrong with a value, or with a value of a list; None if all is well."""
        if isinstance(value, list | tuple):
            return next(filter(None, map(self.check, value)), None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value):
            return f"{value} is not finite"
        if self.above is not None and value <= self.above:
            return f"{value} is not above {self.above}"
        if self.at_least is not None and value < self.at_least:
            return f"{value} is below {self.at_least}"
        if self.at_most is not None and value > self.at_most:
            return f"{value} is above {self.at_most}"
        return None

    @property
    def range(self) -> str:
        """The limits in words, for documentation."""
        lower = f"> {self.above:g}" if self.above is not None else ""
        lower = f">= {self.at_least:g}" if self.at_least is not None else lower
        upper = f"<= {self.at_most:g}" if self.at_most is not None else ""
        return ", ".join(part for part in (lower, upper) if part)


def key(default: Any = dataclasses.MISSING, **rule: Any) -> Any:
    """Declare one key of a YAML mapping: its default (none: required), unit, limits and doc."""
    metadata = {"rule": Rule(**rule)}
    if isinstance(default, list | dict):
        kind = type(default)
        return dataclasses.field(default_factory=lambda: kind(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def build(schema: type[T], node: Node, what: str) -> T:
    """Build a dataclass from a YAML mapping.

    Parameters
    ----------
    schema : dataclass type
        Its fields are declared with `key`; nested dataclasses, lists, dictionaries, unions and
        literals are followed. A trailing underscore keeps a key such as ``from`` legal in Python.
    node : Node
        The mapping.
    what : str
        What the mapping is, for messages.

    Raises
    ------
    SettingsError
        With every unknown or missing key, wrong type and value out of range, one a line, each with
        file, line and the nearest spelling.
    """
    items = node.mapping(what)
    fields = yaml_keys(schema)
    hints = typing.get_type_hints(schema)
    values, problems = {}, []
    for name, child in items.items():
        if name not in fields:
            problems.append(
                f"{child.place}: unknown key {name!r} in {what}; {nearest(name, fields)}"
            )
            continue
        own = fields[name]
        with noting(problems):
            values[own.name] = convert(
                hints[own.name], child, f"{what}.{name}", own.metadata.get("rule")
            )
    problems += [
        f"{node.place}: {what} lacks the key {name!r}"
        for name, field in fields.items()
        if name not in items and _required(field)
    ]
    raise_all(problems)
    return schema(**values)


def yaml_keys(schema: Any) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a schema by the key under which they stand in YAML."""
    return {field.name.rstrip("_"): field for field in dataclasses.fields(schema)}


def convert(kind: Any, node: Node, what: str, rule: Rule | None = None) -> Any:
    """Convert a node to a type; raises `SettingsError` naming the place when it does not fit."""
    value = _convert(kind, node, what)
    problem = rule.check(value) if rule else None
    if problem:
        raise SettingsError(f"{node.place}: {what}: {problem}")
    return value


def describe_type(kind: Any) -> str:
    """Name a type as a user would write its values."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(member) for member in get_args(kind))
    if origin is Literal:
        return " | ".join(str(choice) for choice in get_args(kind))
    if origin in (list, tuple):
        members = [member for member in get_args(kind) if member is not Ellipsis]
        return "list of " + ", ".join(describe_type(member) for member in members)
    if origin in (dict, Mapping):
        return f"mapping of {describe_type(get_args(kind)[1])}"
    if (origin or kind) is re.Pattern:
        return "regular expression"
    names = {type(None): "nothing", bool: "true or false", int: "integer", float: "number"}
    return names.get(kind, "text" if kind is str else getattr(kind, "__name__", str(kind)))


@contextmanager
def noting(problems: list[str]) -> Iterator[None]:
    """Note a settings error and go on, so that a user hears of all of them."""
    try:
        yield
    except SettingsError as error:
        problems.append(str(error))


def raise_all(problems: list[str]) -> None:
    """Raise the settings errors that were noted as one, if there are any."""
    if problems:
        raise SettingsError("\n".join(problems))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(kind: Any, node: Node, what: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return node.plain
    if origin in (Union, types.UnionType):
        return _convert_union(kind, node, what)
    if origin is Literal:
        return _convert_choice(kind, node, what)
    if origin in (list, tuple):
        return _convert_sequence(kind, node, what)
    if origin in (dict, Mapping):
        return _convert_mapping(get_args(kind)[1], node, what)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast("type[Any]", kind), node, what)
    return _convert_scalar(kind, node, what)


def _convert_mapping(member: Any, node: Node, what: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, child in node.mapping(what).items():
        with noting(problems):
            values[name] = _convert(member, child, f"{what}.{name}")
    raise_all(problems)
    return values


def _convert_union(kind: Any, node: Node, what: str) -> Any:
    members = get_args(kind)
    if node.value is None and type(None) in members:
        return None
    others = [m for m in members if m is not type(None)]
    nested = [m for m in others if dataclasses.is_dataclass(m) and isinstance(node.value, dict)]
    # The message of a nested mapping or pattern is the helpful one.
    if nested or (len(others) == 1 and get_origin(others[0]) is re.Pattern):
        return _convert((nested or others)[0], node, what)
    for member in members:
        try:
            return _convert(member, node, what)
        except SettingsError:
            continue
    raise _mismatch(kind, node, what)


def _convert_choice(kind: Any, node: Node, what: str) -> Any:
    choices = get_args(kind)
    if node.value not in choices:
        raise SettingsError(
            f"{node.place}: {what} must be one of {', '.join(map(str, choices))}, "
            f"found {node.plain!r}; {nearest(str(node.plain), map(str, choices))}"
        )
    return node.value


def _convert_sequence(kind: Any, node: Node, what: str) -> Any:
    if not isinstance(node.value, list):
        raise _mismatch(kind, node, what)
    origin, members = get_origin(kind), get_args(kind)
    if origin is tuple and Ellipsis not in members:
        if len(node.value) != len(members):
            raise SettingsError(
                f"{node.place}: {what} needs {len(members)} values, found {len(node.value)}"
            )
        pairs = zip(members, node.value, strict=True)
    else:
        pairs = zip([members[0]] * len(node.value), node.value, strict=True)
    values: list[Any] = []
    problems: list[str] = []
    for i, (member, child) in enumerate(pairs):
        with noting(problems):
            values.append(_convert(member, child, f"{what}[{i}]"))
    raise_all(problems)
    return tuple(values) if origin is tuple else values


def _convert_scalar(kind: Any, node: Node, what: str) -> Any:
    value = node.value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (get_origin(kind) or kind) is re.Pattern:
        return _convert_pattern(node, what)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _mismatch(kind, node, what)
    return value


def _convert_pattern(node: Node, what: str) -> re.Pattern[str]:
    try:
        return re.compile(str(node.value), re.IGNORECASE)
    except re.error as error:
        raise SettingsError(
            f"{node.place}: {what}: {node.plain!r} is not a regular expression: {error}"
        ) from None


def _mismatch(kind: Any, node: Node, what: str) -> SettingsError:
    found = node.plain
    quoted = " (in quotes if it is text)" if isinstance(found, bool) else ""
    return SettingsError(
        f"{node.place}: {what} must be {describe_type(kind)}, found {found!r}{quoted}"
    )
