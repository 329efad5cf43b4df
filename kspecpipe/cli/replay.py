"""``kspec replay``: make a product again from its own header, and compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.errors import ExitCode
from kspecpipe.framework.terminal import short_path
from kspecpipe.night.replay import replay


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Find the inputs that a product's header names by their checksums, run its recipe with its "
        "parameters, and compare all data (metrics and settings are no data). Exit code: 0 "
        "identical, 4 it came out otherwise, 3 inputs are missing, 1 it cannot be made."
    )
    parser.add_argument("product", type=Path, metavar="PRODUCT", help="a product of any recipe")
    parser.add_argument(
        "--raw",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder with inputs, besides that of the product; may be repeated",
    )
    parser.add_argument("--instrument", metavar="I", help="name, or an instrument's YAML file")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Replay and say what came of it."""
    del name
    found = replay(arguments.product, arguments.raw, arguments.instrument)
    shown = short_path(arguments.product)
    lines = [f"{shown}: {'differs' if found.differences else 'identical'}"]
    lines += [f"  {text}" for text in (*found.differences, *found.notes)]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(ExitCode.QC_FAILED if found.differences else ExitCode.OK)
