import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe import provenance
from kspecpipe.declare import Declared, ProductSpec, parameter
from kspecpipe.frame import FrameInfo
from kspecpipe.provenance import (
    Origin,
    exposure_qualifier,
    header_cards,
    product_stem,
    sanitise,
)
from kspecpipe.qc import Flag, Limits, QCRow

SPEC = ProductSpec("REDUCED", per_exposure=True, qualifier="")
INFO = FrameInfo(
    name="tile_046_150_620 2026 January 27 1.fits",
    tag="OBJECT",
    mode="150_620",
    readmode="slow",
    date_obs="2026-01-27T14:53:58.000",
    mjd=61067.62,
    exptime=2400.0,
    keywords={"target": "tile_046"},
    md5="a" * 32,
    layout="48x64",
)


class Parameters(Declared):
    clip: float = parameter(5.0, unit="sigma")
    name: str = parameter("x")
    workers: int = parameter(1, affects_result=False)
    rows: list = parameter([1, 2])


def origin(**changes) -> Origin:
    values = {
        "recipe": "object",
        "instrument": "TINY",
        "facts_digest": "facts",
        "raw": [INFO, replace(INFO, name="second.fits", md5="b" * 32)],
        "calibrations": [
            ("MASTER_BIAS", Path("/x/bias.fits"), {"DATAMD5": "c" * 32}),
            ("TRAMLINE_MAP", Path("/x/tlm.fits"), {"DATAMD5": "d" * 32}),
        ],
        "user": {},
        "parameters": Parameters(),
    }
    return Origin(**(values | changes))


BASE = origin()


def test_the_key_does_not_depend_on_where_or_when():
    elsewhere = [
        (tag, Path("/other") / path.name, {**header, "DATE": "now"})
        for tag, path, header in reversed(BASE.calibrations)
    ]
    assert origin(calibrations=elsewhere).key == BASE.key
    assert origin(parameters=Parameters(workers=8)).key == BASE.key
    assert re.fullmatch(r"[0-9a-f]{32}", BASE.key)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "coadd"},
        {"facts_digest": "other"},
        {"raw": BASE.raw[:1]},
        {"raw": [BASE.raw[1], BASE.raw[0]]},
        {"raw": [replace(INFO, md5="e" * 32), BASE.raw[1]]},
        {"raw": [replace(INFO, tag="ARC"), BASE.raw[1]]},
        {"calibrations": BASE.calibrations[:1]},
        {"calibrations": [("MASTER_BIAS", Path("b"), {"DATAMD5": "f"}), BASE.calibrations[1]]},
        {"parameters": Parameters(clip=4.0)},
        {"parameters": Parameters(name="5.0")},
        {"parameters": Parameters(rows=[1])},
    ],
)
def test_the_key_changes_with_everything_that_matters(changes):
    assert origin(**changes).key != BASE.key


def test_the_key_changes_with_the_version(monkeypatch):
    before = BASE.key
    monkeypatch.setattr(provenance, "__version__", "999")
    assert BASE.key != before


def test_the_key_follows_the_content_of_user_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = origin(user={"ASSIGN": path}).key
    other = tmp_path / "b.txt"
    other.write_text("one")
    assert origin(user={"ASSIGN": other}).key == first
    other.write_text("two")
    assert origin(user={"ASSIGN": other}).key != first
    assert origin(user={"TEMPLATES": tmp_path}).key != BASE.key


def row(value, flag, exposure="", fibre=0, scope="frame", name="LEVEL"):
    limits = Limits(warn=(0, 1), fail=(0, 2))
    return QCRow(name, value, "adu", scope, exposure, fibre, limits, flag, "doc")


def cards(rows=(), **changes):
    return header_cards(origin(**changes), SPEC, INFO, rows, "48x64")


