"""One run of a recipe: resolve -> verify -> load -> run -> judge -> write -> report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kspecpipe.configuration import layered_settings as layered
from kspecpipe.configuration.yaml_source import merge_nodes
from kspecpipe.declare import Declared
from kspecpipe.errors import (
    ExitCode,
    IdentificationError,
    InputError,
    KspecError,
    ProductError,
    RecipeError,
)
from kspecpipe.figures.pictures import Painter, draw_failure, painting
from kspecpipe.frame import FrameInfo
from kspecpipe.framework import inputs as input_files
from kspecpipe.framework import writing
from kspecpipe.framework.gathered import GatheredInputs, InputPolicy
from kspecpipe.framework.logs import Memory, python_warnings
from kspecpipe.framework.outcome import Outcome
from kspecpipe.framework.registry import recipe_names
from kspecpipe.framework.runtime import utc_now
from kspecpipe.instrument import Instrument, instrument_from, load_instrument
from kspecpipe.provenance import Origin
from kspecpipe.qc import BAD_FLAGS, QCRow, judge
from kspecpipe.quality import common_metrics as common
from kspecpipe.quality.history import past_of
from kspecpipe.quality.limit_rules import Past, judge_by_rules, references_of
from kspecpipe.quality.run_record import mode_of, run_record
from kspecpipe.quality.store import STORE_NAME, StoreError, Verdict, record_run, verdicts
from kspecpipe.sof import SofEntry

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe


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
    gathered: GatheredInputs | None = None
    written: tuple[writing.Written, ...] = ()
    rows: tuple[QCRow, ...] = ()
    infos: list[FrameInfo] = field(default_factory=list)
    used: common.Used = ()
    entries: Sequence[SofEntry] = ()

    def __post_init__(self) -> None:
        """Take the options of the recipe."""
        self.options = self.recipe.options
        self.log = self.recipe.log
        self.store = self.options.qc_store or self.options.output / STORE_NAME
        self.earlier = len(self.memory.warnings)

    @property
    def warnings(self) -> list[str]:
        """What this run warned of so far, whoever said it; the memory serves several runs."""
        return self.memory.warnings[self.earlier :]

    def run(self, entries: Sequence[SofEntry]) -> Outcome:
        """Run the recipe; every error becomes an outcome with its exit code."""
        self.entries = entries
        try:
            # Who draws is ready when there is something to draw: meanwhile he loads his tools.
            with python_warnings(self.log), painting(self.options) as painter:
                outcome = self._steps(entries, painter)
        except KspecError as error:
            return self.fail(error)
        except OSError as error:
            return self.fail(ProductError(f"cannot read or write: {error}"))
        except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
            if self.options.debug:
                raise
            text = f"internal error in {self.recipe.name}: {type(error).__name__}: {error}"
            return self.fail(RecipeError(f"{text}; --debug shows where"))
        return self._record(outcome, "")

    def _steps(self, entries: Sequence[SofEntry], painter: Painter) -> Outcome:
        gathered, resolved = self.resolve(entries)
        if self.options.save:
            writing.refuse_unwritable(self.options.output)
        values, self.used = input_files.load(gathered, self.recipe.Inputs)
        self._lap("load")
        infos = self.infos
        origin = Origin(
            recipe=self.recipe.name,
            instrument=gathered.instrument.facts.name,
            facts_digest=gathered.instrument.digest,
            raw=[frame.info for frame in gathered.frames],
            calibrations=self.used,
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
                return self._unchanged(existing, resolved)
        return self._make(job, values, resolved, painter)

    def _make(
        self, job: writing.Job, values: Any, resolved: layered.RecipeSettings, painter: Painter
    ) -> Outcome:
        gathered, infos = job.gathered, job.infos
        self.recipe.kept, self.recipe.dropped = [], 0
        products, metrics = self.recipe.run(values, resolved.parameters)
        self._lap("run")
        level = max(self.options.levels.values(), default=None)
        shared = common.measure(gathered, self.used, products, self.recipe.dropped, level)
        rows = self._judge(gathered, (metrics, shared), resolved, infos)
        self.rows = tuple(rows)
        if self.options.save:
            self.written = writing.write(job, products, rows, self.options)
            self._lap("write")
        painter.begin([item.path for item in self.written])
        writing.write_tables(self.written, self.log)
        pictures = painter.finish(self.log)
        self._lap("plots")
        bad = any(row.flag in BAD_FLAGS for row in rows)
        outcome = self._outcome(ExitCode.QC_FAILED if bad else ExitCode.OK, pictures)
        writing.write_logs(self.written, self.memory.lines, self.log)
        return outcome

    def resolve(self, entries: Sequence[SofEntry]) -> tuple[GatheredInputs, layered.RecipeSettings]:
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
        store = layered.qc_settings(user).store
        if store and self.options.qc_store is None:
            self.store = Path(store).expanduser()
        gathered = input_files.gather(
            entries,
            self.recipe.Inputs,
            load_instrument(named) if named else None,
            lambda instrument: _override(instrument, user),
            InputPolicy(self.options.ignore_input_qc, self._verdicts()),
        )
        self.gathered = gathered
        self.recipe.instrument = gathered.instrument
        self.recipe.check_tags(gathered.tags)
        self._warn(gathered.warnings)
        self.infos = self._infos(gathered)
        mode = self.infos[0].mode
        layers = self._layers(gathered.instrument, mode, user)
        resolved = layered.resolve(self.recipe.describe(), layers)
        self._lap("verify")
        return gathered, resolved

    def _verdicts(self) -> dict[str, Verdict]:
        try:
            return verdicts(self.store)
        except StoreError as error:
            self._warn([f"it is not known which calibrations were rejected: {error}"])
        return {}

    def _layers(
        self, instrument: Instrument, mode: str, user: list[layered.Layer]
    ) -> list[layered.Layer]:
        named = self.options.instrument or ""
        layers = shipped_layers(instrument, mode, named)
        if len(layers) == 1 and not self.recipe.by_readmode and not is_file(named):
            self._warn([f"the mode {mode!r} has no settings; the instrument's are used"])
        return layers + user

    def _infos(self, gathered: GatheredInputs) -> list[FrameInfo]:
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
        gathered: GatheredInputs,
        metrics: Sequence[Declared],
        resolved: layered.RecipeSettings,
        infos: Sequence[FrameInfo],
    ) -> list[QCRow]:
        names = [info.name for info in infos]
        counts, own = common.frame_counts(self.recipe.Inputs, gathered)
        known = {**common.COMMON_LIMITS, **own, **resolved.limits}
        ids = gathered.instrument.fibre_ids
        rows = [row for part in (*metrics, counts) for row in judge(part, known, names, ids)]
        rows = self._judge_by_history(rows, resolved)
        for row in rows:
            if row.flag in BAD_FLAGS:
                where = f" fibre {row.fibre}" if row.fibre else ""
                self.log.warning("QC %s%s: %s (%.4g)", row.name, where, row.flag, row.value)
        return rows

    def _judge_by_history(self, rows: list[QCRow], resolved: layered.RecipeSettings) -> list[QCRow]:
        """Apply the limits that come from the history, if the settings ask for any."""
        if not resolved.rules or self.gathered is None:
            return rows
        instrument, mode = self.gathered.instrument.facts.name, mode_of(self.recipe, self.infos[0])
        references = references_of(resolved.rules)
        try:
            past = past_of(self.store, self.recipe.name, instrument, mode, references)
        except StoreError as error:
            self._warn([f"limits cannot come from the history: {error}"])
            past = Past()
        judged = judge_by_rules(rows, resolved.rules, past)
        for text in dict.fromkeys(f"{row.name}: limits {row.basis}" for row in judged if row.basis):
            self.log.info("%s", text)
        return judged

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
        resolved: layered.RecipeSettings,
    ) -> Outcome:
        self.log.info("%d products exist with the same content key: nothing to do", len(existing))
        self.written = tuple(existing)
        known = {**common.COMMON_LIMITS, **resolved.limits}
        rows = writing.judge_again(existing, known)
        self.rows = tuple(self._judge_by_history(rows, resolved))
        bad = any(row.flag in BAD_FLAGS for row in self.rows)
        code = ExitCode.QC_FAILED if bad else ExitCode.OK
        return replace(self._outcome(code), unchanged=True)

    def fail(self, error: KspecError) -> Outcome:
        """Log an error and return its outcome: no product."""
        self.written, self.rows = (), ()
        for line in str(error).splitlines():
            self.log.error("%s", line)
        pictures: tuple[Path, ...] = ()
        shown = self.options.save and self.options.plots == "file"
        if shown and isinstance(error, IdentificationError) and len(error.light):
            pictures = draw_failure(self.options.output, self.recipe.name, error, self.log)
        outcome = replace(
            self._outcome(error.exit_code, pictures),
            errors=tuple(str(error).splitlines()),
        )
        if self.options.save and self.options.log_file is None:
            writing.write_failure_log(self.options.output, self.recipe.name, self.memory.lines)
        return self._record(outcome, str(error))

    def _record(self, outcome: Outcome, message: str) -> Outcome:
        """Write the run into the history, or hand the record over to who does."""
        if self.options.log_file is not None:
            writing.write_log(self.options.log_file, self.memory.lines, self.log)
        if not self.options.save:
            return outcome
        record = run_record(self, outcome, message)
        # What could not even make its folder leaves no history beside it.
        if self.options.record and not outcome.unchanged and self.store.parent.is_dir():
            try:
                record_run(self.store, record)
            except StoreError as error:
                self.log.warning("the QC history was not written: %s", error)
        return replace(outcome, warnings=tuple(self.warnings), records=(record,))

    def _lap(self, step: str) -> None:
        now = time.perf_counter()
        self.timing[step] = round(now - self.clock - sum(self.timing.values()), 4)

    def _warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.log.warning("%s", text)


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
