"""``kspec qc table`` and the questions behind it."""

import csv
import io
import json
import sqlite3
import sys

import pytest
from astropy.table import Table

from kspecpipe.errors import SettingsError
from kspecpipe.quality.history import COLUMNS, Selection, nights, select_metrics


@pytest.fixture
def filled(history, row):
    for day, value in enumerate((10.0, 60.0, 200.0, float("nan"))):
        history.run(day, [row("LEVEL", value), row("NOISE", 4.0)])
    history.run(3, [row("LEVEL", 20.0)], recipe="mdark", mode="fast")
    return history


def values(history, **selection):
    return [r["value"] for r in select_metrics(history.path, Selection(**selection))]


def test_all_metrics_come_in_the_order_of_time(filled):
    rows = select_metrics(filled.path, Selection())
    assert len(rows) == 9
    assert tuple(rows[0].keys()) == COLUMNS
    assert [r["night"] for r in rows] == sorted(r["night"] for r in rows)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"metric": "LEVEL", "mode": "slow"}, [10.0, 60.0, 200.0, None]),
        ({"night": "2026-01-30", "metric": "LEVEL"}, [60.0]),
        ({"recipe": "mdark"}, [20.0]),
        ({"mode": "fast", "instrument": "TINY"}, [20.0]),
        ({"flags": ("fail", "unmeasured")}, [200.0, None]),
        ({"metric": "LEVEL", "days": 1.5}, [200.0, None, 20.0]),
    ],
)
def test_metrics_are_selected(filled, selection, expected):
    assert values(filled, **selection) == expected


def test_what_was_repeated_is_shown_only_when_asked_for(history, row):
    for value in (1.0, 2.0):
        history.run(0, [row("LEVEL", value)], inputs=[], products=[])
    again = {"products": [], "inputs": []}
    assert values(history) == [1.0, 2.0]  # without inputs nobody knows that it is the same work
    history.run(0, [row("LEVEL", 3.0)], **again)
    first = history.run(0, [row("LEVEL", 4.0)])
    number = history.count
    history.count -= 1
    history.run(0, [row("LEVEL", 5.0)])
    assert history.count == number
    assert first == 4
    assert values(history) == [1.0, 2.0, 3.0, 5.0]
    assert values(history, superseded=True) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_nights_are_listed(filled):
    assert nights(filled.path) == [f"2026-01-{day}" for day in (29, 30, 31)] + ["2026-02-01"]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"metric": "LEVLE"}, "knows no metric 'LEVLE'; did you mean 'LEVEL'"),
        ({"mode": "solw"}, "did you mean 'slow'"),
        ({"recipe": "mbais"}, "did you mean 'mbias'"),
        ({"night": "2027-01-01"}, "knows no night '2027-01-01'"),
        ({"instrument": "HUGE"}, "known: TINY"),
        ({"flags": ("bad",)}, "unknown flag 'bad'"),
    ],
)
def test_an_unknown_name_is_an_error_not_an_empty_table(filled, selection, words):
    with pytest.raises(SettingsError, match=words.replace("'", ".")):
        select_metrics(filled.path, Selection(**selection))


def test_a_known_name_without_rows_is_an_empty_table(filled):
    assert values(filled, mode="fast", flags=("fail",)) == []


# -- the command -------------------------------------------------------------------------------


def test_the_terminal_shows_values_limits_and_flags(filled, qc):
    result = qc("table", "--qc-store", filled.path)
    assert result.code == 0
    assert "0 .. 50" in result.out
    assert "9 metrics: 6 ok, 1 warn, 1 fail, 1 unmeasured" in result.out


def test_the_terminal_shows_the_last_rows_and_says_how_to_get_all(filled, qc):
    result = qc("table", "--qc-store", filled.path.parent, "--rows", "2")
    assert result.out.count("2026-") == 2
    assert "the last 2 are shown; --rows 0 shows all" in result.out
    assert qc("table", "--qc-store", filled.path, "--rows", "0").out.count("2026-") == 9


def test_csv_has_every_column_and_nothing_for_nan(filled, qc):
    result = qc("table", "--qc-store", filled.path, "--format", "csv", "--metric", "LEVEL")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert tuple(rows[0]) == COLUMNS
    assert [r["value"] for r in rows] == ["10.0", "60.0", "200.0", "", "20.0"]


