"""Layered settings: declared default < instrument < mode < ``--settings`` < ``--set``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from kspecpipe.configuration.schema import build, convert, key, noting, raise_all
from kspecpipe.configuration.yaml_source import Node, merge_nodes, nearest, parse_scalar, read_yaml
from kspecpipe.declare import Declared, MetricSpec, ParameterSpec
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Limits
from kspecpipe.quality.common_metrics import CommonMetrics
from kspecpipe.quality.limit_rules import Level, Rule, read_rule

DECLARED = "default"
#: Sections of a settings file that are of no recipe.
OTHER_SECTIONS = ("instrument", "qc")


@dataclass(frozen=True)
class QcSettings:
    """The section ``qc`` of a settings file."""

    store: str | None = key(None, doc="file of the history; none: qc.sqlite beside the products")


@dataclass(frozen=True)
class Layer:
    """One source of settings: recipe sections by recipe name."""

    name: str
    sections: Mapping[str, Node]


@dataclass(frozen=True)
class RecipeSettings:
    """The settings of one recipe after all layers.

    Parameters
    ----------
    parameters : Declared
        Values of the recipe's parameters.
    sources : dict
        For each parameter the layer that set it.
    limits : dict
        Fixed limits by metric name.
    rules : dict
        Limits that come from the history, by metric name and level; they win over fixed ones.
    warnings : tuple of str
        What the user should know, such as an unknown mode.
    """

    parameters: Any
    sources: dict[str, str]
    limits: dict[str, Limits]
    rules: dict[str, dict[Level, Rule]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What the settings need to know of a recipe."""

    name: str
    parameters: type[Declared]
    metrics: type[Declared]


@dataclass(frozen=True)
class Overrides:
    """What the user gives on the command line or from Python."""

    files: tuple[Path, ...] = ()
    assignments: tuple[str, ...] = ()
    mapping: Mapping[str, Any] = field(default_factory=dict)


def mode_layer(instrument: str, mode: str) -> Layer | None:
    """Return the shipped settings of an instrument mode, or None when there are none."""
    return instrument_mode_layer(Path(str(files("kspecpipe.settings"))), instrument, mode)


def instrument_mode_layer(folder: Path, instrument: str, mode: str) -> Layer | None:
    """Return the mode settings that stand beside a user's instrument file."""
    # The mode comes from a header: it is compared with names, never part of a path.
    for entry in folder.glob("*.yaml"):
        if mode and entry.name == f"{instrument}_{mode}.yaml":
            return Layer(entry.name, _sections(read_yaml(entry)))
    return None


def user_layers(overrides: Overrides, recipes: Sequence[str]) -> list[Layer]:
    """Return the layers of ``--settings`` files, a mapping from Python, and ``--set``.

    Raises
    ------
    SettingsError
        If a file or an assignment is wrong, or names no recipe.
    """
    layers = [Layer(path.name, _sections(read_yaml(path))) for path in overrides.files]
    if overrides.mapping:
        layers.append(Layer("settings", _sections(_as_node(overrides.mapping))))
    layers += [Layer(f"--set {text}", _assignment(text)) for text in overrides.assignments]
    for layer in layers:
        for name, node in layer.sections.items():
            if name not in recipes and name not in OTHER_SECTIONS:
                raise SettingsError(
                    f"{node.place}: unknown recipe {name!r}; {nearest(name, recipes)}"
                )
    return layers


def qc_settings(layers: Sequence[Layer]) -> QcSettings:
    """Return the settings of the history; raises `SettingsError` when they are wrong."""
    nodes = [layer.sections["qc"] for layer in layers if "qc" in layer.sections]
    merged = Node({}, "settings")
    for node in nodes:
        merged = merge_nodes(merged, node)
    return build(QcSettings, merged, "qc")


