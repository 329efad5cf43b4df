"""``kspec recipes``: what there is."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.manual import one_line
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.registry import recipe_names

#: Order of a night's reduction; recipes of other packages follow by name.
_ORDER = ("mbias", "mdark", "lflat", "tlm", "mflat", "marc", "object", "rebin", "fluxcal", "coadd")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options: there are none."""
    del name
    parser.description = "List the installed recipes, with what they need and make."


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print the table; a recipe that cannot be loaded is shown with the reason."""
    del arguments, name
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for recipe in in_order(recipe_names()):
        table.add_row(recipe, _summary(recipe))
    Console(highlight=False).print(table)
    return int(ExitCode.OK)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort recipes by their place in a night's reduction."""
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _summary(name: str) -> Text:
    try:
        recipe = find_recipe(name)
    except SettingsError as error:
        return Text(str(error), style="red")
    needs = [spec.label for spec in recipe.Inputs.specs.values() if spec.required]
    makes = [spec.catg for spec in recipe.Products.specs.values()]
    flow = f"{' + '.join(needs)} -> {' + '.join(makes)}"
    return Text.assemble(one_line(recipe), "\n", (flow, "bright_black"))
