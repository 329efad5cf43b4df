"""The flow of jobs: how many at a time, what is fallen back to, and one run at a time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from memory_nights import frame, product

from kspecpipe.cli import main
from kspecpipe.errors import ExitCode
from kspecpipe.framework.outcome import Outcome, RunOptions
from kspecpipe.night.execute import Coordinator, Services
from kspecpipe.night.ledger import Settings
from kspecpipe.night.pool import INTERPRETER
from kspecpipe.night.session import alone_in
from kspecpipe.night.work import Delivery


class CountingPool:
    """Four threads whose work lasts until so many have been handed out as are expected."""

    capacity = 4

    def __init__(self, memory, expected):
        self.memory, self.expected, self.now, self.most = memory, expected, 0, 0
        self._full, self._lock = threading.Event(), threading.Lock()
        self._threads = ThreadPoolExecutor(self.capacity)

    def submit(self, function, order):
        del function
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        if self.now >= self.expected:
            self._full.set()
        return self._threads.submit(self._rest, order)

    def _rest(self, order):
        self._full.wait(timeout=30)
        with self._lock:
            self.now -= 1
        return Delivery(Outcome(order.recipe, ExitCode.OK), 0.0, 0.0, 0.0)

    def lost(self):
        return ""

    def close(self, *, wait):
        self._threads.shutdown(wait=wait)


class Silent:
    """Is told what happens and keeps it."""

    def started(self, job):
        del job

    def ended(self, result):
        del result

    def note(self, text):
        raise AssertionError(text)


def run(plan, pool, instruments, output):
    """Run a plan whose recipes are not run."""
    services = Services(
        settings=Settings(instruments, RunOptions(output=output)),
        pool=lambda: pool,
        reporter=Silent(),
        record=lambda _: None,
        fault_of=lambda _: "",
    )
    return Coordinator(plan, services).run()


@pytest.mark.parametrize(("room", "most"), [(0.5, 1), (1.5, 1), (2.5, 2), (9.0, 4)])
def test_no_more_jobs_run_than_their_declared_memory_allows(
    planned, instruments, tmp_path, room, most
):
    plan = planned([frame("BIAS", i / 60, day, exptime=0.0) for day in range(8) for i in range(3)])
    assert len(plan.jobs) == 8
    need = plan.jobs[0].memory + INTERPRETER
    assert plan.jobs[0].memory == plan.jobs[0].recipe.bytes_per_pixel * 1300 * 1340
    pool = CountingPool(room * need, most)
    results = run(plan, pool, instruments, tmp_path)
    assert len(results) == 8
    assert pool.most == most


def test_near_misses_are_the_nearest_in_time(planned):
    darks = [frame("DARK", i, exptime=100.0) for i in range(3)]
    days = (-9, 4, -1, 2, 30, -50, 7)
    known = [product("MASTER_BIAS", 0, days=day, readmode="fast", name=f"{day}") for day in days]
    given = [product("MASTER_BIAS", 0, days=-3, readmode="fast", name="mine")]
    plan = planned(darks, known=known, given=given)
    (job,) = plan.jobs
    misses = plan.shelf.near_misses(job.slots[0].spec, job.wish)
    assert [name for name, _ in misses] == ["-1", "2", "mine", "4", "7"]


@pytest.mark.usefixtures("inlined")
def test_a_master_that_fails_is_replaced_by_that_of_another_night(camera, capsys):
    raw = camera.folder / "raw"
    raw.mkdir()
    paths = camera.biases(3)
    camera.start += timedelta(days=2)
    paths += [camera.frame(data=camera.noise() * 0 + 600.0) for _ in range(3)]  # camera was off
    paths += [camera.dark(100.0)]
    for path in paths:
        path.rename(raw / path.name)
    words = ["reduce", raw, "-o", camera.output, "--instrument", camera.instrument]
    assert main([str(word) for word in (*words, "--plots", "none")]) == 1
    capsys.readouterr()
    (dark,) = camera.output.glob("*master_dark.fits")
    assert main(["why", str(dark), "--instrument", str(camera.instrument)]) == 0
    told = capsys.readouterr().out
    assert "20260129_slow_master_bias.fits  (3 days, 2.0" in told
    assert "20260131_slow_master_bias.fits: 20260131_slow_mbias failed" in told


def test_a_second_run_into_the_same_output_waits_for_the_first(tmp_path):
    told, order = [], []

    def second():
        with alone_in(tmp_path, told.append):
            order.append("second")

    with alone_in(tmp_path, told.append):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    assert len(told) == 1
    assert "another run works in" in told[0]
    assert "process" in told[0]
