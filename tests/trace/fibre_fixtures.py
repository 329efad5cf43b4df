"""Fixtures of traces, profiles and extraction: one camera, one flat, one measurement of it."""

from types import ModuleType

import fibre_frames
import numpy as np
import pytest

from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.profile import measure_profile


@pytest.fixture(scope="session")
def frames() -> ModuleType:
    """Return the simulator of frames beside this file."""
    return fibre_frames


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
