"""Write the pages: one per night, and the index of all nights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kspecpipe._version import __version__
from kspecpipe.atomic import write_files
from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import ProductError, SettingsError
from kspecpipe.framework.terminal import interval, values_text
from kspecpipe.qc import Flag
from kspecpipe.quality.history import night_summaries, nights
from kspecpipe.report import charts
from kspecpipe.report.collect import Night, collect
from kspecpipe.report.pictures import embedded

MARKS = {
    Flag.OK: "\N{CHECK MARK}",
    Flag.NA: "\N{EN DASH}",
    Flag.UNJUDGED: "\N{MIDDLE DOT}",
    Flag.WARN: "!",
    Flag.FAIL: "\N{MULTIPLICATION SIGN}",
    Flag.UNMEASURED: "?",
}


@dataclass(frozen=True)
class Written:
    """The pages that were written."""

    index: Path
    pages: tuple[Path, ...]


def write_report(store: Path, out: Path, dates: Sequence[str] = ()) -> Written:
    """Write the pages of nights and the index into a folder.

    Parameters
    ----------
    store : Path
        The history.
    out : Path
        Folder of the pages; pages of other nights in it stay.
    dates : sequence of str
        Nights, ISO; none: the last one.

    Raises
    ------
    StoreError
        If the history cannot be read.
    SettingsError
        If the history knows no such night.
    ProductError
        If a page cannot be written.
    """
    known = nights(store)
    for date in dates:
        if date not in known:
            raise SettingsError(f"{store}: knows no night {date!r}; {nearest(date, known[-12:])}")
    if not known:
        raise SettingsError(f"{store}: knows no night yet; there is nothing to report")
    chosen = list(dates) or known[-1:]
    there = {path.stem for path in out.glob("????-??-??.html")} | set(chosen)
    pages = []
    for date in chosen:
        text = night_page(collect(store, date), [night for night in known if night in there])
        pages.append(_write(out / f"{date}.html", text))
    index = _write(out / "index.html", index_page(night_summaries(store), there))
    return Written(index, tuple(pages))


def night_page(night: Night, linked: Sequence[str]) -> str:
    """Return the page of a night; ``linked`` are the nights that have pages."""
    return (
        _environment()
        .get_template("night.html")
        .render(
            night=night,
            linked=linked,
            anchors={item.md5: item.anchor for run in night.runs for item in run.products},
            **_common(),
        )
    )


def index_page(summaries: Sequence[Mapping[str, Any]], there: set[str]) -> str:
    """Return the index; nights without a page are named without a link."""
    template = _environment().get_template("index.html")
    return template.render(summaries=summaries, there=there, **_common())


def _common() -> dict[str, Any]:
    return {
        "version": __version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Flag": Flag,
        "marks": MARKS,
        "charts": charts,
        "picture": embedded,
        "values": values_text,
        "interval": interval,
        # Ours alone, and free of what would end the element.
        "style": Markup(_text("style.css")),  # noqa: S704
        "script": Markup(_text("script.js")),  # noqa: S704
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return files("kspecpipe.report").joinpath("templates", name).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> Path:
    try:
        write_files([(path, lambda stream: stream.write(text.encode("utf-8")))])
    except OSError as error:
        raise ProductError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path
