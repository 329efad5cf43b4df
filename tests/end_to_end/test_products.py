"""What the contract says of every product: HDUs, units, keywords, names, repeatability."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest

STEPS = ("mbias", "mdark", "mflat", "marc", "object")
HDUS = {
    ("mbias", "MASTER_BIAS"): ["PRIMARY", "VARIANCE", "DQ"],
    ("mdark", "MASTER_DARK"): ["PRIMARY", "VARIANCE", "DQ"],
    ("mdark", "BAD_PIXEL_MAP"): ["PRIMARY"],
    ("mflat", "TRAMLINE_MAP"): [
        "PRIMARY",
        "VARIANCE",
        "DQ",
        "WIDTH",
        "PROFILE",
        "WAVELA",
        "FIBRES",
    ],
    ("mflat", "FIBRE_FLAT"): ["PRIMARY", "VARIANCE", "DQ", "EXTRACTED", "BLAZE", "FIBRES"],
    ("marc", "WAVE_SOLUTION"): [
        "PRIMARY",
        "VARIANCE",
        "DQ",
        "ERROR",
        "LSF",
        "LINES",
        "SHIFTS",
        "FIBRES",
    ],
    ("object", "EXTRACTED"): [
        "PRIMARY",
        "VARIANCE",
        "DQ",
        "WAVELA",
        "LSF",
        "FLAT",
        "SKY",
        "FIBRES",
    ],
    ("object", "REDUCED"): [
        "PRIMARY",
        "VARIANCE",
        "DQ",
        "RWSS",
        "SKY",
        "SKYVAR",
        "LSF",
        "FIBRES",
    ],
}
FIBRE_COLUMNS = {
    *("FIBRE_ID", "NAME", "TYPE", "STATUS", "RA", "DEC"),
    *("TARGET_X", "TARGET_Y", "RANK", "CLASS", "THROUGHPUT"),
}


@pytest.mark.parametrize(("recipe", "catg"), HDUS)
def test_product_has_the_hdus_of_the_contract(reduced: Any, recipe: str, catg: str) -> None:
    product = reduced.product(recipe, catg)
    names = [hdu.name for hdu in product]
    assert set(HDUS[recipe, catg]) <= set(names)
    assert {"QC", "SETTINGS"} <= set(names)
    images = [hdu for hdu in product if hdu.is_image and hdu.data is not None]
    assert all("BUNIT" in hdu.header for hdu in images)


@pytest.mark.parametrize(("recipe", "catg"), HDUS)
def test_product_says_where_it_comes_from(reduced: Any, recipe: str, catg: str) -> None:
    header = reduced.product(recipe, catg)[0].header
    assert header["ESO PRO CATG"] == catg
    assert header["ESO PRO REC1 ID"] == recipe
    assert header["ESO PRO REC1 RAW1 NAME"].endswith(".fits")
    assert "/" not in header["ESO PRO REC1 RAW1 NAME"]
    assert len(header["ESO PRO KEY"]) == 32
    assert header["INSTRUME"]
    assert header["CHECKSUM"]


def test_values_are_nan_exactly_where_nothing_usable_is_left(reduced: Any) -> None:
    for catg in ("EXTRACTED", "REDUCED"):
        product = reduced.product("object", catg)
        unusable = (product["DQ"].data & (1 | 8 | 32 | 64)) > 0
        missing = np.isnan(product[0].data)
        assert not (missing & ~unusable).any()
        assert np.isnan(product["VARIANCE"].data[missing]).all()


def test_spectra_carry_their_wavelength_grid(reduced: Any) -> None:
    header = reduced.product("object", "REDUCED")[0].header
    assert header["CTYPE1"] == "AWAV"
    assert header["CRPIX1"] == 1
    assert header["CUNIT1"] == "Angstrom"
    assert header["CDELT1"] > 0


def test_fibres_table_has_its_columns_and_types_of_the_assignment(reduced: Any) -> None:
    table = reduced.product("object", "REDUCED")["FIBRES"].data
    assert set(table.names) >= FIBRE_COLUMNS
    assert list(table["FIBRE_ID"]) == list(range(1, 15))
    assert "S" in table["TYPE"]
    assert "P" in table["TYPE"]


def test_names_tell_date_mode_category_and_exposure(reduced: Any) -> None:
    names = [path.name for path, _ in reduced.outcomes["object"].products]
    assert any(name.startswith("20260130_150_620_reduced_tile_046_01") for name in names)
    bias = reduced.outcomes["mbias"].products[0][0].name
    assert bias == "20260129_lownoise_100khz_high_master_bias.fits"


def test_beside_each_product_stand_its_qc_table_and_log(reduced: Any) -> None:
    for outcome in reduced.outcomes.values():
        for path, _ in outcome.products:
            assert path.with_name(f"{path.stem}_qc.ecsv").exists()
            assert path.with_suffix(".log").exists()
    assert not list(reduced.output.glob("*.part"))


@pytest.mark.parametrize("recipe", STEPS)
def test_a_second_run_has_nothing_to_do(reduced: Any, recipe: str) -> None:
    outcome = reduced.run(recipe, reduced.output)
    assert outcome.unchanged
    assert outcome.exit_code == 0
    assert len(outcome.qc) >= len(reduced.outcomes[recipe].qc) // 2


@pytest.mark.parametrize("recipe", ["mbias", "mflat"])
def test_equal_inputs_give_equal_products(reduced: Any, recipe: str, tmp_path: Any) -> None:
    again = reduced.run(recipe, tmp_path)
    for (old, _), (new, _) in zip(reduced.outcomes[recipe].products, again.products, strict=True):
        assert old.read_bytes() == new.read_bytes()


def test_history_holds_every_run(reduced: Any) -> None:
    with sqlite3.connect(reduced.output / "qc.sqlite") as connection:
        rows = connection.execute("SELECT recipe, exit_code FROM runs ORDER BY run").fetchall()
        metrics = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
    connection.close()
    assert [row[0] for row in rows][: len(STEPS)] == list(STEPS)
    assert metrics > 50


def test_every_metric_of_a_frame_stands_in_the_header(reduced: Any) -> None:
    header = reduced.product("mflat", "FIBRE_FLAT")[0].header
    assert header["ESO QC FIBRES DEAD"] == 1
    assert header["ESO QC TRACE RMS FLAG"] in ("ok", "warn", "unjudged")
