"""Arcs with calibrations of other settings and of earlier arcs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.simulate import FrameCounts, NightPlan, simulate_night


def calibrations(reduced: Any, *recipes: str) -> list[str]:
    return [f"{path} {tag}" for name in recipes for path, tag in reduced.outcomes[name].products]


def solve(night: Any, more: list[str], output: Path) -> fits.HDUList:
    """Run marc on the arcs of a night; return WAVE_SOLUTION."""
    sof = night.folder / f"{output.name}.sof"
    sof.write_text("\n".join([night.sofs["arcs"].read_text(), *more]) + "\n")
    chosen = {"output": output, "instrument": str(night.instrument), "plots": "none"}
    outcome = run_recipe("marc", sof, log=False, **chosen)
    assert outcome.products, outcome.errors
    return fits.open(outcome.products[0][0], memmap=False)


def error_between_lines(product: fits.HDUList, night: Any) -> np.ndarray:
    """Error [pixel] of live fibres against the mean of the arcs."""
    truth = np.mean([fits.getdata(f.truth, "WAVELENGTH") for f in night.tagged("ARC")], axis=0)
    lines = product["LINES"].data
    used = lines["wavelength"][lines["used"]]
    live = product["FIBRES"].data["STATUS"] != "DEAD"
    inside = (truth > used.min()) & (truth < used.max()) & live[:, None]
    return np.asarray(((product[0].data - truth) / np.gradient(truth, axis=1))[inside])


def test_traces_of_another_mode_are_good_enough(reduced: Any, tmp_path: Path) -> None:
    plan = NightPlan(size="small", modes=("600_680",), counts=FrameCounts(3, 0, 0, 1, 0))
    night = simulate_night(tmp_path / "raw", plan, seed=3)
    traces = [line for line in calibrations(reduced, "mflat") if line.endswith("TRAMLINE_MAP")]
    more = [*calibrations(reduced, "mbias"), *traces]
    with solve(night, more, tmp_path / "other") as product:
        assert np.sqrt(np.mean(error_between_lines(product, night) ** 2)) < 0.1


def test_an_earlier_solution_is_a_start_through_a_sof(reduced: Any, tmp_path: Path) -> None:
    more = calibrations(reduced, "mbias", "mdark", "mflat", "marc")
    with solve(reduced.night, more, tmp_path / "again") as product:
        assert np.sqrt(np.mean(error_between_lines(product, reduced.night) ** 2)) < 0.1
        sources = [v for k, v in product[0].header.items() if "REC1 CAL" in k and "CATG" in k]
        assert "WAVE_SOLUTION" in sources


def test_drift_lamps_and_exposures_are_in_the_product(reduced: Any) -> None:
    product = reduced.product("marc", "WAVE_SOLUTION")
    quality = product["QC"].data
    drift = quality["value"][quality["name"] == "ARC DRIFT"]
    put_in = [reduced.truth("ARC", i)[0].header["DCOLUMN"] for i in (0, 1)]
    np.testing.assert_allclose(drift, np.subtract(put_in, np.mean(put_in)), atol=0.02)
    lamps = {row["SPECIES"]: row for row in product["LAMPS"].data}
    assert lamps["Ne"]["FLUX_RATIO"] > 0.1
    assert lamps["Ne"]["LINES"] > 2
    lines = product["LINES"].data
    assert set(lines["exposure"]) <= {1, 2}
    assert "lamp" in lines.dtype.names
