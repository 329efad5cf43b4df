import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from kspecpipe.qc import Flag, Limits, QCRow
from kspecpipe.quality import store
from kspecpipe.quality.store import (
    FORM,
    InputRecord,
    ProductRecord,
    RunRecord,
    StoreError,
    new_verdict,
    person,
    record_run,
    record_runs,
    record_verdict,
    verdicts,
)

ROW = QCRow("LEVEL", 3.5, "adu", "frame", "", 0, Limits(warn=(0, 5)), Flag.OK, "level")
BIAS = ProductRecord("m.fits", "MASTER_BIAS", "abc", "md5m")
RECORD = RunRecord(
    recipe="mbias",
    started="2026-01-29T20:00:00",
    seconds=1.5,
    memory_mb=100.0,
    status="ok",
    exit_code=0,
    instrument="TINY",
    mode="slow",
    night="2026-01-29",
    mjd=61069.8,
    folder="/data/out",
    products=[BIAS],
    inputs=[InputRecord("raw", "b1.fits", "BIAS", "md5a"), InputRecord("raw", "b2.fits", "BIAS")],
    metrics=[ROW, replace(ROW, value=float("nan"), flag=Flag.UNMEASURED)],
)


def rows(path, query):
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_a_run_is_stored_with_products_inputs_and_metrics(tmp_path):
    path = tmp_path / "qc.sqlite"
    assert record_run(path, RECORD) == 1
    assert rows(path, "SELECT recipe, exit_code, mode, night, mjd, folder FROM runs") == [
        ("mbias", 0, "slow", "2026-01-29", 61069.8, "/data/out")
    ]
    assert rows(path, "SELECT name, catg, content_key, md5 FROM products") == [
        ("m.fits", "MASTER_BIAS", "abc", "md5m")
    ]
    assert rows(path, "SELECT kind, name, md5 FROM inputs") == [
        ("raw", "b1.fits", "md5a"),
        ("raw", "b2.fits", ""),
    ]
    assert rows(path, "SELECT value, mode, mjd, warn_lo, warn_hi, fail_lo, flag FROM metrics") == [
        (3.5, "slow", 61069.8, 0.0, 5.0, None, "ok"),
        (None, "slow", 61069.8, 0.0, 5.0, None, "unmeasured"),
    ]


