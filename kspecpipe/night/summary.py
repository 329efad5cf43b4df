"""What came of a run: exit code, tables, and what to do about failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kspecpipe.errors import ExitCode
from kspecpipe.framework.terminal import short_path
from kspecpipe.night.execute import Result, Status
from kspecpipe.night.frames import Problem
from kspecpipe.night.jobs import JOBS, Job
from kspecpipe.night.plan import Plan

_MOST = 12  # files of one kind that are listed one by one


def exit_code(results: Iterable[Result]) -> ExitCode:
    """Return the exit code of a night: a failure, else a block, else failed quality control."""
    found = {result.status for result in results}
    unchanged_failed = any(
        result.status == Status.UNCHANGED and result.entry.exit_code == ExitCode.QC_FAILED
        for result in results
    )
    if Status.FAILED in found:
        return ExitCode.NO_PRODUCT
    if Status.BLOCKED in found:
        return ExitCode.CALIBRATION_MISSING
    if Status.QC_FAILED in found or unchanged_failed:
        return ExitCode.QC_FAILED
    return ExitCode.OK


def print_plan(plan: Plan, console: Console, *, verbose: bool = False) -> None:
    """Print groups, chosen calibrations and gaps."""
    for night in sorted({job.wish.night for job in plan.jobs}):
        table = Table(title=f"night of {night}", title_justify="left", box=None, pad_edge=False)
        for name in ("recipe", "mode", "jobs", "frames", "calibrations"):
            right = name in ("jobs", "frames")
            table.add_column(name, justify="right" if right else "left", no_wrap=right)
        for row in _rows([job for job in plan.jobs if job.wish.night == night], verbose=verbose):
            table.add_row(*map(Text, row))
        console.print(table)
        console.print()
    _print_list(console, "not reduced", [f"{gap.what}: {gap.why}" for gap in plan.gaps])
    planless = [f"{name}: {why}" for name, why in plan.unplanned.items()]
    _print_list(console, "not planned", planless)
    print_problems(plan, console)
    notes = [f"{job.name}: {note}" for job in plan.jobs for note in job.notes]
    _print_list(console, "note", notes)
    counts = Counter(job.recipe.name for job in plan.jobs)
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    console.print(Text(f"{len(plan.jobs)} jobs: {shown}"))


def print_problems(plan: Plan, console: Console) -> None:
    """Print the files that are not used."""
    _print_list(console, "cannot be used", [_shown(one) for one in plan.problems])
    by_folder: dict[tuple[Path, str], list[Problem]] = {}
    for one in plan.unknown:
        by_folder.setdefault((one.path.parent, one.reason), []).append(one)
    lines = []
    for (folder, reason), found in by_folder.items():
        if len(found) > 3:
            lines.append(f"{len(found)} files in {short_path(folder)}: {reason}")
        else:
            lines += [_shown(one) for one in found]
    _print_list(console, "unknown", lines)


def print_summary(
    results: Mapping[str, Result], output: Path, seconds: float, console: Console
) -> None:
    """Print how many jobs of each recipe ended how, and what to do about those that failed."""
    table = Table(box=None, pad_edge=False)
    shown = [s for s in Status if any(result.status == s for result in results.values())]
    table.add_column("recipe")
    for status in shown:
        table.add_column(status.value, justify="right")
    for recipe in dict.fromkeys(result.job.recipe.name for result in results.values()):
        of_recipe = [r.status for r in results.values() if r.job.recipe.name == recipe]
        table.add_row(recipe, *(str(of_recipe.count(status) or "") for status in shown))
    console.print(table)
    for result in results.values():
        for line in advice(result, output):
            console.print(Text(line), soft_wrap=True)
    code = exit_code(results.values())
    products = sum(len(result.entry.products) for result in results.values())
    colour = "green" if code == ExitCode.OK else "bold red"
    text = f"{len(results)} jobs, {products} products in {short_path(output)}, {seconds:.0f} s"
    console.print(Text(f"{text} (exit {int(code)})", style=colour))


def advice(result: Result, output: Path) -> list[str]:
    """Return what a user should know and do about a job that did not end well."""
    job = result.job
    if result.status == Status.FAILED:
        return [f"{job.name} failed: {result.reason}", *_where_to_look(job, output)]
    if result.status == Status.BLOCKED:
        return [f"{job.name} blocked by: {result.reason}"]
    if result.status == Status.QC_FAILED:
        names = [name for name, *_ in result.entry.products[:1]]
        look = f"; look at it: kspec show {_quoted(short_path(output / names[0]))}" if names else ""
        return [f"{job.name}: quality control failed: {result.reason}{look}"]
    return []


def _where_to_look(job: Job, output: Path) -> list[str]:
    """Return the log of a failed job and the command that repeats it, as far as there are such."""
    sof = output / JOBS / f"{job.name}.sof"
    log, words = sof.with_suffix(".log"), ["kspec", job.recipe.name]
    words += [_quoted(short_path(sof)), "-o", _quoted(short_path(output))]
    parts = [f"log {short_path(log)}"] if log.exists() else []
    parts += [f"by hand: {' '.join(words)}"] if sof.exists() else []
    return [f"  {'; '.join(parts)}"] if parts else []


def as_json(
    plan: Plan, results: Mapping[str, Result], code: ExitCode, seconds: float
) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    return {
        "command": "reduce",
        "status": code.name.lower().replace("_", " "),
        "exit_code": int(code),
        "seconds": round(seconds, 2),
        "jobs": [_job_as_json(result) for result in results.values()],
        **_plan_parts(plan),
    }


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as the object that ``--json`` prints."""
    return {
        "command": "plan",
        "jobs": [
            {
                "job": job.name,
                "recipe": job.recipe.name,
                "night": job.wish.night,
                "mode": job.mode,
                "frames": [str(frame.path) for frame in job.frames],
                "members": [one.path.name for one in job.members],
                "files": {tag: str(path) for tag, path in job.user.items()},
                "calibrations": [
                    {
                        "tag": slot.spec.tag,
                        "file": slot.ranked[0].candidate.path.name if slot.ranked else None,
                        "level": str(slot.ranked[0].level) if slot.ranked else None,
                        "required": slot.spec.required,
                    }
                    for slot in job.slots
                ],
                "products": [one.path.name for one in job.products],
                "notes": list(job.notes),
            }
            for job in plan.jobs
        ],
        **_plan_parts(plan),
    }


