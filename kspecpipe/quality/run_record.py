"""What the history keeps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kspecpipe.frame import FrameInfo
from kspecpipe.framework.gathered import CalibrationFile
from kspecpipe.framework.outcome import Outcome
from kspecpipe.machine import peak_memory
from kspecpipe.nights import night_of
from kspecpipe.provenance import PIPE_ID, file_digest
from kspecpipe.quality.store import InputRecord, ProductRecord, RunRecord

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe
    from kspecpipe.framework.execution import Execution


def run_record(execution: Execution, outcome: Outcome, message: str) -> RunRecord:
    """Describe a run for the history, however far it came."""
    recipe, gathered = execution.recipe, execution.gathered
    raw = [frame.info for frame in gathered.frames] if gathered else []
    infos = raw or execution.infos
    first = infos[0] if infos else FrameInfo("")
    return RunRecord(
        recipe=recipe.name,
        version=PIPE_ID,
        started=execution.started,
        seconds=outcome.timing["total"],
        memory_mb=peak_memory(),
        status=outcome.status,
        exit_code=int(outcome.exit_code),
        message=message,
        instrument=gathered.instrument.facts.name if gathered else "",
        mode=mode_of(recipe, first),
        night=night_of(first.mjd, longitude_of(gathered.instrument) if gathered else 0.0),
        mjd=first.mjd,
        folder=str(execution.options.output.resolve()),
        products=[
            ProductRecord(item.path.name, item.catg, item.key, item.md5, item.exposure)
            for item in execution.written
        ],
        inputs=_inputs(execution, raw),
        metrics=execution.rows,
        dates={info.name: info.mjd for info in infos},
    )


def mode_of(recipe: BaseRecipe, info: FrameInfo) -> str:
    """Return the mode by which the runs of a recipe are compared."""
    return info.readmode if recipe.by_readmode else info.mode


def longitude_of(instrument: Any) -> float:
    """Return the longitude of the telescope [deg east]; 0 where nobody tells."""
    site = instrument.facts.site
    return site.longitude if site else 0.0


def _inputs(execution: Execution, raw: Sequence[FrameInfo]) -> list[InputRecord]:
    # Paths of frames that could not be read (a loop of links, a NUL) cannot be resolved either.
    read = {info.name.partition("[")[0] for info in raw}
    paths = {entry.path.name: entry.path for entry in execution.entries if entry.path.name in read}
    places = {name: str(path.resolve()) for name, path in paths.items()}
    found = [
        InputRecord("raw", i.name, str(i.tag), i.md5, places.get(i.name.partition("[")[0], ""))
        for i in raw
    ]
    gathered = execution.gathered
    if gathered is None:
        return found
    # Before the calibrations are loaded it is not known which of them would have been taken.
    offered = gathered.calibrations.items()
    used = execution.used or [CalibrationFile(tag, *one) for tag, ones in offered for one in ones]
    for one in used:
        md5, place = str(one.header.get("DATAMD5", "")), str(one.path.resolve())
        found.append(InputRecord("calibration", one.path.name, one.tag, md5, place))
    for tag, path in gathered.user.items():
        found.append(InputRecord("user", path.name, tag, file_digest(path), str(path.resolve())))
    return found
