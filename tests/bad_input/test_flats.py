"""Flats from which no trustworthy traces can come: one reason in words, no product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.framework.outcome import Outcome

SHAPE = (150, 300)
ROWS = 30.0 + 12.0 * np.arange(8)
INSTRUMENT = """
instrument:
  name: TINY
  recognise: {INSTRUME: TINY}
  keywords:
    date_obs: {from: DATE-OBS}
    exptime: {from: EXPTIME, unit: s}
    grating: {from: GRATING, type: str}
  mode: '{grating}'
  readmode: slow
  detector:
    layouts:
      '150x300': {amplifiers: [{data: [0, 150, 0, 300]}]}
      '150x320': {amplifiers: [{data: [0, 150, 0, 320]}]}
    gain: 1.0
    noise: 4.0
    saturation: 60000
  fibres: {number: NUMBER, blocks: [{first_row: FIRST, pitch: 12.0, count: NUMBER}],
           tolerance: TOLERANCE, rows_without_light: [[0, 15], [135, 150]]}
"""


class Lamp:
    """Writes flats with chosen fibres and runs recipes on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.output = folder / "out"

    def flat(self, lit: np.ndarray | None = None, **cards: Any) -> str:
        """Write a flat of which some fibres have light; return its line in a SOF."""
        self.count += 1
        rng = np.random.default_rng(self.count)
        passed = np.ones(ROWS.size) if lit is None else lit
        trace = ROWS[:, None] + 0.002 * np.arange(SHAPE[1])
        y = np.arange(SHAPE[0])[None, :, None]
        light = 3000 * np.exp(-0.5 * ((y - trace[:, None]) / 1.6) ** 2) * passed[:, None, None]
        pixels = rng.poisson(light.sum(axis=0)) + 4 * rng.standard_normal(SHAPE) + 500
        header = fits.Header({"INSTRUME": "TINY", "EXPTIME": 10.0, "GRATING": "blue"} | cards)
        header["DATE-OBS"] = f"2026-01-29T20:0{self.count}:00"
        path = self.folder / f"flat_{self.count}.fits"
        fits.PrimaryHDU(pixels.round().astype(np.uint16), header).writeto(path)
        return f"{path.name} FLAT"

    def product(self, catg: str, data: np.ndarray, **hdus: np.ndarray) -> str:
        """Write a calibration product; return its line in a SOF."""
        header = fits.Header({"INSTRUME": "TINY", "MJD-OBS": 61069.8, "BUNIT": ""})
        header["HIERARCH ESO PRO CATG"] = catg
        header["HIERARCH ESO PRO SHAPE"] = f"{data.shape[0]}x{data.shape[1]}"
        parts = [fits.PrimaryHDU(data, header)]
        parts += [fits.ImageHDU(array, name=name) for name, array in hdus.items()]
        path = self.folder / f"{catg.lower()}.fits"
        fits.HDUList(parts).writeto(path)
        return f"{path.name} {catg}"

    def run(  # noqa: PLR0913  (all that differs between the cases)
        self,
        recipe: str,
        lines: list[str],
        *,
        number: int = 8,
        first: float = 30.0,
        tolerance: float = 5.0,
        plots: str = "none",
    ) -> Outcome:
        """Run a recipe with an instrument of some fibres."""
        text = INSTRUMENT.replace("NUMBER", str(number)).replace("FIRST", str(first))
        (self.folder / "tiny.yaml").write_text(text.replace("TOLERANCE", str(tolerance)))
        sof = self.folder / "in.sof"
        sof.write_text("\n".join(lines) + "\n")
        options = {"instrument": str(self.folder / "tiny.yaml"), "output": self.output}
        return run_recipe(recipe, sof, log=False, plots=plots, **options)


@pytest.fixture
def lamp(tmp_path: Path) -> Lamp:
    return Lamp(tmp_path)


def only(*numbers: int) -> np.ndarray:
    passed = np.zeros(ROWS.size)
    passed[list(numbers)] = 1
    return passed


CASES: dict[str, tuple[Callable[[Lamp], list[str]], dict[str, Any], int, str]] = {
    "no light": (lambda lamp: [lamp.flat(0 * ROWS)], {}, 1, "no light"),
    "one flat of two without light": (
        lambda lamp: [lamp.flat(), lamp.flat(0 * ROWS)],
        {},
        1,
        "1 of 2 flats",
    ),
    "fewer than half": (lambda lamp: [lamp.flat(only(1, 4, 5))], {}, 1, "of 8 fibres"),
    "more than expected": (
        lambda lamp: [lamp.flat()],
        {"number": 6, "first": 42.0, "tolerance": 3.0},
        1,
        "8 traces found, 6 fibres expected",
    ),
    "two gratings": (
        lambda lamp: [lamp.flat(), lamp.flat(GRATING="red")],
        {},
        3,
        "mode is red, but blue in flat_1.fits",
    ),
    "pixel flat of another shape": (
        lambda lamp: [
            lamp.flat(),
            lamp.product("PIXEL_FLAT", np.ones((150, 320)), VARIANCE=np.zeros((150, 320))),
        ],
        {},
        3,
        "shape is 150x320, but 150x300",
    ),
}


@pytest.mark.parametrize("recipe", ["tlm", "mflat"])
@pytest.mark.parametrize("case", CASES)
def test_bad_flats_are_refused_in_words(lamp: Lamp, case: str, recipe: str) -> None:
    prepare, options, code, words = CASES[case]
    outcome = lamp.run(recipe, prepare(lamp), **options)
    text = " ".join(outcome.errors)
    assert int(outcome.exit_code) == code, text
    assert words in text
    assert "internal error" not in text
    assert outcome.products == ()
    assert not list(lamp.output.glob("*.fits"))


def test_two_equally_good_identifications_are_drawn(lamp: Lamp) -> None:
    passed = np.ones(ROWS.size)
    passed[-1] = 0
    options = {"first": 24.0, "tolerance": 12.0}
    outcome = lamp.run("tlm", [lamp.flat(passed)], plots="file", **options)
    assert int(outcome.exit_code) == 1
    assert "two identifications of the fibres are about equally good" in " ".join(outcome.errors)
    (picture,) = outcome.pictures
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in lamp.output.iterdir()} <= {
        "tlm_failed.png",
        "tlm_failed.log",
        "qc.sqlite",
    }


def test_a_wholly_masked_column_is_filled_and_flagged(lamp: Lamp) -> None:
    mask = np.zeros(SHAPE, dtype=np.uint16)
    mask[:, 140] = 1
    outcome = lamp.run("mflat", [lamp.flat(), lamp.flat(), lamp.product("BAD_PIXEL_MAP", mask)])
    assert outcome.products, outcome.errors
    path = next(path for path, tag in outcome.products if tag == "FIBRE_FLAT")
    with fits.open(path) as hdus:
        assert np.isfinite(hdus[0].data[:, 140]).all()
        assert (hdus["DQ"].data[:, 140] & 128 > 0).all()
        assert np.abs(hdus[0].data[:, 140] - 1).max() < 0.05
        assert np.isnan(hdus["EXTRACTED"].data[:, 140]).all()
