"""Every metric that ships has limits in every mode that ships."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import pytest

from kspecpipe.base_recipe import find_recipe, recipe_names
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.instrument import load_instrument
from kspecpipe.quality.common_metrics import COMMON_LIMITS, CommonMetrics

FOLDER = Path(str(files("kspecpipe.settings")))
INSTRUMENTS = [path.stem for path in FOLDER.glob("*.yaml") if "_" not in path.stem]
MODES = [
    (instrument, path.stem.partition("_")[2])
    for instrument in INSTRUMENTS
    for path in FOLDER.glob(f"{instrument}_*.yaml")
]
RECIPES = recipe_names()


def limits_of(recipe: str, instrument: str, mode: str) -> dict[str, object]:
    loaded = load_instrument(instrument)
    own = layered.mode_layer(loaded.name, mode)
    assert own is not None
    layers = [layered.Layer("instrument", loaded.recipes.mapping("settings")), own]
    return dict(layered.resolve(find_recipe(recipe).describe(), layers).limits)


def test_there_are_modes_to_look_at() -> None:
    assert {"isoplane", "kspec"} <= set(INSTRUMENTS)
    assert len(MODES) >= 6


@pytest.mark.parametrize(("instrument", "mode"), MODES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_metric_has_finite_limits(recipe: str, instrument: str, mode: str) -> None:
    limits = limits_of(recipe, instrument, mode)
    labels = {spec.label for spec in find_recipe(recipe).Metrics.specs.values()}
    assert set(limits) == labels
    for label, pair in limits.items():
        assert pair.warn is not None, label
        assert pair.fail is not None, label
        assert all(map(math.isfinite, (*pair.warn, *pair.fail))), label
        assert pair.fail[0] <= pair.warn[0] < pair.fail[1], label
        assert pair.warn[0] <= pair.warn[1] <= pair.fail[1], label


def test_the_metrics_that_every_recipe_has_have_finite_limits() -> None:
    assert set(COMMON_LIMITS) == {spec.label for spec in CommonMetrics.specs.values()}
    for label, pair in COMMON_LIMITS.items():
        assert pair.warn is not None, label
        assert pair.fail is not None, label
        assert pair.fail[0] <= pair.warn[0] <= pair.warn[1] <= pair.fail[1], label
        assert all(map(math.isfinite, (*pair.warn, *pair.fail))), label
