"""Killed workers, killed runs, full disks: the data are those of a run that nothing disturbs."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from memory_nights import images_of

from kspecpipe.cli import main
from kspecpipe.machine import usable_cores
from kspecpipe.night.pool import LocalPool


def words_of(camera, output, *more):
    """Return the words of a run with one worker."""
    words = ["reduce", camera.folder / "raw", "-o", output, "--instrument", camera.instrument]
    return [str(word) for word in (*words, "--plots", "none", "--workers", 1, *more)]


def workers_of(pid, patience=60.0):
    """Wait until the pool has workers, and return them."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = [int(word) for word in children.read_text().split()]
        found = [c for c in found if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("no worker was started")


needs_proc = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="finds processes by /proc"
)


@needs_proc
def test_a_killed_worker_changes_nothing(camera, quiet, capsys):
    def kill():
        (worker,) = workers_of(os.getpid())
        time.sleep(random.Random(8).uniform(0, 1))
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    code = main(words_of(camera, camera.output))
    killer.join()
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "a worker process died" in printed
    assert images_of(camera.output) == quiet


@needs_proc
def test_a_killed_run_leaves_no_process_and_the_next_goes_on(camera, quiet, inline, capsys):
    run = subprocess.Popen(
        [sys.executable, "-m", "kspecpipe.cli", *words_of(camera, camera.output)],
        stdout=subprocess.DEVNULL,
    )
    workers = workers_of(run.pid)
    end = time.monotonic() + 60
    while not list((camera.output / "jobs").glob("*.json")) and time.monotonic() < end:
        time.sleep(0.005)
    run.kill()
    run.wait(timeout=60)
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)

    with inline():
        assert main(words_of(camera, camera.output, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert "unchanged" in {job["status"] for job in found["jobs"]}
    assert images_of(camera.output) == quiet
    assert not list(camera.output.glob(".kspec_*.part"))


def test_a_pool_whose_worker_died_is_replaced():
    pool = LocalPool(1)
    try:
        with pytest.raises(Exception, match="terminated abruptly"):
            pool.submit(os._exit, 9).result(timeout=60)
        pool.renew()
        assert pool.submit(abs, -3).result(timeout=60) == 3
        assert pool.lost() == ""
    finally:
        pool.close(wait=True)


def test_workers_have_one_thread_and_the_caller_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    pool = LocalPool(1)
    try:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(timeout=60) == "1"
    finally:
        pool.close(wait=True)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert usable_cores() >= 1


def test_a_script_without_a_guard_can_have_workers(tmp_path):
    """Spawned workers import the main module again, unless they are kept from it."""
    script = tmp_path / "script.py"
    script.write_text(
        "from kspecpipe.night.pool import LocalPool\n"
        "pool = LocalPool(1)\n"
        "print(pool.submit(abs, -3).result(timeout=60))\n"
        "pool.close(wait=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
