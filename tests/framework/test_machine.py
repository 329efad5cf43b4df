"""What a process may use, and the memory of one run in a process that has had many."""

from pathlib import Path

import numpy as np
import pytest

from kspecpipe import machine
from kspecpipe.machine import forget_peak, peak_memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_is_that_since_it_was_forgotten():
    forget_peak()
    before = peak_memory()
    pixels = np.ones(16_000_000)  # 128 MB
    assert peak_memory() - before == pytest.approx(122, abs=10)
    del pixels
    forget_peak()
    assert peak_memory() < before + 20


def test_where_the_system_does_not_tell_it_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(machine, "_FORGET", tmp_path / "none" / "none")
    forget_peak()
    assert peak_memory() > 20
