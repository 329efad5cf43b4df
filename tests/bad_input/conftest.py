"""Run commands on bad input and check that they end as they should."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kspecpipe.cli import main


def remains(folder: Path) -> list[str]:
    """Return what a failed run may not leave: anything but its log and the history."""
    allowed = ("qc.sqlite", "qc.sqlite-wal", "qc.sqlite-shm")
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("_failed.log") and path.name not in allowed
    ]


@pytest.fixture
def kspec(camera: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs `kspec --json` on TINY's frames and gives its object."""

    def run(*words: object, instrument: bool = True, output: Path | None = None) -> dict[str, Any]:
        capsys.readouterr()
        named = ["--instrument", str(camera.instrument)] if instrument else []
        folder = output or camera.output
        options = ["--json", "--plots", "none", "-o", str(folder), *named]
        code = main([*map(str, words), *options])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        found = json.loads(printed.out)
        assert found["exit_code"] == code
        assert "internal error" not in printed.out + printed.err, printed.err
        return found

    return run


@pytest.fixture
def refuses(camera: Any, kspec: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Return a function that runs a command, checks that it is refused, and returns why."""

    def check(code: int, words: list[str], *command: object, **options: Any) -> str:
        found = kspec(*command, **options)
        text = "\n".join(found["errors"])
        assert found["exit_code"] == code, text
        assert text
        for word in words:
            assert word in text, f"{word!r} is not in {text!r}"
        assert found["products"] == []
        folder = options.get("output") or camera.output
        assert not os.path.isdir(folder) or remains(folder) == []  # noqa: PTH112 - also for names too long
        return text

    return check
