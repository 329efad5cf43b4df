"""One run of a recipe: resolve -> verify -> load -> run -> judge -> write -> report."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kspecpipe import inputs as input_files
from kspecpipe import layered_settings as layered
from kspecpipe import writing
from kspecpipe.declare import Declared, MetricSpec, metric
from kspecpipe.errors import ExitCode, InputError, KspecError, ProductError, RecipeError
from kspecpipe.frame import FrameInfo
from kspecpipe.instrument import Instrument, instrument_from, load_instrument
from kspecpipe.logs import Memory, python_warnings
from kspecpipe.outcome import Outcome
from kspecpipe.provenance import Origin
from kspecpipe.qc import BAD_FLAGS, Limits, QCRow, judge
from kspecpipe.registry import recipe_names
from kspecpipe.runtime import utc_now
from kspecpipe.sof import SofEntry
from kspecpipe.store import STORE_NAME, RunRecord, StoreError, record_run
from kspecpipe.yaml_source import merge_nodes

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe


class CalibrationLevel(Declared):
    """How far the calibrations are, for runs whose calibrations were chosen by a plan."""

    level: int = metric(
        "CALIB LEVEL", doc="farthest calibration: 0 same night, 1 3 days, 2 30 days, 3 any"
    )


CALIBRATION_LIMITS = {"CALIB LEVEL": Limits(warn=(0.0, 1.0))}


@dataclass
class Execution:
    """One run of a recipe on one set of files; on an error it knows how far the run came.

    Parameters
    ----------
    recipe : BaseRecipe
        The recipe, with its options.
    memory : Memory
        Log records of the run.
    """

    recipe: BaseRecipe
    memory: Memory
    started: str = field(default_factory=utc_now)
    clock: float = field(default_factory=time.perf_counter)
    timing: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    gathered: input_files.GatheredInputs | None = None
    written: tuple[writing.Written, ...] = ()
    rows: tuple[QCRow, ...] = ()
    infos: list[FrameInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take the options of the recipe."""
        self.options = self.recipe.options
        self.log = self.recipe.log

    def run(self, entries: Sequence[SofEntry]) -> Outcome:
        """Run the recipe; every error becomes an outcome with its exit code."""
        try:
            with python_warnings(self.log):
                outcome = self._steps(entries)
        except KspecError as error:
            return self.fail(error)
        except OSError as error:
            return self.fail(ProductError(f"cannot read or write: {error}"))
        except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
            if self.options.debug:
                raise
            text = f"internal error in {self.recipe.name}: {type(error).__name__}: {error}"
            return self.fail(RecipeError(f"{text}; --debug shows where"))
        return self._recorded(outcome, "")

    def _steps(self, entries: Sequence[SofEntry]) -> Outcome:
        gathered, resolved = self.resolve(entries)
        if self.options.save:
            writing.refuse_unwritable(self.options.output)
        values, used = input_files.load(gathered, self.recipe.Inputs)
        self._lap("load")
        infos = self.infos
        origin = Origin(
            recipe=self.recipe.name,
            instrument=gathered.instrument.facts.name,
            facts_digest=gathered.instrument.digest,
            raw=[frame.info for frame in gathered.frames],
            calibrations=used,
            user=gathered.user,
            parameters=resolved.parameters,
            levels=self.options.levels,
        )
        own = (self.recipe.qualifier(values), self.options.qualifier)
        qualifier = "_".join(part for part in own if part)
        job = writing.Job(self.recipe, origin, infos, qualifier, resolved, gathered)
        if self.options.save:
            existing = writing.find_existing(job, self.options)
            if existing:
                return self._unchanged(existing, resolved.limits)
        self.recipe.kept = []
        products, metrics = self.recipe.run(values, resolved.parameters)
        self._lap("run")
        rows = self._judge(gathered, metrics, resolved.limits, infos)
        self.rows = tuple(rows)
        if self.options.save:
            self.written = writing.write(job, products, rows, self.options)
            self._lap("write")
        pictures = writing.draw(self.written, self.options, self.log)
        self._lap("plots")
        bad = any(row.flag in BAD_FLAGS for row in rows)
        outcome = self._outcome(ExitCode.QC_FAILED if bad else ExitCode.OK, pictures)
        writing.write_companions(self.written, self.memory.lines, self.log)
        return outcome

    def resolve(
        self, entries: Sequence[SofEntry]
    ) -> tuple[input_files.GatheredInputs, layered.RecipeSettings]:
        """Open and check the input files and merge the settings, without reading any product.

        Raises
        ------
        InputError, SettingsError
            With every problem of the inputs, or what is wrong with the settings.
        """
        overrides = layered.Overrides(
            self.options.settings_files, self.options.assignments, self.options.settings
        )
        user = layered.user_layers(overrides, recipe_names())
        named = self.options.instrument
        gathered = input_files.gather(
            entries,
            self.recipe.Inputs,
            load_instrument(named) if named else None,
            lambda instrument: _override(instrument, user),
            input_files.InputPolicy(ignore_input_qc=self.options.ignore_input_qc),
        )
        self.gathered = gathered
        self.recipe.instrument = gathered.instrument
        self._warn(gathered.warnings)
        self.infos = self._infos(gathered)
        mode = self.infos[0].mode
        layers = self._layers(gathered.instrument, mode, user)
        resolved = layered.resolve(self.recipe.describe(), layers)
        self._lap("verify")
        return gathered, resolved

    def _layers(
        self, instrument: Instrument, mode: str, user: list[layered.Layer]
    ) -> list[layered.Layer]:
        named = self.options.instrument or ""
        layers = shipped_layers(instrument, mode, named)
        if len(layers) == 1 and not self.recipe.by_readmode and not is_file(named):
            self._warn([f"the mode {mode!r} has no settings; the instrument's are used"])
        return layers + user

    def _infos(self, gathered: input_files.GatheredInputs) -> list[FrameInfo]:
        """Return the infos of the frames of the main input, which date the products."""
        main = self.recipe.main_input
        if main and main.kind == "raw":
            return [frame.info for frame in gathered.raw[main.tag]]
        found = gathered.products(main) if main else []
        if not found:
            raise InputError(f"no {main.label if main else 'input'} to work on")
        return [writing.info_from_product(one.path, one.header) for one in found]

    def _judge(
        self,
        gathered: input_files.GatheredInputs,
        metrics: Declared,
        limits: Mapping[str, Limits],
        infos: Sequence[FrameInfo],
    ) -> list[QCRow]:
        names = [info.name for info in infos]
        rows = judge(metrics, limits, names, gathered.instrument.fibre_ids)
        counts = _frame_counts(self.recipe.Inputs, gathered)
        rows += judge(counts[0], counts[1], names, [])
        if self.options.levels:
            worst = max(self.options.levels.values())
            rows += judge(CalibrationLevel(level=worst), CALIBRATION_LIMITS, names, [])
        for row in rows:
            if row.flag in BAD_FLAGS:
                where = f" fibre {row.fibre}" if row.fibre else ""
                self.log.warning("QC %s%s: %s (%.4g)", row.name, where, row.flag, row.value)
        return rows

    def _outcome(self, code: ExitCode, pictures: Sequence[Path] = ()) -> Outcome:
        self.timing["total"] = round(time.perf_counter() - self.clock, 4)
        return Outcome(
            recipe=self.recipe.name,
            exit_code=code,
            products=tuple((item.path, item.catg) for item in self.written),
            qc=self.rows,
            warnings=tuple(self.warnings),
            timing=dict(self.timing),
            pictures=tuple(pictures),
        )

    def _unchanged(
        self,
        existing: Sequence[writing.Written],
        limits: Mapping[str, Limits],
    ) -> Outcome:
        self.log.info("%d products exist with the same content key: nothing to do", len(existing))
        self.written = tuple(existing)
        self.rows = tuple(writing.judge_again(existing, limits))
        bad = any(row.flag in BAD_FLAGS for row in self.rows)
        code = ExitCode.QC_FAILED if bad else ExitCode.OK
        return replace(self._outcome(code), unchanged=True)

    def fail(self, error: KspecError) -> Outcome:
        """Log an error and return its outcome: no product."""
        self.written, self.rows = (), ()
        for line in str(error).splitlines():
            self.log.error("%s", line)
        outcome = replace(
            self._outcome(error.exit_code),
            errors=tuple(str(error).splitlines()),
        )
        if self.options.save:
            if self.options.log_file is None:
                writing.write_failure_log(self.options.output, self.recipe.name, self.memory.lines)
            outcome = self._recorded(outcome, str(error))
        return outcome

    def _recorded(self, outcome: Outcome, message: str) -> Outcome:
        """Write the run into the history, or hand the record over to who does."""
        if self.options.log_file is not None:
            writing.write_log(self.options.log_file, self.memory.lines, self.log)
        if not self.options.save:
            return outcome
        record = self._record(outcome, message)
        if self.options.record and not outcome.unchanged and self.options.output.is_dir():
            try:
                record_run(self.options.output / STORE_NAME, record)
            except StoreError as error:
                self.log.warning("the QC history was not written: %s", error)
        return replace(outcome, record=record)

    def _record(self, outcome: Outcome, message: str) -> RunRecord:
        gathered = self.gathered
        infos = [frame.info for frame in gathered.frames] if gathered else []
        infos = infos or self.infos
        return RunRecord(
            recipe=self.recipe.name,
            started=self.started,
            seconds=outcome.timing["total"],
            memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            status=outcome.status,
            exit_code=int(outcome.exit_code),
            message=message,
            instrument=gathered.instrument.facts.name if gathered else "",
            mode=(infos[0].readmode if self.recipe.by_readmode else infos[0].mode) if infos else "",
            mjd=infos[0].mjd if infos else None,
            products=[(item.path.name, item.catg, item.key) for item in self.written],
            inputs=[(info.name, str(info.tag), info.md5) for info in infos],
            metrics=self.rows,
        )

    def _lap(self, step: str) -> None:
        now = time.perf_counter()
        self.timing[step] = round(now - self.clock - sum(self.timing.values()), 4)

    def _warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.log.warning("%s", text)
        self.warnings.extend(texts)


