"""What a process may use, and the memory of one run in a process that has had many."""

import subprocess
import sys

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


#: A process of its own: the garbage of other tests, collected meanwhile, would hide what is taken.
TAKE_AND_GIVE_BACK = """
import numpy as np
from kspecpipe.machine import forget_peak, peak_memory
start = peak_memory()
pixels = np.ones(64_000_000)  # 488 MB
high = peak_memory()
del pixels
kept = peak_memory()
forget_peak()
forgotten = peak_memory()
pixels = np.ones(16_000_000)  # 122 MB
print(high - start, kept - start, forgotten - start, peak_memory() - forgotten)
"""


def test_the_peak_is_that_since_it_was_forgotten():
    words = [sys.executable, "-c", TAKE_AND_GIVE_BACK]
    answer = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    high, kept, forgotten, rise = (float(word) for word in answer.split())
    assert [high, kept] == pytest.approx([488, 488], abs=10)  # pages are counted in batches
    if forgotten > 400:
        pytest.skip("this system does not forget a peak, as some containers")
    assert forgotten < 20
    assert rise == pytest.approx(122, abs=10)


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
