"""A recipe whose main input is a product, on files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe


@pytest.fixture(scope="module")
def spectra(reduced: Any) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path, catg in reduced.outcomes["object"].products:
        found.setdefault(catg, []).append(path)
    return found


def rebin(lines: list[str], folder: Path, **options: Any) -> Any:
    sof = folder / "in.sof"
    sof.write_text("\n".join(lines) + "\n")
    output = folder / "out"
    return run_recipe("rebin", sof, log=False, output=output, plots="none", **options)


def named(paths: list[Path], catg: str) -> list[str]:
    return [f"{path} {catg}" for path in paths]


def test_reduced_is_rebuilt_from_extracted(reduced: Any, spectra: Any, tmp_path: Path) -> None:
    outcome = rebin(
        named(spectra["EXTRACTED"], "EXTRACTED"), tmp_path, instrument=str(reduced.night.instrument)
    )
    assert not outcome.errors
    assert [catg for _, catg in outcome.products] == ["REDUCED", "REDUCED"]
    for number, (path, _) in enumerate(outcome.products):
        assert "_reduced_rebin_tile_046_01" in path.name
        with fits.open(path) as hdus:
            original = reduced.product("object", "REDUCED", number)
            for name in ("RWSS", "SKY"):
                scale = np.nanmax(np.abs(original[name].data))
                difference = np.abs(hdus[name].data - original[name].data)
                assert np.isfinite(difference).mean() > 0.5
                assert np.nanmax(difference) < 1e-6 * scale
            header = hdus[0].header
            assert header["INSMODE"] == "150_620"
            assert header["DATE-OBS"] == original[0].header["DATE-OBS"]
            assert header["ESO PRO SHAPE"] == original[0].header["ESO PRO SHAPE"]
            assert header["ESO PRO DATANCOM"] == 1
            assert header["ESO PRO REC1 CAL1 CATG"] == "EXTRACTED"
            assert "ESO QC FLUX RATIO" in header


def test_second_run_has_nothing_to_do_and_the_way_back_does_not_disturb_it(
    reduced: Any, spectra: Any, tmp_path: Path
) -> None:
    options = {"instrument": str(reduced.night.instrument)}
    lines = named(spectra["EXTRACTED"], "EXTRACTED")
    both = lines + named(spectra["REDUCED"], "REDUCED")
    assert not rebin(lines, tmp_path, **options).unchanged
    assert rebin(lines, tmp_path, **options).unchanged
    back = rebin(both, tmp_path, assignments=["rebin.reverse=true"], **options)
    assert not back.errors
    assert [catg for _, catg in back.products] == ["EXTRACTED", "EXTRACTED"]
    assert rebin(lines, tmp_path, **options).unchanged


def test_nothing_to_rebin_is_a_missing_calibration(reduced: Any, tmp_path: Path) -> None:
    sof = [f"{reduced.outcomes['marc'].products[0][0]} WAVE_SOLUTION"]
    outcome = rebin(sof, tmp_path, instrument=str(reduced.night.instrument))
    assert int(outcome.exit_code) == 5
    assert "no EXTRACTED" in "\n".join(outcome.errors)


def test_spectra_of_another_mode_are_refused(reduced: Any, spectra: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.fits"
    with fits.open(spectra["EXTRACTED"][1]) as hdus:
        hdus[0].header["INSMODE"] = "600_430"
        hdus.writeto(other)
    lines = named([spectra["EXTRACTED"][0], other], "EXTRACTED")
    outcome = rebin(lines, tmp_path, instrument=str(reduced.night.instrument))
    assert int(outcome.exit_code) == 3
    assert "other.fits (EXTRACTED): mode is 600_430, but 150_620" in "\n".join(outcome.errors)
