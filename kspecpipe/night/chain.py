"""The order of the recipes, from their declarations alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import SettingsError
from kspecpipe.framework.registry import recipe_names

RecipeClass = type[BaseRecipe]


class Chain(NamedTuple):
    """The recipes with which nights are reduced, and those that cannot be.

    Parameters
    ----------
    recipes : list of type of BaseRecipe
        Makers before takers.
    broken : dict
        Why a recipe cannot be loaded, by its name: a plug-in's fault need not end the night.
    """

    recipes: list[RecipeClass]
    broken: dict[str, str]


def load_chain() -> Chain:
    """Load all installed recipes.

    Raises
    ------
    SettingsError
        If recipes wait for each other in a circle.
    """
    found: list[RecipeClass] = []
    broken: dict[str, str] = {}
    for name in recipe_names():
        try:
            found.append(find_recipe(name))
        except SettingsError as error:
            broken[name] = str(error)
    return Chain(in_order(recipe for recipe in found if recipe.in_chain), broken)


def makes(recipe: RecipeClass) -> set[str]:
    """Return the categories of a recipe's products."""
    return {spec.catg for spec in recipe.Products.specs.values()}


def takes(recipe: RecipeClass) -> set[str]:
    """Return the categories of products that a recipe can take."""
    specs = recipe.Inputs.specs.values()
    return {tag for spec in specs if spec.kind == "calibration" for tag in spec.tags}


def needs(recipe: RecipeClass, chain: Iterable[RecipeClass]) -> list[RecipeClass]:
    """Return the recipes that make what a recipe can take.

    What it makes itself does not count: a recipe never waits for its like, or the nights of a
    survey would form one long queue.
    """
    wanted = takes(recipe) - makes(recipe)
    return [other for other in chain if other is not recipe and makes(other) & wanted]


def in_order(recipes: Iterable[RecipeClass]) -> list[RecipeClass]:
    """Sort recipes so that each follows those whose products it takes.

    Raises
    ------
    SettingsError
        If recipes wait for each other in a circle.
    """
    left = sorted(recipes, key=lambda recipe: recipe.name)
    ordered: list[RecipeClass] = []
    while left:
        ready = [recipe for recipe in left if not needs(recipe, left)]
        if not ready:
            names = ", ".join(recipe.name for recipe in left)
            raise SettingsError(f"the recipes {names} take each other's products in a circle")
        ordered += ready
        left = [recipe for recipe in left if recipe not in ready]
    return ordered


def until(chain: Sequence[RecipeClass], last: str) -> list[RecipeClass]:
    """Return a recipe and all on which it depends.

    Raises
    ------
    SettingsError
        If the chain has no such recipe.
    """
    wanted = {_named(chain, last)}
    while True:
        more = {maker for recipe in wanted for maker in needs(recipe, chain)} - wanted
        if not more:
            return [recipe for recipe in chain if recipe in wanted]
        wanted |= more


def only(chain: Sequence[RecipeClass], names: Collection[str]) -> list[RecipeClass]:
    """Return the named recipes in their order.

    Raises
    ------
    SettingsError
        If the chain lacks one of them.
    """
    wanted = {_named(chain, name) for name in names}
    return [recipe for recipe in chain if recipe in wanted]


def _named(chain: Iterable[RecipeClass], name: str) -> RecipeClass:
    known = {recipe.name: recipe for recipe in chain}
    if name not in known:
        raise SettingsError(f"no night is reduced with {name!r}; {nearest(name, known)}")
    return known[name]
