"""``kspec qc report``: pages of quality control for the browser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.cli.qc import store_path
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.quality.history import nights
from kspecpipe.report import write_report


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Write one self-contained HTML page for a night, and an index of all nights. The pages "
        "need no server and no network, and can be sent by mail."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pages")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--night",
        action="append",
        default=[],
        metavar="DATE",
        help="evening on which it began; may be repeated [the last night]",
    )
    which.add_argument("--all", action="store_true", help="all nights of the history")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Write the pages and name them."""
    del name
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file; a folder is expected")
    store = store_path(arguments.qc_store)
    found = write_report(store, out, nights(store) if arguments.all else arguments.night)
    for path in (*found.pages, found.index):
        sys.stdout.write(f"{path}\n")
    return int(ExitCode.OK)
