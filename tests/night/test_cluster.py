"""A real Dask cluster on loopback: a worker is killed in mid-job, then the scheduler goes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from memory_nights import images_of

from kspecpipe.cli import main
from kspecpipe.night import pool

pytest.importorskip("distributed", reason="the extra `cluster` (Dask) is not installed")
DASK = [sys.executable, "-m", "dask"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture
def cluster(camera):
    """Start a scheduler and two workers."""
    place = camera.folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--scheduler-file", str(place), "--no-dashboard"]
    scheduler = subprocess.Popen([*DASK, "scheduler", "--port", "0", *options], **QUIET)
    address = address_in(place)
    command = [*DASK, "worker", "--nthreads", "1", "--no-nanny", *options]
    workers = [subprocess.Popen(command, cwd=camera.folder, **QUIET) for _ in range(2)]
    yield address, scheduler, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait(timeout=30)


def address_in(place, patience=60.0):
    """Wait until a scheduler has written its file: for a moment it is there and empty."""
    end = time.monotonic() + patience
    while True:
        try:
            return json.loads(place.read_text())["address"]
        except (FileNotFoundError, ValueError):
            assert time.monotonic() < end
        time.sleep(0.02)


def appears(path, pattern=None, patience=60.0):
    """Wait for a file, or for one of a pattern in a folder."""
    end = time.monotonic() + patience
    while not (list(path.glob(pattern)) if pattern else path.exists()):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def when_jobs_run(output, action):
    """Do something in a thread as soon as the first job has been handed out."""

    def wait():
        assert appears(output / "jobs", "*.sof")
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_killed_worker_changes_nothing_and_a_lost_scheduler_is_said(
    camera, quiet, cluster, capsys, monkeypatch
):
    address, scheduler, (victim, survivor) = cluster

    def reduce(output):
        words = ["reduce", camera.folder / "raw", "-o", output, "--instrument", camera.instrument]
        code = main([str(w) for w in (*words, "--plots", "none", "--scheduler", address)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return code, printed.out + printed.err

    # Both workers have a job at once, and have to import the recipes first.
    output = camera.folder / "cluster"
    killer = when_jobs_run(output, victim.kill)
    code, printed = reduce(output)
    killer.join()
    assert code == 0, printed
    assert images_of(output) == quiet

    # As many jobs are handed out at a time as the one worker that is left can begin soon.
    monkeypatch.setattr(pool, "_LEAST_QUEUED", 1)
    left = pool.ClusterPool(address)
    assert left.capacity == 2
    left.close(wait=True)

    # The scheduler goes while a job runs.
    output = camera.folder / "vanished"
    survivor.send_signal(signal.SIGSTOP)  # so that the job is not done before
    killer = when_jobs_run(output, scheduler.kill)
    code, printed = reduce(output)
    killer.join()
    os.kill(survivor.pid, signal.SIGCONT)
    assert code == 1
    assert f"the scheduler {address} is gone" in printed
    assert "start again" in printed
    assert not list(output.glob("*.fits"))

    # It is still gone: nothing is begun.
    scheduler.wait(timeout=30)
    monkeypatch.setattr(pool.ClusterPool.__init__, "__defaults__", (0.5,))
    code, printed = reduce(camera.folder / "nothing")
    assert code == 1
    assert "no scheduler answers" in printed