def test_a_store_is_in_wal_mode_and_tells_its_form(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert rows(path, "PRAGMA user_version") == [(FORM,)]


def test_nothing_but_the_store_is_left_by_those_who_write_and_read(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    with store.reading(path) as early:
        record_run(path, replace(RECORD, started="later"))
        assert early.execute("SELECT COUNT(*) FROM runs").fetchone()[0] == 2
    verdicts(path)
    assert [child.name for child in tmp_path.iterdir()] == ["qc.sqlite"]


def test_readers_cannot_write(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    with pytest.raises(StoreError, match="readonly"), store.reading(path) as connection:
        connection.execute("DELETE FROM runs")
    assert len(rows(path, "SELECT run FROM runs")) == 1


def test_a_metric_of_an_exposure_has_the_date_of_that_exposure(tmp_path):
    path = tmp_path / "qc.sqlite"
    metrics = [replace(ROW, scope="exposure", exposure=name) for name in ("a", "b")]
    record_run(path, replace(RECORD, metrics=metrics, dates={"a": 1.0, "b": 2.0}))
    assert rows(path, "SELECT mjd FROM metrics ORDER BY metric") == [(1.0,), (2.0,)]


def test_a_folder_below_the_store_is_stored_so_that_both_can_be_moved(tmp_path):
    path = tmp_path / "qc.sqlite"
    for folder in (tmp_path, tmp_path / "n1", tmp_path.parent / "elsewhere"):
        record_run(path, replace(RECORD, folder=str(folder)))
    found = [folder for (folder,) in rows(path, "SELECT folder FROM runs")]
    assert found == [".", "n1", str((tmp_path.parent / "elsewhere").resolve())]


def test_runs_are_appended_and_the_older_is_superseded_never_deleted(tmp_path):
    path = tmp_path / "qc.sqlite"
    for code in (0, 0, 4):
        record_run(path, replace(RECORD, exit_code=code))
    assert rows(path, "SELECT run, exit_code FROM runs") == [(1, 0), (2, 0), (3, 4)]
    assert rows(path, "SELECT older, run FROM superseded ORDER BY older") == [(1, 2), (2, 3)]
    assert rows(path, "SELECT COUNT(*) FROM metrics") == [(6,)]


def test_a_run_is_superseded_by_one_that_writes_over_its_product(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    record_run(path, replace(RECORD, folder="/data/other", inputs=[]))
    record_run(path, replace(RECORD, inputs=[InputRecord("raw", "b9.fits", "BIAS", "md5z")]))
    assert rows(path, "SELECT older, run FROM superseded") == [(1, 3)]


def test_a_failure_is_superseded_by_the_same_work_done_well(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, replace(RECORD, products=[], metrics=[], exit_code=1))
    record_run(path, replace(RECORD, products=[], inputs=[], exit_code=3, message="no file"))
    record_run(path, RECORD)
    assert rows(path, "SELECT older FROM superseded") == [(1,)]


def test_a_run_is_stored_wholly_or_not_at_all(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    with pytest.raises(StoreError):
        record_runs(path, [RECORD, replace(RECORD, message=object())])
    assert rows(path, "SELECT COUNT(*) FROM runs") == [(1,)]
    assert rows(path, "SELECT COUNT(*) FROM products") == [(1,)]


#: What a process of its own does: it finds this file by its path.
WRITE_MANY = """
import runpy, sys
from dataclasses import replace
from pathlib import Path
from kspecpipe.quality.store import record_run
tests, path, name = sys.argv[1:]
record = runpy.run_path(tests)["RECORD"]
for i in range(40):
    record_run(Path(path), replace(record, message=f"{name} {i}"))
"""


def test_two_processes_writing_at_once_lose_nothing(tmp_path):
    path = tmp_path / "qc.sqlite"
    words = [sys.executable, "-c", WRITE_MANY, __file__, str(path)]
    both = [subprocess.Popen([*words, name]) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    found = {message for (message,) in rows(path, "SELECT message FROM runs")}
    assert found == {f"{name} {i}" for name in "ab" for i in range(40)}
    assert rows(path, "SELECT COUNT(*) FROM superseded") == [(79,)]


def test_a_record_can_be_sent_to_the_process_that_writes():
    record = replace(RECORD, metrics=[ROW])  # NaN is never equal to itself
    assert pickle.loads(pickle.dumps(record)) == record


# -- verdicts ----------------------------------------------------------------------------------


def test_the_latest_verdict_on_a_content_counts(tmp_path):
    path = tmp_path / "qc.sqlite"
    assert verdicts(path) == {}
    assert not path.exists()  # asking creates nothing
    for verdict, why in (("certified", "fine"), ("rejected", "lamp was off")):
        record_verdict(path, new_verdict(BIAS, verdict, "ada", why))
    (found,) = verdicts(path).values()
    assert (found.md5, found.name, found.verdict, found.who) == (
        "md5m",
        "m.fits",
        "rejected",
        "ada",
    )
    assert "rejected by ada on 20" in str(found)
    assert "lamp was off" in str(found)
    assert rows(path, "SELECT COUNT(*) FROM verdicts") == [(2,)]


@pytest.mark.parametrize(("who", "why"), [("", "dark"), ("ada", "  ")])
def test_a_verdict_without_person_or_reason_is_refused(who, why):
    with pytest.raises(StoreError, match="needs a person and a reason"):
        new_verdict(BIAS, "rejected", who, why)


def test_a_verdict_on_something_without_checksum_is_refused():
    with pytest.raises(StoreError, match="has no DATAMD5"):
        new_verdict(replace(BIAS, md5=""), "rejected", "ada", "dark")


def test_the_user_has_a_name_even_without_an_account(monkeypatch):
    def nameless():
        raise KeyError("no such uid")

    monkeypatch.setattr(store.getpass, "getuser", nameless)
    assert person().startswith("user ")


# -- what can be wrong with the file -----------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 40, b"SQLite format 3\0" + b"\1" * 4000]
)
def test_a_corrupt_store_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "qc.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"qc\.sqlite"):
        record_run(path, RECORD)
    with pytest.raises(StoreError, match="qc rebuild DIR --replace"):
        verdicts(path)  # never as if nothing had been rejected
    assert path.read_bytes() == content


def test_a_locked_store_is_waited_for_and_then_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"locked.*try again"):
        record_run(path, RECORD)
    assert verdicts(path) == {}  # readers do not wait for a writer
    other.execute("ROLLBACK")
    other.close()
    record_run(path, RECORD)
    assert rows(path, "SELECT COUNT(*) FROM runs") == [(2,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (f"PRAGMA user_version = {FORM + 1}", "update kspecpipe"),
        ("PRAGMA user_version = 1", "is no QC history of this version"),
    ],
)
def test_a_store_of_another_form_is_refused_and_untouched(tmp_path, change, words):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    rows(path, change)
    with pytest.raises(StoreError, match=words):
        record_run(path, RECORD)
    with pytest.raises(StoreError, match=words):
        verdicts(path)
    assert rows(path, "SELECT COUNT(*) FROM runs") == [(1,)]


def test_a_database_of_someone_else_is_refused(tmp_path):
    path = tmp_path / "qc.sqlite"
    rows(path, "CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="is no QC history"):
        record_run(path, RECORD)


def test_a_folder_in_the_place_of_the_store_is_refused(tmp_path):
    with pytest.raises(StoreError):
        record_run(tmp_path, RECORD)
