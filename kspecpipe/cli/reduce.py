"""``kspec reduce``: all that can be made of a folder of raw frames, in one command."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from kspecpipe.cli.plan import add_night_options, session_of
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.night.plan import Plan
from kspecpipe.night.pool import ClusterPool, LocalPool, Pool, usable_cores
from kspecpipe.night.progress import Display
from kspecpipe.night.session import alone_in
from kspecpipe.night.summary import as_json, exit_code, print_problems, print_summary
from kspecpipe.outcome import RunOptions


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Reduce every raw frame below RAWDIR with the best calibrations there are. Started again, "
        "it goes on where it was stopped; what is done and unchanged is not done again. Each job's "
        "list, log and record are in OUT/jobs. Exit code: 1 if a job failed, else 5 if one is "
        "blocked, else 4 if quality control failed, else 0."
    )
    add_night_options(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=_number, metavar="N", help="processes [the cores of this computer]"
    )
    where.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="a running Dask scheduler does the work"
    )
    parser.add_argument("--plots", choices=("none", "file"), default="file", help="pictures [file]")
    parser.add_argument(
        "--ignore-input-qc", action="store_true", help="take calibrations that failed"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="tell more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="tell what went wrong only")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Plan and run."""
    del name
    start = time.perf_counter()
    _refuse_inside(arguments)
    options = RunOptions(
        output=arguments.output.absolute(),
        instrument=arguments.instrument,
        settings_files=tuple(path.absolute() for path in arguments.settings),
        assignments=tuple(arguments.assignments),
        plots=arguments.plots,
        ignore_input_qc=arguments.ignore_input_qc,
        overwrite=True,
        verbosity=int(arguments.verbose) - int(arguments.quiet),
    )
    console = Console(stderr=arguments.json, highlight=False)
    session = session_of(arguments, options)
    signal.signal(signal.SIGTERM, _interrupt)
    with alone_in(options.output, lambda text: console.print(text, soft_wrap=True)):
        plan = session.plan()
        if not plan.jobs:
            raise InputError(_no_jobs(plan))
        if options.verbosity >= 0:
            _introduce(plan, console)
        with Display(console, len(plan.jobs), options.verbosity) as display:
            results = session.execute(plan, pool_of(arguments), display)
    seconds = time.perf_counter() - start
    code = exit_code(list(results.values()))
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(plan, results, code, seconds)) + "\n")
    elif options.verbosity >= 0 or code:
        print_summary(results, options.output, seconds, console)
    return int(code)


def pool_of(arguments: argparse.Namespace) -> Callable[[], Pool]:
    """Return what makes the workers; a scheduler is asked at once whether it is there."""
    if arguments.scheduler:
        cluster = ClusterPool(arguments.scheduler)
        return lambda: cluster
    workers = arguments.workers or usable_cores()
    return lambda: LocalPool(workers)


def _introduce(plan: Plan, console: Console) -> None:
    """Say what is not going to be reduced, before it is forgotten below the progress."""
    for gap in plan.gaps:
        console.print(f"not reduced: {gap.what}: {gap.why}", soft_wrap=True, markup=False)
    for recipe, why in plan.unplanned.items():
        console.print(f"not planned: {recipe}: {why}", soft_wrap=True, markup=False)
    print_problems(plan, console)
    for job in plan.jobs:
        for note in job.notes:
            console.print(f"note: {job.name}: {note}", soft_wrap=True, markup=False)


def _no_jobs(plan: Plan) -> str:
    reasons = [f"{gap.what}: {gap.why}" for gap in plan.gaps]
    reasons += [f"{name}: {why}" for name, why in plan.unplanned.items()]
    return "\n".join(["there is nothing to reduce", *reasons])


def _refuse_inside(arguments: argparse.Namespace) -> None:
    """Refuse the folder of raw frames as output: raw and reduced must not mix."""
    if arguments.output.resolve() == arguments.raw.resolve():
        raise SettingsError(f"-o {arguments.output}: is the folder of the raw frames; name another")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number
