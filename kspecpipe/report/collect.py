"""What a page of a night shows, taken from the history and from the files beside the products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.qc import Flag, QCRow, worst
from kspecpipe.quality.history import (
    Row,
    folder_of,
    metric_of,
    nights,
    nights_of_products,
    of_runs,
    runs_of,
)
from kspecpipe.quality.store import Verdict, verdicts

ORDER = list(Flag)
_LOG_LENGTH = 20_000
_LEVELS = {0: "same night", 1: "within 3 days", 2: "within 30 days", 3: "older"}


@dataclass(frozen=True)
class Metric:
    """All values of one metric of a run."""

    name: str
    rows: tuple[QCRow, ...]

    @cached_property
    def flag(self) -> Flag:
        """The worst flag of those values that apply."""
        return worst([row for row in self.rows if row.flag != Flag.NA] or self.rows)

    @property
    def per_fibre(self) -> bool:
        """Whether there is a value for each fibre."""
        return self.rows[0].scope == "fibre"


@dataclass(frozen=True)
class Product:
    """A product of a run; ``exists`` is False when its file was deleted since."""

    name: str
    catg: str
    md5: str
    path: Path
    exists: bool
    verdict: Verdict | None

    @property
    def anchor(self) -> str:
        """Name of its place in the page."""
        return f"p-{self.md5[:16] or self.name}"


@dataclass(frozen=True)
class Input:
    """A file that a run used; ``night`` is that of the product, empty for other files."""

    name: str
    tag: str
    kind: str
    md5: str
    night: str
    rejected: bool


@dataclass(frozen=True)
class Run:
    """One run of a recipe."""

    row: Row
    products: tuple[Product, ...]
    inputs: tuple[Input, ...]
    metrics: tuple[Metric, ...]
    settings: tuple[tuple[str, str, str], ...]
    log: str

    @cached_property
    def flag(self) -> Flag:
        """The worst flag of what was judged; a run whose products cannot be used has failed."""
        gone = not self.products or any(not item.exists for item in self.products)
        refused = any(item.rejected for item in self.inputs)
        verdicts = [item.verdict.verdict for item in self.products if item.verdict]
        flags = [metric.flag for metric in self.metrics]
        flags = [flag for flag in flags if flag not in (Flag.NA, Flag.UNJUDGED)]
        flags += [Flag.FAIL] if gone or refused or "rejected" in verdicts else []
        return max(flags, key=ORDER.index, default=Flag.UNJUDGED)

    @cached_property
    def by_name(self) -> dict[str, Metric]:
        """The metrics by name."""
        return {metric.name: metric for metric in self.metrics}

    @property
    def anchor(self) -> str:
        """Name of its place in the page."""
        return f"run-{self.row['run']}"

    @property
    def label(self) -> str:
        """What it made or worked on, as short as can be."""
        exposures = [item.name for item in self.inputs if item.kind == "raw"]
        names = [item.path.stem for item in self.products]
        return (names or exposures or [self.row["started"]])[0]

    @property
    def key(self) -> tuple[str, str, str]:
        """What runs of different nights are compared by."""
        return (self.row["instrument"], self.row["recipe"], self.row["mode"])


@dataclass(frozen=True)
class Change:
    """A metric that is another than in the night before."""

    recipe: str
    mode: str
    metric: str
    before: tuple[Flag, float]
    now: tuple[Flag, float]
    unit: str


@dataclass
class Night:
    """Everything on the page of a night; runs are sorted, the worst first."""

    date: str
    before: str
    runs: list[Run]
    missing: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def counts(self) -> dict[Flag, int]:
        """Number of runs by flag, the worst first."""
        found = Counter(run.flag for run in self.runs)
        return {flag: found[flag] for flag in reversed(ORDER) if found[flag]}

    @property
    def lights(self) -> list[tuple[str, list[str], list[Run]]]:
        """Runs by recipe, with the metrics of each: the columns and rows of the lights."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.row["recipe"], []).append(run)
        return [
            (recipe, list(dict.fromkeys(m.name for run in runs for m in run.metrics)), runs)
            for recipe, runs in groups.items()
        ]

    @property
    def levels(self) -> dict[str, list[Run]]:
        """Runs by how near their calibrations are; runs without associated ones are not known."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            values = [m.rows[0].value for m in run.metrics if m.name == "CALIB LEVEL"]
            known = [value for value in values if value == value]
            word = _LEVELS.get(int(known[0]), str(known[0])) if known else "not associated"
            found.setdefault(word, []).append(run)
        order = [*_LEVELS.values(), "not associated"]
        return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def collect(store: Path, date: str) -> Night:
    """Gather the page of a night.

    Raises
    ------
    StoreError
        If the history cannot be read.
    """
    decided = verdicts(store)
    runs = _runs(store, runs_of(store, date), decided, _files)
    earlier = [night for night in nights(store) if night < date]
    night = Night(date, earlier[-1] if earlier else "", sorted(runs, key=_worst_first))
    last = _runs(store, runs_of(store, night.before), decided, _nothing) if night.before else []
    night.missing = list(_missing(night.runs, last, night.before))
    night.changes = list(_changes(night.runs, last))
    return night


def _worst_first(run: Run) -> tuple[int, int]:
    return (-ORDER.index(run.flag), run.row["run"])


Files = Callable[[Sequence[Product]], tuple[tuple[tuple[str, str, str], ...], str]]


def _runs(
    store: Path, rows: Sequence[Row], decided: Mapping[str, Verdict], files: Files
) -> list[Run]:
    numbers = [row["run"] for row in rows]
    products, inputs = (of_runs(store, table, numbers) for table in ("products", "inputs"))
    values = of_runs(store, "judged", numbers)
    every = {item["md5"] for found in inputs.values() for item in found} - {""}
    origin = nights_of_products(store, every)
    runs = []
    for row in rows:
        folder = folder_of(store, row)
        made = tuple(_product(item, folder, decided) for item in products[row["run"]])
        settings, log = files(made)
        used = tuple(_input(item, origin, decided) for item in inputs[row["run"]])
        runs.append(Run(row, made, used, _metrics(values[row["run"]]), settings, log))
    return runs


def _product(row: Row, folder: Path, decided: Mapping[str, Verdict]) -> Product:
    path = folder / row["name"]
    return Product(
        row["name"], row["catg"], row["md5"], path, path.is_file(), decided.get(row["md5"])
    )


def _input(row: Row, origin: Mapping[str, str], decided: Mapping[str, Verdict]) -> Input:
    verdict = decided.get(row["md5"])
    return Input(
        name=row["name"],
        tag=row["tag"],
        kind=row["kind"],
        md5=row["md5"],
        night=origin.get(row["md5"], ""),
        rejected=verdict is not None and verdict.verdict == "rejected",
    )


def _metrics(rows: Iterable[Row]) -> tuple[Metric, ...]:
    groups: dict[str, list[QCRow]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(metric_of(row))
    return tuple(Metric(name, tuple(found)) for name, found in groups.items())


def _files(products: Sequence[Product]) -> tuple[tuple[tuple[str, str, str], ...], str]:
    """Read the settings that differ from their defaults, and the log, from the first product."""
    here = [item.path for item in products if item.exists]
    if not here:
        return (), ""
    try:
        table = io.read_table(here[0], "SETTINGS")
        log = here[0].with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    except InputError as error:
        return (("this file", str(error), "unreadable"),), ""
    except OSError:
        log = ""
    columns = ("name", "value", "source")
    # A product of another pipeline may have a table of that name and other columns.
    rows = [] if table is None or not set(columns) <= set(table.colnames) else table
    changed = [row for row in rows if str(row["source"]) != "default"]
    settings = [tuple(str(row[name]) for name in columns) for row in changed]
    return tuple((a, b, c) for a, b, c in settings), log[-_LOG_LENGTH:]


def _nothing(products: Sequence[Product]) -> tuple[tuple[tuple[str, str, str], ...], str]:
    del products
    return (), ""


def _missing(runs: Sequence[Run], last: Sequence[Run], before: str) -> Iterable[str]:
    """Name what failed, what was deleted, what must not be used, and what the last night had."""
    for run in runs:
        name = f"{run.row['recipe']} {run.row['mode']}".strip()
        if not run.products:
            reason = (run.row["message"] or "no reason is known").splitlines()[0]
            yield f"{name}: {run.row['status']}: {reason}"
        for item in run.products:
            if not item.exists:
                yield f"{item.name}: is in the history, but its file is gone ({item.path.parent})"
        for used in run.inputs:
            if used.rejected:
                yield f"{run.label}: was made with {used.name}, which has been rejected since"
    now = {run.key for run in runs if run.products}
    for key in dict.fromkeys(run.key for run in last if run.products):
        if key not in now:
            yield f"{' '.join(filter(None, key))}: nothing tonight; there was on {before}"


def _changes(runs: Sequence[Run], last: Sequence[Run]) -> Iterable[Change]:
    """Compare the worst value of each metric with that of the night before."""
    now, then = _worst_values(runs), _worst_values(last)
    for place, row in now.items():
        old = then.get(place)
        if old is None or (old.flag == row.flag and not _moved(old, row)):
            continue
        (_, recipe, mode), name = place
        unit = row.unit if old.unit == row.unit else f"{old.unit or '1'} -> {row.unit or '1'}"
        yield Change(recipe, mode, name, (old.flag, old.value), (row.flag, row.value), unit)


def _moved(old: QCRow, new: QCRow) -> bool:
    """Return whether a value moved by more than a quarter of its warn limits, or its unit did."""
    if old.unit != new.unit:
        return True
    lo, hi = new.limits.warn or new.limits.fail or (float("-inf"), float("inf"))
    return abs(new.value - old.value) > 0.25 * (hi - lo)


def _worst_values(runs: Sequence[Run]) -> dict[tuple[tuple[str, str, str], str], QCRow]:
    found: dict[tuple[tuple[str, str, str], str], QCRow] = {}
    for run in runs:
        for metric in run.metrics:
            row = max(metric.rows, key=_badness)
            known = found.setdefault((run.key, metric.name), row)
            if _badness(row) > _badness(known):
                found[run.key, metric.name] = row
    return found


def _badness(row: QCRow) -> int:
    """Rank a value; what does not apply, or has no limit, hides nothing that was judged."""
    return -1 if row.flag in (Flag.NA, Flag.UNJUDGED) else ORDER.index(row.flag)
