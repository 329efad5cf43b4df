"""What an instrument file says, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kspecpipe.cli.shipped import shipped_modes
from kspecpipe.configuration.instrument_schema import Layout
from kspecpipe.frame import Geometry, Orient
from kspecpipe.instrument import Instrument


def print_summary(instrument: Instrument, folder: Path | None, console: Console) -> None:
    """Print what was understood, so that the author can see whether it was meant."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for name, text in summary(instrument, folder):
        table.add_row(name, Text(text))
    console.print(Text(f"OK: {instrument.facts.name}", style="green"))
    console.print(table)


def summary(instrument: Instrument, folder: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the lines of the summary."""
    facts = instrument.facts
    cards = [f"{card} ~ {pattern.pattern}" for card, pattern in facts.recognise.items()]
    yield "recognised by", "; ".join(cards) or "nothing (name it with --instrument)"
    yield "keywords", ", ".join(facts.keywords)
    yield "mode", facts.mode
    yield "read-out mode", facts.readmode or "one for all"
    yield "classified", ", ".join(dict.fromkeys(rule.tag for rule in facts.classify)) or "nothing"
    yield "dispersion", f"along raw {facts.orientation.dispersion_axis}"
    for shape, layout in facts.detector.layouts.items():
        yield f"layout {shape}", _layout(instrument, layout)
    yield "gain and noise", _gains(instrument)
    yield "fibres", _fibres(instrument)
    yield "wavelengths", facts.wavelength.model if facts.wavelength else "not predicted"
    yield "lamps", " ".join(facts.lamps.default) or "none"
    yield "assignment", facts.assignment.file or "none"
    yield "mode settings", ", ".join(shipped_modes(instrument.name, folder)) or "none"


def _layout(instrument: Instrument, layout: Layout) -> str:
    axis = instrument.facts.orientation.dispersion_axis
    ny, nx = Geometry.of(layout, Orient(axis == "y", False, False)).shape
    count = len(layout.amplifiers)
    overscan = any(amplifier.overscan for amplifier in layout.amplifiers)
    return (
        f"{count} amplifier{'s' if count > 1 else ''}, overscan: {'yes' if overscan else 'no'}, "
        f"normalised frame of {ny} rows and {nx} columns"
    )


def _gains(instrument: Instrument) -> str:
    detector = instrument.facts.detector
    if detector.gain is not None and detector.noise is not None:
        return f"{detector.gain:g} electron/adu, {detector.noise:g} electron"
    if detector.readout.table:
        return f"{len(detector.readout.table)} read-out modes by {', '.join(detector.readout.by)}"
    return "of each amplifier" if detector.layouts else "not given"


def _fibres(instrument: Instrument) -> str:
    rows, ids = instrument.fibre_rows, instrument.fibre_ids
    pitch = f", median pitch {np.median(np.diff(rows)):.2f}" if len(rows) > 1 else ""
    return (
        f"{len(rows)}, rows {rows[0]:g} to {rows[-1]:g}{pitch}, good to "
        f"{instrument.facts.fibres.tolerance:g} pixel; fibre {ids[0]} is the lowest"
    )
