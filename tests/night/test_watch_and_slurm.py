"""Frames that land one by one, and job arrays for a cluster without Dask."""

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from memory_nights import frame

from kspecpipe.cli import main
from kspecpipe.errors import InputError
from kspecpipe.night import watch as watching
from kspecpipe.night.frames import Listing
from kspecpipe.night.watch import QUIET, Watcher, watch


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1e6

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def listing(*frames):
    return Listing(Path("/night/raw"), frames=frames)


def landed(tag, clock, size=100, **given):
    return replace(frame(tag, 1, **given), stamp=(size, int(clock.now * 1e9)))


def test_science_is_taken_at_once_and_calibrations_when_their_set_is_complete():
    clock = Clock()
    watcher = Watcher(clock)
    found = listing(landed("BIAS", clock), landed("OBJECT", clock))
    assert watcher.ripe(found).frames == ()
    clock.now += 5
    assert [one.tag for one in watcher.ripe(found).frames] == ["OBJECT"]
    clock.now += QUIET
    assert {one.tag for one in watcher.ripe(found).frames} == {"OBJECT", "BIAS"}


def test_one_more_frame_makes_its_set_wait_again():
    clock = Clock()
    watcher = Watcher(clock)
    first = landed("BIAS", clock, name="a.fits")
    watcher.ripe(listing(first))
    clock.now += QUIET
    second = landed("BIAS", clock, name="b.fits")
    assert watcher.ripe(listing(first, second)).frames == ()
    clock.now += QUIET
    assert len(watcher.ripe(listing(first, second)).frames) == 2


def test_a_file_that_still_grows_is_waited_for():
    clock = Clock()
    watcher = Watcher(clock)
    for size in (10, 20, 30):
        assert watcher.ripe(listing(landed("OBJECT", clock, size))).frames == ()
        whole = landed("OBJECT", clock, size)
        clock.now += 5
    assert len(watcher.ripe(listing(whole)).frames) == 1


def test_what_was_there_before_is_taken_at_once():
    clock = Clock()
    old = replace(frame("BIAS", 1), stamp=(100, int((clock.now - 1000) * 1e9)))
    assert len(Watcher(clock).ripe(listing(old)).frames) == 1


def test_nothing_new_costs_nothing_and_patience_ends_the_watch():
    clock = Clock()
    old = replace(frame("BIAS", 1), stamp=(100, 0))
    passes = []

    def look():
        if clock.now < 1e6 + 20:
            raise InputError("nothing has landed")
        return listing(old)

    watch(look, passes.append, patience=60, watcher=Watcher(clock), sleep=clock.sleep)
    assert len(passes) == 1
    assert 1e6 + 60 <= clock.now < 1e6 + 120


@pytest.fixture
def raw(camera):
    folder = camera.folder / "raw"
    folder.mkdir()
    for path in [*camera.biases(3), camera.dark(100.0)]:
        path.rename(folder / path.name)
    return folder


@pytest.mark.usefixtures("inlined")
def test_a_half_written_frame_is_reduced_when_it_is_whole(camera, raw, monkeypatch, capsys):
    late = sorted(raw.glob("bias*"))[0]
    content, old = late.read_bytes(), 1_700_000_000
    late.write_bytes(content[:4000])
    for path in raw.iterdir():
        os.utime(path, (old, old))
    looks = []

    def sleep(_):
        looks.append(len(list(camera.output.glob("*.fits"))))
        if len(looks) == 1:
            late.write_bytes(content)
            os.utime(late, (old + 9, old + 9))

    monkeypatch.setattr(watching, "QUIET", 0.0)
    monkeypatch.setattr(watching, "SETTLED", 0.0)
    monkeypatch.setattr(watch, "__kwdefaults__", watch.__kwdefaults__ | {"sleep": sleep})
    words = ["reduce", raw, "-o", camera.output, "--instrument", camera.instrument, "--watch"]
    code = main([str(w) for w in (*words, "--idle", 0, "--plots", "none", "--workers", 1)])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert looks[0] == 0  # two biases are too few
    assert len(list(camera.output.glob("*.fits"))) == 3


def test_options_that_do_not_go_together_are_refused(camera, raw):
    words = ["reduce", str(raw), "-o", str(camera.output), "--instrument", str(camera.instrument)]
    assert main([*words, "--idle", "3"]) == 2
    assert main([*words, "--watch", "--emit", "slurm"]) == 2


@pytest.fixture
def arrays(camera, raw, tmp_path, capsys):
    """Write job arrays of a night, and submit them to an `sbatch` that only takes notes."""
    words = ["reduce", raw, "-o", camera.output, "--instrument", camera.instrument]
    assert main([str(word) for word in (*words, "--plots", "none", "--emit", "slurm")]) == 0
    assert "submit.sh" in capsys.readouterr().out
    assert not list(camera.output.glob("*.fits"))
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/bash\necho "$@" >> sbatch.log\necho 4$(wc -l < sbatch.log)\n')
    sbatch.chmod(0o755)
    folder = camera.output / "slurm"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(folder / "submit.sh")], env=environment, check=True)
    return folder


def test_steps_are_submitted_in_order_and_wait_for_each_other(arrays):
    assert (arrays / "sbatch.log").read_text().splitlines() == [
        "--parsable 1_mbias.sh",
        "--parsable --dependency=afterany:41 2_mdark.sh",
        "--dependency=afterany:42 finish.sh",
    ]
    text = (arrays / "2_mdark.sh").read_text()
    assert "#SBATCH --array=1-1" in text
    assert re.search(r"#SBATCH --mem=\d+M", text)


def test_a_task_runs_its_own_line_of_the_commands(arrays, tmp_path):
    (arrays / "1_mbias.commands").write_text(f"exit 3\necho two > {tmp_path / 'done'}\nexit 4\n")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    subprocess.run(["bash", "1_mbias.sh"], cwd=arrays, env=environment, check=True)
    assert (tmp_path / "done").read_text() == "two\n"


@pytest.mark.usefixtures("inlined")
def test_the_commands_reduce_the_night_and_the_last_writes_its_history(arrays, camera, capsys):
    for step in ("1_mbias", "2_mdark"):
        (line,) = (arrays / f"{step}.commands").read_text().splitlines()
        assert main(shlex.split(line)[1:]) == 0
    assert len(list(camera.output.glob("*.fits"))) == 3
    assert not (camera.output / "qc.sqlite").exists()
    capsys.readouterr()
    last = (arrays / "finish.sh").read_text().splitlines()[-1]
    assert main(shlex.split(last)[1:]) == 0
    assert "2 jobs, 3 products" in capsys.readouterr().out
    assert (camera.output / "qc.sqlite").exists()
