"""Sky from none, one, two or more sky fibres, or with one on a star, in the whole chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe

SKY, STAR, STANDARD, GALAXY = "9", "1", "8", "2"


def rewritten(reduced: Any, folder: Path, change: Any) -> Path:
    """Write the night's assignment with other classes: ``change`` of {fibre: class}."""
    rows = [line.split() for line in reduced.night.assignment.read_text().splitlines()]
    classes = {int(row[0]): row[-1] for row in rows}
    change(classes)
    path = folder / reduced.night.assignment.name
    path.write_text("\n".join(" ".join([*r[:-1], classes[int(r[0])]]) for r in rows) + "\n")
    return path


def reduce_with(reduced: Any, folder: Path, change: Any, **options: Any) -> Any:
    """Reduce the science exposures of the night with another assignment."""
    path = rewritten(reduced, folder, change)
    sof = (reduced.night.folder / "object_all.sof").read_text().splitlines()
    lines = [line for line in sof if not line.endswith(" ASSIGN")]
    own = reduced.night.folder / f"object_{folder.name}.sof"
    own.write_text("\n".join([*lines, f"{path} ASSIGN"]) + "\n")
    chosen = {"output": folder, "instrument": str(reduced.night.instrument), "plots": "none"}
    return run_recipe("object", own, log=False, **(chosen | options))


def of_class(classes: dict[int, str], kind: str) -> list[int]:
    return [number for number, found in classes.items() if found == kind]


def product(outcome: Any, catg: str) -> fits.HDUList:
    path = next(path for path, tag in outcome.products if tag == catg)
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        return fits.HDUList([hdu.copy() for hdu in hdus])


def metric(outcome: Any, name: str) -> list[float]:
    return [row.value for row in outcome.qc if row.name == name]


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.log"))


def test_healthy_sky_fibres_are_all_used(reduced: Any) -> None:
    outcome = reduced.outcomes["object"]
    assert metric(outcome, "SKY FIBRES") == [4, 4]
    assert metric(outcome, "SKY FIBRES DROPPED") == [0, 0]


@pytest.mark.parametrize("others", [4, 2])
def test_a_sky_fibre_on_a_star_is_found_and_dropped(
    reduced: Any, tmp_path: Path, others: int
) -> None:
    stars: list[int] = []

    def put_on_star(classes: dict[int, str]) -> None:
        for number in of_class(classes, SKY)[others:]:
            classes[number] = GALAXY
        stars.append(of_class(classes, STANDARD)[0])
        classes[stars[0]] = SKY

    outcome = reduce_with(reduced, tmp_path, put_on_star)
    assert metric(outcome, "SKY FIBRES") == [others, others]
    assert metric(outcome, "SKY FIBRES DROPPED") == [1, 1]
    assert f"the sky fibres {stars[0]} do not see the sky of the others" in log_of(tmp_path)
    flags = {row.flag.name for row in outcome.qc if row.name == "SKY FIBRES DROPPED"}
    assert flags <= {"WARN", "UNJUDGED"}
    # Its row is not the sky's: the star is still there, and the others are free of it.
    spectra = product(outcome, "REDUCED")
    pulls = spectra[0].data / np.sqrt(spectra["VARIANCE"].data)
    kind = spectra["FIBRES"].data["TYPE"]
    assert np.nanmedian(pulls[stars[0] - 1]) > 5
    healthy = (kind == "S") & (np.arange(len(kind)) != stars[0] - 1)
    assert np.abs(np.nanmedian(pulls[healthy], axis=1)).max() < 1


@pytest.mark.parametrize("count", [1, 2])
def test_few_sky_fibres_give_a_sky(reduced: Any, tmp_path: Path, count: int) -> None:
    def leave(classes: dict[int, str]) -> None:
        for number in of_class(classes, SKY)[count:]:
            classes[number] = GALAXY

    outcome = reduce_with(reduced, tmp_path, leave)
    assert metric(outcome, "SKY FIBRES") == [count, count]
    spectra = product(outcome, "REDUCED")
    kind = spectra["FIBRES"].data["TYPE"]
    live = (spectra["FIBRES"].data["STATUS"] != "DEAD") & (kind != "S")
    assert np.isfinite(spectra["SKY"].data[live]).mean() > 0.9
    alone = np.isfinite(spectra[0].data[kind == "S"]).mean()
    # A sky fibre alone has no sky made without it.
    assert alone == 0 if count == 1 else alone > 0.9


