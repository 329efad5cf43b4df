"""What came of a run: products, verdicts, warnings, errors, exit code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kspecpipe.errors import ExitCode
from kspecpipe.qc import QCRow
from kspecpipe.quality.store import RunRecord

PlotMode = Literal["none", "file", "show"]


@dataclass(frozen=True)
class RunOptions:
    """How a recipe is run, whatever the recipe.

    Parameters
    ----------
    output : Path
        Folder of the products.
    instrument : str or None
        Name or YAML file; None to recognise it.
    settings_files : tuple of Path
        Further settings, later ones win.
    assignments : tuple of str
        ``recipe.parameter=value``, which win over all files.
    settings : dict
        Settings given from Python.
    plots : str
        ``none``, ``file`` or ``show``.
    save : bool
        Write products; else run and judge only.
    save_intermediate : bool
        Keep intermediate images as products.
    separate : bool
        Treat raw frames one by one.
    ignore_input_qc : bool
        Take calibrations whose quality control failed.
    overwrite : bool
        Replace existing products of other content.
    verbosity : int
        -1 quiet, 0 normal, 1 verbose.
    debug : bool
        Let unexpected errors show their traceback.
    qualifier : str
        Kept in the names of the products, where those of two runs would be the same.
    levels : dict
        By file name of a calibration how near in time it is (`kspecpipe.night.associate.Level`).
    log_file : Path or None
        Where the log goes, whatever comes of the run.
    record : bool
        Write the run into the history; else it is only handed back with the outcome, for the
        process that is the only writer.
    cores : int
        Processes that may work at a time, on several frames or on the pictures. More than 1 is for
        a program of its own only: a copy of a process with threads cannot be trusted.
    qc_store : Path or None
        The history; None: what the settings say, or ``qc.sqlite`` in ``output``.
    """

    output: Path = Path("products")
    instrument: str | None = None
    settings_files: tuple[Path, ...] = ()
    assignments: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    plots: PlotMode = "file"
    save: bool = True
    save_intermediate: bool = False
    separate: bool = False
    ignore_input_qc: bool = False
    overwrite: bool = False
    verbosity: int = 0
    debug: bool = False
    qualifier: str = ""
    levels: dict[str, int] = field(default_factory=dict)
    log_file: Path | None = None
    record: bool = True
    cores: int = 1
    qc_store: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one run; ``records`` is what the history holds, or should hold, of it."""

    recipe: str
    exit_code: ExitCode
    products: tuple[tuple[Path, str], ...] = ()
    qc: tuple[QCRow, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    timing: dict[str, float] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()
    unchanged: bool = False
    records: tuple[RunRecord, ...] = ()

    @property
    def record(self) -> RunRecord | None:
        """What the history holds, or should hold, of the last run; None when nothing was saved."""
        return self.records[-1] if self.records else None

    @property
    def status(self) -> str:
        """Exit code in words."""
        words = {
            ExitCode.OK: "ok",
            ExitCode.NO_PRODUCT: "no product",
            ExitCode.USAGE: "usage",
            ExitCode.INPUTS: "inputs",
            ExitCode.QC_FAILED: "qc failed",
            ExitCode.CALIBRATION_MISSING: "calibration missing",
        }
        return words[self.exit_code]

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; NaN becomes null."""
        return {
            "recipe": self.recipe,
            "status": self.status,
            "exit_code": int(self.exit_code),
            "products": [{"path": str(path), "tag": tag} for path, tag in self.products],
            "qc": [_row_as_json(row) for row in self.qc],
            "warnings": list(self.warnings),
            "errors": list(self.errors),
            "timing": self.timing,
            "pictures": [str(path) for path in self.pictures],
            "unchanged": self.unchanged,
        }


def merge(outcomes: Sequence[Outcome]) -> Outcome:
    """Join the outcomes of a recipe that ran on each frame by itself; the worst code counts."""
    if len(outcomes) == 1:
        return outcomes[0]
    severity = [
        ExitCode.OK,
        ExitCode.QC_FAILED,
        ExitCode.CALIBRATION_MISSING,
        ExitCode.INPUTS,
        ExitCode.USAGE,
        ExitCode.NO_PRODUCT,
    ]
    return Outcome(
        recipe=outcomes[0].recipe,
        exit_code=max((o.exit_code for o in outcomes), key=severity.index),
        products=tuple(item for o in outcomes for item in o.products),
        qc=tuple(row for o in outcomes for row in o.qc),
        warnings=tuple(text for o in outcomes for text in o.warnings),
        errors=tuple(text for o in outcomes for text in o.errors),
        timing={"total": sum(o.timing.get("total", 0.0) for o in outcomes)},
        pictures=tuple(item for o in outcomes for item in o.pictures),
        unchanged=all(o.unchanged for o in outcomes),
        records=tuple(item for o in outcomes for item in o.records),
    )


def _row_as_json(row: QCRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": _finite(row.value),
        "unit": row.unit,
        "scope": row.scope,
        "exposure": row.exposure,
        "fibre": row.fibre,
        "warn": _pair(row.limits.warn),
        "fail": _pair(row.limits.fail),
        "flag": str(row.flag),
    }


def _pair(limits: tuple[float, float] | None) -> list[float | None] | None:
    return None if limits is None else [_finite(limit) for limit in limits]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
