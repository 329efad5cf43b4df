"""A history with a few nights in it, without any reduction."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kspecpipe.cli import main
from kspecpipe.nights import night_of
from kspecpipe.qc import Flag, Limits, QCRow
from kspecpipe.quality.store import InputRecord, ProductRecord, RunRecord, record_run

FIRST = 61069.5  # noon of 2026-01-29, UTC


def _row(name: str, value: float, limits: Limits | None = None, **changes: Any) -> QCRow:
    """Return a judged value."""
    own = Limits(warn=(0, 50), fail=(0, 100)) if limits is None else limits
    made = QCRow(name, value, "adu", "frame", "", 0, own, own.judge(value), "a number")
    return replace(made, **changes)


@dataclass
class History:
    """Writes runs into a store."""

    path: Path
    count: int = 0

    def run(
        self, day: float = 0.0, metrics: Sequence[QCRow] = (), recipe: str = "mbias", **changes: Any
    ) -> int:
        """Write a run of a day and return its number."""
        self.count += 1
        mjd = FIRST + day + 0.4
        name = f"{recipe}_{self.count}.fits"
        bad = any(item.flag in (Flag.FAIL, Flag.UNMEASURED) for item in metrics)
        record = RunRecord(
            recipe=recipe,
            started=f"2026-01-30T00:{self.count // 60 % 60:02d}:{self.count % 60:02d}",
            seconds=2.0,
            memory_mb=120.0,
            status="qc failed" if bad else "ok",
            exit_code=4 if bad else 0,
            version="kspecpipe/0",
            instrument="TINY",
            mode="slow",
            night=night_of(mjd),
            mjd=mjd,
            folder=str(self.path.parent),
            products=[ProductRecord(name, "MASTER_BIAS", f"key{self.count}", f"md5-{self.count}")],
            inputs=[InputRecord("raw", f"raw_{self.count}.fits", "BIAS", f"raw{self.count}")],
            metrics=metrics,
        )
        return record_run(self.path, replace(record, **changes))


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        """The JSON on standard output."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def row() -> Callable[..., QCRow]:
    """Return a function that makes a judged value."""
    return _row


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "qc.sqlite")


@pytest.fixture
def qc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Return a function that runs `kspec qc` in an empty folder and never sees a traceback."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Result:
        capsys.readouterr()
        try:
            code = main(["qc", *map(str, words)])
        except SystemExit as end:  # --help
            code = int(end.code or 0)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        assert "internal error" not in printed.err
        return Result(code, printed.out, printed.err)

    return run
