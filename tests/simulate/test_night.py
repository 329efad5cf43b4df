"""Files: names, headers, SOFs, assignment, truth, and that they depend on the seed alone."""

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from hypothesis import given
from hypothesis import strategies as st

import kspecpipe.simulate
from kspecpipe.simulate import FrameCounts, NightPlan, Traps, simulate_night, take_frame
from kspecpipe.simulate.description import describe
from kspecpipe.simulate.fits_cards import format_card
from kspecpipe.simulate.instruments import kspec
from kspecpipe.simulate.lightfield import BROKEN_CARDS

UNCORRECTED = "PI ACQUISITION ORIENTATION LIGHTPATHORIENTATIONUNCORRECTED"
RESULT = "PI CAMERA EXPERIMENT ACQUISITION ORIENTATION RESULT"
EXPOSURE = "PI CAMERA SHUTTERTIMING EXPOSURETIME"
FEW = FrameCounts(bias=1, dark=1, flat=1, arc=1, object=1)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return simulate_night(tmp_path_factory.mktemp("night"), NightPlan(size="small"), seed=3)


def header_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of the broken cards
        with fits.open(path) as hdus:
            return hdus[0].header


def data_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fits.getdata(path)


def test_simulator_shares_no_code_with_the_reduction():
    sources = list(Path(kspecpipe.simulate.__file__).parent.glob("*.py"))
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.startswith("kspecpipe"):
                    assert name.startswith("kspecpipe.simulate"), f"{source.name} imports {name}"


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path):
    plan = NightPlan(size="small", counts=FEW)
    first, again, other = (
        simulate_night(tmp_path / name, plan, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    names = [f.path.name for f in first.files]
    assert names == [f.path.name for f in again.files]
    for one, two, three in zip(first.files, again.files, other.files, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.truth.read_bytes() == two.truth.read_bytes()
        assert one.path.read_bytes() != three.path.read_bytes()
    assert first.assignment.read_text() == again.assignment.read_text()


def test_night_has_the_frames_of_the_plan_under_lightfield_names(night):
    names = [f.path.name for f in night.files]
    assert len(names) == 14
    assert "Bias 2026 January 29 1.fits" in names
    assert "Flat_150_620_20s 2026 January 29 3.fits" in names
    assert "Arc_150_620_240s 2026 January 29 2.fits" in names
    assert "tile_046_150_620 2026 January 30 01_00_00 1.fits" in names
    assert any(name.startswith("Dark_2400s 2026 January 30") for name in names)
    assert [len(night.tagged(t)) for t in ("BIAS", "DARK", "FLAT", "ARC", "OBJECT")] == [
        5, 2, 3, 2, 2,
    ]  # fmt: skip


def test_file_is_one_cube_of_unsigned_sixteen_bits(night):
    header, data = header_of(night.files[0].path), data_of(night.files[0].path)
    assert night.files[0].path.stat().st_size < 440_000, "no second HDU"
    assert (header["NAXIS"], header["BITPIX"], header["BZERO"]) == (3, 16, 32768)
    assert data.shape == (1, 420, 500)
    assert data.dtype == np.uint16
    assert np.median(data) == pytest.approx(612, abs=8)


def test_header_tells_all_but_the_class(night):
    arc = night.tagged("ARC")[0]
    header = header_of(arc.path)
    assert 145 <= len(header) <= 190
    assert header[EXPOSURE] == "240000"
    assert header["EXPTIME"] == "240000"
    assert header["PI SPECTROMETER GRATING SELECTED"] == "[500nm,150][2][0]"
    assert header["PI SPECTROMETER GRATING CENTERWAVELENGTH"] == "619.988"
    assert header["PI CAMERA ADC QUALITY"] == "LowNoise"
    assert header["DATE-OBS"] == "2026-01-29T22:00:00.000"
    assert "CCD 36" in header["PI CAMERA SENSOR INFORMATION SENSORNAME"]
    text = arc.path.read_bytes().split(b"END   ")[0].decode("ascii").lower()
    assert len(text) > 145 * 80
    assert "'arc" not in text
    assert "flat" not in text
    assert "bias" not in text


def test_broken_cards_are_broken_but_the_file_opens(night):
    header = header_of(night.files[0].path)
    with pytest.raises(VerifyError, match="Unparsable"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(header.items())
    block = night.files[0].path.read_bytes()[:14400]
    cards = [block[i : i + 80].decode() for i in range(0, len(block), 80)]
    for broken in BROKEN_CARDS:
        assert broken[:80].ljust(80) in cards
    assert data_of(night.files[0].path).shape == (1, 420, 500)


def test_whole_header_parses_without_the_trap(tmp_path):
    plan = NightPlan(size="small", counts=FEW, traps=Traps(broken_cards=False))
    night = simulate_night(tmp_path, plan)
    header = header_of(night.files[0].path)
    assert len(list(header.items())) > 140
    with fits.open(night.files[0].path) as hdus:
        hdus.verify("exception")


@pytest.mark.parametrize("flips", [(True, True), (False, True), (True, False), (False, False)])
def test_orientation_cards_follow_the_rule_of_the_instrument(tmp_path, flips):
    plan = NightPlan(size="small", counts=FrameCounts(1, 0, 0, 0, 0), mirrored=flips)
    header = header_of(simulate_night(tmp_path, plan).files[0].path)
    found = []
    for word in ("FlippedHorizontally", "FlippedVertically"):
        sign = 1
        for card in (UNCORRECTED, RESULT):
            sign *= -1 if word in header[card] else 1
        found.append(sign == 1)
    assert tuple(found) == flips


@given(
    keyword=st.sampled_from(["OBJECT", "PI CAMERA NAME", UNCORRECTED]),
    text=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200),
)
def test_strings_of_any_length_are_read_back(keyword, text):
    # An ampersand may mean that a text goes on; astropy takes a quote before a slash for its end.
    text = text.replace("&", "+").replace("'/", "'+")
    cards = format_card(keyword, text)
    assert all(len(card) == 80 for card in cards)
    header = fits.Header.fromstring("".join(cards))
    assert header[keyword] == text


def test_sofs_hold_raw_frames_relative_to_themselves(night):
    assert set(night.sofs) == {"bias", "dark", "flats", "arcs", "objects", "standards"}
    lines = night.sofs["flats"].read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["FLAT"] * 3
    for sof in night.sofs.values():
        for line in sof.read_text().splitlines():
            assert (sof.parent / line.rsplit(" ", 1)[0]).is_file()
    assert night.sofs["objects"].read_text().splitlines()[-1] == "tile_046.assign.txt ASSIGN"


def test_assignment_has_seven_columns_and_the_classes_of_the_truth(night):
    rows = [line.split() for line in night.assignment.read_text().splitlines()]
    assert len(rows) == 14
    assert all(len(row) == 7 for row in rows)
    assert [int(row[0]) for row in rows] == list(range(1, 15))
    with fits.open(night.fibres["150_620"]) as truth:
        assert [int(row[6]) for row in rows] == truth["FIBRES"].data["CLASS"].tolist()
        assert (truth["FIBRES"].data["CLASS"] == 9).sum() >= 3
        assert (truth["FIBRES"].data["CLASS"] == 8).sum() == 2


def test_truth_has_the_shapes_and_units_that_it_promises(night):
    with fits.open(night.tagged("OBJECT")[0].truth) as truth:
        shapes = {hdu.name: hdu.data.shape for hdu in truth[1:]}
        units = {hdu.name: hdu.header.get("BUNIT") for hdu in truth[1:6]}
        assert truth[0].header["AIRMASS"] > 1
        assert 0.1 < abs(truth[0].header["DCOLUMN"]) < 0.5
        assert np.all(np.diff(truth["WAVELENGTH"].data, axis=1) > 0)
        assert np.all(np.diff(truth["TRACE"].data, axis=0) > 0)
        np.testing.assert_allclose(truth["ELECTRON"].data, truth["SKY"].data + truth["TARGET"].data)
    spectra = dict.fromkeys(("TRACE", "WAVELENGTH", "ELECTRON", "SKY", "TARGET"), (14, 500))
    assert shapes == spectra | dict.fromkeys(("COSMIC", "SATURATED"), (420, 500))
    assert units["TRACE"] == "pixel"
    assert units["WAVELENGTH"] == "Angstrom"


def test_frames_of_a_night_move_by_up_to_one_and_a_half_pixels(night):
    def moved(tag):
        return [abs(fits.getheader(f.truth)["DROW"]) for f in night.tagged(tag)]

    assert max(moved("FLAT")) < 0.3
    assert min(moved("ARC") + moved("OBJECT")) > 0.3
    assert max(moved("ARC") + moved("OBJECT")) <= 1.4


def test_rows_of_the_raw_frame_peak_on_the_true_traces(night):
    flat = night.tagged("FLAT")[0]
    image = data_of(flat.path)[0, ::-1, ::-1].astype(float) - 612
    with fits.open(flat.truth) as truth:
        rows, live = truth["TRACE"].data[:, 400], truth["ELECTRON"].data[:, 400] > 1000
    column = image[:, 390:411].mean(axis=1)
    for row in rows[live]:
        window = np.arange(round(row) - 4, round(row) + 5)
        light = np.clip(column[window] - column[window].min(), 0, None)
        assert (light * window).sum() / light.sum() == pytest.approx(row, abs=0.25)
    assert live.sum() == 13


def test_several_modes_have_their_own_frames_and_sofs(tmp_path):
    plan = NightPlan(size="small", modes=("300_490", "600_430"), counts=FEW)
    night = simulate_night(tmp_path, plan)
    assert {"flats_300_490", "flats_600_430", "bias", "dark"} <= set(night.sofs)
    assert len(night.tagged("FLAT", "600_430")) == 1
    header = header_of(night.tagged("FLAT", "600_430")[0].path)
    assert header["PI SPECTROMETER GRATING SELECTED"].startswith("[500nm,600]")
    assert header["PI SPECTROMETER GRATING CENTERWAVELENGTH"] == "430.000"


def test_unknown_mode_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"no mode 150_999; it has 150_620, 300_490"):
        simulate_night(tmp_path, NightPlan(modes=("150_999",)))


def test_separate_lamps_one_missing_and_old_names(tmp_path):
    plan = NightPlan(
        size="small", counts=FEW, separate_lamps=True, missing_lamp="Kr", names="old", cube=True
    )
    night = simulate_night(tmp_path, plan)
    arcs = night.tagged("ARC")
    assert [f.lamps for f in arcs] == [("Hg", "Ar"), ("Ne",), ("Cd",)]
    assert arcs[1].path.name.startswith("ne_arc_0000")
    assert night.sofs["arcs"].read_text().splitlines()[1].endswith("ARC:NE")
    assert night.tagged("BIAS")[0].path.name == "bias_00001.fits"
    assert len({f.path.name for f in night.files}) == len(night.files)


def test_biases_may_come_as_one_cube(tmp_path):
    plan = NightPlan(size="small", counts=FrameCounts(4, 0, 0, 0, 0), cube=True)
    night = simulate_night(tmp_path, plan)
    data = data_of(night.files[0].path)
    assert data.shape == (4, 420, 500)
    assert np.any(data[0] != data[1])


def test_kspec_says_what_its_frames_are_in_plain_headers(tmp_path):
    night = simulate_night(tmp_path, NightPlan("kspec", size="small", counts=FEW))
    kinds = [header_of(f.path)["OBSTYPE"] for f in night.files]
    assert kinds == ["BIAS", "FLAT", "ARC", "OBJECT", "DARK"]
    header = header_of(night.tagged("FLAT")[0].path)
    assert header["NAXIS"] == 2
    assert (header["NAXIS2"], header["NAXIS1"]) == (512, 576)
    assert header["EXPTIME"] == 20.0
    assert header["INSTRUME"] == "KSPEC"
    flat = data_of(night.tagged("FLAT")[0].path).astype(float)
    light = flat[:, 32:-32] - np.median(flat, axis=0)[32:-32]
    along_y, along_x = np.abs(np.diff(flat[:, 32:200], axis=0)), np.abs(np.diff(flat[:, 32:200]))
    assert light.shape == (512, 512)
    assert along_x.mean() > 3 * along_y.mean(), "the dispersion runs along y"


def test_kspec_settings_agree_with_the_simulated_instrument():
    path = Path(__file__).parents[2] / "settings" / "kspec.yaml"
    settings = yaml.safe_load(path.read_text())["instrument"]
    facts = describe(kspec())
    for key in ("detector", "orientation", "wavelength", "classify", "assignment", "lamps"):
        assert settings[key] == facts[key], key
    assert settings["fibres"]["blocks"] == facts["fibres"]["blocks"]
    assert sum(b["count"] for b in settings["fibres"]["blocks"]) == 150


def test_description_beside_the_truth_fits_the_frames(night):
    facts = yaml.safe_load(night.instrument.read_text())["instrument"]
    assert list(facts["detector"]["layouts"]) == ["420x500"]
    assert facts["fibres"]["number"] == 14
    low, high = facts["fibres"]["rows_without_light"][0]
    light = take_frame(NightPlan(size="small", traps=Traps.none().but(ghosts=True)), "FLAT")
    assert light.expected[low:high].max() < 1e-3 * light.expected.max()


def test_twilight_long_slit_and_lamp_off_flats_can_be_asked_for(tmp_path):
    counts = FrameCounts(0, 0, 1, 0, 0, skyflat=1, lflat=1, flatoff=1)
    night = simulate_night(tmp_path, NightPlan(size="small", counts=counts))
    names = [f.path.name for f in night.files]
    assert names == [
        "LFlat_150_620_10s 2026 January 29 1.fits",
        "Flat_150_620_20s 2026 January 29 1.fits",
        "FlatOff_150_620_20s 2026 January 29 1.fits",
        "SkyFlat_150_620_60s 2026 January 29 1.fits",
    ]
    assert set(night.sofs) == {"flats", "lflats", "skyflats"}
    level = {f.tag: np.percentile(data_of(f.path), 95) - 612 for f in night.files}
    assert level["LFLAT"] > 2e4
    assert level["FLAT"] > 3e3
    assert level["SKYFLAT"] > 3e3
    assert abs(level["FLATOFF"]) < 25