def is_file(instrument: str) -> bool:
    """Return whether the user named an instrument by its file."""
    return instrument.endswith((".yaml", ".yml"))


def shipped_layers(instrument: Instrument, mode: str, named: str) -> list[layered.Layer]:
    """Return the layers of instrument and mode, which the user's follow.

    Parameters
    ----------
    instrument : Instrument
        The instrument.
    mode : str
        Instrument mode.
    named : str
        How the user named the instrument; nothing if it was recognised.
    """
    layers = [layered.Layer(f"{instrument.name}.yaml", instrument.recipes.mapping("settings"))]
    own = layered.mode_layer(instrument.name, mode)
    if is_file(named):
        own = layered.instrument_mode_layer(Path(named).parent, instrument.name, mode) or own
    return [*layers, own] if own else layers


def _override(instrument: Instrument, layers: Sequence[layered.Layer]) -> Instrument:
    """Apply the ``instrument:`` sections of the user's settings."""
    sections = [layer.sections["instrument"] for layer in layers if "instrument" in layer.sections]
    if not sections:
        return instrument
    node = instrument.node
    for section in sections:
        node = merge_nodes(node, section)
    return instrument_from(node, instrument.name, instrument.recipes)


def _frame_counts(
    declared: type[Declared], gathered: input_files.GatheredInputs
) -> tuple[Declared, dict[str, Limits]]:
    """Return the number of raw frames of each tag as metrics; fewer than recommended warn."""
    specs = {
        f"frames_{spec.tag.lower()}": spec
        for spec in declared.specs.values()
        if spec.kind == "raw" and spec.tag in gathered.raw
    }
    namespace: dict[str, Any] = {
        name: MetricSpec(f"FRAMES {spec.tag}", doc=f"number of {spec.tag} frames")
        for name, spec in specs.items()
    }
    counts = type("FrameCounts", (Declared,), namespace)
    values = {name: len(gathered.raw[spec.tag]) for name, spec in specs.items()}
    limits = {
        f"FRAMES {spec.tag}": Limits(warn=(float(spec.recommended), float("inf")))
        for spec in specs.values()
    }
    return counts(**values), limits
