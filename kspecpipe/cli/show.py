"""``kspec show``: draw written products."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from matplotlib.figure import Figure

from kspecpipe import io, plots
from kspecpipe.errors import ExitCode, InputError, ProductError, SettingsError
from kspecpipe.terminal import short_path

_FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Draw products in windows, or into picture files where there is no display."
    )
    parser.add_argument("product", nargs="+", type=Path, metavar="PRODUCT")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PNG", help="write the picture here (of one product)"
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Draw each product."""
    del name
    if arguments.output and len(arguments.product) > 1:
        raise SettingsError("-o takes the picture of one product; leave it out for several")
    figures = [(path, _draw(path)) for path in arguments.product]
    window = arguments.output is None and has_display()
    for path, figure in figures:
        if window:
            plots.show(figure)
            continue
        picture = arguments.output or path.with_suffix(".png")
        _save(figure, picture)
        why = "" if arguments.output else "no display; "
        sys.stdout.write(f"{why}picture: {short_path(picture)}\n")
    return int(ExitCode.OK)


def has_display() -> bool:
    """Return whether matplotlib can open windows here."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    from matplotlib import pyplot

    return pyplot.get_backend().lower() not in _FILE_BACKENDS


def _draw(path: Path) -> Figure:
    product = io.read_product(path)
    figure = plots.draw(product)
    if figure is None:
        raise InputError(f"{path.name}: there is no picture for {product.catg}")
    return figure


def _save(figure: Figure, path: Path) -> None:
    try:
        plots.save(figure, path)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    except OSError as error:
        raise ProductError(f"{path}: the picture cannot be written: {error.strerror}") from None
