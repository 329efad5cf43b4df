"""The history of all runs, ``qc.sqlite``: append-only, shared by processes, nights and years.

Nothing is ever changed or deleted: a new run is noted as superseding an older one, a new verdict
or a new scoring outweighs the one before it.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from kspecpipe.errors import KspecError
from kspecpipe.framework.runtime import utc_now
from kspecpipe.qc import Limits, QCRow

STORE_NAME = "qc.sqlite"
PATIENCE = 10.0  # seconds to wait for another process
FORM = 2  # of the tables; 1 was never released
_LIMITS = "warn_lo REAL, warn_hi REAL, fail_lo REAL, fail_hi REAL, flag TEXT NOT NULL, basis TEXT"
_SCHEMA = f"""
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, recipe TEXT NOT NULL, version TEXT NOT NULL, started TEXT NOT NULL,
    seconds REAL, memory_mb REAL, status TEXT NOT NULL, exit_code INTEGER NOT NULL, message TEXT,
    instrument TEXT, mode TEXT, night TEXT, mjd REAL, folder TEXT NOT NULL, work TEXT NOT NULL);
CREATE INDEX runs_by_night ON runs (night);
CREATE INDEX runs_by_work ON runs (work);
CREATE TABLE products (
    product INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL,
    catg TEXT NOT NULL, content_key TEXT NOT NULL, md5 TEXT NOT NULL, exposure TEXT NOT NULL);
CREATE INDEX products_by_run ON products (run);
CREATE INDEX products_by_name ON products (name);
CREATE INDEX products_by_md5 ON products (md5);
CREATE TABLE inputs (
    run INTEGER NOT NULL REFERENCES runs, kind TEXT NOT NULL, name TEXT NOT NULL, tag TEXT,
    md5 TEXT, path TEXT);
CREATE INDEX inputs_by_run ON inputs (run);
CREATE INDEX inputs_by_md5 ON inputs (md5);
CREATE TABLE metrics (
    metric INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL,
    scope TEXT NOT NULL, exposure TEXT NOT NULL, fibre INTEGER NOT NULL, value REAL, unit TEXT,
    mode TEXT, mjd REAL, {_LIMITS});
CREATE INDEX metrics_by_name ON metrics (name, mode, mjd);
CREATE INDEX metrics_by_run ON metrics (run);
CREATE TABLE superseded (older INTEGER PRIMARY KEY REFERENCES runs, run INTEGER NOT NULL);
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY, md5 TEXT NOT NULL, name TEXT NOT NULL, catg TEXT NOT NULL,
    verdict TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL, why TEXT NOT NULL);
CREATE INDEX verdicts_by_md5 ON verdicts (md5);
CREATE TABLE rescorings (
    rescoring INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, source TEXT NOT NULL);
CREATE TABLE scores (
    metric INTEGER NOT NULL REFERENCES metrics, rescoring INTEGER NOT NULL, {_LIMITS},
    PRIMARY KEY (metric, rescoring)) WITHOUT ROWID;
CREATE VIEW judged AS
    SELECT m.metric, m.run, m.name, m.scope, m.exposure, m.fibre, m.value, m.unit, m.mode, m.mjd,
        CASE WHEN s.metric IS NULL THEN m.warn_lo ELSE s.warn_lo END AS warn_lo,
        CASE WHEN s.metric IS NULL THEN m.warn_hi ELSE s.warn_hi END AS warn_hi,
        CASE WHEN s.metric IS NULL THEN m.fail_lo ELSE s.fail_lo END AS fail_lo,
        CASE WHEN s.metric IS NULL THEN m.fail_hi ELSE s.fail_hi END AS fail_hi,
        COALESCE(s.flag, m.flag) AS flag, COALESCE(s.basis, m.basis) AS basis
    FROM metrics m LEFT JOIN scores s ON s.metric = m.metric
        AND s.rescoring = (SELECT MAX(rescoring) FROM scores WHERE scores.metric = m.metric);
