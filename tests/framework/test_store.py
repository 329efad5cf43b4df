import sqlite3
from dataclasses import replace

import pytest

from kspecpipe import store
from kspecpipe.qc import Flag, Limits, QCRow
from kspecpipe.store import RunRecord, StoreError, record_run

ROW = QCRow("LEVEL", 3.5, "adu", "frame", "", 0, Limits(warn=(0, 5)), Flag.OK, "level")
RECORD = RunRecord(
    recipe="mbias",
    started="2026-01-29T20:00:00",
    seconds=1.5,
    memory_mb=100.0,
    status="ok",
    exit_code=0,
    instrument="TINY",
    mode="slow",
    mjd=61069.8,
    products=[("m.fits", "MASTER_BIAS", "abc")],
    inputs=[("b1.fits", "BIAS", "md5a"), ("b2.fits", "BIAS", "md5b")],
    metrics=[ROW, replace(ROW, value=float("nan"), flag=Flag.UNMEASURED)],
)


def rows(path, query):
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_a_run_is_stored_with_products_inputs_and_metrics(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    assert rows(path, "SELECT recipe, exit_code, mode, mjd FROM runs") == [
        ("mbias", 0, "slow", 61069.8)
    ]
    assert rows(path, "SELECT path, catg, content_key FROM products") == [
        ("m.fits", "MASTER_BIAS", "abc")
    ]
    assert rows(path, "SELECT name FROM inputs") == [("b1.fits",), ("b2.fits",)]
    assert rows(path, "SELECT value, warn_lo, warn_hi, fail_lo, flag FROM metrics") == [
        (3.5, 0.0, 5.0, None, "ok"),
        (None, 0.0, 5.0, None, "unmeasured"),
    ]


def test_runs_are_appended_and_never_replaced(tmp_path):
    path = tmp_path / "qc.sqlite"
    for code in (0, 0, 4):
        record_run(path, replace(RECORD, exit_code=code))
    assert rows(path, "SELECT run, exit_code FROM runs") == [(1, 0), (2, 0), (3, 4)]
    assert rows(path, "SELECT COUNT(*) FROM metrics") == [(6,)]


def test_a_run_is_stored_wholly_or_not_at_all(tmp_path):
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    with pytest.raises(StoreError):
        record_run(path, replace(RECORD, inputs=[("name", "tag", object())]))
    assert rows(path, "SELECT COUNT(*) FROM runs") == [(1,)]
    assert rows(path, "SELECT COUNT(*) FROM products") == [(1,)]


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 40, b"SQLite format 3\0" + b"\1" * 4000]
)
def test_a_corrupt_store_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "qc.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"qc\.sqlite"):
        record_run(path, RECORD)
    assert path.read_bytes() == content


def test_a_locked_store_is_waited_for_and_then_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    path = tmp_path / "qc.sqlite"
    record_run(path, RECORD)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked"):
        record_run(path, RECORD)
    other.execute("ROLLBACK")
    other.close()
    record_run(path, RECORD)
    assert rows(path, "SELECT COUNT(*) FROM runs") == [(2,)]


def test_a_folder_in_the_place_of_the_store_is_refused(tmp_path):
    with pytest.raises(StoreError):
        record_run(tmp_path, RECORD)
