"""The history of all runs: ``qc.sqlite`` beside the products, append-only."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kspecpipe.qc import QCRow

STORE_NAME = "qc.sqlite"
PATIENCE = 10.0  # seconds to wait for another process
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, recipe TEXT NOT NULL, started TEXT NOT NULL, seconds REAL,
    memory_mb REAL, status TEXT NOT NULL, exit_code INTEGER NOT NULL, message TEXT,
    instrument TEXT, mode TEXT, mjd REAL);
CREATE TABLE IF NOT EXISTS products (
    product INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, path TEXT NOT NULL,
    catg TEXT NOT NULL, content_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (
    run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, tag TEXT, md5 TEXT);
CREATE TABLE IF NOT EXISTS metrics (
    run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, scope TEXT NOT NULL, exposure TEXT,
    fibre INTEGER, value REAL, unit TEXT, warn_lo REAL, warn_hi REAL, fail_lo REAL, fail_hi REAL,
    flag TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS metrics_by_name ON metrics (name, run);
"""


@dataclass(frozen=True)
class RunRecord:
    """One run of a recipe, as it is stored."""

    recipe: str
    started: str
    seconds: float
    memory_mb: float
    status: str
    exit_code: int
    message: str = ""
    instrument: str = ""
    mode: str = ""
    mjd: float | None = None
    products: Sequence[tuple[str, str, str]] = ()  # path, catg, content key
    inputs: Sequence[tuple[str, str, str]] = ()  # name, tag, md5
    metrics: Sequence[QCRow] = ()


class StoreError(Exception):
    """The history could not be written or read; products are not affected."""


def record_run(path: Path, record: RunRecord) -> None:
    """Append one run to the store.

    Raises
    ------
    StoreError
        If the database is locked, corrupt or cannot be written.
    """
    with _connection(path) as connection:
        cursor = connection.execute(
            "INSERT INTO runs (recipe, started, seconds, memory_mb, status, exit_code, message, "
            "instrument, mode, mjd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.recipe,
                record.started,
                record.seconds,
                record.memory_mb,
                record.status,
                record.exit_code,
                record.message,
                record.instrument,
                record.mode,
                record.mjd,
            ),
        )
        run = cursor.lastrowid
        connection.executemany(
            "INSERT INTO products (run, path, catg, content_key) VALUES (?, ?, ?, ?)",
            [(run, *product) for product in record.products],
        )
        connection.executemany(
            "INSERT INTO inputs (run, name, tag, md5) VALUES (?, ?, ?, ?)",
            [(run, *item) for item in record.inputs],
        )
        connection.executemany(
            f"INSERT INTO metrics VALUES ({', '.join('?' * 12)})",
            [_metric_values(run, row) for row in record.metrics],
        )


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store, creating it when needed; commit at the end."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            with connection:
                yield connection
    except sqlite3.Error as error:
        raise StoreError(f"{path.name}: {error}") from None


def _metric_values(run: int | None, row: QCRow) -> tuple[object, ...]:
    warn, fail = row.limits.warn or (None, None), row.limits.fail or (None, None)
    value = None if row.value != row.value else row.value
    return (
        run,
        row.name,
        row.scope,
        row.exposure,
        row.fibre,
        value,
        row.unit,
        *warn,
        *fail,
        str(row.flag),
    )
