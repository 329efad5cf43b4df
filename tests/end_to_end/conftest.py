"""A small simulated night, reduced once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.framework.outcome import Outcome
from kspecpipe.simulate import Night, NightPlan, simulate_night

STEPS = {"mbias": "bias", "mdark": "dark", "mflat": "flats", "marc": "arcs", "object": "objects"}


@dataclass(frozen=True)
class ReducedNight:
    """A night, what came of each recipe, and the truth."""

    night: Night
    outcomes: dict[str, Outcome]
    output: Path

    def product(self, recipe: str, catg: str, number: int = 0) -> fits.HDUList:
        """Read a product of a recipe."""
        paths = [path for path, tag in self.outcomes[recipe].products if tag == catg]
        return read(paths[number])

    def truth(self, tag: str, number: int = 0) -> fits.HDUList:
        """Read the truth of a raw frame."""
        return read(self.night.tagged(tag)[number].truth)

    def fibres(self) -> fits.HDUList:
        """Read the truth of the fibres."""
        return read(next(iter(self.night.fibres.values())))

    def run(self, recipe: str, output: Path, **options: object) -> Outcome:
        """Run a recipe again on the SOF of the chain."""
        return run_step(self.night, recipe, output, **options)


def read(path: Path) -> fits.HDUList:
    """Read a whole file, so that it can be closed."""
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        return fits.HDUList([hdu.copy() for hdu in hdus])


def run_step(night: Night, recipe: str, output: Path, **options: object) -> Outcome:
    """Run a recipe on its SOF silently."""
    return run_recipe(
        recipe,
        night.folder / f"{recipe}_all.sof",
        log=False,
        **{"output": output, "instrument": str(night.instrument), "plots": "none", **options},
    )


def reduce_night(night: Night, output: Path) -> ReducedNight:
    """Run the whole chain through SOFs, as a user would."""
    calibrations: list[str] = []
    outcomes: dict[str, Outcome] = {}
    for recipe, key in STEPS.items():
        lines = [night.sofs[key].read_text().rstrip(), *calibrations]
        (night.folder / f"{recipe}_all.sof").write_text("\n".join(lines) + "\n")
        outcomes[recipe] = run_step(night, recipe, output)
        calibrations += [f"{path} {tag}" for path, tag in outcomes[recipe].products]
    return ReducedNight(night, outcomes, output)


@pytest.fixture(scope="session")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> ReducedNight:
    folder = tmp_path_factory.mktemp("night")
    night = simulate_night(folder / "raw", NightPlan(size="small"), seed=3)
    return reduce_night(night, folder / "products")
