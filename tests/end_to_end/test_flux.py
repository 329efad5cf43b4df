"""Flux calibration from raw frames: a tile of the same night, with one star half off its fibre."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe import io
from kspecpipe.base_recipe import run_recipe
from kspecpipe.cli.main import main
from kspecpipe.flux_products import Calibrated, Response
from kspecpipe.outcome import Outcome
from kspecpipe.signal import DQ
from kspecpipe.simulate import FrameCounts, Night, NightPlan, simulate_night
from kspecpipe.simulate.standards import LibraryPlan, StandardStar

PLAN = NightPlan(
    size="small",
    counts=FrameCounts(0, 0, 0, 0, 1),
    standards=(
        StandardStar(6400.0, 4.3, -0.5, 15.5, velocity=80.0),
        StandardStar(6200.0, 4.3, -0.4, 15.0, light=0.5),
        StandardStar(6300.0, 4.3, -0.5, 15.0),  # in the fibre that is dead
        StandardStar(6600.0, 4.2, -0.6, 15.8, ebv=0.05),
    ),
    library=LibraryPlan((5750.0, 6250.0, 6750.0), (4.3,), (-1.0, 0.0)),
)


@dataclass(frozen=True)
class Tile:
    """A tile, its SOF for fluxcal, and what came of it."""

    night: Night
    sof: Path
    outcome: Outcome

    def product(self, catg: str) -> Calibrated | Response:
        found = io.read_product(next(p for p, tag in self.outcome.products if tag == catg))
        assert isinstance(found, Calibrated | Response)
        return found


@pytest.fixture(scope="module")
def tile(reduced, tmp_path_factory) -> Tile:
    folder = tmp_path_factory.mktemp("tile")
    night = simulate_night(folder / "raw", PLAN, seed=3)
    calibrations = [
        f"{path} {tag}"
        for recipe in ("mbias", "mdark", "mflat", "marc")
        for path, tag in reduced.outcomes[recipe].products
    ]
    options = {"log": False, "instrument": str(night.instrument), "plots": "none"}
    sof = folder / "objects.sof"
    lines = [f"{night.tagged('OBJECT')[0].path} OBJECT", f"{night.assignment} ASSIGN"]
    sof.write_text("\n".join([*lines, *calibrations]) + "\n")
    made = run_recipe("object", sof, output=folder / "products", **options)
    assert made.products, made.errors
    spectra = next(path for path, tag in made.products if tag == "REDUCED")
    standards = night.sofs["standards"]
    standards.write_text(standards.read_text() + f"{spectra} REDUCED\n")
    outcome = run_recipe("fluxcal", standards, output=folder / "products", **options)
    assert outcome.products, (outcome.errors, outcome.warnings)
    return Tile(night, standards, outcome)


def test_star_half_off_its_fibre_is_rejected_with_the_reason(tile):
    stars = tile.product("RESPONSE").stars
    assert list(stars["used"]) == [True, False, True]
    assert "less light than the other" in str(stars["reason"][1])
    assert stars["grey"][1] == pytest.approx(0.75, abs=0.1)


def test_flux_of_stars_and_galaxies_is_that_of_the_truth(tile):
    found = tile.product("CALIBRATED")
    with fits.open(next(iter(tile.night.fibres.values()))) as truth:
        wave = truth["SPECTRA"].data["WAVELENGTH"]
        flux = np.array(truth["SPECTRA"].data["FLUX"])
    clear = ((found.spectra.dq & DQ.TELLURIC) == 0).all(axis=0)
    checked = 0
    for row, kind in enumerate(found.fibres["TYPE"]):
        good = found.spectra.good[row] & clear
        if kind not in ("P", "C") or found.fibres["STATUS"][row] == "DEAD":
            continue
        true = np.interp(found.wavelength[good], wave, flux[:, row])
        value, error = found.spectra.value[row][good], found.spectra.error[row][good]
        ratio, scatter = value.sum() / true.sum(), np.hypot.reduce(error) / true.sum()
        if scatter > 0.03:
            continue
        lost = 0.5 if row == np.flatnonzero(found.fibres["TYPE"] == "C")[1] else 1.0
        assert ratio / lost == pytest.approx(1.0, abs=0.04 + 4 * scatter)
        checked += 1
    assert checked >= 4


def test_command_line_does_nothing_the_second_time_and_shows_the_picture(tile, tmp_path, capsys):
    path = next(p for p, tag in tile.outcome.products if tag == "CALIBRATED")
    words = ["fluxcal", tile.sof, "-o", path.parent, "--instrument", tile.night.instrument]
    assert main([*map(str, words), "--plots", "none"]) == int(tile.outcome.exit_code)
    assert "nothing to do" in capsys.readouterr().out
    assert main(["show", str(path), "-o", str(tmp_path / "picture.png")]) == 0
    assert (tmp_path / "picture.png").stat().st_size > 10_000
