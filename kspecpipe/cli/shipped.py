"""What the shipped settings say of a recipe: limits of its metrics in every mode."""

from __future__ import annotations

import glob
from importlib.resources import files
from pathlib import Path

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.instrument import Instrument, shipped_instruments
from kspecpipe.qc import Limits


def mode_files(instrument: str, folder: Path | None = None) -> list[Path]:
    """Return the files with settings of single modes; default: those that are shipped."""
    where = folder or Path(str(files("kspecpipe.settings")))
    return sorted(where.glob(f"{glob.escape(instrument)}_*.yaml"))


def shipped_modes(instrument: str, folder: Path | None = None) -> list[str]:
    """Return the modes of an instrument that have settings of their own."""
    names = [path.stem for path in mode_files(instrument, folder)]
    return [name.removeprefix(f"{instrument}_") for name in names]


def settings_of(
    instrument: Instrument, mode: str, folder: Path | None = None
) -> list[layered.Layer]:
    """Return the layers of an instrument and mode; ``folder``: where a user's file stands."""
    sections = instrument.recipes.mapping("settings")
    layers = [layered.Layer(f"{instrument.name}.yaml", sections)]
    above = layered.instrument_mode_layer(folder, instrument.name, mode) if folder else None
    above = above or layered.mode_layer(instrument.name, mode)
    return [*layers, above] if above else layers


def limits_of_modes(recipe: type[BaseRecipe]) -> dict[str, dict[Limits, list[str]]]:
    """Return the limits of each metric, each with the instrument and modes that set them.

    A mode is named only where its limits differ from those of its instrument.
    """
    found: dict[str, dict[Limits, list[str]]] = {}
    for name, instrument in shipped_instruments().items():
        general = layered.resolve(recipe.describe(), settings_of(instrument, "")).limits
        for mode in ("", *shipped_modes(name)):
            own = layered.resolve(recipe.describe(), settings_of(instrument, mode)).limits
            for metric, limits in own.items():
                if not mode or limits != general.get(metric):
                    groups = found.setdefault(metric, {}).setdefault(limits, [])
                    groups.append(f"{name} {mode}".strip())
    return found