def _plan_parts(plan: Plan) -> dict[str, Any]:
    return {
        "not_reduced": [{"what": gap.what, "why": gap.why} for gap in plan.gaps],
        "not_planned": dict(plan.unplanned),
        "cannot_be_used": [{"file": str(p.path), "why": p.reason} for p in plan.problems],
        "unknown": [{"file": str(p.path), "why": p.reason} for p in plan.unknown],
    }


def _job_as_json(result: Result) -> dict[str, Any]:
    return {
        "job": result.job.name,
        "recipe": result.job.recipe.name,
        "status": str(result.status),
        "exit_code": result.entry.exit_code,
        "reason": result.reason,
        "seconds": result.entry.seconds,
        "cpu": round(result.cpu, 3),
        "memory_mb": round(result.memory, 1),
        "products": [name for name, *_ in result.entry.products],
        "calibrations": list(result.entry.chosen),
        "warnings": list(result.entry.warnings),
        "errors": list(result.entry.errors),
    }


def _rows(jobs: Sequence[Job], *, verbose: bool) -> list[tuple[str, ...]]:
    """Return one row for the jobs of a recipe and mode that take the same calibrations."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        name = job.name if verbose else job.recipe.name
        groups.setdefault((name, job.mode, _calibrations(job)), []).append(job)
    return [
        (name, mode, str(len(found)), str(sum(_inputs(job) for job in found)), calibrations)
        for (name, mode, calibrations), found in groups.items()
    ]


def _inputs(job: Job) -> int:
    return sum(frame.planes for frame in job.frames) + len(job.members)


def _calibrations(job: Job) -> str:
    """Return the first choice of each calibration, and what is missing."""
    parts = []
    for slot in job.slots:
        if slot.ranked:
            best = slot.ranked[0]
            level = "" if str(best.level) == "same night" else f" ({best.level})"
            mode = best.candidate.values.get("mode")
            borrowed = mode != job.wish.values.get("mode") and slot.spec.tag == "TRAMLINE_MAP"
            parts.append(f"{slot.spec.tag}{level}{f' of {mode}' if borrowed else ''}")
        elif slot.spec.required:
            parts.append(f"{slot.spec.tag}: MISSING")
    return ", ".join(dict.fromkeys([*parts, *sorted(job.user)]))


def _shown(problem: Problem) -> str:
    return f"{short_path(problem.path)}: {problem.reason}"


def _print_list(console: Console, head: str, lines: Sequence[str]) -> None:
    for line in lines[:_MOST]:
        console.print(Text(f"{head}: {line}"), soft_wrap=True)
    if len(lines) > _MOST:
        console.print(Text(f"{head}: and {len(lines) - _MOST} more (--json lists all)"))


def _quoted(path: str) -> str:
    return f"'{path}'" if " " in path else path
