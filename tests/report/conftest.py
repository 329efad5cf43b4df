"""A history of three nights with everything that can go wrong, its pages, and a browser."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kspecpipe.qc import Limits, QCRow
from kspecpipe.quality.store import (
    InputRecord,
    ProductRecord,
    RunRecord,
    new_verdict,
    record_runs,
    record_verdict,
)
from kspecpipe.report import write_report

HERE = Path(__file__).parent
HOSTILE = "<script>alert('x')</script>&\"quoted\""
BIAS = ProductRecord("bias_2.fits", "MASTER_BIAS", "k2", "b" * 32)


def _row(name: str, value: float, warn: tuple[float, float] = (0, 50), **changes: Any) -> QCRow:
    limits = Limits(warn=warn, fail=(-100, 100))
    made = QCRow(name, value, "adu", "frame", "", 0, limits, limits.judge(value), "")
    return replace(made, **changes)


def _fibres(values: np.ndarray) -> list[QCRow]:
    return [_row("THROUGHPUT", float(v), scope="fibre", fibre=i + 1) for i, v in enumerate(values)]


def _run(folder: Path, night: int, recipe: str, **changes: Any) -> RunRecord:
    record = RunRecord(
        recipe=recipe,
        started=f"2026-01-{night}T23:00:00",
        seconds=12.5,
        memory_mb=200.0,
        status="ok",
        exit_code=0,
        version="kspecpipe/0",
        instrument="TINY",
        mode="blue",
        night=f"2026-01-{night}",
        mjd=61069.4 + night - 29,
        folder=str(folder),
        products=[
            ProductRecord(f"{recipe}_{night}.fits", "FIBRE_FLAT", "k", f"{recipe}{night:030d}")
        ],
        inputs=[InputRecord("raw", f"raw_{recipe}_{night}.fits", "BIAS", f"{recipe}{night}")],
    )
    return replace(record, **changes)


def _records(folder: Path) -> list[RunRecord]:
    used = [InputRecord("calibration", BIAS.name, BIAS.catg, BIAS.md5)]
    throughput = np.linspace(10, 60, 150)
    return [
        _run(folder, 28, "mbias", products=[BIAS], metrics=[_row("LEVEL", 10.0)]),
        _run(folder, 28, "marc", metrics=[_row("WAVE RMS", 1.0)]),
        _run(folder, 28, "mflat", metrics=[_row("LEVEL", 10.0), *_fibres(throughput / 2)]),
        _run(
            folder,
            29,
            "mflat",
            inputs=used,
            metrics=[_row("LEVEL", 70.0), *_fibres(throughput), _row("CALIB LEVEL", 1.0)],
        ),
        _run(
            folder,
            29,
            "object",
            products=[],
            exit_code=5,
            status="calibration missing",
            message=f"no RESPONSE: {HOSTILE}",
        ),
        _run(
            folder,
            29,
            "mdark",
            metrics=[_row("RATE", 200.0), _row("GLOW", float("nan"))],
            exit_code=4,
            status="qc failed",
            seconds=99.0,
        ),
        _run(
            folder,
            29,
            "lflat",
            mode=HOSTILE,
            metrics=[_row("PRNU", 1.0), _row(HOSTILE, 2.0, basis=f"warn: {HOSTILE}")],
        ),
        _run(folder, 30, "mbias", metrics=[_row("LEVEL", 10.0, unit="electron")]),
    ]


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a history; of one product the file is gone, of one there is a plot."""
    folder = tmp_path_factory.mktemp("history")
    record_runs(folder / "qc.sqlite", _records(folder))
    record_verdict(folder / "qc.sqlite", new_verdict(BIAS, "rejected", "ada", HOSTILE))
    for name in ("mflat_29", "lflat_29"):
        (folder / f"{name}.fits").write_bytes(b"no FITS file at all")
    Image.fromarray(np.zeros((585, 990), np.uint8)).save(folder / "mflat_29.png")
    (folder / "mflat_29.log").write_text(f"INFO {HOSTILE}\n")
    return folder


@pytest.fixture(scope="session")
def pages(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the pages of the first two nights."""
    out = tmp_path_factory.mktemp("pages")
    write_report(nights / "qc.sqlite", out, ["2026-01-28", "2026-01-29"])
    return out


@pytest.fixture(scope="session")
def chrome() -> ModuleType:
    """Return the module that drives the browser."""
    spec = importlib.util.spec_from_file_location("kspec_browser", HERE / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser(chrome: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium; where there is none, it is installed in CI and the test skipped elsewhere."""
    program = chrome.find_chromium()
    if program is None:
        if os.environ.get("CI") != "true" or os.geteuid() != 0:
            pytest.skip("no Chromium: apt install chromium, to test the pages by clicking")
        program = chrome.install_chromium()
    started = chrome.Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
