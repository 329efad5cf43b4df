"""Arcs with known truth, and the line lists that are shipped."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kspecpipe.signal import DQ, Signal
from kspecpipe.wavelength.arcs import ArcSpectra
from kspecpipe.wavelength.linelist import LineList, parse_line_list

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "static_calibrations"


@pytest.fixture(scope="session")
def arcs() -> ModuleType:
    """Return the arc simulator beside this file."""
    spec = importlib.util.spec_from_file_location("wavelength_arcs", HERE / "arcs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lines() -> LineList:
    return parse_line_list((STATIC / "arc_lines.ecsv").read_text())


@pytest.fixture(scope="session")
def sky_lines() -> LineList:
    return parse_line_list((STATIC / "sky_lines.ecsv").read_text())


@pytest.fixture(scope="session")
def expose(arcs, lines):
    """Simulate an arc of the shipped lines, or of another list."""

    def run(recipe, of=lines):
        return arcs.expose(recipe, (of.wavelength, of.species, of.intensity))

    return run


@pytest.fixture(scope="session")
def signal():
    """Wrap a simulated arc as a Signal, saturated samples flagged."""

    def wrap(arc):
        dq = np.where(arc.saturated, np.uint16(DQ.SATURATED), np.uint16(0))
        return Signal.of(arc.value, arc.variance, dq)

    return wrap


@pytest.fixture(scope="session")
def spectra(signal):
    def wrap(arc, lamps=()):
        return ArcSpectra(signal(arc), lamps)

    return wrap
