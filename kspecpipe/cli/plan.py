"""``kspec plan``: what would be reduced, with which calibrations, and what is missing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from kspecpipe.cli.recipe import add_setting_options
from kspecpipe.errors import ExitCode
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.night.session import Selection, Session
from kspecpipe.night.summary import plan_as_json, print_plan


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Read the headers of all raw frames below RAWDIR, sort them into nights and groups, and "
        "show what `kspec reduce` would do: groups, chosen calibrations, gaps. Nothing is written."
    )
    add_night_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="one line for each job")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def add_night_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which frames, recipes and files a night consists of."""
    parser.add_argument("raw", type=Path, metavar="RAWDIR", help="folder of raw frames")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("products"),
        metavar="OUT",
        help="folder of the products [products]; what is there already can be used",
    )
    add_setting_options(parser)
    parser.add_argument(
        "--with",
        dest="given",
        action="append",
        default=[],
        metavar="TAG=PATH",
        help="a calibration (or a folder of them), ASSIGN, STD_CATALOG, TEMPLATES or ARC_LINES",
    )
    parser.add_argument("--until", metavar="RECIPE", help="this recipe and all that it needs")
    parser.add_argument(
        "--only", action="append", default=[], metavar="RECIPE", help="this recipe alone"
    )
    parser.add_argument(
        "--mode", action="append", default=[], metavar="M", help="this instrument mode alone"
    )


def session_of(arguments: argparse.Namespace, options: RunOptions) -> Session:
    """Return the session that the options of `add_night_options` ask for."""
    selection = Selection(
        given=tuple(arguments.given),
        until=arguments.until,
        only=tuple(arguments.only),
        modes=tuple(arguments.mode),
    )
    return Session(arguments.raw, options, selection)


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print the plan."""
    del name
    options = RunOptions(
        output=arguments.output,
        instrument=arguments.instrument,
        settings_files=tuple(arguments.settings),
        assignments=tuple(arguments.assignments),
    )
    plan = session_of(arguments, options).plan()
    if arguments.json:
        sys.stdout.write(json.dumps(plan_as_json(plan)) + "\n")
    else:
        print_plan(plan, Console(highlight=False), verbose=arguments.verbose)
    return int(ExitCode.OK)
