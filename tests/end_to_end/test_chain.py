"""From raw frames to sky-subtracted spectra, against the truth of the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kspecpipe.errors import ExitCode

FIBRES = 14


def live(hdus: Any) -> np.ndarray:
    return np.asarray(hdus["FIBRES"].data["STATUS"]) != "DEAD"


def robust_width(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(finite - np.median(finite))))


def pulls(hdus: Any, truth: np.ndarray) -> np.ndarray:
    return (hdus[0].data - truth) / np.sqrt(hdus["VARIANCE"].data)


def test_every_recipe_ends_well(reduced: Any) -> None:
    codes = {name: outcome.exit_code for name, outcome in reduced.outcomes.items()}
    errors = {name: outcome.errors for name, outcome in reduced.outcomes.items()}
    assert set(codes.values()) == {ExitCode.OK}, errors


def test_master_bias_is_the_bias_level(reduced: Any) -> None:
    image = reduced.product("mbias", "MASTER_BIAS")[0].data
    assert abs(np.median(image) - 612) < 10


def test_traces_follow_the_light_of_every_fibre_even_a_dead_one(reduced: Any) -> None:
    product = reduced.product("mflat", "TRAMLINE_MAP")
    error = product[0].data - reduced.truth("FLAT")["TRACE"].data
    lit = reduced.truth("FLAT")["ELECTRON"].data > 500
    assert np.sqrt(np.mean(error[lit] ** 2)) < 0.03
    assert np.abs(error).max() < 0.5
    assert (~live(product)).sum() == 1


def test_profile_is_positive_light_that_sums_to_one(reduced: Any) -> None:
    hdu = reduced.product("mflat", "TRAMLINE_MAP")["PROFILE"]
    sums = hdu.data.sum(axis=2) * hdu.header["CDELT1"]
    assert np.abs(sums - 1).max() < 0.02


def test_flat_tells_throughput_and_keeps_every_sample(reduced: Any) -> None:
    product = reduced.product("mflat", "FIBRE_FLAT")
    alive = live(product)
    measured = product["FIBRES"].data["THROUGHPUT"][alive]
    true = reduced.fibres()["FIBRES"].data["THROUGHPUT"][alive]
    assert np.abs(measured / true - 1).max() < 0.05
    assert np.isfinite(product[0].data[alive]).mean() > 0.98
    assert np.isnan(product[0].data[~alive]).all()


def test_extracted_flat_holds_all_the_light(reduced: Any) -> None:
    product = reduced.product("mflat", "FIBRE_FLAT")
    truth = reduced.truth("FLAT")["ELECTRON"].data
    ratio = np.where(truth > 500, product["EXTRACTED"].data / truth, np.nan)[live(product)]
    per_fibre = np.nanmedian(ratio, axis=1)
    assert 0.97 < np.median(per_fibre) < 1.02
    assert robust_width(per_fibre) < 0.01


def test_wavelengths_are_right_between_the_lines(reduced: Any) -> None:
    product = reduced.product("marc", "WAVE_SOLUTION")
    truth = reduced.truth("ARC")["WAVELENGTH"].data
    lines = product["LINES"].data
    used = lines["wavelength"][lines["used"]]
    inside = (truth > used.min()) & (truth < used.max()) & live(product)[:, None]
    error = (product[0].data - truth) / np.gradient(truth, axis=1)
    assert used.size > 5 * FIBRES
    # The small chip shows a dozen lines on a third of the range; a full one is benchmarked.
    assert np.sqrt(np.mean(error[inside] ** 2)) < 0.2


@pytest.mark.parametrize("number", [0, 1])
def test_extracted_spectra_are_the_light_with_honest_errors(reduced: Any, number: int) -> None:
    product = reduced.product("object", "EXTRACTED", number)
    truth = reduced.truth("OBJECT", number)["ELECTRON"].data
    alive = live(product)
    sample = pulls(product, truth)[alive & (truth.mean(axis=1) > 20)]
    assert np.isfinite(sample).mean() > 0.98
    assert 0.93 < robust_width(sample) < 1.15
    assert np.nanmean(np.abs(sample) > 5) < 0.005


def test_sky_fibres_hold_nothing_after_subtraction(reduced: Any) -> None:
    product = reduced.product("object", "REDUCED")
    sky = np.asarray(product["FIBRES"].data["TYPE"]) == "S"
    values = product[0].data[sky] / np.sqrt(product["VARIANCE"].data[sky])
    assert sky.sum() >= 2
    assert 0.8 < robust_width(values) < 1.4
    assert abs(np.nanmedian(values)) < 0.5


def test_reduced_carries_values_wherever_the_spectra_do(reduced: Any) -> None:
    product = reduced.product("object", "REDUCED")
    extracted = reduced.product("object", "EXTRACTED")
    header = product[0].header
    grid = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
    for row in np.flatnonzero(live(product)):
        wavelength = extracted["WAVELA"].data[row]
        inside = (grid > wavelength[5]) & (grid < wavelength[-6])
        assert np.isfinite(product[0].data[row, inside]).mean() > 0.98


def test_reduced_is_with_sky_minus_sky(reduced: Any) -> None:
    product = reduced.product("object", "REDUCED")
    difference = product["RWSS"].data - product["SKY"].data - product[0].data
    scale = np.nanmax(np.abs(product["RWSS"].data))
    assert np.nanmax(np.abs(difference)) < 1e-6 * scale


def test_a_dead_fibre_keeps_its_row_of_nan(reduced: Any) -> None:
    for catg in ("EXTRACTED", "REDUCED"):
        product = reduced.product("object", catg)
        assert len(product["FIBRES"].data) == FIBRES
        assert np.isnan(product[0].data[~live(product)]).all()
