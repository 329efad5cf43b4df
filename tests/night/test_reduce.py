"""`kspec reduce` on small nights: the whole way, again, changed, broken and blocked."""

import json
import sqlite3

import pytest
from astropy.io import fits

from kspecpipe.cli import main

pytestmark = pytest.mark.usefixtures("inlined")


@pytest.fixture
def reduce(camera, capsys):
    """Run `kspec reduce` on the frames of the small camera and return what it says as JSON."""

    def run(*words, raw=camera.folder / "raw", instrument=None):
        instrument = instrument or camera.instrument
        capsys.readouterr()
        options = ["--instrument", instrument, "--plots", "none", "--json", "--workers", 1]
        code = main([str(w) for w in ("reduce", raw, "-o", camera.output, *options, *words)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        if not printed.out:
            return {"exit_code": code, "errors": printed.err, "jobs": []}
        found = json.loads(printed.out)
        assert found["exit_code"] == code
        return found | {"err": printed.err}

    return run


@pytest.fixture
def raw(camera):
    """Biases, darks and what is not ours, in a folder of their own."""
    folder = camera.folder / "raw"
    folder.mkdir()
    for path in [*camera.biases(4), camera.dark(100.0), camera.dark(100.0)]:
        path.rename(folder / path.name)
    (folder / "notes.txt").write_text("clouds")
    return folder


def statuses(found):
    return {job["recipe"]: job["status"] for job in found["jobs"]}


def data(folder):
    return {path.name: fits.getheader(path)["DATAMD5"] for path in sorted(folder.glob("*.fits"))}


def history(folder):
    with sqlite3.connect(folder / "qc.sqlite") as connection:
        rows = connection.execute("SELECT recipe, exit_code FROM runs ORDER BY run").fetchall()
    connection.close()
    return rows


@pytest.mark.usefixtures("raw")
def test_a_night_is_reduced_then_unchanged_then_only_what_depends_is_redone(reduce, camera):
    first = reduce()
    assert statuses(first) == {"mbias": "done", "mdark": "done"}
    assert len(history(camera.output)) == 2
    made = data(camera.output)
    for job in first["jobs"]:
        for suffix in (".sof", ".log", ".json"):
            assert (camera.output / "jobs" / f"{job['job']}{suffix}").exists()

    assert statuses(reduce()) == {"mbias": "unchanged", "mdark": "unchanged"}
    assert data(camera.output) == made
    assert len(history(camera.output)) == 2

    changed = reduce("--set", "mdark.clipping_sigma=4")
    assert statuses(changed) == {"mbias": "unchanged", "mdark": "done"}


@pytest.mark.usefixtures("raw")
def test_how_near_a_calibration_is_stands_in_product_and_quality_control(reduce, camera):
    reduce()
    (path,) = camera.output.glob("*master_dark.fits")
    header = fits.getheader(path)
    assert header["ESO PRO REC1 CAL1 LEVEL"] == 0
    assert header["ESO QC CALIB LEVEL"] == 0
    assert header["ESO QC CALIB LEVEL FLAG"] == "ok"


@pytest.mark.usefixtures("raw")
def test_a_job_run_by_hand_gives_the_same_data(reduce, camera, capsys):
    reduce()
    (sof,) = (camera.output / "jobs").glob("*mdark.sof")
    words = ["mdark", sof, "-o", camera.folder / "hand", "--instrument", camera.instrument]
    assert main([str(word) for word in words] + ["-q", "--plots", "none"]) == 0
    capsys.readouterr()
    for path in (camera.folder / "hand").glob("*.fits"):
        with fits.open(path) as hand, fits.open(camera.output / path.name) as night:
            images = [hdu.name for hdu in hand if hdu.is_image]
            assert images
            for name in images:
                assert hand[name].data.tobytes() == night[name].data.tobytes()


def test_one_corrupt_file_is_named_and_the_rest_goes_on(reduce, raw):
    path = sorted(raw.glob("*.fits"))[0]
    path.write_bytes(path.read_bytes()[:3500])
    found = reduce()
    assert found["exit_code"] == 0
    assert [one["file"] for one in found["cannot_be_used"]] == [str(path)]
    assert path.name in found["err"]


def test_what_lacks_its_calibration_is_blocked_and_says_by_what(reduce, raw):
    for path in sorted(raw.glob("bias*"))[:2]:
        path.unlink()
    found = reduce()
    assert found["exit_code"] == 5
    assert statuses(found) == {"mdark": "blocked"}
    assert "no MASTER_BIAS" in found["jobs"][0]["reason"]
    assert "at least 3" in found["not_reduced"][0]["why"]


def test_a_master_that_fails_blocks_its_dependants_with_its_name(reduce, camera):
    raw = camera.folder / "raw"
    raw.mkdir()
    for _ in range(3):
        path = camera.frame(data=camera.noise() * 0 + 600.0)  # no noise: the camera was off
        path.rename(raw / path.name)
    dark = camera.dark(100.0)
    dark.rename(raw / dark.name)
    found = reduce()
    assert found["exit_code"] == 1
    assert statuses(found) == {"mbias": "failed", "mdark": "blocked"}
    reason = found["jobs"][1]["reason"]
    assert "mbias" in reason
    assert "failed" in reason


@pytest.mark.usefixtures("raw")
def test_failed_quality_control_ends_with_4_and_is_not_built_upon(reduce, camera):
    limits = camera.folder / "strict.yaml"
    limits.write_text("mbias: {qc: {BIAS LEVEL: {fail: [0, 1]}}}\n")
    found = reduce("--settings", limits, "--only", "mbias")
    assert found["exit_code"] == 4
    assert found["jobs"][0]["reason"] == "BIAS LEVEL"
    blocked = reduce("--settings", limits)
    assert blocked["exit_code"] == 5
    assert "quality control failed (BIAS LEVEL)" in blocked["jobs"][1]["reason"]


def test_a_calibration_of_the_user_is_taken(reduce, camera, raw):
    master = camera.master_bias().rename(camera.folder / "mine.fits")
    for path in raw.glob("bias*"):
        path.unlink()
    found = reduce("--with", f"MASTER_BIAS={master}")
    (job,) = found["jobs"]
    assert job["status"] == "done"
    assert job["calibrations"][0]["file"] == "mine.fits"
    assert "given by the user" in job["calibrations"][0]["reason"]


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--with", "MASTER_BIAS"], 2, "TAG=PATH"),
        (["--with", "MASTR_BIAS=x"], 2, "MASTER_BIAS"),
        (["--with", "MASTER_BIAS=/nowhere.fits"], 3, "no such file"),
        (["--until", "mdrak"], 2, "mdark"),
        (["--mode", "red"], 2, "no frame is of it"),
        (["--set", "mbias.sigma=3"], 2, "no parameter"),
        (["--scheduler", "tcp://127.0.0.1:9"], 2, "not allowed with"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_done(reduce, camera, words, code, message):
    found = reduce(*words)
    assert found["exit_code"] == code
    assert message in json.dumps(found)
    assert not list(camera.output.glob("*.fits"))


def test_an_empty_folder_is_an_input_error(reduce, camera):
    empty = camera.folder / "empty"
    empty.mkdir()
    found = reduce(raw=empty)
    assert found["exit_code"] == 3
    assert "no FITS files" in json.dumps(found)
    assert reduce(raw=camera.folder / "nowhere")["exit_code"] == 3


def test_raw_frames_are_never_touched_nor_mixed_with_products(reduce, camera, raw):
    before = {path: path.read_bytes() for path in raw.iterdir()}
    reduce()
    assert {path: path.read_bytes() for path in raw.iterdir()} == before
    code = main(["reduce", str(raw), "-o", str(raw), "--instrument", str(camera.instrument)])
    assert code == 2


@pytest.mark.usefixtures("raw")
def test_an_output_that_is_a_file_is_refused(reduce, camera):
    camera.output.touch()
    found = reduce()
    assert found["exit_code"] == 1
    assert "is a file" in json.dumps(found)


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("content", [b"", b"no database" * 500])
def test_a_history_that_cannot_be_read_does_not_stop_a_night(reduce, camera, content):
    """An empty one is what a run leaves that is killed before it could write."""
    camera.output.mkdir()
    (camera.output / "qc.sqlite").write_bytes(content)
    found = reduce()
    assert found["exit_code"] == 0
    assert statuses(found) == {"mbias": "done", "mdark": "done"}
    if content:
        assert found["err"].count("not known which calibrations were rejected") == 1
        assert found["err"].count("the QC history was not written") == 1
    else:
        assert len(history(camera.output)) == 2


@pytest.mark.usefixtures("raw")
def test_the_plan_shows_jobs_and_gaps_and_writes_nothing(camera, raw, capsys):
    sorted(raw.glob("bias*"))[0].unlink()
    sorted(raw.glob("bias*"))[0].unlink()
    words = ["plan", raw, "-o", camera.output, "--instrument", camera.instrument]
    assert main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out
    assert "MASTER_BIAS: MISSING" in shown
    assert "not reduced" in shown
    assert main([*(str(word) for word in words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["recipe"] == "mdark"
    assert not camera.output.exists()
