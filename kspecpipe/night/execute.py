"""Run the jobs of a plan: as soon as their calibrations are there, and the best of these."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from kspecpipe.atomic import write_text
from kspecpipe.errors import ExitCode
from kspecpipe.framework.outcome import Outcome
from kspecpipe.night.associate import Candidate, Choice
from kspecpipe.night.jobs import JOBS, Job
from kspecpipe.night.ledger import (
    Entry,
    Settings,
    fingerprint,
    made_by,
    read_entry,
    still_holds,
    write_entry,
)
from kspecpipe.night.plan import Plan
from kspecpipe.night.pool import INTERPRETER, Pool
from kspecpipe.night.work import Delivery, Order, perform
from kspecpipe.qc import BAD_FLAGS

_TICK = 1.0  # [s] how often it is asked whether the workers are still there
_TRIES = 3  # of a job whose worker dies while it alone runs


class Status(StrEnum):
    """How a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    UNCHANGED = "unchanged"
    QC_FAILED = "QC failed"
    FAILED = "failed"
    BLOCKED = "blocked"


ENDED = (Status.DONE, Status.UNCHANGED, Status.QC_FAILED, Status.FAILED, Status.BLOCKED)
MADE = (Status.DONE, Status.UNCHANGED, Status.QC_FAILED)


@dataclass(frozen=True)
class Result:
    """What came of a job."""

    job: Job
    status: Status
    entry: Entry
    reason: str = ""
    cpu: float = 0.0
    memory: float = 0.0


class Reporter(Protocol):
    """Who is told what happens."""

    def started(self, job: Job) -> None:
        """Tell that a job runs."""

    def ended(self, result: Result) -> None:
        """Tell what came of a job."""

    def note(self, text: str) -> None:
        """Tell something else."""


@dataclass(frozen=True)
class Services:
    """What the coordinator uses.

    Parameters
    ----------
    settings : Settings
        Settings of all recipes, and the options of every run.
    pool : callable
        Makes the pool of workers, when there is work for it.
    reporter : Reporter
        Who is told what happens.
    record : callable
        Writes an outcome into the history.
    fault_of : callable
        Says why a product on disk may not be used; empty when it may.
    """

    settings: Settings
    pool: Callable[[], Pool]
    reporter: Reporter
    record: Callable[[Outcome], None]
    fault_of: Callable[[Path], str]


