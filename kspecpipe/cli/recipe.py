"""``kspec RECIPE SOF``: run one recipe."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.cli.reference import describe_default, describe_kind
from kspecpipe.errors import ExitCode, KspecError, SettingsError
from kspecpipe.framework.outcome import Outcome, RunOptions
from kspecpipe.framework.terminal import print_outcome
from kspecpipe.machine import usable_cores
from kspecpipe.sof import append_to_sof


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that all recipes share, and list the parameters of this one."""
    recipe = find_recipe(name)
    parser.description = (recipe.__doc__ or "").strip().splitlines()[0]
    parser.epilog = _parameter_help(recipe)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sof", nargs="+", metavar="SOF", help="set-of-files list, folder or FITS")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("products"),
        metavar="DIR",
        help="folder of the products [products]",
    )
    add_setting_options(parser)
    parser.add_argument("--products-sof", type=Path, metavar="F", help="add the products to a SOF")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--plots",
        choices=("none", "file", "show"),
        default="file",
        help="pictures of the products: none, files beside them, or windows [file]",
    )
    parser.add_argument("--save-intermediate", action="store_true", help="keep 2-D frames, models")
    parser.add_argument("--no-save", action="store_true", help="run and judge, write nothing")
    parser.add_argument("--separate", action="store_true", help="treat raw frames one by one")
    parser.add_argument(
        "--ignore-input-qc", action="store_true", help="take calibrations that failed"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing products")
    parser.add_argument(
        "--qualifier", default="", metavar="TEXT", help="kept in the names of the products"
    )
    parser.add_argument("--no-history", action="store_true", help="leave qc.sqlite alone")
    parser.add_argument(
        "--qc-store", type=Path, metavar="F", help="QC history [qc.sqlite beside the products]"
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log warnings only, no tables")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose instrument and settings."""
    parser.add_argument("--instrument", metavar="I", help="name, or an instrument's YAML file")
    parser.add_argument(
        "--settings", type=Path, action="append", default=[], metavar="F", help="settings file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="K=V",
        dest="assignments",
        help="recipe.parameter=value; wins over all files",
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Run the recipe, print its tables, and return its exit code."""
    if arguments.products_sof:
        refuse_unwritable(arguments.products_sof)
    console = None if arguments.json or arguments.quiet else Console()
    sof = arguments.products_sof
    outcome = reduce(name, arguments.sof, run_options(arguments), sofs=[sof] if sof else [])
    if arguments.json:
        sys.stdout.write(json.dumps(outcome.as_json(), allow_nan=False) + "\n")
    elif console:
        print_outcome(outcome, console)
    return int(outcome.exit_code)


def reduce(
    name: str, sources: Sequence[str | Path], options: RunOptions, *, sofs: Sequence[Path] = ()
) -> Outcome:
    """Run a recipe on files and add its products to further SOFs.

    Parameters
    ----------
    name : str
        The recipe.
    sources : sequence of paths
        SOFs, folders or FITS files.
    options : RunOptions
        How to run it.
    sofs : sequence of Path
        Set-of-files lists that get the products, also those that failed quality control.
    """
    outcome = find_recipe(name)(inputFrames=list(sources), options=options).execute()
    try:
        for sof in sofs if outcome.products else ():
            append_to_sof(sof, outcome.products)
    except (OSError, ValueError, KspecError) as error:
        text = f"{sof}: the products are written, but cannot be added to it: {error}"
        sys.stderr.write(f"kspec: {text}\n")
        return replace(outcome, exit_code=ExitCode.NO_PRODUCT, errors=(*outcome.errors, text))
    return outcome


def refuse_unwritable(sof: Path) -> None:
    """Refuse a list that could not be written after the run, before time is spent.

    Raises
    ------
    SettingsError
        If it is a folder, or its folder does not exist.
    """
    if sof.is_dir():
        raise SettingsError(f"--products-sof {sof}: is a folder; name a file")
    if not sof.absolute().parent.is_dir():
        raise SettingsError(f"--products-sof {sof}: the folder {sof.parent} does not exist")


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """Return the options of a run from the command line."""
    chosen: dict[str, Any] = {
        "output": arguments.output,
        "instrument": arguments.instrument,
        "settings_files": tuple(arguments.settings),
        "assignments": tuple(arguments.assignments),
        "plots": "none" if arguments.no_save and arguments.plots == "file" else arguments.plots,
        "save": not arguments.no_save,
        "verbosity": int(arguments.verbose) - int(arguments.quiet),
        "qualifier": arguments.qualifier,
        "cores": usable_cores(),
        "record": not arguments.no_history,
        "qc_store": arguments.qc_store,
    }
    for option in ("save_intermediate", "separate", "ignore_input_qc", "overwrite", "debug"):
        chosen[option] = getattr(arguments, option)
    return RunOptions(**chosen)


def _parameter_help(recipe: type[BaseRecipe]) -> str:
    lines = ["parameters (--set RECIPE.NAME=VALUE; more: kspec man RECIPE):"]
    for name, spec in recipe.Parameters.specs.items():
        unit = f" {spec.rule.unit}" if spec.rule.unit else ""
        value = describe_default(spec.default)
        kind = describe_kind(recipe.Parameters.type_of(name))
        lines.append(f"  {recipe.name}.{name}={value}{unit}  ({kind}) {spec.doc}")
    return "\n".join(lines)
