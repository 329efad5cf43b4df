"""The base of all recipes: resolve -> verify -> load -> run -> judge -> write -> report."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from kspecpipe.configuration import layered_settings as layered
from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.declare import Declared, InputSpec, ProductSpec
from kspecpipe.errors import InputError, KspecError, RecipeError, SettingsError
from kspecpipe.frame import FrameInfo, FrameStack
from kspecpipe.framework.execution import Execution
from kspecpipe.framework.grouping import separate
from kspecpipe.framework.logs import Memory, run_logger
from kspecpipe.framework.outcome import Outcome, RunOptions, merge
from kspecpipe.framework.registry import recipe_names, recipe_points
from kspecpipe.framework.runtime import silent_logger
from kspecpipe.instrument import Instrument
from kspecpipe.products.product import Product
from kspecpipe.signal import FloatArray
from kspecpipe.sof import read_inputs

Sources = str | Path | Sequence[str | Path]


class BaseRecipe:
    """A recipe: nested declarations and a `run` that turns inputs into products and metrics.

    Parameters
    ----------
    log : logger, optional
        Logger of the caller's (of fundamentals, for example); none: the terminal. False: silence.
    settings : dict, optional
        Settings in the form of a settings file.
    inputFrames : path or list of paths, optional
        A SOF, a folder, or FITS files.
    verbose : bool
        Log more.
    overwrite : bool
        Replace existing products.
    options : RunOptions, optional
        Everything else.
    instrument : Instrument, optional
        Instrument for `run` on arrays; a run on files finds its own.
    """

    name: ClassVar[str] = ""
    by_readmode: ClassVar[bool] = False
    #: Whether a night is planned with it; not if another recipe does the same on the way.
    in_chain: ClassVar[bool] = True
    #: Memory that a run takes for each pixel of a frame, beyond the interpreter [byte].
    bytes_per_pixel: ClassVar[float] = 300.0

    class Inputs(Declared):
        pass

    class Parameters(Declared):
        pass

    class Products(Declared):
        pass

    class Metrics(Declared):
        pass

    def __init__(  # noqa: PLR0913 - the call of soxspipe's recipes
        self,
        log: Any = None,
        settings: Mapping[str, Any] | None = None,
        inputFrames: Sources | None = None,  # noqa: N803 - soxspipe's name
        verbose: bool = False,
        overwrite: bool = False,
        *,
        options: RunOptions | None = None,
        instrument: Instrument | None = None,
    ) -> None:
        base = options or RunOptions()
        self.options = replace(
            base,
            settings=dict(settings or {}) or base.settings,
            overwrite=overwrite or base.overwrite,
            verbosity=1 if verbose else base.verbosity,
        )
        self.sources = inputFrames
        self.instrument = instrument
        self._target = silent_logger() if log is False else log
        self.log: logging.Logger
        self.memory: Memory
        self.log, self.memory = run_logger(self.name, self.options.verbosity, self._target)
        self.kept: list[tuple[ProductSpec, int | None, Product]] = []
        self.dropped = 0

    @property
    def setup(self) -> Instrument:
        """The instrument; raises `SettingsError` when `run` is called without one."""
        if self.instrument is None:
            raise SettingsError(f"{self.name} needs to know the instrument: give instrument=...")
        return self.instrument

    # -- what a recipe defines -------------------------------------------------------------------

    def run(self, inputs: Any, parameters: Any) -> tuple[Any, Any]:
        """Turn inputs into products and metrics; touches no file."""
        raise NotImplementedError

    def qualifier(self, inputs: Any) -> str:
        """Return what keeps the products of this run apart from others of the same night."""
        del inputs
        return ""

    def promised(self, parameters: Any) -> list[ProductSpec]:
        """Return the products that a run with these parameters makes if it succeeds."""
        del parameters
        return [spec for spec in self.Products.specs.values() if spec.required]

    def check_tags(self, tags: Collection[str]) -> None:
        """Refuse a set of files where one of several inputs would do and there is none.

        Raises
        ------
        CalibrationMissingError
            Saying what is missing.
        """
        del tags

    def representative(self, infos: list[FrameInfo]) -> FrameInfo:
        """Return the frame that names and dates a product of all frames: the first."""
        return infos[0]

    def keep(self, product: Product, exposure: int | None = None) -> None:
        """Keep an intermediate product, of one exposure or of all, if the user asked for them."""
        if self.options.save_intermediate:
            spec = ProductSpec(product.catg, qualifier=self.name, per_exposure=exposure is not None)
            self.kept.append((spec, exposure, product))

    def drop(self, name: str, why: str) -> None:
        """Say that a frame is left out, and count it for the metric FRAMES REJECTED."""
        self.log.warning("%s is left out: %s", name, why)
        self.dropped += 1

    def drop_contradicted(
        self, names: Sequence[str], rejected: Sequence[float] | FloatArray, most: float = 0.5
    ) -> None:
        """Count the frames of an average that the others contradict almost everywhere.

        Parameters
        ----------
        names : sequence of str
            Names of the frames.
        rejected : sequence of float
            Fraction of the samples of each that the average has rejected.
        most : float
            Fraction above which nothing that matters of a frame is left in the average.
        """
        for name, fraction in zip(names, rejected, strict=True):
            if fraction > most:
                self.drop(name, f"the other frames contradict {fraction:.0%} of it")

    # -- what a user calls -----------------------------------------------------------------------

    def produce_product(self) -> list[str]:
        """Run on the input frames and return the paths of the products.

        Raises
        ------
        KspecError
            If there is no trustworthy product.
        """
        outcome = self.execute()
        if not outcome.products and self.options.save:
            kinds = {kind.exit_code: kind for kind in (InputError, SettingsError, RecipeError)}
            raise kinds.get(outcome.exit_code, RecipeError)("\n".join(outcome.errors))
        return [str(path) for path, _ in outcome.products]

    def execute(self) -> Outcome:
        """Run on the input frames; every error becomes an outcome with its exit code."""
        try:
            entries = read_inputs(self.sources if self.sources is not None else [])
            groups = [entries]
            if self.options.separate and self.main_input:
                groups = separate(entries, self.main_input.tags, self.options.instrument)
        except KspecError as error:
            return Execution(self, self.memory).fail(error)
        return merge([Execution(self, self.memory).run(group) for group in groups])

    @classmethod
    def describe(cls) -> layered.Recipe:
        """Return what the settings need to know."""
        return layered.Recipe(cls.name, cls.Parameters, cls.Metrics)

    @classmethod
    def find_main_input(cls) -> InputSpec | None:
        """Return the raw input, or the first input, by which products are dated."""
        specs = [spec for spec in cls.Inputs.specs.values() if spec.kind != "static"]
        return next((spec for spec in specs if spec.kind == "raw"), specs[0] if specs else None)

    @property
    def main_input(self) -> InputSpec | None:
        """The input by which products are dated."""
        return self.find_main_input()


def find_recipe(name: str) -> type[BaseRecipe]:
    """Return the class of a recipe by its name.

    Raises
    ------
    SettingsError
        If there is no recipe of that name, or it cannot be imported.
    """
    points = recipe_points()
    if name not in points:
        raise SettingsError(f"unknown recipe {name!r}; {nearest(name, points)}")
    try:
        found = points[name].load()
    except Exception as error:  # noqa: BLE001 - the module of a plug-in may fail in any way
        raise SettingsError(f"the recipe {name!r} cannot be loaded: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, BaseRecipe)):
        raise SettingsError(f"the recipe {name!r} is no BaseRecipe: {found!r}")
    return found


def run_recipe(name: str, inputs: Sources, *, log: Any = None, **options: Any) -> Outcome:
    """Run a recipe on a SOF, a folder or a list of files.

    Parameters
    ----------
    name : str
        Name of the recipe.
    inputs : path or list of paths
        A SOF, a folder, or FITS files.
    log : logger, optional
        Logger of the caller's; False for silence.
    **options
        Fields of `RunOptions`.

    Returns
    -------
    Outcome
        Products, QC rows, warnings, errors and the exit code; it raises nothing for bad data.
    """
    if "output" in options:
        options["output"] = Path(options["output"])
    recipe = find_recipe(name)(log=log, inputFrames=inputs, options=RunOptions(**options))
    return recipe.execute()


__all__ = ["BaseRecipe", "FrameStack", "find_recipe", "recipe_names", "run_recipe"]
