"""Flats of two lamps, from raw frames to one fibre flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.framework.outcome import Outcome
from kspecpipe.io import read_product
from kspecpipe.plots import draw
from kspecpipe.simulate import FrameCounts, Night, NightPlan, Traps, simulate_night

WITHOUT_BACKGROUND = {"mflat": {"parameters": {"subtract_background": False}}}
COUNTS = FrameCounts(bias=3, dark=0, flat=2, arc=0, object=0)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    plan = NightPlan(size="small", counts=COUNTS, flat_lamps=("D2", "QTH"))
    return simulate_night(tmp_path_factory.mktemp("lamps"), plan, seed=4)


def run(night: Night, output: Path, **options: object) -> Outcome:
    """Make a master bias and a fibre flat of the flats of both lamps."""
    chosen = {"output": output, "instrument": str(night.instrument), "plots": "none", "log": False}
    bias = run_recipe("mbias", night.sofs["bias"], **chosen)
    sof = night.folder / "both.sof"
    sof.write_text(f"{night.sofs['flats'].read_text()}{bias.products[0][0]} MASTER_BIAS\n")
    return run_recipe("mflat", sof, **(chosen | options))


@pytest.fixture(scope="module")
def outcome(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(night, tmp_path_factory.mktemp("products"))


def product(outcome: Outcome, catg: str = "FIBRE_FLAT") -> fits.HDUList:
    path = next(path for path, tag in outcome.products if tag == catg)
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        return fits.HDUList([hdu.copy() for hdu in hdus])


def test_each_lamp_serves_where_it_shines(night: Night, outcome: Outcome) -> None:
    assert int(outcome.exit_code) == 0, outcome.errors
    lamps = product(outcome)["LAMPS"].data
    assert lamps["LAMP"].tolist() == ["d2", "qth"]
    assert lamps["FRAMES"].tolist() == [2, 2]
    assert lamps["FIRST"][0] == 0
    assert lamps["LAST"][1] == 499
    assert lamps["FIRST"][1] == lamps["LAST"][0] + 1
    levels = {}
    for file in night.tagged("FLAT"):
        levels.setdefault(file.lamps[0], fits.getdata(file.truth, "ELECTRON"))
    joint = int(lamps["FIRST"][1])
    ratio = np.nanmedian(levels["D2"] / levels["QTH"], axis=0)
    assert ratio[joint - 40] > 1 > ratio[joint + 40]


def test_flux_error_and_flags_are_of_the_same_lamp(night: Night, outcome: Outcome) -> None:
    flat = product(outcome)
    lamps, extracted = flat["LAMPS"].data, flat["EXTRACTED"].data
    live = flat["FIBRES"].data["STATUS"] != "DEAD"
    truth = {
        file.lamps[0].lower(): fits.getdata(file.truth, "ELECTRON") for file in night.tagged("FLAT")
    }
    for row in lamps:
        part = slice(int(row["FIRST"]), int(row["LAST"]) + 1)
        scaled = row["SCALE"] * truth[row["LAMP"]][:, part]
        ratio = np.nanmedian((extracted[:, part] / scaled)[live])
        assert ratio == pytest.approx(1, abs=0.02)
        relative = np.sqrt(flat["VARIANCE"].data[:, part]) / flat[0].data[:, part]
        # two flats and the response of the pixels under a profile of some five pixels
        expected = np.sqrt(1 / (2 * truth[row["LAMP"]][:, part]) + 0.006**2 / 6)
        assert np.nanmedian((relative / expected)[live]) == pytest.approx(1, abs=0.2)
    assert (flat["DQ"].data[~live] & 64 > 0).all()
    assert (flat["DQ"].data[live] & 64 == 0).all()


def test_neither_spectra_nor_fibre_flat_step_where_lamps_meet(outcome: Outcome) -> None:
    flat = product(outcome)
    joint, live = int(flat["LAMPS"].data["FIRST"][1]), flat["FIBRES"].data["STATUS"] != "DEAD"
    for name, tolerance in (("EXTRACTED", 0.03), ("PRIMARY", 0.005)):
        left, right = (
            np.nanmedian(flat[name].data[live, joint + a : joint + a + 10], axis=1)
            for a in (-10, 0)
        )
        assert np.median(left / right) == pytest.approx(1, abs=tolerance)


def test_the_picture_shows_the_lamps(outcome: Outcome) -> None:
    path = next(path for path, tag in outcome.products if tag == "FIBRE_FLAT")
    figure = draw(read_product(path))
    assert figure is not None
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert {"d2", "qth"} < set(labels)
    assert any("spline" in label for label in labels)


def test_lamps_without_common_light_are_refused(night: Night, tmp_path: Path) -> None:
    failed = run(night, tmp_path, settings={"mflat": {"parameters": {"min_lamp_snr": 1e6}}})
    assert int(failed.exit_code) == 1
    assert "d2 and qth have no column in common" in " ".join(failed.errors)
    assert not list(tmp_path.glob("*fibre_flat*"))


def test_parameters_of_the_flat_do_what_they_say(night: Night, tmp_path: Path) -> None:
    changed = {
        "blaze": "sinc",
        "scale_lamps": False,
        "low_sensitivity_response": 0.999,
        "low_sensitivity_clipping_sigma": 3.0,
        "subtract_background": False,
    }
    other = run(night, tmp_path, settings={"mflat": {"parameters": changed}})
    flat = product(other)
    assert flat["LAMPS"].data["SCALE"].tolist() == [1.0, 1.0]
    assert flat["BLAZE"].header["ESO PRO BLAZE METHOD"] == "sinc"
    assert flat["BLAZE"].header["ESO PRO BLAZE PERIOD"] > 0
    low = {row.name: row.value for row in other.qc}["N LOW SENS"]
    assert low > 50


def daylight(night: Night, level: float) -> None:
    """Let the same light fall on all frames of a dome that is not quite dark, stronger below."""
    for file in (*night.tagged("FLAT"), *night.tagged("FLATOFF")):
        with fits.open(file.path, mode="update") as hdus:
            rows = hdus[0].data.shape[-2]
            light = level * np.linspace(1.5, 0.5, rows)[:, None]
            hdus[0].data = np.round(hdus[0].data + light).astype(hdus[0].data.dtype)


def test_frames_with_the_lamp_off_take_the_light_of_the_dome_out(tmp_path: Path) -> None:
    counts = FrameCounts(bias=3, dark=0, flat=2, arc=0, object=0, flatoff=2)
    traps = Traps().but(broken_cards=False, scattered_light=False, ghosts=False)
    night = simulate_night(tmp_path, NightPlan(size="small", counts=counts, traps=traps), seed=6)
    daylight(night, 800.0)
    outcome = run(night, tmp_path / "products", settings=WITHOUT_BACKGROUND)
    flat = product(outcome)
    found = {row.name: row.value for row in outcome.qc if row.scope == "frame"}
    live = flat["FIBRES"].data["STATUS"] != "DEAD"
    truth = np.mean([fits.getdata(f.truth, "ELECTRON") for f in night.tagged("FLAT")], axis=0)
    ratio = np.nanmedian((flat["EXTRACTED"].data / truth)[live], axis=1)
    assert found["FRAMES FLATOFF"] == 2
    assert np.abs(ratio - 1).max() < 0.02
    # each of the three middle rows of a fibre holds a fifth to a quarter of its light
    for share in (10, 50, 90):
        spectrum = np.percentile(truth[live], share)
        assert 0.15 < found[f"FIBREXP{share}"] / spectrum < 0.28
    assert found["FIBRES EXPECTED"] == len(live)
