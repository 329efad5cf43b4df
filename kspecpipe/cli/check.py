"""``kspec check``: verify input frames, or an instrument file, without reducing."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

from rich.console import Console

from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.instrument_check import examine_instrument
from kspecpipe.cli.instrument_summary import print_summary
from kspecpipe.cli.recipe import add_setting_options
from kspecpipe.cli.verification import Verified, verify
from kspecpipe.errors import ExitCode, KspecError, SettingsError
from kspecpipe.framework.outcome import Outcome, RunOptions


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "With SOF and --recipe: check the input frames as the recipe would. With --instrument "
        "alone: check an instrument file. All problems are reported together."
    )
    parser.add_argument("sof", nargs="*", metavar="SOF", help="set-of-files list, folder or FITS")
    parser.add_argument("--recipe", metavar="RECIPE", help="recipe that the frames are for")
    add_setting_options(parser)
    parser.add_argument(
        "--ignore-input-qc", action="store_true", help="take calibrations that failed"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Check what was given."""
    if arguments.sof and not arguments.recipe:
        raise SettingsError("name the recipe that the frames are for: --recipe RECIPE")
    if not arguments.sof and (arguments.recipe or not arguments.instrument):
        raise SettingsError("give SOF and --recipe RECIPE, or --instrument FILE")
    if not arguments.sof:
        return _check_instrument(arguments, name)
    recipe = find_recipe(arguments.recipe)
    options = RunOptions(
        instrument=arguments.instrument,
        settings_files=tuple(arguments.settings),
        assignments=tuple(arguments.assignments),
        ignore_input_qc=arguments.ignore_input_qc,
        save=False,
        verbosity=-1,
    )
    try:
        verified = verify(recipe(options=options), arguments.sof, load=True)
    except KspecError as error:
        lines = str(error).splitlines()
        sys.stderr.write("".join(f"kspec: {line}\n" for line in lines))
        _report(arguments, Outcome(recipe.name, error.exit_code, errors=tuple(lines)))
        return int(error.exit_code)
    _report(arguments, Outcome(recipe.name, ExitCode.OK, warnings=tuple(verified.warnings)))
    if not arguments.json:
        sys.stdout.write(f"OK: {_found(verified)}\n")
    return int(ExitCode.OK)


def _check_instrument(arguments: argparse.Namespace, name: str) -> int:
    found = examine_instrument(arguments.instrument)
    if found.problems:
        raise SettingsError("\n".join(found.problems))
    for text in found.warnings:
        sys.stderr.write(f"warning: {text}\n")
    _report(arguments, Outcome(name, ExitCode.OK, warnings=tuple(found.warnings)))
    if found.instrument and not arguments.json:
        print_summary(found.instrument, found.folder, Console(highlight=False))
    return int(ExitCode.OK)


def _report(arguments: argparse.Namespace, outcome: Outcome) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(outcome.as_json(), allow_nan=False) + "\n")


def _found(verified: Verified) -> str:
    gathered = verified.gathered
    counts = Counter({tag: len(frames) for tag, frames in gathered.raw.items()})
    counts.update({tag: len(files) for tag, files in gathered.calibrations.items()})
    counts.update(dict.fromkeys(gathered.user, 1))
    what = ", ".join(f"{count} {tag}" for tag, count in counts.items() if count)
    modes = sorted({frame.info.mode or frame.info.readmode for frame in gathered.frames})
    return f"{what} of {gathered.instrument.facts.name} {' '.join(modes)}".rstrip()
