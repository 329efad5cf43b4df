"""What comes from outside in mid-run: full disks, Ctrl-C, kill -9, locks, other processes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kspecpipe.io import read_product

#: Runs `kspec` in a process that stops in the middle of writing a product and says so.
SLOW = """
import os, sys, time
from kspecpipe import atomic
real = os.fsync
def slow(descriptor):
    print("writing", flush=True)
    time.sleep(60)
    real(descriptor)
atomic.os.fsync = slow
from kspecpipe.cli import main
sys.exit(main(sys.argv[1:]))
"""


def command(camera, *words, output=None):
    return [
        *("mbias", str(camera.folder / "in.sof"), "--plots", "none", "--json"),
        *("--instrument", str(camera.instrument), "-o", str(output or camera.output), *words),
    ]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


#: The same in the middle of drawing a picture.
SLOW_PICTURE = """
import sys, time
from kspecpipe import plots
def slow(figure, stream):
    stream.write(b"half a picture")
    print("drawing", flush=True)
    time.sleep(60)
plots.save = slow
from kspecpipe.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def interrupted(camera):
    """Return a function that sends a signal to a run in mid-write and returns how it ended."""
    camera.sof_of(camera.biases(3))

    def send(number):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *command(camera)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is ignored in what a shell put into the background, these tests perhaps.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        assert any(name.endswith(".part") for name in files(camera.output))
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    return send


def test_ctrl_c_in_mid_write_leaves_nothing(camera, interrupted):
    code, out, err = interrupted(signal.SIGINT)
    assert code == 1
    assert "interrupted" in err
    assert "Traceback" not in err
    assert json.loads(out)["exit_code"] == 1
    assert not [name for name in files(camera.output) if name.endswith((".fits", ".part"))]


def test_ctrl_c_in_mid_picture_leaves_the_product_and_nothing_half_drawn(camera):
    camera.sof_of(camera.biases(3))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_PICTURE, *command(camera, "--plots", "file")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    assert process.stdout.readline() == "drawing\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that belong to the command
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in out + err
    assert json.loads(out)["errors"] == ["interrupted; nothing half-written is left"]
    stem = "20260129_slow_master_bias"
    assert files(camera.output) - {f"{stem}_qc.ecsv"} == {f"{stem}.fits"}


def test_kill_9_in_mid_write_leaves_no_product_and_the_next_run_cleans_up(camera, interrupted):
    code, _, _ = interrupted(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not [name for name in files(camera.output) if name.endswith(".fits")]
    assert [name for name in files(camera.output) if name.endswith(".part")]
    outcome = camera.run("mbias", camera.folder / "in.sof")
    assert int(outcome.exit_code) == 0
    assert not [name for name in files(camera.output) if name.endswith(".part")]
    assert read_product(outcome.products[0][0]).image.good.all()


def test_kill_9_does_not_harm_an_older_product(camera, interrupted):
    path = camera.run("mbias", camera.sof_of(camera.biases(4))).products[0][0]
    before = path.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *command(camera, "--set", "mbias.stacked_clipping_sigma=4")]
        + ["--overwrite"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.communicate(timeout=30)
    assert path.read_bytes() == before
    assert interrupted


def test_two_processes_on_one_folder_both_succeed(camera):
    camera.sof_of(camera.biases(4))
    code = "import sys; from kspecpipe.cli import main; sys.exit(main(sys.argv[1:]))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *command(camera, "--overwrite")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert all("Traceback" not in err for _, err in ends)
    assert files(camera.output) == {
        f"20260129_slow_master_bias{end}" for end in (".fits", ".log", "_qc.ecsv")
    } | {"qc.sqlite"}
    assert read_product(camera.output / "20260129_slow_master_bias.fits").image.good.all()
    with sqlite3.connect(camera.output / "qc.sqlite") as store:
        (count,) = store.execute("SELECT COUNT(*) FROM runs WHERE exit_code = 0").fetchone()
    store.close()
    assert count in (1, 2)  # the second may have found the product of the first


# -- the history -------------------------------------------------------------------------------


def test_a_locked_history_is_a_warning(camera, monkeypatch):
    monkeypatch.setattr("kspecpipe.quality.store.PATIENCE", 0.05)
    sof = camera.sof_of(camera.biases(3))
    camera.output.mkdir()
    lock = sqlite3.connect(camera.output / "qc.sqlite", isolation_level=None)
    lock.execute("CREATE TABLE mine (x)")
    lock.execute("BEGIN EXCLUSIVE")
    lines = Listener()
    outcome = camera.run("mbias", sof, log=lines)
    lock.execute("ROLLBACK")
    lock.close()
    assert int(outcome.exit_code) == 0
    assert any(
        "the QC history was not written" in text and "locked" in text for text in lines.heard
    )


@pytest.mark.parametrize("content", [b"no database" * 500, b"", b"SQLite format 3\0" + bytes(4000)])
def test_a_corrupt_history_does_not_stop_a_reduction(camera, content):
    camera.output.mkdir()
    store = camera.output / "qc.sqlite"
    store.write_bytes(content)
    lines = Listener()
    outcome = camera.run("mbias", camera.sof_of(camera.biases(3)), log=lines)
    assert int(outcome.exit_code) == 0
    assert outcome.products[0][0].exists()
    if content:
        assert any("the QC history was not written" in text for text in lines.heard)
        assert store.read_bytes() == content


def test_a_history_of_another_form_is_a_warning(camera):
    camera.output.mkdir()
    with sqlite3.connect(camera.output / "qc.sqlite") as store:
        store.execute("CREATE TABLE runs (something TEXT)")
    store.close()
    lines = Listener()
    assert int(camera.run("mbias", camera.sof_of(camera.biases(3)), log=lines).exit_code) == 0
    assert any("the QC history was not written" in text for text in lines.heard)


class Listener:
    """A logger that remembers."""

    def __init__(self):
        self.heard = []

    def info(self, text):
        self.heard.append(text)

    debug = warning = error = critical = info


# -- full disks --------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_message_and_leaves_nothing(camera, small_disk, capsys):
    sof = camera.sof_of(camera.biases(3))
    disk = small_disk(24)
    outcome = camera.run("mbias", sof, output=disk / "out")
    assert int(outcome.exit_code) == 1
    assert "No space left on device" in outcome.errors[0]
    assert "Traceback" not in capsys.readouterr().err
    assert not [n for n in files(disk) if n.endswith((".fits", ".part", ".png", "_qc.ecsv"))]


@pytest.mark.parametrize("kilobytes", [64, 72, 80, 100, 140])
def test_a_disk_that_fills_up_leaves_whole_products_or_none(camera, small_disk, kilobytes):
    sof = camera.sof_of(camera.biases(3))
    disk = small_disk(kilobytes)
    outcome = camera.run("mbias", sof, output=disk, plots="file")
    found = files(disk)
    assert not [name for name in found if name.endswith(".part")]
    assert int(outcome.exit_code) in (0, 1)
    assert (int(outcome.exit_code) == 0) == any(name.endswith(".fits") for name in found)
    for path, _ in outcome.products:
        assert read_product(path).image.good.all()
    for path in disk.glob("*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")  # a whole picture


def test_the_time_of_a_refusal_is_short(camera):
    start = time.perf_counter()
    assert int(camera.run("mbias", camera.folder / "none.sof").exit_code) == 3
    assert time.perf_counter() - start < 5
