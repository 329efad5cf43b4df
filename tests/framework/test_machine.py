"""What a process may use, and the memory of one run in a process that has had many."""

import numpy as np
import pytest

from kspecpipe import machine
from kspecpipe.machine import forget_peak, peak_memory


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Files in place of those in which Linux tells of a process, and takes its orders."""
    status, orders = tmp_path / "status", tmp_path / "clear_refs"
    monkeypatch.setattr(machine, "_STATUS", status)
    monkeypatch.setattr(machine, "_FORGET", orders)
    return status, orders


def forgets() -> bool:
    """Return whether this system takes the order to forget; some containers do not."""
    pixels = np.ones(16_000_000)  # 128 MB
    high = peak_memory()
    del pixels
    forget_peak()
    return peak_memory() < high - 100


def test_the_peak_holds_what_was_taken_and_given_back():
    pixels = np.ones(64_000_000)  # 512 MB
    del pixels
    assert peak_memory() > 488


def test_the_peak_is_that_since_it_was_forgotten():
    if not forgets():
        pytest.skip("this system does not forget a peak")
    before = peak_memory()
    pixels = np.ones(16_000_000)
    assert peak_memory() - before == pytest.approx(122, abs=10)
    del pixels


def test_the_peak_is_read_where_linux_tells_it_and_forgotten_by_its_order(files):
    status, orders = files
    status.write_text("Name:\tkspec\nVmHWM:\t  204800 kB\nVmRSS:\t 1024 kB\n", encoding="ascii")
    forget_peak()
    assert (peak_memory(), orders.read_text(encoding="ascii")) == (200.0, "5")


@pytest.mark.parametrize("text", [None, "Name:\tkspec\n", "no status at all", "VmHWM:\tmuch kB\n"])
def test_where_the_system_does_not_tell_it_is_that_of_the_process(files, text):
    status, _ = files
    if text is not None:
        status.write_text(text, encoding="ascii")
    forget_peak()
    assert peak_memory() > 20
