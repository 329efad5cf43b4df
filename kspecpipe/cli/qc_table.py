"""``kspec qc table``: stored metrics in the terminal, or as a file for other programs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from kspecpipe.atomic import write_files
from kspecpipe.cli.qc import store_path
from kspecpipe.ecsv import ecsv_text
from kspecpipe.errors import ExitCode, ProductError, SettingsError
from kspecpipe.framework.terminal import FLAG_COLOURS, interval
from kspecpipe.qc import Flag
from kspecpipe.quality.history import COLUMNS, Row, Selection, flag_of, limits_of, select_metrics

FORMATS = ("text", "csv", "ecsv", "json", "parquet")
_TEXTS = (
    *("night", "recipe", "instrument", "mode", "name", "scope", "exposure", "unit"),
    *("flag", "basis"),
)
_WHOLE = ("fibre", "run", "metric")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    add_selection(parser)
    parser.add_argument("--metric", metavar="NAME", help="one metric")
    parser.add_argument("--night", metavar="DATE", help="evening on which the night began")
    parser.add_argument(
        "--flag",
        action="append",
        default=[],
        choices=[str(flag) for flag in Flag],
        help="only this flag; may be repeated",
    )
    parser.add_argument("--format", choices=FORMATS, help="[text; of -o by its ending]")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it into a file")
    parser.add_argument(
        "--rows", type=int, default=200, metavar="N", help="most rows in the terminal, 0: all [200]"
    )


def add_selection(parser: argparse.ArgumentParser, *, instrument: bool = True) -> None:
    """Add the options that select runs."""
    parser.add_argument("--mode", metavar="M", help="one instrument mode or read-out mode")
    parser.add_argument("--recipe", metavar="R", help="one recipe")
    if instrument:
        parser.add_argument("--instrument", metavar="I", help="one instrument")
    parser.add_argument("--days", type=float, metavar="N", help="the last days of the history")
    parser.add_argument("--all", action="store_true", help="also runs that were repeated since")


def selection_of(arguments: argparse.Namespace, **more: Any) -> Selection:
    """Return what the options select."""
    if arguments.days is not None and not arguments.days > 0:
        raise SettingsError(f"--days {arguments.days:g}: a number above 0 is expected")
    chosen = {"instrument": arguments.instrument} | more
    return Selection(
        mode=arguments.mode,
        recipe=arguments.recipe,
        days=arguments.days,
        superseded=arguments.all,
        **chosen,
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print or write the table."""
    del name
    selection = selection_of(
        arguments, night=arguments.night, metric=arguments.metric, flags=arguments.flag
    )
    form = arguments.format or _format_of(arguments.output)
    rows = select_metrics(store_path(arguments.qc_store), selection)
    if form == "text" and arguments.output is None:
        _print(rows, arguments.rows)
    else:
        _deliver(render(rows, form), form, arguments.output)
    return int(ExitCode.OK)


def render(rows: Sequence[Row], form: str) -> bytes:
    """Return the table in one of `FORMATS`; NaN is an empty field, or null.

    Raises
    ------
    SettingsError
        If pyarrow is needed and not installed.
    """
    if form == "json":
        found = [{name: _plain(row[name]) for name in COLUMNS} for row in rows]
        return (json.dumps(found, allow_nan=False) + "\n").encode()
    if form == "ecsv":
        return ecsv_text(_astropy_table(rows)).encode()
    if form == "parquet":
        return _parquet(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(tuple, rows))
    return stream.getvalue().encode()


def _print(rows: Sequence[Row], most: int) -> None:
    console = Console(highlight=False)
    shown = rows[-most:] if most > 0 else rows
    table = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    names = ["night", "recipe", "mode", "name", "exposure", "fibre", "value", "unit"]
    # A narrow terminal has no room for limits, and columns without any text need none.
    limits = ("warn", "fail") if console.width >= 120 else ()
    names = [name for name in names if name == "value" or any(row[name] for row in shown)]
    for name in (*names, *limits, "flag"):
        side: JustifyMethod = "right" if name in ("fibre", "value") else "left"
        title = "metric" if name == "name" else name
        table.add_column(title, justify=side, no_wrap=name in ("night", "name", "value", "flag"))
    for row in shown:
        flag, own = flag_of(row), limits_of(row)
        table.add_row(
            *(_shown(row[name]) for name in names),
            *(interval(getattr(own, level)) for level in limits),
            Text(str(flag), style=FLAG_COLOURS[flag]),
        )
    console.print(table)
    counts = Counter(row["flag"] for row in rows)
    text = ", ".join(f"{counts[flag]} {flag}" for flag in Flag if counts[flag])
    console.print(f"{len(rows)} metrics: {text or 'none'}")
    if len(shown) < len(rows):
        console.print(f"the last {len(shown)} are shown; --rows 0 shows all, -o FILE writes all")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value or "")


def _format_of(path: Path | None) -> str:
    if path is None:
        return "text"
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS[1:]:
        raise SettingsError(f"{path}: unknown ending; use --format of {', '.join(FORMATS[1:])}")
    return ending


def _deliver(content: bytes, form: str, path: Path | None) -> None:
    if path is not None:
        try:
            write_files([(path, lambda stream: stream.write(content))])
        except OSError as error:
            raise ProductError(f"{path}: cannot be written: {error.strerror or error}") from None
        return
    if form == "parquet":
        raise SettingsError("--format parquet is binary: name a file with -o")
    sys.stdout.write(content.decode())


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    columns = zip(*map(tuple, rows), strict=True) if rows else [()] * len(COLUMNS)
    return {name: list(values) for name, values in zip(COLUMNS, columns, strict=True)}


def _astropy_table(rows: Sequence[Row]) -> Table:
    kinds = dict.fromkeys(COLUMNS, float) | dict.fromkeys(_TEXTS, str) | dict.fromkeys(_WHOLE, int)
    empty: dict[type, Any] = {float: math.nan, str: "", int: 0}
    table = Table()
    for name, values in _columns(rows).items():
        kind = kinds[name]
        filled = [empty[kind] if value is None else value for value in values]
        # An empty list has no type of its own: one value lends it.
        table[name] = np.array(filled or [empty[kind]], dtype=kind)[: len(filled)]
    return table


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise SettingsError(
            "parquet needs pyarrow: pip install 'kspecpipe[parquet]', or use another --format"
        ) from None
    kinds = dict.fromkeys(COLUMNS, arrow.float64())
    kinds |= dict.fromkeys(_TEXTS, arrow.string()) | dict.fromkeys(_WHOLE, arrow.int64())
    stream = io.BytesIO()
    schema = arrow.schema(list(kinds.items()))
    parquet.write_table(arrow.table(_columns(rows), schema=schema), stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
