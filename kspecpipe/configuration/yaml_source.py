"""YAML that remembers where each value stands, and bends no string.

The resolver follows the YAML 1.2 core schema: ``NO``, ``150_620`` and ``1:30`` stay strings and
``1e-3`` is a number. Nothing but plain scalars, lists and mappings with string keys is accepted, so
that a settings file can never run code.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kspecpipe.errors import SettingsError

Scalar = str | int | float | bool | None


class _CoreLoader(yaml.SafeLoader):
    """Safe loader with the scalar rules of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, ten times faster; values nested too deeply would be its end."""

    yaml_implicit_resolvers = _CoreLoader.yaml_implicit_resolvers


_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^[-+]?[0-9]+$"), list("-+0123456789")
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_MOST_VALUES = 100_000  # aliases of aliases could unfold to any number


@dataclass(frozen=True)
class Node:
    """A YAML value with the place where it was written.

    Parameters
    ----------
    value : scalar, list of Node or dict of str to Node
        The content.
    place : str
        ``file, line n``, or the option it came from.
    """

    value: Scalar | list[Node] | dict[str, Node]
    place: str

    @property
    def plain(self) -> Any:
        """The value with all nodes below it unwrapped."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value

    def mapping(self, what: str) -> dict[str, Node]:
        """Return the content as a mapping or say that it is none."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise SettingsError(f"{self.place}: {what} must be a mapping, found {self.plain!r}")
        return self.value


def load_yaml(text: str, name: str, *, trusted: bool = False) -> Node:
    """Parse YAML text into nodes.

    Parameters
    ----------
    text : str
        The text.
    name : str
        What to call it in messages, usually the file name.
    trusted : bool
        Whether the text is our own, so that a fast parser can be used which hostile text can kill.

    Raises
    ------
    SettingsError
        If the text is not valid YAML, holds a tag such as ``!!python``, an anchor loop, too many
        values, a key that is not a string or a key twice.
    """
    try:
        root = yaml.compose(text, Loader=_FastLoader if trusted else _CoreLoader)
        return Node({}, f"{name}, line 1") if root is None else _Converter(name).convert(root, ())
    except RecursionError:
        raise SettingsError(f"{name}: the values are nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise SettingsError(f"{place}: not valid YAML: {problem}") from None


def read_yaml(path: Path, *, trusted: bool = False) -> Node:
    """Read a YAML file into nodes; raises `SettingsError` when it cannot be read.

    ``trusted`` files are those of the package, see `load_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{path}: cannot be read as text: {reason}") from None
    return load_yaml(text, path.name, trusted=trusted)


def parse_scalar(text: str, place: str) -> Node:
    """Parse the value of a ``key=value`` option by the rules of the settings files."""
    return Node(load_yaml(text, place).value if text.strip() else "", place)


def merge_nodes(below: Node, above: Node) -> Node:
    """Lay one mapping over another; inner mappings are merged, all else is replaced."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for name, node in above.value.items():
        merged[name] = merge_nodes(merged[name], node) if name in merged else node
    return Node(merged, below.place)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a `did you mean` clause for a misspelt word, or the list of what is known."""
    names = sorted(known)
    by_folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_folded[close[0]]!r}?"
    return f"known: {', '.join(names) or 'none'}"


class _Converter:
    """Turns the nodes of a YAML parser into ours."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def convert(self, node: yaml.Node, above: tuple[int, ...]) -> Node:
        """Convert a node; ``above`` identifies the nodes that it is part of."""
        place = self._place(node)
        self.count += 1
        if self.count > _MOST_VALUES:
            raise SettingsError(f"{place}: more than {_MOST_VALUES} values")
        if id(node) in above:
            raise SettingsError(f"{place}: the anchor refers to itself")
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return Node(dict(self._items(node, above)), place)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return Node([self.convert(child, above) for child in node.value], place)
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS:
            raise SettingsError(
                f"{place}: the tag {node.tag!r} is not allowed; write a plain value"
            )
        try:
            return Node(_scalar(node.tag.rsplit(":", 1)[1], str(node.value)), place)
        except ValueError as error:  # a tag that contradicts its value, or too many digits
            raise SettingsError(f"{place}: {error}") from None

    def _items(self, node: yaml.MappingNode, above: tuple[int, ...]) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            place, key = self._place(key_node), key_node.value
            if key_node.tag != "tag:yaml.org,2002:str":
                raise SettingsError(f"{place}: the key {key!r} is not a string; write it in quotes")
            if key in seen:
                raise SettingsError(f"{place}: the key {key!r} stands twice")
            seen.add(key)
            yield key, self.convert(value_node, above)

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}, line {node.start_mark.line + 1}"


def _scalar(kind: str, text: str) -> Scalar:
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))
    return None if kind == "null" else text
