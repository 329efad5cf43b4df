"""The same chain on the other instrument: fibres in blocks, two amplifiers, dispersion along y."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.errors import ExitCode
from kspecpipe.simulate import NightPlan, simulate_night

FIBRES = 45
STEPS = {"mbias": "bias", "mdark": "dark", "mflat": "flats", "marc": "arcs", "object": "objects"}


class Chain:
    """A small K-SPEC night and what the recipes make of it."""

    def __init__(self, folder: Any) -> None:
        plan = NightPlan(instrument="kspec", size="small")
        self.night = simulate_night(folder / "raw", plan, seed=3)
        self.outcomes = {}
        calibrations: list[str] = []
        for recipe, key in STEPS.items():
            sof = self.night.folder / f"{recipe}_all.sof"
            lines = [self.night.sofs[key].read_text().rstrip(), *calibrations]
            sof.write_text("\n".join(lines) + "\n")
            options = {"output": folder / "products", "instrument": str(self.night.instrument)}
            outcome = run_recipe(recipe, sof, log=False, plots="none", **options)
            self.outcomes[recipe] = outcome
            calibrations += [f"{path} {tag}" for path, tag in outcome.products]

    def product(self, recipe: str, catg: str, hdu: Any = 0) -> Any:
        paths = [path for path, tag in self.outcomes[recipe].products if tag == catg]
        return fits.getdata(paths[0], hdu, memmap=False)

    def truth(self, tag: str, hdu: str) -> np.ndarray:
        return np.array(fits.getdata(self.night.tagged(tag)[0].truth, hdu))

    def live(self, recipe: str, catg: str) -> np.ndarray:
        return np.asarray(self.product(recipe, catg, "FIBRES")["STATUS"]) != "DEAD"


def robust_width(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(finite - np.median(finite))))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("kspec"))


def test_every_recipe_ends_well(chain: Chain) -> None:
    codes = {name: outcome.exit_code for name, outcome in chain.outcomes.items()}
    errors = {name: outcome.errors for name, outcome in chain.outcomes.items()}
    assert set(codes.values()) == {ExitCode.OK}, errors


def test_each_amplifier_loses_its_own_level(chain: Chain) -> None:
    bias = chain.product("mbias", "MASTER_BIAS")
    half = bias.shape[0] // 2
    assert abs(np.median(bias[:half])) < 3
    assert abs(np.median(bias[half:])) < 3


def test_traces_of_all_blocks_follow_the_light(chain: Chain) -> None:
    trace = chain.product("mflat", "TRAMLINE_MAP")
    truth, light = chain.truth("FLAT", "TRACE"), chain.truth("FLAT", "ELECTRON")
    error = trace - truth
    assert trace.shape[0] == FIBRES
    # The product is the average of three flats, each a few hundredths of a pixel away.
    assert abs(np.mean(error)) < 0.15
    assert np.std(error[light > 500]) < 0.03
    assert (~chain.live("mflat", "TRAMLINE_MAP")).sum() == 1


def test_extracted_flat_holds_all_the_light(chain: Chain) -> None:
    found = chain.product("mflat", "FIBRE_FLAT", "EXTRACTED")
    light, live = chain.truth("FLAT", "ELECTRON"), chain.live("mflat", "FIBRE_FLAT")
    per_fibre = np.nanmedian(np.where(light > 500, found / light, np.nan)[live], axis=1)
    assert 0.96 < np.median(per_fibre) < 1.03
    assert robust_width(per_fibre) < 0.01


def test_wavelengths_are_right_between_the_lines(chain: Chain) -> None:
    found, truth = chain.product("marc", "WAVE_SOLUTION"), chain.truth("ARC", "WAVELENGTH")
    lines, live = chain.product("marc", "WAVE_SOLUTION", "LINES"), chain.live("object", "REDUCED")
    used = lines["wavelength"][lines["used"]]
    inside = (truth > used.min()) & (truth < used.max()) & live[:, None]
    error = (found - truth) / np.gradient(truth, axis=1)
    assert used.size > 5 * FIBRES
    assert np.sqrt(np.mean(error[inside] ** 2)) < 0.2


def test_extracted_spectra_are_the_light_with_honest_errors(chain: Chain) -> None:
    truth, live = chain.truth("OBJECT", "ELECTRON"), chain.live("object", "EXTRACTED")
    value = chain.product("object", "EXTRACTED")
    pull = (value - truth) / np.sqrt(chain.product("object", "EXTRACTED", "VARIANCE"))
    lit = live & (truth.mean(axis=1) > 20)
    sample = pull[lit]
    ratio = np.nansum(value[lit], axis=1) / truth[lit].sum(axis=1)
    assert sample.size > 20 * truth.shape[1]
    assert np.isfinite(sample).mean() > 0.98
    assert 0.93 < robust_width(sample) < 1.1
    assert np.nanmean(np.abs(sample) > 5) < 0.005
    assert 0.97 < np.median(ratio) < 1.03


def test_sky_fibres_hold_nothing_after_subtraction(chain: Chain) -> None:
    sky = np.asarray(chain.product("object", "REDUCED", "FIBRES")["TYPE"]) == "S"
    variance = chain.product("object", "REDUCED", "VARIANCE")
    pull = chain.product("object", "REDUCED")[sky] / np.sqrt(variance[sky])
    assert sky.sum() >= 4
    assert 0.8 < robust_width(pull) < 1.3
    assert abs(np.nanmedian(pull)) < 0.3