def resolve(recipe: Recipe, layers: Sequence[Layer]) -> RecipeSettings:
    """Merge the layers, later ones winning, and validate every value.

    Raises
    ------
    SettingsError
        With every unknown key, wrong type and value out of range, one a line.
    """
    problems: list[str] = []
    values = {name: spec.default for name, spec in recipe.parameters.specs.items()}
    sources = dict.fromkeys(values, DECLARED)
    limits: dict[str, Limits] = {}
    rules: dict[str, dict[Level, Rule]] = {}
    for layer in layers:
        section = layer.sections.get(recipe.name)
        if section is None:
            continue
        parts = section.mapping(recipe.name)
        for name, node in parts.items():
            if name not in ("parameters", "qc"):
                problems.append(
                    f"{node.place}: unknown key {name!r} in {recipe.name}; "
                    f"{nearest(name, ('parameters', 'qc'))}"
                )
        for name, node in _part(parts, "parameters").items():
            with noting(problems):
                values[name] = _parameter(recipe, name, node)
            sources[name] = layer.name
        for label, node in _part(parts, "qc").items():
            with noting(problems):
                found, own = _limits(recipe, label, node)
                limits[label] = dataclasses.replace(limits.get(label, Limits()), **found)
                above = {k: r for k, r in rules.get(label, {}).items() if k not in found} | own
                rules[label] = above
    raise_all(problems)
    rules = {label: levels for label, levels in rules.items() if levels}
    return RecipeSettings(recipe.parameters(**values), sources, limits, rules)


def _sections(node: Node) -> dict[str, Node]:
    return dict(node.mapping("the settings"))


def _part(parts: Mapping[str, Node], name: str) -> dict[str, Node]:
    return parts[name].mapping(name) if name in parts else {}


def _parameter(recipe: Recipe, name: str, node: Node) -> Any:
    spec: ParameterSpec | None = recipe.parameters.specs.get(name)
    if spec is None:
        raise SettingsError(
            f"{node.place}: {recipe.name} has no parameter {name!r}; "
            f"{nearest(name, recipe.parameters.specs)}"
        )
    return convert(recipe.parameters.type_of(name), node, f"{recipe.name}.{name}", spec.rule)


def _limits(
    recipe: Recipe, label: str, node: Node
) -> tuple[dict[Level, tuple[float, float]], dict[Level, Rule]]:
    """Return the fixed limits and the rules of a metric by level."""
    specs = [*recipe.metrics.specs.values(), *CommonMetrics.specs.values()]
    labels = [spec.label for spec in specs if isinstance(spec, MetricSpec)]
    if label not in labels:
        raise SettingsError(
            f"{node.place}: {recipe.name} has no metric {label!r}; {nearest(label, labels)}"
        )
    found: dict[Level, tuple[float, float]] = {}
    rules: dict[Level, Rule] = {}
    levels: dict[str, Level] = {"warn": "warn", "fail": "fail"}
    for name, child in node.mapping(label).items():
        if name not in levels:
            raise SettingsError(f"{child.place}: {label}: unknown key {name!r}; use warn and fail")
        if isinstance(child.value, dict):
            rules[levels[name]] = read_rule(child, f"{label}.{name}")
            continue
        pair = convert(tuple[float, float], child, f"{label}.{name}")
        if any(math.isnan(end) for end in pair):
            raise SettingsError(
                f"{child.place}: {label}.{name}: .nan is no limit; use .inf for none"
            )
        if not pair[0] <= pair[1]:
            raise SettingsError(f"{child.place}: {label}.{name}: {pair[0]} is above {pair[1]}")
        found[levels[name]] = pair
    return found, rules


def _assignment(text: str) -> dict[str, Node]:
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    place = f"--set {text}"
    if not equals or len(names) < 2 or not all(names):
        raise SettingsError(f"{place}: write recipe.parameter=value")
    if len(names) == 2 and names[0] not in OTHER_SECTIONS:
        names.insert(1, "parameters")
    node = parse_scalar(value, place)
    for name in reversed(names[1:]):
        node = Node({name: node}, place)
    return {names[0]: node}


def _as_node(value: Any) -> Node:
    place = "settings given from Python"
    if isinstance(value, Mapping):
        return Node({str(name): _as_node(child) for name, child in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([_as_node(child) for child in value], place)
    return Node(value, place)
