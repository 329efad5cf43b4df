"""Write a plan as Slurm job arrays of plain commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from kspecpipe.atomic import write_text
from kspecpipe.errors import ProductError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.night.jobs import JOBS, Job
from kspecpipe.night.plan import Plan
from kspecpipe.night.pool import INTERPRETER

FOLDER = "slurm"


def emit(plan: Plan, options: RunOptions, again: Sequence[str]) -> Path:
    """Write one array for each step of the chain, and a script that submits them in order.

    The commands go by the first choice of each calibration; that a master fails is known only when
    they run. So the last task is `kspec reduce` itself: it takes over what is done, writes the
    history, and does with the next best calibrations what could not be done.

    Parameters
    ----------
    plan : Plan
        The jobs.
    options : RunOptions
        How each recipe is run.
    again : sequence of str
        The words of the command that finishes the night.

    Returns
    -------
    Path
        The script that submits everything.

    Raises
    ------
    ProductError
        If a file cannot be written.
    """
    output = options.output
    folder = output / FOLDER
    steps = list(dict.fromkeys(job.recipe.name for job in plan.jobs))
    try:
        (output / JOBS).mkdir(parents=True, exist_ok=True)
        lines = [
            "#!/bin/bash",
            "# Submits all steps; each starts when the one before has ended.",
            "set -eu",
            f"cd {shlex.quote(str(folder))}",
            "after=",
        ]
        for number, name in enumerate(steps, start=1):
            jobs = [job for job in plan.jobs if job.recipe.name == name]
            stem = f"{number}_{name}"
            commands = [_command(job, options) for job in jobs]
            write_text(folder / f"{stem}.commands", "\n".join(commands) + "\n")
            write_text(folder / f"{stem}.sh", _array(stem, jobs))
            lines.append(
                f"after=$(sbatch --parsable ${{after:+--dependency=afterany:$after}} {stem}.sh)"
            )
        write_text(folder / "finish.sh", _script("finish", [], shlex.join(["kspec", *again])))
        lines.append("sbatch ${after:+--dependency=afterany:$after} finish.sh")
        write_text(folder / "submit.sh", "\n".join(lines) + "\n")
        for job in plan.jobs:
            chosen = [slot.ranked[0] for slot in job.slots if slot.ranked]
            write_text(output / JOBS / f"{job.name}.sof", job.sof(chosen, output / JOBS))
    except OSError as error:
        raise ProductError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder / "submit.sh"


def _command(job: Job, options: RunOptions) -> str:
    """Return the command that runs a job by hand."""
    sof = options.output / JOBS / f"{job.name}.sof"
    words = ["kspec", job.recipe.name, str(sof), "-o", str(options.output), "-q", "--overwrite"]
    words += ["--plots", options.plots, "--no-history"]
    if options.instrument:
        words += ["--instrument", options.instrument]
    for path in options.settings_files:
        words += ["--settings", str(path)]
    for text in options.assignments:
        words += ["--set", text]
    if job.qualifier:
        words += ["--qualifier", job.qualifier]
    return shlex.join(words)


def _array(stem: str, jobs: Sequence[Job]) -> str:
    memory = int((max(job.memory for job in jobs) + INTERPRETER) / 1e6) + 1
    head = [f"#SBATCH --array=1-{len(jobs)}", f"#SBATCH --mem={memory}M"]
    body = f'eval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {stem}.commands)"'
    return _script(stem, head, body)


def _script(stem: str, head: Sequence[str], body: str) -> str:
    path = str(Path(sys.executable).parent)
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name=kspec_{stem}",
            "#SBATCH --cpus-per-task=1",
            *head,
            "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
            f"export PATH={shlex.quote(path)}:$PATH",
            body,
            "",
        ]
    )