@pytest.mark.parametrize("kind", [GALAXY, STANDARD])
def test_without_sky_fibres_nothing_is_subtracted_and_it_is_said(
    reduced: Any, tmp_path: Path, kind: str
) -> None:
    def leave(classes: dict[int, str]) -> None:
        for number in classes:
            classes[number] = kind

    outcome = reduce_with(reduced, tmp_path, leave)
    assert outcome.products
    assert metric(outcome, "SKY FIBRES") == [0, 0]
    said = "no live sky fibre: no sky is subtracted, SKY is empty"
    assert said in log_of(tmp_path)
    assert said in outcome.as_json()["warnings"]
    assert all(
        row.flag.name == "NA"
        for row in outcome.qc
        if row.name.startswith(("SKY FIBRES D", "SKY R"))
    )
    spectra = product(outcome, "REDUCED")
    assert np.isnan(spectra["SKY"].data).all()
    assert np.array_equal(spectra[0].data, spectra["RWSS"].data, equal_nan=True)


def test_components_are_for_many_sky_fibres_and_change_nothing_with_few(
    reduced: Any, tmp_path: Path
) -> None:
    def leave(classes: dict[int, str]) -> None:
        del classes

    plain = product(reduced.outcomes["object"], "REDUCED")
    settings = {"object": {"parameters": {"sky_components": 2}}}
    outcome = reduce_with(reduced, tmp_path, leave, settings=settings)
    assert np.array_equal(product(outcome, "REDUCED")[0].data, plain[0].data, equal_nan=True)
    with_many = tmp_path / "many"
    with_many.mkdir()

    def more(classes: dict[int, str]) -> None:
        for number in of_class(classes, GALAXY):
            classes[number] = SKY

    chosen = {**settings["object"]["parameters"], "sky_contamination": 1e3}
    skies = []
    for number in (0, 2):
        chosen["sky_components"] = number
        target = with_many / str(number)
        target.mkdir()
        options = {"object": {"parameters": dict(chosen)}}
        outcome = reduce_with(reduced, target, more, settings=options)
        skies.append(product(outcome, "REDUCED")["SKY"].data)
    known = np.isfinite(skies[0]) & np.isfinite(skies[1])
    assert (skies[0] != skies[1])[known].mean() > 0.5


def run_with_assignment(reduced: Any, folder: Path, name: str, text: str) -> Any:
    path = folder / name
    path.write_text(text)
    sof = (reduced.night.folder / "object_all.sof").read_text().splitlines()
    own = reduced.night.folder / f"object_{folder.name}.sof"
    lines = [line for line in sof if not line.endswith(" ASSIGN")]
    own.write_text("\n".join([*lines, f"{path} ASSIGN"]) + "\n")
    options = {"instrument": str(reduced.night.instrument), "plots": "none"}
    return run_recipe("object", own, log=False, output=folder / "out", **options)


def test_assignments_of_another_tile_or_with_too_few_rows_are_refused(
    reduced: Any, tmp_path: Path
) -> None:
    text = reduced.night.assignment.read_text()
    other = run_with_assignment(reduced, tmp_path, "tile_047.assign.txt", text)
    assert other.exit_code == 3
    assert "is the assignment of tile_047, but tile_046" in "\n".join(other.errors)
    few = "\n".join(text.splitlines()[:9]) + "\n"
    short = run_with_assignment(reduced, tmp_path, "tile_046.assign.txt", few)
    assert short.exit_code == 3
    assert "names 9 fibres, but not [10, 11, 12, 13, 14] of the 14" in "\n".join(short.errors)
    assert not list(tmp_path.glob("out/*.fits"))