@dataclass
class Coordinator:
    """Runs a plan; the only one that writes the records of jobs and the history.

    Parameters
    ----------
    plan : Plan
        The jobs.
    services : Services
        What it uses.
    """

    plan: Plan
    services: Services
    status: dict[str, Status] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    _pool: Pool | None = None
    _running: dict[Future[Delivery], tuple[Job, tuple[Choice, ...]]] = field(default_factory=dict)
    _ready: list[tuple[int, int, str]] = field(default_factory=list)
    _suspects: list[str] = field(default_factory=list)
    _tries: dict[str, int] = field(default_factory=dict)
    _faults: dict[Path, str] = field(default_factory=dict)
    _made: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Find out who waits for whom."""
        self.output = self.services.settings.options.output
        self.folder = self.output / JOBS
        self._jobs = {job.name: job for job in self.plan.jobs}
        self.status = dict.fromkeys(self._jobs, Status.WAITING)
        self._takers: dict[str, list[str]] = {}
        for job in self.plan.jobs:
            for name in job.depends:
                self._takers.setdefault(name, []).append(job.name)
        self._rank = {job.name: number for number, job in enumerate(self.plan.jobs)}
        self._height: dict[str, int] = {}
        for job in reversed(self.plan.jobs):
            below = [self._height.get(name, 0) for name in self._takers.get(job.name, ())]
            self._height[job.name] = 1 + max(below, default=0)

    def run(self) -> dict[str, Result]:
        """Run all jobs; one failure never stops the rest."""
        for job in self.plan.jobs:
            self._look_at(job)
        try:
            while self._ready or self._running:
                self._fill()
                self._wait()
        except BaseException:
            self._close(wait=False)
            raise
        self._close(wait=True)
        return self.results

    # -- which calibrations ----------------------------------------------------------------------

    def choose(self, job: Job) -> tuple[list[Choice], str, bool]:
        """Return the calibrations of a job, what blocks it, and whether it has to wait."""
        chosen: list[Choice] = []
        blocked: list[str] = []
        for slot in job.slots:
            fit = next((c for c in slot.ranked if not self._unusable(c.candidate)), None)
            if fit is not None and self._pending(fit.candidate):
                return [], "", True
            if fit is not None:
                chosen.append(fit)
            elif slot.spec.required:
                reasons = [
                    f"{c.candidate.path.name}: {self._unusable(c.candidate)}" for c in slot.ranked
                ]
                what = "; ".join(reasons) or "there is none that fits"
                blocked.append(f"no {slot.spec.tag} ({what})")
        needed = {slot.spec.tag for slot in job.slots}
        for spec in job.recipe.Inputs.specs.values():
            missing = spec.kind == "calibration" and spec.required and spec.tag not in needed
            if missing and not job.members:
                blocked.append(f"no {spec.tag} ({spec.doc})")
        return chosen, "; ".join(blocked), False

    def _members(self, job: Job) -> tuple[list[Candidate], bool]:
        """Return the usable products that are a job's main input, and whether to wait for more."""
        waits = any(self._pending(one) for one in job.members)
        return [one for one in job.members if not self._unusable(one)], waits

    def _pending(self, candidate: Candidate) -> bool:
        return bool(candidate.job) and self.status[candidate.job] not in ENDED

    def _unusable(self, candidate: Candidate) -> str:
        """Say why a candidate cannot be taken; empty when it can, or may yet be made."""
        if not candidate.job or self._pending(candidate):
            return candidate.fault
        if self.status[candidate.job] not in MADE:
            return f"{candidate.job} {self.status[candidate.job]}"
        if candidate.path not in self._made:
            return f"{candidate.job} did not make it"
        if candidate.path not in self._faults:
            self._faults[candidate.path] = self.services.fault_of(candidate.path)
        return self._faults[candidate.path]

    # -- the flow of jobs ------------------------------------------------------------------------

    def _look_at(self, job: Job) -> None:
        """Queue a job that can run, end one that cannot or need not."""
        if self.status[job.name] != Status.WAITING:
            return
        members, waits = self._members(job)
        chosen, blocked, later = self.choose(job)
        if waits or later:
            return
        least = max(
            (s.at_least for s in job.recipe.Inputs.specs.values() if s.several == "list"), default=0
        )
        if job.members and len(members) < max(least, 1):
            blocked = blocked or f"{len(members)} of {len(job.members)} {job.main_tag} can be used"
        job = replace(job, members=tuple(members))
        if blocked:
            self._end(job, Status.BLOCKED, Entry(job.name, job.recipe.name, "", 5), blocked)
            return
        self._jobs[job.name] = job
        entry = read_entry(self._place(job, ".json"))
        wanted = fingerprint(job, chosen, self.services.settings)
        if entry is not None and still_holds(entry, wanted, self.output):
            self._end(job, Status.UNCHANGED, entry, "")
            return
        self.status[job.name] = Status.RUNNING
        heapq.heappush(self._ready, (-self._height[job.name], self._rank[job.name], job.name))

    def _fill(self) -> None:
        """Hand out jobs while workers and memory allow."""
        pool = self._workers()
        while self._ready and len(self._running) < (1 if self._suspects else pool.capacity):
            name = self._suspects[0] if self._suspects else self._ready[0][2]
            job = self._jobs[name]
            used = sum(one.memory + INTERPRETER for one, _ in self._running.values())
            if self._running and used + job.memory + INTERPRETER > pool.memory:
                return
            self._take(name)
            self._submit(job, pool)

    def _take(self, name: str) -> None:
        """Take a job out of the queue; almost always it is the first."""
        if self._ready[0][2] == name:
            heapq.heappop(self._ready)
            return
        self._ready = [item for item in self._ready if item[2] != name]
        heapq.heapify(self._ready)

    def _submit(self, job: Job, pool: Pool) -> None:
        chosen, blocked, _ = self.choose(job)
        if blocked:  # what it would have taken was lost since
            self._end(job, Status.BLOCKED, Entry(job.name, job.recipe.name, "", 5), blocked)
            return
        sof = self._place(job, ".sof")
        try:
            write_text(sof, job.sof(chosen, self.folder))
        except OSError as error:
            self._fail(job, f"{sof}: cannot be written: {error.strerror}")
            return
        options = replace(
            self.services.settings.options,
            qualifier=job.qualifier,
            levels={c.candidate.path.name: int(c.level) for c in chosen},
            log_file=self._place(job, ".log"),
            record=False,
        )
        try:
            future = pool.submit(perform, Order(job.recipe.name, sof, options))
        except (BrokenExecutor, RuntimeError, OSError) as error:
            self._requeue([job])
            self._replace_workers(str(error))
            return
        self._running[future] = (job, tuple(chosen))
        self.services.reporter.started(job)

    def _wait(self) -> None:
        """Take what has ended; replace dead workers; give up when there are none any more."""
        if not self._running:
            return
        done, _ = wait(self._running, timeout=_TICK, return_when=FIRST_COMPLETED)
        lost = self._workers().lost()
        ended = [(future, *self._running.pop(future)) for future in done]
        broken: list[Job] = []
        for future, job, chosen in ended:
            try:
                delivery = future.result()
            except (BrokenExecutor, CancelledError):
                broken.append(job)
            except Exception as error:  # of the cluster: a worker lost, a module that differs
                if not lost:
                    self._fail(job, f"its worker failed: {type(error).__name__}: {error}")
            else:
                self._deliver(job, chosen, delivery)
        if lost:
            self._give_up(lost)
        elif broken:
            # All that ran died with the one worker.
            broken += [job for job, _ in self._running.values()]
            self._running.clear()
            self._requeue(broken)
            self._replace_workers("a worker process died")

    def _requeue(self, jobs: Sequence[Job]) -> None:
        """Run jobs again, one by one, so that one which kills its worker is found."""
        alone = len(jobs) == 1
        for job in jobs:
            self._tries[job.name] = self._tries.get(job.name, 0) + alone
            if self._tries[job.name] >= _TRIES:
                self._fail(job, f"its worker died {_TRIES} times: killed, or out of memory?")
                continue
            if job.name not in self._suspects:
                self._suspects.append(job.name)
            item = (-self._height[job.name], self._rank[job.name], job.name)
            heapq.heappush(self._ready, item)

    def _replace_workers(self, why: str) -> None:
        self.services.reporter.note(f"{why}: started again")
        self._workers().renew()

    def _deliver(self, job: Job, chosen: Sequence[Choice], delivery: Delivery) -> None:
        """Keep what came of a run, then let those who waited for it go on."""
        outcome = delivery.outcome
        entry = self._entry(job, chosen, outcome, delivery.seconds)
        status = {ExitCode.OK: Status.DONE, ExitCode.QC_FAILED: Status.QC_FAILED}.get(
            outcome.exit_code, Status.FAILED
        )
        if status == Status.DONE and outcome.unchanged:
            status = Status.UNCHANGED
        reason = "; ".join(outcome.errors[:3])
        if status == Status.QC_FAILED:
            reason = ", ".join(entry.qc_failed)
        self._end(job, status, entry, reason, (delivery.cpu, delivery.memory))
        # First the history: a run that is killed in between does the job again, and finds it done.
        self.services.record(outcome)
        try:
            write_entry(self._place(job, ".json"), entry)
        except OSError as error:
            self.services.reporter.note(f"{job.name}: its record was not written: {error.strerror}")

    def _entry(self, job: Job, chosen: Sequence[Choice], outcome: Outcome, seconds: float) -> Entry:
        shelf = self.plan.shelf
        return Entry(
            job=job.name,
            recipe=job.recipe.name,
            fingerprint=fingerprint(job, chosen, self.services.settings),
            exit_code=int(outcome.exit_code),
            products=made_by(outcome),
            warnings=outcome.warnings,
            errors=outcome.errors,
            qc_failed=tuple(dict.fromkeys(r.name for r in outcome.qc if r.flag in BAD_FLAGS)),
            frames=tuple(str(frame.path) for frame in job.frames),
            chosen=tuple(explain(choice) for choice in chosen),
            misses=tuple(self._passed_over(job, chosen))
            + tuple(
                {"tag": spec.tag, "file": name, "reason": reason}
                for spec in job.recipe.Inputs.specs.values()
                if spec.kind == "calibration"
                for name, reason in shelf.near_misses(spec, job.wish)
            ),
            seconds=round(seconds, 3),
        )

    def _passed_over(self, job: Job, chosen: Sequence[Choice]) -> list[dict[str, str]]:
        """Return the candidates that fit but were not taken, and why."""
        found = []
        for slot in job.slots:
            for choice in slot.ranked:
                if choice in chosen:
                    continue
                why = self._unusable(choice.candidate) or f"another is better ({choice.reason})"
                name = choice.candidate.path.name
                found.append({"tag": slot.spec.tag, "file": name, "reason": why})
        return found

    def _fail(self, job: Job, reason: str) -> None:
        entry = Entry(job.name, job.recipe.name, "", int(ExitCode.NO_PRODUCT), errors=(reason,))
        self._end(job, Status.FAILED, entry, reason)

    def _give_up(self, why: str) -> None:
        """Fail all that has not ended: there is nobody left to do it."""
        self._running.clear()
        self._ready.clear()
        for name, job in self._jobs.items():
            if self.status[name] not in ENDED:
                self.status[name] = Status.RUNNING
                self._fail(job, f"{why}; what is finished is kept: start again")

    def _end(
        self,
        job: Job,
        status: Status,
        entry: Entry,
        reason: str,
        cost: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Note the end of a job and look at those that wait for it."""
        self.status[job.name] = status
        self._suspects = [name for name in self._suspects if name != job.name]
        self._made |= {self.output / name for name, *_ in entry.products}
        result = Result(job, status, entry, reason, *cost)
        self.results[job.name] = result
        self.services.reporter.ended(result)
        for name in self._takers.get(job.name, ()):
            self._look_at(self._jobs[name])

    def _place(self, job: Job, suffix: str) -> Path:
        return self.folder / f"{job.name}{suffix}"

    def _workers(self) -> Pool:
        if self._pool is None:
            self._pool = self.services.pool()
        return self._pool

    def _close(self, *, wait: bool) -> None:
        if self._pool is not None:
            self._pool.close(wait=wait)


def explain(choice: Choice) -> dict[str, object]:
    """Return why a calibration was chosen."""
    one = choice.candidate
    return {
        "tag": one.catg,
        "file": one.path.name,
        "level": str(choice.level),
        "age": round(choice.age, 4),
        "reason": choice.reason,
    }
