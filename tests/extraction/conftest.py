"""Frames for the tests, loaded by path: test folders are no packages."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.profile import measure_profile


@pytest.fixture(scope="session")
def frames():
    if "kspec_fibre_frames" not in sys.modules:
        path = Path(__file__).parent.parent / "trace" / "frames.py"
        spec = importlib.util.spec_from_file_location("kspec_fibre_frames", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["kspec_fibre_frames"] = module
        spec.loader.exec_module(module)
    return sys.modules["kspec_fibre_frames"]


@pytest.fixture(scope="session")
def bench(frames):
    return frames.Bench()


@pytest.fixture(scope="session")
def layout(bench):
    return FibreLayout(bench.rows - 2.0, 6.0)


@pytest.fixture(scope="session")
def flat(frames, bench):
    return bench.expose(frames.lamp(bench), np.random.default_rng(11))


@pytest.fixture(scope="session")
def measured(flat, layout):
    """Profile and refined traces of the flat."""
    return measure_profile(flat, find_traces(flat, layout))
