import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.declare import Declared, calibration, raw, static, user_file
from kspecpipe.errors import CalibrationMissingError, InputError
from kspecpipe.framework.gathered import InputPolicy
from kspecpipe.framework.inputs import gather, load
from kspecpipe.instrument import load_instrument
from kspecpipe.products.images import BadPixelMap, MasterBias
from kspecpipe.sof import read_inputs


class Arcs(Declared):
    arcs: object = raw(
        "ARC", at_least=2, recommended=3, at_most=4, match=("shape", "readmode", "mode"), doc="arcs"
    )
    flats: object = raw(
        "FLAT", at_least=0, match=("exptime",), tolerance={"exptime": 0.1}, doc="flats"
    )
    lflats: object = raw("LFLAT", at_least=0)
    bias: MasterBias = calibration(
        "MASTER_BIAS", match=("shape", "layout", "readmode"), maximum_age=30.0, doc="zero level"
    )
    dark: object = calibration("MASTER_DARK", default=None, several="nearest_exptime")
    maps: list[BadPixelMap] = calibration("BAD_PIXEL_MAP", default=None, several="list")
    fibres: object = user_file("ASSIGN", default=None)
    lines: object = static("arc_lines")


def collect(camera, source, *, instrument=True, policy=None, declared=Arcs):
    known = load_instrument(str(camera.instrument)) if instrument else None
    return gather(read_inputs(source), declared, known, lambda i: i, policy or InputPolicy())


def problems(camera, source, error=InputError, **options) -> str:
    with pytest.raises(error) as caught:
        collect(camera, source, **options)
    assert type(caught.value) is error
    return str(caught.value)


@pytest.fixture
def arcs(camera):
    return [camera.frame(tag="ARC", exptime=5.0) for _ in range(3)]


def change_card(path: Path, **cards) -> None:
    with fits.open(path, mode="update") as hdus:
        for name, value in cards.items():
            hdus[0].header[name.replace("_", " ")] = value


def test_files_are_sorted_by_tag(camera, arcs):
    flat = camera.frame(tag="FLAT")
    found = collect(camera, camera.sof_of(arcs, "ARC", f"{flat.name}", f"{camera.master_bias()}"))
    assert {tag: len(frames) for tag, frames in found.raw.items()} == {"ARC": 3, "FLAT": 1}
    assert list(found.calibrations) == ["MASTER_BIAS"]
    assert [frame.info.tag for frame in found.frames] == ["ARC"] * 3 + ["FLAT"]
    values, used = load(found, Arcs)
    assert len(values.arcs) == 3
    assert isinstance(values.bias, MasterBias)
    assert (values.lflats, values.dark, values.maps, values.fibres) == (None, None, [], None)
    assert len(values.lines.wavelength) > 50
    assert [tag for tag, _, _ in used] == ["MASTER_BIAS"]


def test_the_lamp_of_the_list_is_known(camera, arcs):
    sof = camera.sof(*[f"{p.name} ARC:NE" for p in arcs], f"{camera.master_bias()} MASTER_BIAS")
    assert {f.info.keywords["lamp"] for f in collect(camera, sof).frames} == {"ne"}


def test_planes_of_a_cube_count_as_frames(camera):
    cube = camera.frame(tag="ARC", data=camera.noise((3, 48, 64)))
    found = collect(camera, camera.sof_with_bias([cube], "ARC"))
    assert len(found.raw["ARC"]) == 3


def test_every_problem_is_reported_at_once(camera, arcs):
    text = problems(
        camera,
        camera.sof(
            f"{arcs[0].name} ARC",
            "missing.fits ARC",
            f"{arcs[1].name} FLAT",
            f"{arcs[2].name} MASTER_BIAS",
            "none.txt ASSIGN",
            name="all.sof",
        ),
    ).splitlines()
    assert "all.sof, line 2: missing.fits: no such file" in text[0]
    assert "all.sof, line 4" in text[1]
    assert "tagged MASTER_BIAS, but it is no product" in text[1]
    assert "all.sof, line 5: none.txt: no such file" in text[2]
    assert "all.sof, line 3" in text[3]
    assert "tagged FLAT, but header and file name say ARC" in text[3]
    assert "1 ARC frames; at least 2 needed (arcs)" in text[4]
    assert "no MASTER_BIAS, which is needed (zero level)" in text[5]


