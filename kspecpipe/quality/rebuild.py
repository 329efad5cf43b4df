"""Make the history of quality control again from what stands in the products."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from kspecpipe import io
from kspecpipe.base_recipe import find_recipe
from kspecpipe.errors import ExitCode, InputError, SettingsError
from kspecpipe.framework.outcome import Outcome
from kspecpipe.framework.writing import rows_of_table
from kspecpipe.nights import night_of
from kspecpipe.qc import BAD_FLAGS, QCRow
from kspecpipe.quality.history import folder_of
from kspecpipe.quality.store import (
    InputRecord,
    ProductRecord,
    RunRecord,
    StoreError,
    Verdict,
    reading,
    record_runs,
    record_verdict,
    verdicts,
)
from kspecpipe.sof import CALIBRATION_TAGS

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found: products added, known before, and files that are none of ours."""

    added: int
    known: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A product on disk."""

    path: Path
    header: Mapping[str, Any]
    rows: tuple[QCRow, ...]

    @property
    def group(self) -> tuple[str, ...]:
        """What products of one run share."""
        cards = ("ESO PRO KEY", "ESO PRO REC1 ID")
        return (str(self.path.parent), *(str(self.header.get(card, "")) for card in cards))

    @property
    def record(self) -> ProductRecord:
        """The product as it is stored."""
        exposures = {row.exposure for row in self.rows} - {""}
        return ProductRecord(
            self.path.name,
            str(self.header["ESO PRO CATG"]),
            str(self.header.get("ESO PRO KEY", "")),
            str(self.header.get("DATAMD5", "")),
            exposures.pop() if len(exposures) == 1 else "",
        )


def rebuild(store: Path, folder: Path, longitudes: Mapping[str, float]) -> Rebuilt:
    """Add every product below a folder that the store does not know.

    Run time, memory and failed runs are not in products: they stay unknown.

    Parameters
    ----------
    store : Path
        The history; it is made when it does not exist.
    folder : Path
        Where the products are.
    longitudes : mapping
        Longitude of the telescope [deg east] by the name of the instrument, to tell the nights.

    Raises
    ------
    StoreError
        If the store cannot be read or written.
    """
    known = _known(store)
    groups: dict[tuple[str, ...], list[_Found]] = {}
    unreadable: list[str] = []
    skipped = 0
    for path in sorted(folder.rglob("*.fits")):
        try:
            found = _read(path)
        except InputError as error:
            unreadable.append(str(error))
            continue
        if found is None:
            continue
        if (str(path.resolve()), found.record.md5) in known:
            skipped += 1
        else:
            groups.setdefault(found.group, []).append(found)
    records = [_record(members, longitudes) for members in groups.values()]
    record_runs(store, sorted(records, key=lambda record: (record.mjd or 0.0, record.started)))
    return Rebuilt(sum(map(len, groups.values())), skipped, tuple(unreadable))


def set_aside(store: Path) -> tuple[Path | None, dict[str, Verdict]]:
    """Rename a store and return its new name and the verdicts that could be saved from it.

    Raises
    ------
    StoreError
        If it cannot be renamed.
    """
    if not store.exists():
        return None, {}
    try:
        saved = verdicts(store)
    except StoreError:
        saved = {}
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = store.with_name(f"{store.name}.{stamp}")
    try:
        for suffix in ("", "-wal", "-shm"):
            part = store.with_name(store.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise StoreError(f"{store.name}: cannot be set aside: {error.strerror}") from None
    return aside, saved


def restore_verdicts(store: Path, saved: Mapping[str, Verdict]) -> None:
    """Write verdicts of an older store, with their own dates."""
    for verdict in saved.values():
        record_verdict(store, verdict)


def _known(store: Path) -> set[tuple[str, str]]:
    if not store.exists():
        return set()
    with reading(store) as connection:
        rows = connection.execute(
            "SELECT p.name, p.md5, r.folder FROM products p JOIN runs r ON r.run = p.run"
        )
        return {(str((folder_of(store, row) / row["name"]).resolve()), row["md5"]) for row in rows}


def _read(path: Path) -> _Found | None:
    header, table = io.read_header_and_table(path, "QC")
    if "ESO PRO CATG" not in header:
        return None
    return _Found(path, header, tuple(rows_of_table(table)) if table is not None else ())


def _record(members: Sequence[_Found], longitudes: Mapping[str, float]) -> RunRecord:
    first = min(members, key=lambda found: _date(found) or 0.0)
    header, mjd = first.header, _date(first)
    rows: dict[tuple[str, str, int], QCRow] = {}
    for found in members:
        rows |= {(row.name, row.exposure, row.fibre): row for row in found.rows}
    bad = any(row.flag in BAD_FLAGS for row in rows.values())
    recipe = str(header.get("ESO PRO REC1 ID", ""))
    outcome = Outcome(recipe, ExitCode.QC_FAILED if bad else ExitCode.OK)
    instrument = str(header.get("INSTRUME", ""))
    written = datetime.fromtimestamp(first.path.stat().st_mtime, UTC)
    dates = {found.record.exposure: _date(found) for found in members}
    return RunRecord(
        recipe=recipe,
        version=str(header.get("ESO PRO REC1 PIPE ID", "")),
        started=written.strftime("%Y-%m-%dT%H:%M:%S"),
        seconds=None,
        memory_mb=None,
        status=outcome.status,
        exit_code=int(outcome.exit_code),
        message="from the products",
        instrument=instrument,
        mode=str(header.get("READMODE" if _by_readmode(recipe) else "INSMODE", "")),
        night=night_of(mjd, longitudes.get(instrument, 0.0)),
        mjd=mjd,
        folder=str(first.path.parent.resolve()),
        products=[found.record for found in members],
        inputs=_inputs(header),
        metrics=list(rows.values()),
        dates={name: date for name, date in dates.items() if name and date is not None},
    )


def _date(found: _Found) -> float | None:
    value = found.header.get("MJD-OBS")
    return float(value) if isinstance(value, int | float) else None


@cache
def _by_readmode(recipe: str) -> bool:
    try:
        return find_recipe(recipe).by_readmode
    except SettingsError:
        _LOG.debug("the recipe %s is not installed: its products go by instrument mode", recipe)
        return False


def _inputs(header: Mapping[str, Any]) -> list[InputRecord]:
    found = []
    for family, kind in (("RAW", "raw"), ("CAL", "calibration")):
        number = 1
        while (name := header.get(f"ESO PRO REC1 {family}{number} NAME")) is not None:
            stem = f"ESO PRO REC1 {family}{number}"
            tag = str(header.get(f"{stem} CATG", ""))
            user = kind == "calibration" and tag not in CALIBRATION_TAGS
            md5 = str(header.get(f"{stem} DATAMD5", ""))
            found.append(InputRecord("user" if user else kind, str(name), tag, md5))
            number += 1
    return found
