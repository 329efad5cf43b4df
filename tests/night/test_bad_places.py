"""Disks that are full or read-only, folders and files without permission: said, and survived."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from memory_nights import images_of

from kspecpipe.cli import main

pytestmark = pytest.mark.usefixtures("inlined")


def run(capsys, raw, output, instrument, *more):
    """Run `kspec reduce` and return its exit code and all that it says."""
    capsys.readouterr()
    words = ["reduce", raw, "-o", output, "--instrument", instrument, "--plots", "none", *more]
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "internal error" not in printed.out + printed.err
    return code, printed.out + printed.err


@pytest.mark.parametrize("kilobytes", [44, 90, 200])
def test_a_disk_that_fills_up_fails_some_jobs_and_with_room_the_night_goes_on(
    camera, quiet, small_disk, capsys, kilobytes
):
    disk = small_disk(kilobytes)
    night = (camera.folder / "raw", disk / "out", camera.instrument)
    code, printed = run(capsys, *night)
    assert code == 1
    assert "No space left on device" in printed
    assert "4 jobs" in printed
    assert not [path for path in disk.rglob("*") if path.suffix == ".part"]
    whole = {name: images for name, images in images_of(disk / "out").items() if images}
    assert whole == {name: quiet[name] for name in whole}
    assert len(whole) < len(quiet)
    for line in printed.splitlines():
        for word in line.replace(";", " ").split():
            if word.endswith((".sof", ".log")):
                assert Path(word).exists(), f"{word} is told and does not exist"

    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    code, printed = run(capsys, *night)
    assert code == 0, printed
    assert images_of(disk / "out") == quiet


def test_a_read_only_disk_is_refused_before_any_work_and_raw_frames_may_be_on_one(
    camera, quiet, small_disk, capsys
):
    disk = small_disk(2000)
    raw = disk / "raw"
    raw.mkdir()
    for path in (camera.folder / "raw").iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, printed = run(capsys, raw, disk / "out", camera.instrument)
    assert code == 1
    assert printed.count("\n") == 1
    assert f"the output {disk / 'out'} cannot be written" in printed
    code, printed = run(capsys, raw, camera.output, camera.instrument)
    assert code == 0, printed
    assert images_of(camera.output) == quiet


@pytest.fixture
def someone(new_camera):
    """Write a night as root and go on as a user without rights (root is refused nothing)."""
    with tempfile.TemporaryDirectory() as place:
        camera = new_camera(Path(place))
        raw = camera.folder / "raw"
        raw.mkdir()
        for path in camera.biases(4):
            path.rename(raw / path.name)
        for path in (camera.folder, camera.instrument, raw):
            path.chmod(0o755)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield camera
        if root:
            os.seteuid(0)
        camera.folder.chmod(0o755)
        raw.chmod(0o755)


def as_root(action):
    """Do something with the rights of who started the tests."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    action()
    os.seteuid(user)


def test_an_output_without_permission_is_refused_in_one_line(someone, capsys):
    as_root(lambda: someone.folder.chmod(0o555))
    code, printed = run(capsys, someone.folder / "raw", someone.output, someone.instrument)
    assert code == 1
    assert printed.count("\n") == 1
    assert f"the output {someone.output} cannot be written" in printed


def test_raw_frames_without_permission_are_named(someone, capsys):
    raw = someone.folder / "raw"
    secret = sorted(raw.glob("*.fits"))[0]
    as_root(lambda: secret.chmod(0o000))
    as_root(lambda: someone.folder.chmod(0o777))
    code, printed = run(capsys, raw, someone.output, someone.instrument)
    assert code == 0, printed
    assert f"{secret.name}: " in printed
    assert "permission" in printed.lower()
    assert len(list(someone.output.glob("*_master_bias.fits"))) == 1

    below = raw / "below"
    as_root(lambda: below.mkdir(mode=0o000))
    code, printed = run(capsys, raw, someone.output, someone.instrument)
    assert code == 0
    assert "below: the folder cannot be read: Permission denied" in printed
    as_root(lambda: raw.chmod(0o000))
    code, printed = run(capsys, raw, someone.output, someone.instrument)
    assert code == 3
    assert "cannot be read" in printed