def test_json_has_null_for_nan(filled, qc):
    result = qc("table", "--qc-store", filled.path, "--format", "json", "--metric", "LEVEL")
    assert [r["value"] for r in json.loads(result.out)] == [10.0, 60.0, 200.0, None, 20.0]


@pytest.mark.parametrize("flags", [(), ("--mode", "fast", "--flag", "fail")])
def test_ecsv_keeps_types_also_without_rows(filled, qc, tmp_path, flags):
    path = tmp_path / "qc.ecsv"
    assert qc("table", "--qc-store", filled.path, "-o", path, *flags).code == 0
    table = Table.read(path)
    assert tuple(table.colnames) == COLUMNS
    assert len(table) == (0 if flags else 9)
    assert [table[name].dtype.kind for name in ("value", "fibre", "flag")] == ["f", "i", "U"]


@pytest.mark.parametrize("flags", [(), ("--mode", "fast", "--flag", "fail")])
def test_parquet_keeps_types_also_without_rows(filled, qc, tmp_path, flags):
    from pyarrow import parquet

    path = tmp_path / "qc.parquet"
    assert qc("table", "--qc-store", filled.path, "-o", path, *flags).code == 0
    table = parquet.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == (0 if flags else 9)
    assert str(table.schema.field("value").type) == "double"


def test_parquet_without_pyarrow_says_what_to_install(filled, qc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = qc("table", "--qc-store", filled.path, "-o", tmp_path / "qc.parquet")
    assert result.code == 2
    assert "pip install 'kspecpipe[parquet]'" in result.err
    assert not (tmp_path / "qc.parquet").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "parquet"), "name a file with -o"),
        (("-o", "qc.xls"), "unknown ending"),
        (("--days", "0"), "a number above 0"),
        (("--metric", "LEVLE"), "did you mean 'LEVEL'"),
        (("--flag", "green"), "invalid choice"),
    ],
)
def test_usage_errors_are_told(filled, qc, words, message):
    result = qc("table", "--qc-store", filled.path, *words)
    assert result.code == 2
    assert message in result.err


def test_a_file_that_cannot_be_written_is_told(filled, qc, tmp_path):
    (tmp_path / "qc.csv").mkdir()
    result = qc("table", "--qc-store", filled.path, "-o", tmp_path / "qc.csv")
    assert result.code == 1
    assert "cannot be written" in result.err


@pytest.mark.parametrize("name", ["products", "."])
def test_the_store_is_found_where_products_go(filled, qc, tmp_path, name):
    target = tmp_path / "here" / name
    target.mkdir(exist_ok=True)
    with sqlite3.connect(filled.path) as source, sqlite3.connect(target / "qc.sqlite") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    assert qc("table").code == 0


def test_no_store_at_all_is_told_with_the_places(qc):
    result = qc("table")
    assert result.code == 2
    assert "products/qc.sqlite, qc.sqlite does not exist; name it with --qc-store" in result.err
    result = qc("table", "--qc-store", "nowhere.sqlite")
    assert result.code == 1
    assert "nowhere.sqlite: there is no QC history" in result.err


def test_a_corrupt_store_is_told_with_the_way_out(qc, tmp_path):
    (tmp_path / "qc.sqlite").write_bytes(b"no database" * 500)
    result = qc("table", "--qc-store", tmp_path)
    assert result.code == 1
    assert "it is corrupt: `kspec qc rebuild DIR --replace`" in result.err


@pytest.mark.parametrize(("column", "value"), [("value", "twelve"), ("flag", "green")])
def test_what_a_stranger_wrote_is_told_and_never_shown_as_good(history, row, qc, column, value):
    history.run(0, [row("LEVEL", 3.0)])
    with sqlite3.connect(history.path) as connection:
        connection.execute(f"UPDATE metrics SET {column} = ?", [value])
    connection.close()
    for words in (("table",), ("trend", "LEVEL"), ("rescore",), ("report", history.path.parent)):
        result = qc(*words, "--qc-store", history.path)
        assert result.code == 1, words
        assert f"LEVEL, but '{value}'" in result.err, words
        assert "kspec qc rebuild" in result.err