def test_a_missing_calibration_alone_has_its_own_error(camera, arcs):
    text = problems(camera, camera.sof_of(arcs, "ARC"), CalibrationMissingError)
    assert text == "no MASTER_BIAS, which is needed (zero level)"


@pytest.mark.parametrize(("count", "words"), [(1, "at least 2 needed"), (5, "at most 4")])
def test_the_number_of_frames_is_checked(camera, count, words):
    frames = [camera.frame(tag="ARC") for _ in range(count)]
    assert f"{count} ARC frames; {words}" in problems(camera, camera.sof_with_bias(frames, "ARC"))


def test_fewer_than_recommended_is_a_warning(camera, arcs):
    found = collect(camera, camera.sof_with_bias(arcs[:2], "ARC"))
    assert found.warnings == ("2 ARC frames; 3 are recommended",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"SPEED": "fast"}, "readmode is fast, but slow in"),
        ({"GRATING": "red"}, "mode is red, but blue in"),
        ({"data": np.ones((48, 72))}, "shape is 48x64"),
    ],
)
def test_frames_that_do_not_match_name_both(camera, arcs, options, words):
    if "data" in options:
        options = {"data": camera.noise((48, 72)), "SPEED": "other"}
        words = "readmode is other, but slow in"
    odd = camera.frame(tag="ARC", **options)
    text = problems(camera, camera.sof_with_bias([*arcs, odd], "ARC"))
    assert f"in.sof, line 4: {odd.name}: {words} {arcs[0].name}" in text


def test_exposure_times_agree_within_their_tolerance(camera, arcs):
    def flats(*times):
        frames = [camera.frame(tag="FLAT", exptime=t) for t in times]
        return camera.sof_with_bias([*frames], "FLAT").read_text()

    def sof(*times):
        return camera.sof(flats(*times), *[f"{p.name} ARC" for p in arcs])

    assert collect(camera, sof(10.0, 10.9)).raw["FLAT"]
    assert "exptime is 12.0, but 10.0" in problems(camera, sof(10.0, 12.0))


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"INSTRUME": "OTHER"}, ["is of the instrument OTHER, not TINY"]),
        ({"READMODE": "fast"}, ["readmode is fast, but slow in"]),
        ({"HIERARCH_ESO_PRO_SHAPE": "10x10"}, ["shape is 10x10, but 48x64 in"]),
        ({"HIERARCH_ESO_PRO_CATG": "MASTER_DARK"}, ["but PRO.CATG", "MASTER_DARK"]),
        ({"MJD-OBS": "yesterday"}, ["MJD-OBS", "yesterday"]),
        ({"HIERARCH_ESO_QC_LEVEL_FLAG": "fail"}, ["quality control failed (LEVEL)", "--ignore"]),
        ({"HIERARCH_ESO_QC_NOISE_FLAG": "unmeasured"}, ["quality control failed (NOISE)"]),
    ],
)
def test_calibrations_that_do_not_suit_are_refused(camera, arcs, cards, words):
    bias = camera.master_bias()
    change_card(bias, **cards)
    text = problems(camera, camera.sof_with_bias(arcs, "ARC"))
    for word in [bias.name, *words]:
        assert word.replace("but PRO.CATG", "PRO.CATG") in text


def test_failed_calibrations_can_be_taken_on_request(camera, arcs):
    change_card(camera.master_bias(), HIERARCH_ESO_QC_LEVEL_FLAG="fail")
    policy = InputPolicy(ignore_input_qc=True)
    assert collect(camera, camera.sof_with_bias(arcs, "ARC"), policy=policy).raw["ARC"]


def test_old_calibrations_are_a_warning(camera, arcs):
    change_card(camera.master_bias(), **{"MJD-OBS": 61000.0})
    found = collect(camera, camera.sof_with_bias(arcs, "ARC"))
    assert any("days from" in text and "at most 30" in text for text in found.warnings)


