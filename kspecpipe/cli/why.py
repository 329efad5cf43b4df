"""``kspec why``: which calibrations a product or a frame was given, and why not others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.errors import ExitCode, InputError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.night.session import Session
from kspecpipe.night.why import entries_of, explain_entry, explain_header, explain_plan


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Tell for a product, or for a raw frame, which calibrations were chosen, how near they are "
        "in time, and for each that was passed over the reason. A frame that no job has used yet "
        "is explained by a plan of its folder."
    )
    parser.add_argument("file", type=Path, metavar="PRODUCT|FRAME", help="product or raw frame")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="folder of the products [that of the product; products]",
    )
    parser.add_argument("--instrument", metavar="I", help="name, or an instrument's YAML file")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Explain."""
    del name
    path: Path = arguments.file.resolve()
    if not path.is_file():
        raise InputError(f"{arguments.file}: no such file")
    places = [arguments.output] if arguments.output else [path.parent, Path("products")]
    entries = [entry for place in places for entry in entries_of(path, place)]
    if entries:
        lines = [line for entry in entries for line in explain_entry(entry)]
    elif "ESO PRO CATG" in _header(path):
        lines = list(explain_header(path))
    else:
        options = RunOptions(output=places[-1], instrument=arguments.instrument)
        lines = list(explain_plan(Session(path.parent, options).plan(), path))
    sys.stdout.write("\n".join(lines) + "\n")
    return int(ExitCode.OK)


def _header(path: Path) -> dict[str, object]:
    from kspecpipe import io

    return io.read_header(path)
