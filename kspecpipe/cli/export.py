"""``kspec export``: one file per fibre, for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.errors import ExitCode
from kspecpipe.formats.export import export
from kspecpipe.formats.fibre_spectra import read_spectra
from kspecpipe.formats.selection import choose
from kspecpipe.framework.terminal import short_path


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Write each fibre's spectrum as a file of its own, and a list of targets. fits: a binary "
        "table with the columns WAVE, FLUX, ERR, QUAL and the keywords of ESO's science data "
        "products, as Virtual Observatory tools read it; csv: one line per sample. Dead fibres are "
        "left out."
    )
    parser.add_argument("product", type=Path, metavar="PRODUCT", help="a product with spectra")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder [named after the product]"
    )
    parser.add_argument("--format", choices=("fits", "csv"), default="fits", help="[fits]")
    parser.add_argument(
        "--fibre", type=int, action="append", metavar="K", help="only the fibre with FIBRE_ID K"
    )
    parser.add_argument(
        "--type", metavar="LETTERS", help="only fibres of these types: P, S, C, or PC"
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Export one product."""
    del name
    spectra = choose(read_spectra(arguments.product), arguments.fibre, arguments.type)
    stem = arguments.product.stem
    folder = arguments.output or arguments.product.with_name(f"{stem}_export")
    files = export(spectra, folder, stem, arguments.format)
    count = len(files) - 1
    sys.stdout.write(f"{count} spectra in {short_path(folder)}, listed in {files[-1].name}\n")
    return int(ExitCode.OK)
