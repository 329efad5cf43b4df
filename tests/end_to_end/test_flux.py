"""Flux calibration from raw frames: a tile of the same night, with one star half off its fibre."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe import io
from kspecpipe.cli.main import main
from kspecpipe.products.flux import Calibrated, Response
from kspecpipe.signal import DQ
from kspecpipe.simulate import FrameCounts, Night, NightPlan, simulate_night
from kspecpipe.simulate.listings import CATALOGUE, TEMPLATES
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
    """A tile, what `kspec reduce` said of it, and where its products are."""

    night: Night
    output: Path
    found: dict[str, Any]

    def path(self, catg: str) -> Path:
        (path,) = self.output.glob(f"*_{catg.lower()}*.fits")
        return path

    def product(self, catg: str) -> Calibrated | Response:
        found = io.read_product(self.path(catg))
        assert isinstance(found, Calibrated | Response)
        return found


@pytest.fixture(scope="module")
def tile(reduced, tmp_path_factory, inline) -> Tile:
    folder = tmp_path_factory.mktemp("tile")
    night = simulate_night(folder / "raw", PLAN, seed=3)
    given = [
        f"{tag}={path}"
        for recipe in ("mbias", "mdark", "mflat", "marc")
        for path, tag in reduced.outcomes[recipe].products
    ]
    given += [f"STD_CATALOG={night.folder / CATALOGUE}", f"TEMPLATES={night.folder / TEMPLATES}"]
    words = ["reduce", night.folder, "-o", folder / "products", "--instrument", night.instrument]
    words += ["--plots", "none", "--json", *(word for one in given for word in ("--with", one))]
    printed = StringIO()
    with inline(), contextlib.redirect_stdout(printed):
        main([str(word) for word in words])
    return Tile(night, folder / "products", json.loads(printed.getvalue()))


def test_a_night_with_standard_stars_is_reduced_to_calibrated_flux_in_one_command(tile):
    jobs = {job["recipe"]: job for job in tile.found["jobs"]}
    assert set(jobs) == {"object", "fluxcal"}, tile.found["not_planned"]
    made = [name for job in jobs.values() for name in job["products"]]
    assert sorted(made) == sorted(path.name for path in tile.output.glob("*.fits"))
    catgs = {fits.getheader(tile.output / name)["ESO PRO CATG"] for name in made}
    assert catgs == {"EXTRACTED", "REDUCED", "RESPONSE", "CALIBRATED"}
    assert tile.found["exit_code"] in (0, 4), tile.found
    assert tile.found["not_planned"] == {}


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
    (sof,) = (tile.output / "jobs").glob("*fluxcal*.sof")
    (job,) = (job for job in tile.found["jobs"] if job["recipe"] == "fluxcal")
    words = ["fluxcal", sof, "-o", tile.output, "--instrument", tile.night.instrument]
    assert main([*map(str, words), "--plots", "none"]) == job["exit_code"]
    assert "nothing to do" in capsys.readouterr().out
    words = ["show", str(tile.path("CALIBRATED")), "-o", str(tmp_path / "picture.png")]
    assert main(words) == 0
    assert (tmp_path / "picture.png").stat().st_size > 10_000
