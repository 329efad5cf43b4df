"""``kspec export``: one file per fibre, for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.formats.export import export
from kspecpipe.formats.fibre_spectra import FibreSpectra, read_spectra
from kspecpipe.terminal import short_path


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
    spectra = _chosen(read_spectra(arguments.product), arguments)
    stem = arguments.product.stem
    folder = arguments.output or arguments.product.with_name(f"{stem}_export")
    files = export(spectra, folder, stem, arguments.format)
    count = len(files) - 1
    sys.stdout.write(f"{count} spectra in {short_path(folder)}, listed in {files[-1].name}\n")
    return int(ExitCode.OK)


def _chosen(spectra: FibreSpectra, arguments: argparse.Namespace) -> FibreSpectra:
    ids, types = (np.asarray(spectra.fibres[name]) for name in ("FIBRE_ID", "TYPE"))
    keep = np.ones(len(spectra), bool)
    if arguments.fibre:
        unknown = sorted(set(arguments.fibre) - {int(i) for i in ids})
        if unknown:
            raise SettingsError(f"no fibre {unknown[0]}; there are {ids.min()} to {ids.max()}")
        keep &= np.isin(ids, arguments.fibre)
    if arguments.type:
        keep &= np.isin(types.astype(str), list(arguments.type.upper()))
    if not keep.any():
        known = "".join(sorted(set(types.astype(str))))
        raise SettingsError(f"no fibre is left; the types of this product are {known}")
    return spectra[keep]