def test_a_second_calibration_is_an_error_unless_several_are_welcome(camera, arcs):
    bias = camera.master_bias()
    second = camera.folder / "second.fits"
    second.write_bytes(bias.read_bytes())
    text = problems(camera, camera.sof_of(arcs, "ARC", f"{bias}", f"{second}"))
    assert f"2 files of MASTER_BIAS ({bias.name}, second.fits); one is expected" in text


def test_the_dark_of_the_nearest_exposure_time_is_taken(camera, arcs):
    darks = []
    for exptime in (2.0, 7.0, 300.0):
        frames = [camera.dark(exptime) for _ in range(2)]
        made = camera.run("mdark", camera.sof_with_bias(frames), output=camera.folder / "d")
        darks.append(made.products[0][0])
    bias = camera.master_bias()
    sof = camera.sof_of(arcs, "ARC", *[f"{path} MASTER_DARK" for path in darks], f"{bias}")
    _, used = load(collect(camera, sof), Arcs)
    assert [path for tag, path, _ in used if tag == "MASTER_DARK"] == [darks[1]]


def test_bad_pixel_maps_are_all_taken(camera, arcs):
    maps = []
    for exptime in (10.0, 300.0):
        frames = [camera.dark(exptime) for _ in range(2)]
        maps.append(camera.run("mdark", camera.sof_with_bias(frames)).products[1][0])
    sof = camera.sof_of(arcs, "ARC", *map(str, maps), str(camera.master_bias()))
    values, _ = load(collect(camera, sof), Arcs)
    assert [type(product) for product in values.maps] == [BadPixelMap, BadPixelMap]


def test_frames_without_use_are_a_warning(camera, arcs):
    bias = camera.frame()
    dark = camera.run("mdark", camera.sof_with_bias([camera.dark()]))
    product = dark.products[0][0]
    found = collect(
        camera,
        camera.sof_with_bias(arcs, "ARC").read_text().split("\n")
        and camera.sof(
            camera.sof_with_bias(arcs, "ARC").read_text(),
            f"{bias.name}",
            f"{camera.frame().name} BIAS",
        ),
    )
    (warning,) = [text for text in found.warnings if "BIAS is not used by this recipe" in text]
    assert warning.endswith("(and 1 more)")

    class OnlyBias(Declared):
        biases: object = raw("BIAS")

    sof = camera.sof(bias.name, str(product))
    found = collect(camera, sof, declared=OnlyBias)
    assert any("MASTER_DARK is not used" in text for text in found.warnings)


def test_untagged_frames_need_a_rule(camera):
    odd = camera.frame(tag="TEST")
    text = problems(camera, camera.sof(odd.name))
    assert f"{odd.name}: no rule tells what it is; write its tag" in text


def test_a_user_may_know_better_what_kind_of_flat_it_is(camera, arcs):
    flat = camera.frame(tag="FLAT")
    found = collect(
        camera, camera.sof_of(arcs, "ARC", f"{flat.name} LFLAT", f"{camera.master_bias()}")
    )
    assert [frame.info.tag for frame in found.raw["LFLAT"]] == ["LFLAT"]


def test_a_product_tagged_as_raw_is_refused(camera, arcs):
    bias = camera.master_bias()
    text = problems(camera, camera.sof_of(arcs, "ARC", f"{bias} FLAT"))
    assert f"{bias.name}: tagged FLAT, but its PRO.CATG is MASTER_BIAS" in text


def test_copies_of_a_frame_are_refused(camera, arcs):
    copy = camera.folder / "copy.fits.gz"
    copy.write_bytes(gzip.compress(arcs[1].read_bytes()))
    text = problems(camera, camera.sof_with_bias([*arcs, copy], "ARC"))
    assert f"in.sof, line 4: copy.fits.gz: is a copy of {arcs[1].name}" in text


def test_a_second_user_file_is_refused(camera, arcs):
    for name in "ab":
        (camera.folder / f"{name}.txt").write_text("1")
    text = problems(camera, camera.sof_of(arcs, "ARC", "a.txt ASSIGN", "b.txt ASSIGN"))
    assert "in.sof, line 5: b.txt: a second ASSIGN; one is expected" in text


