"""Killed workers, killed runs, and a real Dask cluster: the data are those of a quiet run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from astropy.io import fits

from kspecpipe.night.pool import LocalPool, usable_cores


@pytest.fixture
def raw(camera):
    """Ten frames: biases and darks of two read-out modes."""
    folder = camera.folder / "raw"
    folder.mkdir()
    paths = [*camera.biases(3), camera.dark(100.0), camera.dark(100.0)]
    paths += [camera.frame(SPEED="fast") for _ in range(3)]
    paths += [camera.dark(100.0, SPEED="fast") for _ in range(2)]
    for path in paths:
        path.rename(folder / path.name)
    return folder


def command(camera, output, *words):
    return [
        *(sys.executable, "-m", "kspecpipe.cli", "reduce", str(camera.folder / "raw")),
        *("-o", str(output), "--instrument", str(camera.instrument), "--plots", "none"),
        *(words or ("--workers", "2")),
    ]


def reduce(camera, output, *words):
    done = subprocess.run(
        command(camera, output, *words), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def data(folder):
    """Return the bytes of all images of all products."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            found[path.name] = [hdu.data.tobytes() for hdu in hdus if hdu.is_image]
    return found


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def workers_of(pid, patience=60.0):
    """Wait until the pool has workers, and return them."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = [c for c in children(pid) if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("no worker was started")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find processes")
@pytest.mark.usefixtures("raw")
def test_killed_workers_and_killed_runs_change_nothing(camera):
    quiet = camera.folder / "quiet"
    reduce(camera, quiet)
    expected = data(quiet)
    assert len(expected) == 6
    rng = random.Random(8)

    # One worker is killed: its jobs are done again, and the run ends well.
    output = camera.folder / "worker"
    run = subprocess.Popen(command(camera, output), stdout=subprocess.PIPE, text=True)
    time.sleep(rng.uniform(0, 0.5))
    os.kill(rng.choice(workers_of(run.pid)), signal.SIGKILL)
    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0, printed
    assert "a worker process died" in printed
    assert data(output) == expected

    # The whole run is killed: no process stays, and the next run goes on.
    output = camera.folder / "run"
    run = subprocess.Popen(command(camera, output), stdout=subprocess.DEVNULL)
    workers = workers_of(run.pid)
    time.sleep(rng.uniform(0, 2))
    run.kill()
    run.wait(timeout=60)
    end = time.monotonic() + 30
    while alive(workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(workers) == []
    reduce(camera, output)
    assert data(output) == expected
    assert not list(output.glob(".kspec_*.part"))


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


@pytest.fixture
def cluster(camera):
    """Start a real scheduler and two workers on loopback."""
    pytest.importorskip("distributed", reason="the extra `cluster` (Dask) is not installed")
    place = camera.folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ["--scheduler-file", str(place), "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *options], **quiet
    )
    workers = [
        subprocess.Popen(
            [*dask, "worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *options],
            cwd=camera.folder,
            **quiet,
        )
        for _ in range(2)
    ]
    end = time.monotonic() + 120
    while not place.exists() and time.monotonic() < end:
        time.sleep(0.1)
    yield json.loads(place.read_text())["address"], scheduler, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait(timeout=30)


@pytest.mark.usefixtures("raw")
def test_a_cluster_gives_the_same_data_though_a_worker_is_killed(camera, cluster):
    address, scheduler, workers = cluster
    local = camera.folder / "local"
    reduce(camera, local)
    output = camera.folder / "cluster"
    run = subprocess.Popen(
        command(camera, output, "--scheduler", address), stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not list((output / "jobs").glob("*.sof")) and time.monotonic() < end:
        time.sleep(0.05)
    workers[0].kill()  # at its first job: it has to import the recipes before
    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0, printed
    assert data(output) == data(local)

    scheduler.kill()
    scheduler.wait(timeout=30)
    words = command(camera, camera.folder / "gone", "--scheduler", address)
    gone = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert gone.returncode == 1
    assert "no scheduler answers" in gone.stderr
    assert "Traceback" not in gone.stderr
