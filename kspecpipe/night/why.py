"""Explain which calibrations a product or a frame was given, and why not others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.night.associate import Choice
from kspecpipe.night.jobs import JOBS, Job
from kspecpipe.night.ledger import Entry, read_entry
from kspecpipe.night.plan import Plan


def entries_of(path: Path, output: Path) -> list[Entry]:
    """Return the records of the jobs that made a product or used a frame."""
    entries = (read_entry(place) for place in sorted((output / JOBS).glob("*.json")))
    return [entry for entry in entries if entry is not None and _concerns(entry, path)]


def explain_entry(entry: Entry) -> Iterator[str]:
    """Yield lines that tell what a job took, and what it passed over."""
    yield f"{entry.job} (kspec {entry.recipe}, exit {entry.exit_code})"
    for one in entry.chosen:
        yield _taken(one["tag"], one["file"], one["reason"])
    yield from _misses(entry.misses)


def explain_plan(plan: Plan, path: Path) -> Iterator[str]:
    """Yield lines that tell what the jobs of a frame would take."""
    jobs = [job for job in plan.jobs if any(frame.path == path for frame in job.frames)]
    for job in jobs:
        yield f"{job.name} (planned, kspec {job.recipe.name})"
        yield from _explain_job(job, plan)
    if not jobs:
        reasons = [gap.why for gap in plan.gaps if path.name in gap.what]
        reasons += [p.reason for p in (*plan.problems, *plan.unknown) if p.path == path]
        what = "; ".join(reasons) or "no recipe of the night takes it"
        yield f"{path.name} is in no job: {what}"


def explain_header(path: Path) -> Iterator[str]:
    """Yield lines that tell what a product was made from, by its own header.

    Raises
    ------
    InputError
        If it is no product.
    """
    header = io.read_header(path)
    recipe = header.get("ESO PRO REC1 ID")
    if not recipe:
        raise InputError(f"{path.name}: is no product, and no job of the output has used it")
    yield f"{path.name} (kspec {recipe}; not made by kspec reduce: the user chose)"
    number = 1
    while f"ESO PRO REC1 CAL{number} NAME" in header:
        card = f"ESO PRO REC1 CAL{number}"
        level = header.get(f"{card} LEVEL")
        shown = "" if level is None else f"level {level}"
        yield _taken(str(header[f"{card} CATG"]), str(header[f"{card} NAME"]), shown)
        number += 1


def _concerns(entry: Entry, path: Path) -> bool:
    made = {name for name, *_ in entry.products}
    return path.name in made or str(path) in entry.frames


def _explain_job(job: Job, plan: Plan) -> Iterator[str]:
    for slot in job.slots:
        if slot.ranked:
            best = slot.ranked[0]
            yield _taken(slot.spec.tag, best.candidate.path.name, best.reason)
        else:
            need = "needed" if slot.spec.required else "optional"
            yield f"  {slot.spec.tag:<15} none ({need})"
    misses = [
        {"tag": slot.spec.tag, "file": choice.candidate.path.name, "reason": _later(choice)}
        for slot in job.slots
        for choice in slot.ranked[1:]
    ]
    misses += [
        {"tag": spec.tag, "file": name, "reason": why}
        for spec in job.recipe.Inputs.specs.values()
        if spec.kind == "calibration"
        for name, why in plan.shelf.near_misses(spec, job.wish)
    ]
    yield from _misses(misses)


def _later(choice: Choice) -> str:
    return f"another is better ({choice.reason})"


def _taken(tag: str, name: str, reason: str) -> str:
    return f"  {tag:<15} {name}" + (f"  ({reason})" if reason else "")


def _misses(misses: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    found = list(misses)
    if found:
        yield "  not taken:"
    for one in found:
        yield f"    {one['tag']:<15} {one['file']}: {one['reason']}"
