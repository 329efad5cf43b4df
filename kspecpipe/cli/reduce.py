"""``kspec reduce``: all that can be made of a folder of raw frames, in one command."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from kspecpipe.cli.plan import add_night_options, session_of
from kspecpipe.errors import ExitCode, InputError, SettingsError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.framework.terminal import short_path
from kspecpipe.machine import usable_cores
from kspecpipe.night.execute import Result
from kspecpipe.night.frames import Listing
from kspecpipe.night.plan import Plan
from kspecpipe.night.pool import ClusterPool, LocalPool, Pool
from kspecpipe.night.progress import Display
from kspecpipe.night.session import Session, alone_in
from kspecpipe.night.slurm import emit
from kspecpipe.night.summary import as_json, exit_code, print_problems, print_summary
from kspecpipe.night.watch import watch


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
    parser.add_argument(
        "--watch", action="store_true", help="reduce frames as they land, until interrupted"
    )
    parser.add_argument(
        "--idle", type=float, metavar="MINUTES", help="with --watch: end when nothing new came"
    )
    parser.add_argument(
        "--emit", choices=("slurm",), help="run nothing: write job arrays into OUT/slurm"
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
    _refuse_nonsense(arguments)
    options = options_of(arguments)
    night = Night(session_of(arguments, options), options, arguments)
    with alone_in(options.output, night.tell):
        if arguments.emit:
            return night.emit()
        signal.signal(signal.SIGTERM, _interrupt)
        return night.watch() if arguments.watch else night.reduce()


def options_of(arguments: argparse.Namespace) -> RunOptions:
    """Return how every recipe is run; what is of other content is made again."""
    return RunOptions(
        output=arguments.output.absolute(),
        instrument=arguments.instrument,
        settings_files=tuple(path.absolute() for path in arguments.settings),
        assignments=tuple(arguments.assignments),
        plots=arguments.plots,
        ignore_input_qc=arguments.ignore_input_qc,
        overwrite=True,
        verbosity=int(arguments.verbose) - int(arguments.quiet),
    )


@dataclass
class Night:
    """One command, from the plan to the exit code."""

    session: Session
    options: RunOptions
    arguments: argparse.Namespace
    start: float = field(default_factory=time.perf_counter)
    results: dict[str, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep standard output for JSON where that is asked for."""
        self.console = Console(stderr=self.arguments.json, highlight=False)
        self.session.warn = self.tell

    def tell(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True, markup=False)

    def reduce(self) -> int:
        """Reduce what there is."""
        plan = self._plan(None)
        if not plan.jobs:
            raise InputError(_no_jobs(plan))
        if self.options.verbosity >= 0:
            _introduce(plan, self.tell)
            print_problems(plan, self.console)
        self._execute(plan)
        return self._end(plan)

    def watch(self) -> int:
        """Reduce what lands, until interrupted or idle."""
        plans: list[Plan] = []
        patience = None if self.arguments.idle is None else 60.0 * self.arguments.idle
        self.tell(f"watching {short_path(self.session.raw)}; Ctrl-C ends it")

        def one_pass(listing: Listing) -> None:
            plans.append(self._plan(listing))
            self._execute(plans[-1])

        try:
            watch(self.session.look, one_pass, patience=patience)
        except KeyboardInterrupt:
            self.tell("watching has ended; what was under way is done when you start again")
        if not plans:
            raise InputError(f"{self.session.raw}: no frame has come that can be reduced")
        return self._end(plans[-1])

    def emit(self) -> int:
        """Write job arrays."""
        script = emit(self._plan(None), self.options, again_of(self.arguments))
        self.tell(f"to submit all: bash {short_path(script)}")
        return int(ExitCode.OK)

    def _plan(self, listing: Listing | None) -> Plan:
        return self.session.plan(listing)

    def _execute(self, plan: Plan) -> None:
        with Display(self.console, len(plan.jobs), self.options.verbosity) as display:
            self.results |= self.session.execute(plan, pool_of(self.arguments), display)

    def _end(self, plan: Plan) -> int:
        seconds = time.perf_counter() - self.start
        code = exit_code(list(self.results.values()))
        if self.arguments.json:
            found = as_json(plan, self.results, code, seconds)
            sys.stdout.write(json.dumps(found) + "\n")
        elif self.options.verbosity >= 0 or code:
            print_summary(self.results, self.options.output, seconds, self.console)
        return int(code)


def again_of(arguments: argparse.Namespace) -> list[str]:
    """Return the words of the same command, wherever it is given, on one core."""
    words = ["reduce", str(arguments.raw.absolute()), "-o", str(arguments.output.absolute())]
    words += ["--workers", "1", "--plots", arguments.plots]
    if arguments.instrument:
        words += ["--instrument", arguments.instrument]
    for path in arguments.settings:
        words += ["--settings", str(path.absolute())]
    for text in arguments.assignments:
        words += ["--set", text]
    for text in arguments.given:
        tag, _, path = text.partition("=")
        words += ["--with", f"{tag}={Path(path).expanduser().absolute()}"]
    words += ["--until", arguments.until] if arguments.until else []
    for option in ("only", "mode"):
        words += [word for name in getattr(arguments, option) for word in (f"--{option}", name)]
    return words


def pool_of(arguments: argparse.Namespace) -> Callable[[], Pool]:
    """Return what makes the workers; a scheduler is asked at once whether it is there."""
    if arguments.scheduler:
        cluster = ClusterPool(arguments.scheduler)
        return lambda: cluster
    workers = arguments.workers or usable_cores()
    return lambda: LocalPool(workers)


def _introduce(plan: Plan, tell: Callable[[str], None]) -> None:
    """Say what is not going to be reduced, before it is forgotten below the progress."""
    for gap in plan.gaps:
        tell(f"not reduced: {gap.what}: {gap.why}")
    for recipe, why in plan.unplanned.items():
        tell(f"not planned: {recipe}: {why}")
    for job in plan.jobs:
        for note in job.notes:
            tell(f"note: {job.name}: {note}")


def _no_jobs(plan: Plan) -> str:
    reasons = [f"{gap.what}: {gap.why}" for gap in plan.gaps]
    reasons += [f"{name}: {why}" for name, why in plan.unplanned.items()]
    return "\n".join(["there is nothing to reduce", *reasons])


def _refuse_nonsense(arguments: argparse.Namespace) -> None:
    """Refuse the folder of raw frames as output, and options that do not go together."""
    if arguments.idle is not None and not arguments.watch:
        raise SettingsError("--idle goes with --watch")
    if arguments.emit and arguments.watch:
        raise SettingsError("--emit writes job arrays for frames that are there; not with --watch")
    if arguments.output.resolve() == arguments.raw.resolve():
        raise SettingsError(f"-o {arguments.output}: is the folder of the raw frames; name another")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number