def test_unknown_headers_name_the_known_instruments(camera, arcs):
    text = problems(camera, camera.sof_of(arcs, "ARC"), instrument=False)
    assert f"in.sof, line 1: {arcs[0].name}" in text
    assert "isoplane" in text
    assert "--instrument" in text


def test_frames_of_another_instrument_are_refused(camera, arcs):
    other = camera.frame(tag="ARC", INSTRUME="OTHER")
    text = problems(camera, camera.sof_with_bias([*arcs, other], "ARC"))
    assert f"{other.name}: the header is not of TINY (expected INSTRUME)" in text


def test_a_list_without_any_frame_of_use_says_so(camera):
    (camera.folder / "a.txt").write_text("1 0 0 0 0 0 0")
    text = problems(camera, camera.sof("a.txt ASSIGN"), instrument=False)
    assert "no raw frame" in text


def test_changing_the_file_after_it_was_checked_is_an_input_error(camera, arcs):
    found = collect(camera, camera.sof_with_bias(arcs, "ARC"))
    camera.master_bias().unlink()
    with pytest.raises(InputError, match="no such file"):
        load(found, Arcs)


UNITS = {"MASTER_BIAS": "adu", "MASTER_DARK": "electron/s"}


class Either(Declared):
    levels: list = calibration(
        "MASTER_BIAS", "MASTER_DARK", at_least=2, at_most=3, several="list", doc="levels"
    )


@pytest.fixture
def levels(camera):
    """Return paths of products of a tag which differ in their data, as their headers tell."""
    bias = camera.master_bias()

    def write(tag, count):
        paths = []
        for i in range(count):
            paths.append(camera.folder / f"{tag.lower()}_{i}.fits")
            paths[-1].write_bytes(bias.read_bytes())
            change_card(paths[-1], HIERARCH_ESO_PRO_CATG=tag, DATAMD5=f"{tag}{i}", BUNIT=UNITS[tag])
        return paths

    return write


@pytest.mark.parametrize("tag", ["MASTER_BIAS", "MASTER_DARK"])
def test_any_of_several_tags_serves_an_input(camera, levels, tag):
    found = collect(camera, levels(tag, 2), declared=Either)
    values, used = load(found, Either)
    assert [level.catg for level in values.levels] == [tag, tag]
    assert [one.tag for one in used] == [tag, tag]


def test_tags_that_stand_in_for_each_other_are_not_mixed(camera, levels):
    paths = levels("MASTER_BIAS", 1) + levels("MASTER_DARK", 1)
    assert "MASTER_BIAS or MASTER_DARK cannot be mixed" in problems(camera, paths, declared=Either)


@pytest.mark.parametrize(("count", "words"), [(1, "at least 2 needed"), (4, "at most 3 can be")])
def test_the_number_of_products_is_checked(camera, levels, count, words):
    text = problems(camera, levels("MASTER_DARK", count), declared=Either)
    assert f"{count} MASTER_BIAS or MASTER_DARK frames; {words}" in text


def test_a_copy_of_a_product_is_refused_where_several_are_welcome(camera, levels):
    first, second = levels("MASTER_BIAS", 2)
    change_card(second, DATAMD5="MASTER_BIAS0")
    text = problems(camera, [first, second], declared=Either)
    assert f"{second.name}: is a copy of {first.name}" in text


def test_none_of_the_tags_is_a_missing_calibration(camera, arcs):
    text = problems(camera, arcs, CalibrationMissingError, declared=Either)
    assert "no MASTER_BIAS or MASTER_DARK, which is needed (levels)" in text


class Large(Declared):
    arcs: object = raw("ARC")
    bias: MasterBias = calibration("MASTER_BIAS", on_demand=True)


def test_a_calibration_on_demand_is_read_anew_and_not_kept(camera, arcs):
    found = collect(camera, camera.sof_with_bias(arcs, "ARC"), declared=Large)
    values, used = load(found, Large)
    assert isinstance(values.bias, MasterBias)
    assert values.bias is not values.bias
    assert [one.path for one in used] == [camera.master_bias()]
    camera.master_bias().unlink()
    with pytest.raises(InputError, match="no such file"):
        _ = values.bias
