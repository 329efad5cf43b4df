"""``kspec params``: the value of each parameter, and which layer of settings it comes from."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.cli.recipe import add_setting_options
from kspecpipe.cli.reference import describe_default
from kspecpipe.cli.shipped import settings_of, shipped_modes
from kspecpipe.cli.verification import verify
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.declare import ParameterSpec
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.framework.registry import recipe_names
from kspecpipe.framework.terminal import interval
from kspecpipe.instrument import load_instrument
from kspecpipe.qc import Limits
from kspecpipe.quality.limit_rules import LEVELS, Level


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Show the parameters and QC limits of a recipe as a run on SOF would use them, and which "
        "layer set each: default < instrument < mode < --settings < --set."
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("sof", nargs="*", metavar="SOF", help="frames that tell instrument, mode")
    add_setting_options(parser)
    parser.add_argument("--mode", metavar="M", help="instrument mode, when no SOF is given")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print the tables."""
    del name
    if arguments.mode and not arguments.instrument:
        raise SettingsError("--mode needs --instrument")
    if arguments.mode and arguments.sof:
        raise SettingsError("give a SOF or --mode, not both: the frames tell their mode")
    recipe = find_recipe(arguments.recipe)
    settings = resolved_settings(recipe, arguments)
    if arguments.json:
        sys.stdout.write(json.dumps(_as_json(recipe, settings), allow_nan=False) + "\n")
        return int(ExitCode.OK)
    console = Console(highlight=False)
    console.print(_parameter_table(recipe, settings, wide=console.width >= 120))
    if settings.limits or settings.rules:
        console.print()
        console.print(_limit_table(settings))
    return int(ExitCode.OK)


def resolved_settings(
    recipe: type[BaseRecipe], arguments: argparse.Namespace
) -> layered.RecipeSettings:
    """Return the settings after all layers."""
    files, assignments = tuple(arguments.settings), tuple(arguments.assignments)
    if arguments.sof:
        options = RunOptions(
            instrument=arguments.instrument,
            settings_files=files,
            assignments=assignments,
            ignore_input_qc=True,
        )
        return verify(recipe(options=options), arguments.sof).settings
    layers = _layers_by_name(arguments.instrument, arguments.mode or "")
    layers += layered.user_layers(layered.Overrides(files, assignments), recipe_names())
    return layered.resolve(recipe.describe(), layers)


def _layers_by_name(named: str | None, mode: str) -> list[layered.Layer]:
    if named is None:
        return []
    instrument = load_instrument(named)
    folder = Path(named).expanduser().parent if named.endswith((".yaml", ".yml")) else None
    known = shipped_modes(instrument.name, folder)
    if mode and mode not in known:
        raise SettingsError(
            f"{instrument.name} has no settings for the mode {mode!r}; {nearest(mode, known)}"
        )
    return settings_of(instrument, mode, folder)


def _parameter_table(
    recipe: type[BaseRecipe], settings: layered.RecipeSettings, *, wide: bool
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="underline")
    for column in (f"parameter of {recipe.name}", "value", "unit", "set by"):
        table.add_column(column, no_wrap=column != "value")
    if wide:
        table.add_column("meaning", style="bright_black")
    specs: dict[str, ParameterSpec] = recipe.Parameters.specs
    for name, spec in specs.items():
        source = settings.sources[name]
        style = "" if source == layered.DECLARED else "bold yellow"
        value = Text(describe_default(getattr(settings.parameters, name)), style=style)
        doc = [spec.doc] if wide else []
        table.add_row(name, value, spec.rule.unit, Text(_layer(source), style=style), *doc)
    return table


def _layer(source: str) -> str:
    """Shorten a layer to its kind: the option that set a value repeats the value."""
    return "--set" if source.startswith("--set ") else source


def _limit_table(settings: layered.RecipeSettings) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="underline")
    for column in ("QC metric", "warn outside", "fail outside"):
        table.add_column(column)
    for metric in dict.fromkeys((*settings.limits, *settings.rules)):
        table.add_row(metric, *(_limit_text(settings, metric, level) for level in LEVELS))
    return table


def _limit_text(settings: layered.RecipeSettings, metric: str, level: Level) -> str:
    """Return limits in words; those of the history with what holds while it does not suffice."""
    fixed = getattr(settings.limits.get(metric, Limits()), level)
    rule = settings.rules.get(metric, {}).get(level)
    if rule is None:
        return interval(fixed)
    return f"{rule}; until then {interval(rule.fixed or fixed) or 'none'}"


def _limit_json(settings: layered.RecipeSettings, metric: str, level: Level) -> dict[str, Any]:
    fixed = getattr(settings.limits.get(metric, Limits()), level)
    rule = settings.rules.get(metric, {}).get(level)
    pair = (rule and rule.fixed) or fixed
    ends = [end if math.isfinite(end) else None for end in pair] if pair else None
    return {"limits": ends, "history": None if rule is None else str(rule)}


def _as_json(recipe: type[BaseRecipe], settings: layered.RecipeSettings) -> dict[str, Any]:
    specs: dict[str, ParameterSpec] = recipe.Parameters.specs
    return {
        "recipe": recipe.name,
        "status": "ok",
        "exit_code": int(ExitCode.OK),
        "parameters": {
            name: {
                "value": _plain(getattr(settings.parameters, name)),
                "unit": spec.rule.unit,
                "source": settings.sources[name],
            }
            for name, spec in specs.items()
        },
        "qc": {
            metric: {level: _limit_json(settings, metric, level) for level in LEVELS}
            for metric in dict.fromkeys((*settings.limits, *settings.rules))
        },
    }


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
