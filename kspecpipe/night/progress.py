"""Tell what happens during a run: a display that moves, or plain lines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kspecpipe.night.execute import Result, Status
from kspecpipe.night.jobs import Job

_COLOURS = {
    Status.DONE: "green",
    Status.UNCHANGED: "bright_black",
    Status.QC_FAILED: "yellow",
    Status.FAILED: "bold red",
    Status.BLOCKED: "red",
}


class Display:
    """Reports on a console; moves when that is a terminal.

    Parameters
    ----------
    console : Console
        Where to write.
    total : int
        Number of jobs.
    verbosity : int
        -1: only what went wrong.
    """

    def __init__(self, console: Console, total: int, verbosity: int = 0) -> None:
        self.console, self.verbosity, self.total = console, verbosity, total
        self.ends = 0
        self.running: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the display."""
        self._progress.stop()

    def started(self, job: Job) -> None:
        """Tell that a job runs."""
        self.running[job.name] = time.perf_counter()
        self._update()
        if not self.console.is_terminal and self.verbosity > 0:
            self._line(f"start     {job.name}")

    def ended(self, result: Result) -> None:
        """Tell what came of a job."""
        self.ends += 1
        started = self.running.pop(result.job.name, None)
        self._progress.update(self._task, completed=self.ends)
        self._update()
        bad = result.status in (Status.QC_FAILED, Status.FAILED, Status.BLOCKED)
        if self.verbosity < 0 and not bad:
            return
        if result.status == Status.UNCHANGED and self.verbosity < 1:
            return  # hundreds of these say nothing; the summary counts them
        seconds = "" if started is None else f"  {time.perf_counter() - started:.1f} s"
        reason = f": {escape(result.reason)}" if result.reason else ""
        colour = _COLOURS.get(result.status, "default")
        head = f"[{colour}]{result.status:<9}[/] {f'{self.ends}/{self.total}':>9}"
        self._line(f"{head}  {escape(result.job.name)}{seconds}{reason}")

    def note(self, text: str) -> None:
        """Tell something else."""
        self._line(f"[yellow]{escape(text)}[/]")

    def _update(self) -> None:
        names = ", ".join(self.running)
        shown = names if len(names) < 60 else f"{len(self.running)} jobs"
        self._progress.update(self._task, description=escape(shown))

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)
