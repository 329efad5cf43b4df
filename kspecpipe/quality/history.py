"""Questions to the history of quality control; `kspecpipe.quality.store` writes it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Flag, Limits, QCRow
from kspecpipe.quality.limit_rules import Past, PastValue
from kspecpipe.quality.store import StoreError, reading

Row = sqlite3.Row
#: Columns of the table of metrics, in their order.
COLUMNS = (
    *("night", "recipe", "mode", "name", "scope", "exposure", "fibre", "value", "unit"),
    *("warn_lo", "warn_hi", "fail_lo", "fail_hi", "flag", "basis", "mjd", "instrument", "run"),
    "metric",
)
_OF_RUNS = ("night", "recipe", "instrument")
_REPAIR = "`kspec qc rebuild DIR --replace` makes it again from the products in DIR"
_CURRENT = "r.run NOT IN (SELECT older FROM superseded)"
_CERTIFIED = (
    "SELECT v.md5 FROM verdicts v WHERE v.verdict = 'certified' "
    "AND v.id = (SELECT MAX(w.id) FROM verdicts w WHERE w.md5 = v.md5)"
)


@dataclass(frozen=True)
class Selection:
    """Which metrics are asked for; None or empty means any.

    Parameters
    ----------
    night, recipe, mode, metric, instrument : str or None
        Exact names.
    flags : sequence of str
        Any of these.
    days : float or None
        Only the last days before the latest run of the selection.
    superseded : bool
        Also runs that were repeated since.
    """

    night: str | None = None
    recipe: str | None = None
    mode: str | None = None
    metric: str | None = None
    instrument: str | None = None
    flags: Sequence[str] = ()
    days: float | None = None
    superseded: bool = False


def select_metrics(path: Path, selection: Selection) -> list[Row]:
    """Return the selected metrics in the order of time, with the columns `COLUMNS`.

    Raises
    ------
    StoreError
        If the store cannot be read.
    SettingsError
        If it knows no such night, recipe, mode or metric.
    """
    with reading(path) as connection:
        where, values = _conditions(selection)
        names = ", ".join(f"r.{n}" if n in _OF_RUNS else f"m.{n}" for n in COLUMNS)
        source = f"FROM judged m JOIN runs r ON r.run = m.run WHERE {' AND '.join(where)}"
        if selection.days is not None:
            last = connection.execute(f"SELECT MAX(m.mjd) {source}", values).fetchone()[0]
            source, values = f"{source} AND m.mjd >= ?", [*values, (last or 0) - selection.days]
        rows = connection.execute(f"SELECT {names} {source} ORDER BY m.mjd, m.metric", values)
        found = rows.fetchall()
        if not found:
            _refuse_unknown(connection, path, selection)
    _refuse_strange(found)
    return found


def nights(path: Path) -> list[str]:
    """Return the nights of which something is known, the earliest first."""
    with reading(path) as connection:
        rows = connection.execute("SELECT DISTINCT night FROM runs WHERE night != '' ORDER BY 1")
        return [night for (night,) in rows]


def night_summaries(path: Path) -> list[dict[str, Any]]:
    """Return for each night, the latest first, its runs and its metrics by flag."""
    runs = (
        "SELECT night, GROUP_CONCAT(DISTINCT instrument) AS instruments, COUNT(*) AS runs, "
        "SUM(NOT EXISTS (SELECT 1 FROM products p WHERE p.run = r.run)) AS failed "
        f"FROM runs r WHERE night != '' AND {_CURRENT} GROUP BY night ORDER BY night DESC"
    )
    flags = (
        "SELECT r.night, m.flag, COUNT(*) AS count FROM judged m JOIN runs r ON r.run = m.run "
        f"WHERE {_CURRENT} GROUP BY r.night, m.flag"
    )
    none = {str(flag): 0 for flag in Flag}
    with reading(path) as connection:
        found = {row["night"]: {**none, **dict(row)} for row in connection.execute(runs)}
        for row in connection.execute(flags):
            if row["night"] in found:
                found[row["night"]][row["flag"]] = row["count"]
    return list(found.values())


def runs_of(path: Path, night: str) -> list[Row]:
    """Return the runs of a night that were not repeated since, in their order."""
    query = f"SELECT r.* FROM runs r WHERE r.night = ? AND {_CURRENT} ORDER BY r.run"
    with reading(path) as connection:
        return connection.execute(query, [night]).fetchall()


def of_runs(path: Path, table: str, runs: Iterable[int]) -> dict[int, list[Row]]:
    """Return the products, inputs or metrics (``judged``) of runs, by run."""
    if table not in ("products", "inputs", "judged"):
        raise ValueError(f"there is no table {table!r} by runs")
    found: dict[int, list[Row]] = {run: [] for run in runs}
    with reading(path) as connection:
        for run, rows in found.items():
            rows += connection.execute(f"SELECT * FROM {table} WHERE run = ?", [run])
    return found


def nights_of_products(path: Path, md5s: Iterable[str]) -> dict[str, str]:
    """Return the night of each product that the store knows, by DATAMD5."""
    query = (
        "SELECT r.night FROM products p JOIN runs r ON r.run = p.run WHERE p.md5 = ? "
        "ORDER BY p.product DESC LIMIT 1"
    )
    with reading(path) as connection:
        found = {md5: connection.execute(query, [md5]).fetchone() for md5 in md5s}
    return {md5: str(row["night"]) for md5, row in found.items() if row is not None}


def find_product(path: Path, name: str) -> Row:
    """Return the latest product of a file name, with its folder.

    Raises
    ------
    StoreError
        If the store knows none of that name.
    """
    with reading(path) as connection:
        row = connection.execute(
            "SELECT p.*, r.folder FROM products p JOIN runs r ON r.run = p.run WHERE p.name = ? "
            "ORDER BY p.product DESC LIMIT 1",
            [name],
        ).fetchone()
        if row is None:
            known = [name for (name,) in connection.execute("SELECT DISTINCT name FROM products")]
            raise StoreError(f"{path}: knows no product {name!r}; {_closest(name, known)}")
    return row  # type: ignore[no-any-return]


def users_of(path: Path, md5: str) -> list[Row]:
    """Return the current runs that used a product, or what was made of it, nearest first."""
    found: dict[int, Row] = {}
    with reading(path) as connection:
        wanted = [md5]
        while wanted:
            rows = connection.execute(
                "SELECT DISTINCT r.* FROM inputs i JOIN runs r ON r.run = i.run "
                f"WHERE i.md5 = ? AND i.kind = 'calibration' AND {_CURRENT} ORDER BY r.run",
                [wanted.pop(0)],
            ).fetchall()
            for row in rows:
                if row["run"] not in found:
                    found[row["run"]] = row
                    query = "SELECT md5 FROM products WHERE run = ? AND md5 != ''"
                    wanted += [md5 for (md5,) in connection.execute(query, [row["run"]])]
    return list(found.values())


def past_of(path: Path, recipe: str, instrument: str, mode: str, references: Iterable[str]) -> Past:
    """Return what limits can come from: certified values of a mode, and reference products."""
    if not path.exists():
        return Past()
    columns = "m.name, m.fibre, m.value, m.unit, p.name AS product"
    source = (
        f"SELECT {columns} FROM metrics m JOIN runs r ON r.run = m.run "
        "JOIN products p ON p.product = (SELECT MIN(product) FROM products "
        "WHERE run = m.run AND {}) WHERE m.value IS NOT NULL AND "
    )
    certified: dict[tuple[str, int], list[PastValue]] = {}
    known: dict[str, dict[tuple[str, int], PastValue]] = {}
    with reading(path) as connection:
        rows = connection.execute(
            source.format(f"md5 IN ({_CERTIFIED})")
            + f"r.recipe = ? AND r.instrument = ? AND r.mode = ? AND {_CURRENT} "
            "ORDER BY m.mjd DESC, m.metric DESC",
            [recipe, instrument, mode],
        )
        for row in rows:
            certified.setdefault((row["name"], row["fibre"]), []).append(_past(row))
        for name in references:
            rows = connection.execute(
                source.format("name = ?") + f"r.recipe = ? AND {_CURRENT}", [name, recipe]
            )
            found = {(row["name"], row["fibre"]): _past(row) for row in rows}
            if found:
                known[name] = found
    return Past(certified, known)


def _past(row: Row) -> PastValue:
    return PastValue(value_of(row), row["unit"] or "", row["product"])


def folder_of(store: Path, row: Row) -> Path:
    """Return the folder of the products of a run."""
    return store.parent / str(row["folder"])


def limits_of(row: Row) -> Limits:
    """Return the limits by which a stored metric was judged."""
    warn, fail = (row["warn_lo"], row["warn_hi"]), (row["fail_lo"], row["fail_hi"])
    return Limits(None if None in warn else warn, None if None in fail else fail)


def value_of(row: Row) -> float:
    """Return the value of a stored metric; NaN when there is none.

    Raises
    ------
    StoreError
        If it is no number: SQLite takes whatever a stranger writes.
    """
    value = row["value"]
    if isinstance(value, str | bytes):
        raise StoreError(f"the history holds no number for {row['name']}, but {value!r}; {_REPAIR}")
    return math.nan if value is None else float(value)


def flag_of(row: Row) -> Flag:
    """Return the flag of a stored metric; raises as `value_of`."""
    try:
        return Flag(row["flag"])
    except ValueError:
        text = f"the history holds no flag for {row['name']}, but {row['flag']!r}"
        raise StoreError(f"{text}; {_REPAIR}") from None


def metric_of(row: Row) -> QCRow:
    """Return a stored metric as a recipe gave it, without its text; raises as `value_of`."""
    return QCRow(
        name=row["name"],
        value=value_of(row),
        unit=row["unit"] or "",
        scope=row["scope"],
        exposure=row["exposure"],
        fibre=row["fibre"],
        limits=limits_of(row),
        flag=flag_of(row),
        doc="",
        basis=row["basis"] or "",
    )


def _conditions(selection: Selection) -> tuple[list[str], list[Any]]:
    where, values = ["1"] if selection.superseded else [_CURRENT], []
    exact = {
        "r.night": selection.night,
        "r.recipe": selection.recipe,
        "m.mode": selection.mode,
        "m.name": selection.metric,
        "r.instrument": selection.instrument,
    }
    for column, value in exact.items():
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if selection.flags:
        _refuse_flags(selection.flags)
        where.append(f"m.flag IN ({', '.join('?' * len(selection.flags))})")
        values += selection.flags
    return where, values


def _refuse_strange(rows: Sequence[Row]) -> None:
    """Refuse values and flags that are none, at the cost of two sets for many rows."""
    kinds, flags = {type(row["value"]) for row in rows}, {row["flag"] for row in rows}
    if kinds & {str, bytes} or not flags <= set(Flag):
        for row in rows:
            value_of(row)
            flag_of(row)


def _refuse_flags(flags: Sequence[str]) -> None:
    known = [str(flag) for flag in Flag]
    for flag in flags:
        if flag not in known:
            raise SettingsError(f"unknown flag {flag!r}; {nearest(flag, known)}")


def _refuse_unknown(connection: sqlite3.Connection, path: Path, selection: Selection) -> None:
    """Tell a name that the store has never seen from a selection that happens to be empty."""
    asked = {
        "metric": (selection.metric, "SELECT DISTINCT name FROM metrics"),
        "mode": (selection.mode, "SELECT DISTINCT mode FROM metrics"),
        "recipe": (selection.recipe, "SELECT DISTINCT recipe FROM runs"),
        "night": (selection.night, "SELECT DISTINCT night FROM runs"),
        "instrument": (selection.instrument, "SELECT DISTINCT instrument FROM runs"),
    }
    for what, (value, query) in asked.items():
        known = [name for (name,) in connection.execute(query) if name]
        if value is not None and value not in known:
            raise SettingsError(f"{path}: knows no {what} {value!r}; {_closest(value, known)}")


def _closest(word: str, known: Sequence[str]) -> str:
    """Return the nearest spelling, or the last few names when there are too many to list."""
    text = nearest(word, known)
    if text.startswith("known:") and len(known) > 12:
        return f"known: {', '.join(sorted(known)[-12:])} and {len(known) - 12} more"
    return text
