"""``kspec qc rebuild``: make the history again from products."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.instrument import load_instrument, shipped_instruments
from kspecpipe.quality.rebuild import rebuild, restore_verdicts, set_aside
from kspecpipe.quality.run_record import longitude_of
from kspecpipe.quality.store import STORE_NAME


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Add all products below DIR that the history does not know; run times, failed runs and "
        "verdicts are not in products."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of products")
    parser.add_argument(
        "--replace", action="store_true", help="set an existing history aside and start anew"
    )
    parser.add_argument(
        "--instrument",
        action="append",
        default=[],
        metavar="I",
        help="YAML file of an instrument that does not ship: where its nights begin",
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Rebuild and say what was found."""
    del name
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise SettingsError(f"{folder}: is no folder")
    store: Path = arguments.qc_store or folder / STORE_NAME
    store = store / STORE_NAME if store.is_dir() else store
    instruments = [*shipped_instruments().values(), *map(load_instrument, arguments.instrument)]
    longitudes = {item.facts.name: longitude_of(item) for item in instruments}
    lines = []
    aside, saved = set_aside(store) if arguments.replace else (None, {})
    if aside is not None:
        lines.append(f"{store.name}: set aside as {aside.name}, {len(saved)} verdicts kept")
    found = rebuild(store, folder, longitudes)
    restore_verdicts(store, saved)
    lines.append(f"{store}: {found.added} products added, {found.known} known before")
    sys.stdout.write("\n".join(lines) + "\n")
    for text in found.unreadable:
        sys.stderr.write(f"kspec: left out: {text}\n")
    return int(ExitCode.OK)
