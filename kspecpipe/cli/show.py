"""``kspec show``: draw written products."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from matplotlib.figure import Figure

from kspecpipe import io, plots
from kspecpipe.errors import ExitCode, InputError, ProductError, SettingsError
from kspecpipe.figures.house_style import COLOURS
from kspecpipe.framework import writing
from kspecpipe.framework.terminal import short_path
from kspecpipe.products.product import Product
from kspecpipe.spectra import TramlineMap

#: Options that ask for single spectra.
_SINGLE = ("fibre", "type", "layout", "redshift", "sky_lines", "range", "smooth")
_FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Draw products in windows, or into picture files where there is no display. With one of "
        "the options below single spectra are drawn; telluric bands are shaded."
    )
    parser.add_argument("product", nargs="+", type=Path, metavar="PRODUCT")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PNG", help="write the picture here (of one product)"
    )
    parser.add_argument(
        "--traces", type=Path, metavar="TRAMLINE_MAP", help="draw these traces over an image"
    )
    single = parser.add_argument_group("single spectra")
    single.add_argument("--fibre", type=_numbers, metavar="K,K,...", help="FIBRE_IDs")
    single.add_argument("--type", metavar="LETTERS", help="fibres of these types: P, S, C or PC")
    single.add_argument(
        "--layout", choices=("stack", "grid", "overlay"), help="how several are placed [stack]"
    )
    single.add_argument(
        "--redshift", type=float, metavar="Z", help="mark lines of targets at this redshift"
    )
    single.add_argument(
        "--sky-lines", action="store_true", default=None, help="mark the night-sky lines"
    )
    single.add_argument("--range", type=float, nargs=2, metavar=("A", "B"), help="wavelengths [A]")
    single.add_argument("--smooth", type=int, metavar="N", help="average N samples in the picture")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Draw each product."""
    del name
    if arguments.output and len(arguments.product) > 1:
        raise SettingsError("-o takes the picture of one product; leave it out for several")
    figures = [(path, _draw(path, arguments)) for path in arguments.product]
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


def _draw(path: Path, arguments: argparse.Namespace) -> Figure:
    if any(getattr(arguments, name) is not None for name in _SINGLE):
        return _draw_single(path, arguments)
    product = io.read_product(path)
    figure = plots.draw(product, writing.read_rows(path))
    if figure is None:
        raise InputError(f"{path.name}: there is no picture for {product.catg}")
    if arguments.traces:
        _draw_traces(figure, product, arguments.traces)
    return figure


def _draw_single(path: Path, arguments: argparse.Namespace) -> Figure:
    """Draw single spectra: those that were asked for, else the three of most light."""
    from kspecpipe.figures.spectrum import SpectraView, draw_spectra
    from kspecpipe.formats.fibre_spectra import read_spectra
    from kspecpipe.formats.selection import brightest, choose

    spectra = read_spectra(path)
    if arguments.fibre or arguments.type:
        spectra = choose(spectra, arguments.fibre, arguments.type)
    else:
        spectra = brightest(spectra, 3)
    start, stop = arguments.range or (0.0, 0.0)
    if arguments.range and not start < stop:
        raise SettingsError(f"--range {start:g} {stop:g}: the first must be the smaller one")
    if arguments.smooth is not None and arguments.smooth < 1:
        raise SettingsError(f"--smooth {arguments.smooth}: must be 1 or more")
    view = SpectraView(
        layout=arguments.layout or "stack",
        redshift=arguments.redshift,
        sky_lines=bool(arguments.sky_lines),
        limits=(start, stop) if arguments.range else None,
        smooth=arguments.smooth or 1,
    )
    try:
        return draw_spectra(spectra, view, path.stem)
    except ValueError as error:
        raise SettingsError(f"{path.name}: {error}") from None


def _draw_traces(figure: Figure, product: Product, path: Path) -> None:
    traces = io.read_product(path)
    if not isinstance(traces, TramlineMap):
        raise InputError(f"{path.name}: is a {traces.catg}; --traces takes a TRAMLINE_MAP")
    images = [axis for axis in figure.axes if axis.images and axis.get_xlabel() == "column [pixel]"]
    if not images or not hasattr(product, "image"):
        raise SettingsError(f"--traces: a {product.catg} has no image with rows of the detector")
    limits = images[0].axis()
    for row in traces.traces.value:
        images[0].plot(row, color=COLOURS[1], lw=0.5, alpha=0.8)
    images[0].axis(limits)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word.strip()]


def _save(figure: Figure, path: Path) -> None:
    try:
        plots.save(figure, path)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    except OSError as error:
        raise ProductError(f"{path}: the picture cannot be written: {error.strerror}") from None