def test_the_header_tells_where_a_product_comes_from():
    found = {key: value for key, (value, _) in cards().items()}
    assert found["ESO PRO CATG"] == "REDUCED"
    assert found["ESO PRO SCIENCE"] is True
    assert found["ESO PRO DATANCOM"] == 2
    assert found["ESO PRO REC1 ID"] == "object"
    assert found["ESO PRO REC1 RAW2 NAME"] == "second.fits"
    assert found["ESO PRO REC1 RAW1 CATG"] == "OBJECT"
    assert found["ESO PRO REC1 CAL1 NAME"] == "bias.fits"
    assert found["ESO PRO REC1 CAL2 DATAMD5"] == "d" * 32
    assert found["ESO PRO REC1 PARAM1 NAME"] == "clip"
    assert found["ESO PRO REC1 PARAM1 VALUE"] == 5.0
    assert (found["INSTRUME"], found["INSMODE"], found["READMODE"]) == ("TINY", "150_620", "slow")
    assert (found["OBJECT"], found["EXPTIME"]) == ("tile_046", 2400.0)
    assert not any("/x/" in str(value) for value in found.values())


def test_user_files_are_listed_behind_calibrations(tmp_path):
    path = tmp_path / "t.assign.txt"
    path.write_text("1")
    found = cards(user={"ASSIGN": path})
    assert found["ESO PRO REC1 CAL3 NAME"][0] == "t.assign.txt"
    assert len(found["ESO PRO REC1 CAL3 DATAMD5"][0]) == 32


def test_qc_cards_have_value_limits_and_flag():
    found = cards([row(0.5, Flag.OK)])
    assert [found[f"ESO QC LEVEL{end}"][0] for end in ("", " LO", " HI", " FLAG")] == [
        0.5,
        0,
        2,
        "ok",
    ]


def test_what_was_not_measured_has_a_flag_and_no_value():
    found = cards([row(float("nan"), Flag.UNMEASURED)])
    assert "ESO QC LEVEL" not in found
    assert found["ESO QC LEVEL FLAG"][0] == "unmeasured"


def test_of_several_exposures_the_worst_stands_in_the_header():
    rows = [
        row(0.5, Flag.OK, "a", scope="exposure"),
        row(9.0, Flag.FAIL, "b", scope="exposure"),
        row(0.4, Flag.OK, "c", scope="exposure"),
    ]
    found = cards(rows)
    assert (found["ESO QC LEVEL"][0], found["ESO QC LEVEL FLAG"][0]) == (9.0, "fail")


def test_fibres_stay_in_the_table_but_their_failure_is_told():
    found = cards([row(0.5, Flag.OK, fibre=3, scope="fibre", name="WIDTH")])
    assert not any("WIDTH" in key for key in found)
    found = cards([row(9.0, Flag.FAIL, fibre=3, scope="fibre", name="WIDTH")])
    assert found["ESO QC FIBRES FLAG"] == ("fail", "fibres: WIDTH")


def test_products_are_named_by_date_mode_category_and_qualifier():
    spec = ProductSpec("MASTER_BIAS")
    assert product_stem(spec, INFO.date_obs, "LowNoise_100khz_high", "") == (
        "20260127_lownoise_100khz_high_master_bias"
    )
    assert product_stem(SPEC, INFO.date_obs, "150_620", exposure_qualifier(INFO)) == (
        "20260127_150_620_reduced_tile_046_145358"
    )


def test_planes_and_unnamed_targets_are_told_apart():
    plane = replace(INFO, name="cube x.fits[3]", keywords={})
    assert exposure_qualifier(plane) == "cube_x_145358_p3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("..", ""),
        ("a/b\\c", "a_b_c"),
        ("NGC 1068 (núcleo)", "ngc_1068_n_cleo"),
        ("nul\0tab\t", "nul_tab"),
        ("$HOME/~", "home"),
        ("-rf", "-rf"),
    ],
)
def test_names_are_made_harmless(text, expected):
    assert sanitise(text) == expected


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_any_header_gives_a_name_that_a_file_can_have(target, mode, qualifier):
    info = replace(INFO, keywords={"target": target}, mode=mode)
    stem = product_stem(SPEC, info.date_obs, mode, exposure_qualifier(info, qualifier))
    assert re.fullmatch(r"[a-z0-9._-]+", stem)
    assert len(f"{stem}_qc.ecsv") <= 255
    assert not stem.startswith((".", "-"))


@given(st.text("abc _.", min_size=1, max_size=300))
def test_long_targets_do_not_hide_the_time(target):
    later = replace(INFO, date_obs="2026-01-27T15:53:58.000", keywords={"target": target})
    first = replace(later, date_obs=INFO.date_obs)
    stems = {
        product_stem(SPEC, i.date_obs, "150_620", exposure_qualifier(i, "q" * 100))
        for i in (first, later)
    }
    assert len(stems) == 2
