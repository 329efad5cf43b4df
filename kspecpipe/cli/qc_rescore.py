"""``kspec qc rescore``: apply the limits of today to stored values."""

from __future__ import annotations

import argparse
import sys
from functools import cache

from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.qc import store_path
from kspecpipe.cli.qc_table import add_selection, selection_of
from kspecpipe.cli.recipe import add_setting_options
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.execution import shipped_layers
from kspecpipe.framework.registry import recipe_names
from kspecpipe.instrument import Instrument, load_instrument, shipped_instruments
from kspecpipe.quality.rescore import Rescored, Today, Work, common_units, rescore
from kspecpipe.quality.store import person


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Judge stored values by the limits of today. Products are not touched: what is written in "
        "their headers stays, and the earlier judgement stays in the history."
    )
    add_selection(parser, instrument=False)
    parser.add_argument("--night", metavar="DATE", help="evening on which the night began")
    add_setting_options(parser)


def run(arguments: argparse.Namespace, name: str) -> int:
    """Rescore and say what changed."""
    del name
    overrides = layered.Overrides(tuple(arguments.settings), tuple(arguments.assignments))
    user = layered.user_layers(overrides, recipe_names())
    named = arguments.instrument
    instruments = _instruments(named)
    selection = selection_of(
        arguments, night=arguments.night, instrument=next(iter(instruments)) if named else None
    )

    @cache
    def today(work: Work) -> Today | None:
        return _today(work, instruments, user, named or "")

    source = " ".join([*map(str, arguments.settings), *arguments.assignments]) or "shipped settings"
    found = rescore(store_path(arguments.qc_store), selection, today, person(), source)
    sys.stdout.write(_report(found))
    return int(ExitCode.OK)


def _instruments(named: str | None) -> dict[str, Instrument]:
    every = [load_instrument(named)] if named else list(shipped_instruments().values())
    return {item.facts.name: item for item in every}


def _today(
    work: Work, instruments: dict[str, Instrument], user: list[layered.Layer], named: str
) -> Today | None:
    recipe, instrument, mode = work
    if recipe not in recipe_names() or instrument not in instruments:
        return None
    try:
        description = find_recipe(recipe).describe()
    except SettingsError:
        return None
    layers = [*shipped_layers(instruments[instrument], mode, named), *user]
    units = {spec.label: spec.unit for spec in description.metrics.specs.values()}
    return Today(units | common_units(), layered.resolve(description, layers))


def _report(found: Rescored) -> str:
    lines = [
        f"{found.looked_at} values looked at, {found.limits} have new limits, "
        f"{sum(found.flags.values())} another flag"
    ]
    for (metric, before, after), count in sorted(found.flags.items()):
        lines.append(f"  {metric}: {before} -> {after}  {count}")
    for reason, count in sorted(found.left.items()):
        lines.append(f"  left as they were: {count} values, {reason}")
    return "\n".join(lines) + "\n"