PRAGMA user_version = {FORM};
"""
Word = Literal["certified", "rejected"]
WORDS = get_args(Word)


class StoreError(KspecError):
    """The history could not be written or read; products are not affected."""


class EmptyStoreError(StoreError):
    """There is a file with nothing in it: the run that made it was killed before it could write."""


@dataclass(frozen=True)
class ProductRecord:
    """A product of a run: file name, category, content key, DATAMD5, and its exposure if of one."""

    name: str
    catg: str
    content_key: str
    md5: str = ""
    exposure: str = ""


@dataclass(frozen=True)
class InputRecord:
    """A file that a run used; ``kind`` is ``raw``, ``calibration`` or ``user``.

    The path is where it lay then; empty when that is not known.
    """

    kind: str
    name: str
    tag: str
    md5: str = ""
    path: str = ""


@dataclass(frozen=True)
class RunRecord:
    """One run of a recipe, as it is stored; it can be sent from one process to another.

    Parameters
    ----------
    started : str
        UTC, ISO.
    seconds, memory_mb : float or None
        What the run took; None when it is known from its products only.
    mode : str
        Instrument mode, or read-out mode of recipes that go by it.
    night : str
        Date on which the night began.
    mjd : float or None
        Start of the first raw frame.
    folder : str
        Absolute path of the products.
    dates : mapping
        Start [MJD] of each exposure by its name, for metrics per exposure.
    """

    recipe: str
    started: str
    seconds: float | None
    memory_mb: float | None
    status: str
    exit_code: int
    version: str = ""
    message: str = ""
    instrument: str = ""
    mode: str = ""
    night: str = ""
    mjd: float | None = None
    folder: str = ""
    products: Sequence[ProductRecord] = ()
    inputs: Sequence[InputRecord] = ()
    metrics: Sequence[QCRow] = ()
    dates: Mapping[str, float] = field(default_factory=dict)

    @property
    def work(self) -> str:
        """Digest of what was to be done: the recipe and its raw frames, or else its inputs."""
        raw = [item for item in self.inputs if item.kind == "raw"] or self.inputs
        names = sorted(f"{item.name} {item.md5}" for item in raw)
        text = "\n".join([self.recipe, *names]) if names else f"{self.recipe} {self.started}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """What a person decided about the content of a product."""

    md5: str
    name: str
    catg: str
    verdict: Word
    who: str
    at: str
    why: str

    def __str__(self) -> str:
        """Say who decided what, when and why."""
        return f"{self.verdict} by {self.who} on {self.at[:10]}: {self.why}"


def record_run(path: Path, record: RunRecord) -> int:
    """Append one run to the store and return its number.

    Raises
    ------
    StoreError
        If the database is locked, corrupt, of another form, or cannot be written.
    """
    with writing(path) as connection:
        return _insert_run(connection, record, path.parent)


def record_runs(path: Path, records: Sequence[RunRecord]) -> None:
    """Append many runs in one transaction, or none; raises as `record_run`."""
    with writing(path) as connection:
        for record in records:
            _insert_run(connection, record, path.parent)


def knows(path: Path, record: RunRecord) -> bool:
    """Return whether all products of a run are in the store; raises as `verdicts`."""
    if not path.exists():
        return False
    query = "SELECT COUNT(*) FROM products WHERE name = ? AND content_key = ?"
    pairs = [(product.name, product.content_key) for product in record.products]
    with contextlib.suppress(EmptyStoreError), reading(path) as connection:
        return all(connection.execute(query, pair).fetchone()[0] for pair in pairs)
    return False


def record_verdict(path: Path, verdict: Verdict) -> None:
    """Append a decision about a product; raises as `record_run`."""
    with writing(path) as connection:
        connection.execute(
            "INSERT INTO verdicts (md5, name, catg, verdict, who, at, why) "
            "VALUES (:md5, :name, :catg, :verdict, :who, :at, :why)",
            vars(verdict),
        )


def verdicts(path: Path) -> dict[str, Verdict]:
    """Return the latest decision on each product by its DATAMD5; empty without a store.

    Association obeys them: a rejected calibration is never used, a certified one may be used even
    if its quality control failed.

    Raises
    ------
    StoreError
        If there is a store that cannot be read: then it is not known what was rejected.
    """
    if not path.exists():
        return {}
    with contextlib.suppress(EmptyStoreError), reading(path) as connection:
        rows = connection.execute(
            "SELECT md5, name, catg, verdict, who, at, why FROM verdicts ORDER BY id"
        )
        return {row["md5"]: Verdict(**row) for row in map(dict, rows)}
    return {}


def person() -> str:
    """Return the login name of the user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"user {os.getuid()}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store for one transaction, creating it when needed; all or nothing is written."""
    with _errors(path), contextlib.closing(_connect(path, "rwc")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _form(connection, path) == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store for reading; rows are by name.

    Raises
    ------
    StoreError
        If it does not exist, or cannot be read.
    """
    if not path.exists():
        raise StoreError(
            f"{path}: there is no QC history; recipes write one, `kspec qc rebuild DIR` makes one "
            "from the products in DIR, --qc-store names another"
        )
    with _errors(path), contextlib.closing(_connect(path, _way_in(path))) as connection:
        connection.execute("PRAGMA query_only = ON")
        if _form(connection, path) == 0:
            raise EmptyStoreError(
                f"{path}: is empty; `kspec qc rebuild DIR` fills it from products"
            )
        yield connection


def _way_in(path: Path) -> str:
    """Return how a reader opens the store.

    Only who may write tidies up: the last reader to leave then folds the write-ahead log into the
    store. A read-only medium has no room for the shared memory of the log, and needs none.
    """
    if not os.access(path.parent, os.W_OK):
        return "ro&immutable=1"
    return "rw" if os.access(path, os.W_OK) else "ro"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
    )
    connection.row_factory = sqlite3.Row
    return connection


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        advice = ""
        if "locked" in text or "busy" in text:
            advice = f"; another process has held it for {PATIENCE:g} s: try again when it is done"
        elif "malformed" in text or "not a database" in text:
            advice = (
                "; it is corrupt: `kspec qc rebuild DIR --replace` sets it aside and makes a new "
                "one from the products in DIR (verdicts are not in products: restore a backup)"
            )
        raise StoreError(f"{path.name}: {text}{advice}") from None


def _form(connection: sqlite3.Connection, path: Path) -> int:
    """Return 0 for an empty database and `FORM` for one of ours."""
    (form,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if form == FORM or (form == 0 and tables == 0):
        return int(form)
    if form > FORM:
        raise StoreError(
            f"{path.name}: is of form {form}, this version of kspecpipe knows form {FORM}: "
            "update kspecpipe, or name another file with --qc-store"
        )
    raise StoreError(
        f"{path.name}: is no QC history of this version of kspecpipe; "
        "`kspec qc rebuild DIR --replace` sets it aside and makes one from the products in DIR"
    )


def _insert_run(connection: sqlite3.Connection, record: RunRecord, home: Path) -> int:
    run = connection.execute(
        "INSERT INTO runs (recipe, version, started, seconds, memory_mb, status, exit_code, "
        "message, instrument, mode, night, mjd, folder, work) "
        f"VALUES ({', '.join('?' * 14)})",
        (
            record.recipe,
            record.version,
            record.started,
            record.seconds,
            record.memory_mb,
            record.status,
            record.exit_code,
            record.message,
            record.instrument,
            record.mode,
            record.night,
            _number(record.mjd),
            _relative(record.folder, home),
            record.work,
        ),
    ).lastrowid
    if run is None:
        raise StoreError("the run got no number")
    _supersede(connection, run)
    connection.executemany(
        "INSERT INTO products (run, name, catg, content_key, md5, exposure) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(run, p.name, p.catg, p.content_key, p.md5, p.exposure) for p in record.products],
    )
    connection.executemany(
        "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?)",
        [(run, i.kind, i.name, i.tag, i.md5, i.path) for i in record.inputs],
    )
    connection.executemany(
        "INSERT INTO metrics (run, name, scope, exposure, fibre, value, unit, mode, mjd, warn_lo, "
        f"warn_hi, fail_lo, fail_hi, flag, basis) VALUES ({', '.join('?' * 15)})",
        [_metric_values(run, row, record) for row in record.metrics],
    )
    _supersede_products(connection, run)
    return run


def _supersede(connection: sqlite3.Connection, run: int) -> None:
    """Note the older runs of the same work in the same folder."""
    connection.execute(
        "INSERT OR IGNORE INTO superseded SELECT o.run, n.run FROM runs o, runs n "
        "WHERE n.run = ? AND o.run < n.run AND o.work = n.work AND o.folder = n.folder",
        (run,),
    )


def _supersede_products(connection: sqlite3.Connection, run: int) -> None:
    """Note the older runs one of whose products was written over."""
    connection.execute(
        "INSERT OR IGNORE INTO superseded SELECT DISTINCT o.run, n.run FROM products p "
        "JOIN runs n ON n.run = p.run JOIN products q ON q.name = p.name AND q.run < p.run "
        "JOIN runs o ON o.run = q.run AND o.folder = n.folder WHERE n.run = ?",
        (run,),
    )


def _relative(folder: str, home: Path) -> str:
    """Return a folder relative to that of the store if below it, so that both can be moved."""
    if not folder:
        return ""
    place, base = Path(folder).resolve(), home.resolve()
    return str(place.relative_to(base)) if place.is_relative_to(base) else str(place)


def _metric_values(run: int, row: QCRow, record: RunRecord) -> tuple[object, ...]:
    return (
        run,
        row.name,
        row.scope,
        row.exposure,
        row.fibre,
        _number(row.value),
        row.unit,
        record.mode,
        _number(record.dates.get(row.exposure, record.mjd)),
        *limit_values(row.limits),
        str(row.flag),
        row.basis,
    )


def limit_values(limits: Limits) -> tuple[float | None, ...]:
    """Return the four limits as they are stored."""
    return (*(limits.warn or (None, None)), *(limits.fail or (None, None)))


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def new_verdict(product: ProductRecord, verdict: Word, who: str, why: str) -> Verdict:
    """Return a decision of now.

    Raises
    ------
    StoreError
        If nobody or no reason is named, or the product has no checksum.
    """
    if not who.strip() or not why.strip():
        raise StoreError(f"{product.name}: a verdict needs a person and a reason")
    if not product.md5:
        raise StoreError(f"{product.name}: has no DATAMD5; only products of kspecpipe are judged")
    return Verdict(
        product.md5, product.name, product.catg, verdict, who.strip(), utc_now(), why.strip()
    )
