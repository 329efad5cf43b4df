"""``kspec qc rebuild``: the history is made again from what stands in the products."""

import shutil
import sqlite3

import pytest

from kspecpipe.quality.history import Selection, of_runs, runs_of, select_metrics
from kspecpipe.quality.rebuild import rebuild
from kspecpipe.quality.store import verdicts

KEPT = ("night", "recipe", "mode", "name", "scope", "exposure", "fibre", "value", "unit")
KEPT = (*KEPT, "warn_lo", "warn_hi", "fail_lo", "fail_hi", "flag", "mjd")


@pytest.fixture
def reduced(camera):
    """Reduce a bias and two darks and return their camera."""
    camera.run("mdark", camera.sof_with_bias([camera.dark() for _ in range(3)]))
    sof = camera.sof_with_bias([camera.dark(50.0) for _ in range(3)])
    camera.run("mdark", sof)
    return camera


def metrics(path):
    rows = select_metrics(path, Selection())
    return sorted([tuple(row[name] for name in KEPT) for row in rows], key=repr)


def facts(path):
    """Return products and inputs of each run by recipe and products."""
    runs = runs_of(path, "2026-01-29")
    numbers = [run["run"] for run in runs]
    products, inputs = (of_runs(path, table, numbers) for table in ("products", "inputs"))
    found = {}
    for run in runs:
        made = tuple(sorted((p["name"], p["catg"], p["md5"]) for p in products[run["run"]]))
        used = sorted((i["kind"], i["name"], i["tag"], i["md5"]) for i in inputs[run["run"]])
        found[made] = (used, run["recipe"], run["mode"], run["exit_code"], run["version"])
    return found


def test_a_rebuilt_history_holds_what_the_original_held(reduced, qc, tmp_path):
    original, new = reduced.output / "qc.sqlite", tmp_path / "new.sqlite"
    result = qc("rebuild", reduced.output, "--qc-store", new)
    assert result.code == 0, result.err
    assert "products added, 0 known before" in result.out
    assert metrics(new) == metrics(original)
    assert facts(new) == facts(original)


def test_rebuilding_adds_only_what_is_not_known(reduced, qc):
    result = qc("rebuild", reduced.output)
    assert "0 products added" in result.out
    later = reduced.run("mbias", reduced.sof_of(reduced.biases(4)), record=False, overwrite=True)
    assert later.products
    assert "1 products added" in qc("rebuild", reduced.output).out


def test_files_that_are_no_products_are_left_out_and_broken_ones_named(reduced, qc, tmp_path):
    shutil.copy(reduced.frame(), reduced.output)
    (reduced.output / "broken.fits").write_bytes(b"SIMPLE  =")
    result = qc("rebuild", reduced.output, "--qc-store", tmp_path / "new.sqlite")
    assert result.code == 0
    assert "left out: broken.fits" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("content", [b"no database" * 500, None])
def test_a_history_is_set_aside_and_its_verdicts_kept_if_they_can_be_read(reduced, qc, content):
    store = reduced.output / "qc.sqlite"
    assert qc("certify", reduced.master_bias(), "--who", "ada", "--why", "good").code == 0
    before = verdicts(store)
    if content:
        for suffix in ("-wal", "-shm"):
            store.with_name(store.name + suffix).unlink(missing_ok=True)
        store.write_bytes(content)
        assert qc("rebuild", reduced.output).code == 1
    result = qc("rebuild", reduced.output, "--replace")
    assert result.code == 0, result.err
    assert f"{0 if content else 1} verdicts kept" in result.out
    (aside,) = [path for path in reduced.output.glob("qc.sqlite.*") if "-" not in path.name]
    if content:
        assert aside.read_bytes() == content
    assert verdicts(store) == ({} if content else before)
    assert len(select_metrics(store, Selection())) > 20


def test_the_night_needs_the_longitude_of_the_telescope(reduced, tmp_path):
    for longitude, night in ((0.0, "2026-01-29"), (-180.0, "2026-01-28")):
        store = tmp_path / f"at{longitude:.0f}.sqlite"
        rebuild(store, reduced.output, {"TINY": longitude})
        recipes = sorted(row["recipe"] for row in runs_of(store, night))
        assert recipes == ["mbias", "mdark", "mdark"]


def test_a_folder_that_is_none_is_refused(qc):
    result = qc("rebuild", "nowhere")
    assert result.code == 2
    assert "nowhere: is no folder" in result.err


def test_an_empty_folder_gives_an_empty_history(qc, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "0 products added" in qc("rebuild", tmp_path / "empty").out
    with sqlite3.connect(tmp_path / "empty" / "qc.sqlite") as store:
        assert store.execute("SELECT COUNT(*) FROM runs").fetchone() == (0,)
    store.close()
