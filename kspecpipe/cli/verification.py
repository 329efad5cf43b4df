"""Verify the inputs and settings of a recipe as a run would, without reducing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.configuration.layered_settings import RecipeSettings
from kspecpipe.framework import inputs as input_files
from kspecpipe.framework.execution import Execution
from kspecpipe.framework.gathered import GatheredInputs
from kspecpipe.sof import read_inputs


@dataclass(frozen=True)
class Verified:
    """Inputs and settings that were found to be good.

    Parameters
    ----------
    gathered : GatheredInputs
        The files, sorted by tag.
    settings : RecipeSettings
        Parameters and limits.
    warnings : list of str
        What the user should know.
    """

    gathered: GatheredInputs
    settings: RecipeSettings
    warnings: list[str]


def verify(recipe: BaseRecipe, sources: Sequence[str | Path], *, load: bool = False) -> Verified:
    """Check the inputs of a recipe.

    Parameters
    ----------
    recipe : BaseRecipe
        The recipe with its options.
    sources : sequence of paths
        SOFs, folders or FITS files.
    load : bool
        Also read calibrations and text files.

    Raises
    ------
    KspecError
        With every problem that a run would report.
    """
    execution = Execution(recipe, recipe.memory)
    gathered, settings = execution.resolve(read_inputs(list(sources)))
    if load:
        input_files.load(gathered, recipe.Inputs)
    return Verified(gathered, settings, execution.warnings)
