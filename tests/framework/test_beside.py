"""Work in copies of the process: the same results, errors and warnings as without them."""

import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.beside import beside, spread
from kspecpipe.signal import Signal

linux = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux only")


@settings(max_examples=20)
@given(st.integers(0, 7), st.integers(1, 4))
def test_results_come_in_the_order_of_the_items(number, cores):
    assert spread(lambda item: item**2, range(number), cores) == [i**2 for i in range(number)]


@linux
def test_shares_are_worked_on_in_processes_of_their_own_the_first_of_them_here():
    processes = spread(lambda _: os.getpid(), range(5), 2)
    assert len(set(processes)) == 2
    assert processes[0] == processes[1] == os.getpid()
    assert len(set(spread(lambda _: os.getpid(), range(5), 9))) == 5
    assert set(spread(lambda _: os.getpid(), range(5), 1)) == {os.getpid()}


def test_signals_arrive_as_they_were_computed():
    noise = (
        np.random.default_rng(3).normal(size=(2, 400, 300)).astype(np.float32)
    )  # more than a pipe holds at a time
    here, there = spread(lambda part: Signal.of(part, part**2, 4), list(noise), 2)
    for found, part in zip((here, there), noise, strict=True):
        np.testing.assert_array_equal(found.value, part)
        np.testing.assert_array_equal(found.variance, part**2)
        assert found.dq.dtype == np.uint16
        assert (found.dq == 4).all()


@linux
def test_this_process_goes_on_while_the_copy_works(tmp_path):
    def work() -> int:
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        return os.getpid()

    with beside(work, 2) as found:
        (tmp_path / "go").touch()
        assert found() != os.getpid()


def test_with_one_core_the_work_is_done_when_it_is_asked_for():
    done = []
    with beside(lambda: done.append(1), 1) as found:
        assert done == []
        found()
    assert done == [1]


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_is_met_here(cores):
    def fail(item: int) -> int:
        if item == 2:
            raise ValueError(f"no {item}")
        return item

    with pytest.raises(ValueError, match="no 2"):
        spread(fail, range(3), cores)


@pytest.mark.parametrize("cores", [1, 2])
def test_what_python_warns_of_is_heard_here(cores):
    def doubt(item: int) -> int:
        warnings.warn(f"odd {item}", RuntimeWarning, stacklevel=1)
        return item

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert spread(doubt, range(4), cores) == [0, 1, 2, 3]
    assert [str(one.message) for one in said] == [f"odd {i}" for i in range(4)]


@linux
def test_what_a_dead_copy_owes_is_done_here():
    own = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert spread(work, range(4), 3) == [0, 1, 2, 3]


@linux
def test_what_a_copy_that_hangs_owes_is_done_here(monkeypatch):
    monkeypatch.setattr("kspecpipe.beside.PATIENCE", 0.2)
    own = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGSTOP)
        return item

    assert spread(work, range(2), 2) == [0, 1]


@linux
def test_where_no_process_is_allowed_the_work_is_done_here(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert spread(lambda _: os.getpid(), range(2), 2) == [os.getpid()] * 2


@linux
def test_a_copy_does_not_outlive_an_error_here(tmp_path):
    def work() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    def told() -> str:
        place = tmp_path / "pid"
        return place.read_text() if place.exists() else ""

    with pytest.raises(OSError, match="here"), beside(work, 2):
        end = time.monotonic() + 20
        while not told() and time.monotonic() < end:
            time.sleep(0.01)
        raise OSError("here")
    assert not Path(f"/proc/{told()}").exists()
