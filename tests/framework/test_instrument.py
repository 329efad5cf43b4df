import re
from pathlib import Path

import numpy as np
import pytest

from kspecpipe.configuration.yaml_source import load_yaml
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.frame import FrameInfo
from kspecpipe.instrument import instrument_from_file, load_instrument, shipped_instruments

BASE = """
instrument:
  name: TINY
  recognise: {INSTRUME: TINY, DETECTOR: 'CCD ?36'}
  keywords:
    date_obs: {from: DATE-OBS}
    exptime: {from: [EXPMS, EXPTIME], scale: 0.001, unit: s}
    speed: {from: SPEED, type: float}
    lines: {from: GRATING, match: '\\[(\\d+)\\]', type: int}
    centre: {from: CENTRE, type: float}
    target: {from: OBJECT, optional: true}
    site: {from: SITE, default: home}
  mode: '{lines:d}_{centre:.0f}'
  readmode: 'port_{speed}MHz'
  classify:
    - {tag: BIAS, file: 'bias([ _].*)?'}
    - {tag: ARC, file: '(?:(?P<lamp>ne|kr)_)?arc([ _].*)?'}
    - {tag: FLAT, keywords: {OBSTYPE: 'flat.*', target: 'lamp'}}
    - {tag: OBJECT, file: '(?P<target>tile_\\d+).*'}
  orientation: {flip: {cards: [ORI1, ORI2], rule: even, x: Horizontal, y: Vertical}}
  detector:
    layouts:
      '20x30': {amplifiers: [{data: [0, 20, 0, 30]}]}
      '20x40':
        amplifiers:
          - {data: [0, 20, 0, 15], overscan: [0, 20, 15, 20], gain: 1.5, noise: 3}
          - {data: [0, 20, 25, 40], overscan: [0, 20, 20, 25], gain: 1.7, noise: 5}
    readout: {by: [speed], table: [[2, 4.0, 16.0], [0.1, 1.1, 4.5]]}
    saturation: 60000
    prnu: 0.006
  fibres:
    number: 5
    blocks: [{first_row: 12, pitch: 2, count: 2}, {first_row: 2, pitch: 2, count: 3}]
    id_order: falling_y
    tolerance: 3
    rows_without_light: [[0, 1], [16, 20]]
  wavelength: {model: linear, centre: centre, step: 2.0}
  lamps: {default: [Hg, Ne], by_name: {ne: [Ne], kr: [Kr]}}
"""
HEADER = {
    "INSTRUME": "TINY",
    "DETECTOR": "E2V CCD36",
    "DATE-OBS": "2026-01-29T20:30:00.5",
    "EXPMS": "1500",
    "EXPTIME": 9.0,
    "SPEED": "0.1",
    "GRATING": "[500nm] [150][2]",
    "CENTRE": "619.988",
}


def instrument(*changes):
    text = BASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return instrument_from_file(load_yaml(text, "tiny.yaml"), "tiny", "tiny.yaml")


def describe(name="bias_1.fits", *changes, **cards):
    header = {k: v for k, v in (HEADER | cards).items() if v is not None}
    return instrument(*changes).describe(header, Path(name))


def test_a_header_becomes_a_frame_info():
    info = describe()
    assert (info.name, info.tag, info.mode) == ("bias_1.fits", "BIAS", "150_620")
    assert info.readmode == "port_100khz"
    assert info.exptime == 1.5
    assert info.date_obs == "2026-01-29T20:30:00.500"
    assert info.mjd == pytest.approx(61069 + 20.5 / 24 + 0.5 / 86400, abs=1e-9)
    assert info.keywords["site"] == "home"
    assert info.keywords["target"] is None


def test_the_first_card_that_is_present_wins():
    assert describe(EXPMS=None).exptime == pytest.approx(0.009)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-29T20:30:00+02:00", "2026-01-29T18:30:00.000"),
        ("2026-01-29T20:30:00Z", "2026-01-29T20:30:00.000"),
        ("2026-01-29", "2026-01-29T00:00:00.000"),
        (" 2026-01-29T20:30:00.1234567 ", "2026-01-29T20:30:00.123"),
    ],
)
def test_dates_are_utc(text, expected):
    assert describe(**{"DATE-OBS": text}).date_obs == expected


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"DATE-OBS": None}, ["lacks DATE-OBS", "date_obs"]),
        ({"DATE-OBS": "29 January"}, ["'29 January'", "ISO"]),
        ({"DATE-OBS": "0001-01-01T00:00:00+23:00"}, ["0001-01-01", "ISO"]),
        ({"DATE-OBS": 20260129.5}, ["ISO"]),
        ({"EXPMS": None, "EXPTIME": None}, ["lacks EXPMS and EXPTIME", "exptime"]),
        ({"EXPMS": "long"}, ["EXPMS = 'long' is not a number"]),
        ({"EXPMS": "nan"}, ["not finite"]),
        ({"EXPMS": "-1"}, ["exposure time", "-0.001"]),
        ({"EXPMS": "1e-300"}, ["exposure time of 1e-303 s", "1e-6 to 1e8"]),
        ({"EXPMS": "1e20"}, ["exposure time of 1e+17 s"]),
        ({"EXPMS": True}, ["is not a number"]),
        ({"GRATING": "none"}, ["GRATING = 'none' does not match"]),
        ({"SPEED": ""}, ["SPEED = ''"]),
    ],
)
def test_keywords_that_cannot_be_understood_are_named(cards, words):
    with pytest.raises(InputError) as caught:
        describe(**cards)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tag", "groups"),
    [
        ("Bias 2026 January 29 1.fits", "BIAS", {}),
        ("BIAS.fits.gz", "BIAS", {}),
        ("biased.fits", None, {}),
        ("Arc_300.FITS", "ARC", {}),
        ("ne_arc_1.fit", "ARC", {"lamp": "ne"}),
        ("NE_ARC.fits", "ARC", {"lamp": "NE"}),
        ("tile_046_x.fits", "OBJECT", {"target": "tile_046"}),
        ("other.fits", None, {}),
    ],
)
def test_file_names_tell_what_a_frame_is(name, tag, groups):
    info = describe(name)
    assert info.tag == tag
    assert {key: info.keywords.get(key) for key in groups} == groups


def test_keyword_rules_need_all_their_cards():
    assert describe("x.fits", OBSTYPE="FLAT on", OBJECT="Lamp").tag == "FLAT"
    assert describe("x.fits", OBSTYPE="FLAT on", OBJECT="sky").tag is None
    assert describe("x.fits", OBSTYPE="FLAT on").tag is None


def test_an_absent_keyword_matches_no_pattern():
    wild = ("target: 'lamp'", "target: '.+'")
    assert describe("x.fits", wild, OBSTYPE="flat").tag is None


def test_a_bias_need_not_know_its_grating_when_that_is_optional():
    change = (
        "centre: {from: CENTRE, type: float}",
        "centre: {from: CENTRE, type: float, optional: true}",
    )
    assert describe("bias.fits", change, CENTRE=None).mode == ""


def test_values_that_do_not_fit_the_template_are_refused():
    change = (
        "centre: {from: CENTRE, type: float}",
        "centre: {from: CENTRE, type: float, default: blue}",
    )
    with pytest.raises(InputError, match=r"do not fit the mode '\{lines:d\}_\{centre:\.0f\}'"):
        describe("bias.fits", change, CENTRE=None)


@pytest.mark.parametrize(
    ("rule", "texts", "flips"),
    [
        ("even", ("", ""), (True, True)),
        ("even", ("FlippedHorizontally", ""), (False, True)),
        ("even", ("horizontal, VERTICAL", "Horizontal"), (True, False)),
        ("odd", ("Horizontal", ""), (True, False)),
        ("any", ("Horizontal", "Horizontal Vertical"), (True, True)),
        ("any", ("", ""), (False, False)),
    ],
)
def test_cards_tell_how_the_frame_is_mirrored(rule, texts, flips):
    info = describe("b.fits", ("rule: even", f"rule: {rule}"), ORI1=texts[0], ORI2=texts[1])
    assert info.flips == flips


def test_mirroring_may_be_fixed():
    change = (
        "flip: {cards: [ORI1, ORI2], rule: even, x: Horizontal, y: Vertical}",
        "flip: {x: true}",
    )
    assert describe("b.fits", change).flips == (True, False)


def test_an_instrument_is_recognised_by_all_of_its_cards():
    tiny = instrument()
    assert tiny.recognises(HEADER)
    assert not tiny.recognises(HEADER | {"DETECTOR": "CCD 47"})
    assert not tiny.recognises({"INSTRUME": "TINY"})
    anonymous = instrument(("  recognise: {INSTRUME: TINY, DETECTOR: 'CCD ?36'}\n", ""))
    assert not anonymous.recognises(HEADER)


@pytest.mark.parametrize(
    ("dispersion", "transfer", "axis"), [("x", "y", 0), ("x", "x", 1), ("y", "y", 1), ("y", "x", 0)]
)
def test_charge_bleeds_along_the_axis_that_it_is_moved_along(dispersion, transfer, axis):
    tiny = instrument(
        ("orientation: {", f"orientation: {{dispersion_axis: {dispersion}, "),
        ("    prnu: 0.006", f"    prnu: 0.006\n    charge_transfer: {transfer}"),
    )
    info = describe()
    assert tiny.readout(tiny.geometry((20, 30), info), info).bleed_axis == axis


def test_gain_and_noise_come_from_amplifier_or_readout_table():
    tiny, info = instrument(), describe()
    one = tiny.readout(tiny.geometry((20, 30), info), info)
    assert (one.gain, one.ron, one.saturation, one.prnu) == (1.1, 4.5, 60000, 0.006)
    two = tiny.readout(tiny.geometry((20, 40), info), info)
    assert two.gain.shape == (20, 30)
    # Both axes of this frame are mirrored: the first amplifier lies on the right.
    np.testing.assert_allclose(two.gain[0, [0, -1]], [1.7, 1.5])
    np.testing.assert_allclose(two.ron[0, [0, -1]], [5, 3])


def test_an_unmeasured_readout_mode_says_what_to_do():
    tiny, info = instrument(), describe(SPEED="5")
    with pytest.raises(InputError, match=r"'port_5mhz' are not measured.*detector: \{gain"):
        tiny.readout(tiny.geometry((20, 30), info), info)


def test_a_frame_of_unknown_shape_is_refused():
    with pytest.raises(InputError, match=r"no detector layout.*21x30.*20x30, 20x40"):
        instrument().geometry((21, 30), describe())


def test_layout_names_may_hold_blanks():
    spaced = instrument(("'20x30'", "'20 x 30'"))
    assert spaced.geometry((20, 30), describe()).shape == (20, 30)


def test_an_instrument_without_layouts_has_one_amplifier():
    text = BASE[: BASE.index("    layouts:")] + BASE[BASE.index("    readout:") :]
    plain = instrument_from_file(load_yaml(text, "t"), "t", "t")
    assert plain.geometry((7, 9), describe()).shape == (7, 9)


def test_fibres_are_numbered_in_the_order_of_the_file():
    tiny = instrument()
    np.testing.assert_allclose(tiny.fibre_rows, [2, 4, 6, 12, 14])
    assert tiny.fibre_ids == [5, 4, 3, 2, 1]
    layout = tiny.fibre_layout(describe(), (20, 30))
    assert layout.tolerance == 3
    assert layout.rows_without_light == ((0, 1), (16, 20))


def test_wavelengths_are_predicted_from_the_header():
    tiny, info = instrument(), describe(CENTRE="6000")
    predicted = tiny.prediction(info, 31)
    np.testing.assert_allclose(np.diff(predicted.wavelength), 2.0)
    np.testing.assert_allclose(predicted.wavelength[15], 6000, atol=1.0)


def test_what_a_prediction_needs_must_be_known():
    tiny = instrument(("centre: centre, step", "centre: nothing, step"))
    with pytest.raises(InputError, match=r"wavelength\.centre is not known"):
        tiny.prediction(describe(), 10)
    without = instrument(("  wavelength: {model: linear, centre: centre, step: 2.0}\n", ""))
    with pytest.raises(SettingsError, match="no `wavelength` section"):
        without.prediction(describe(), 10)


def test_lamps_are_known_in_any_case():
    tiny = instrument()
    assert tiny.species(None) == ("Hg", "Ne")
    assert tiny.species("NE") == ("Ne",)
    with pytest.raises(InputError, match="unknown lamp 'Xe'"):
        tiny.species("Xe")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("number: 5", "number: 6", ["fibres.number is 6", "place 5 fibres"]),
        ("    date_obs: {from: DATE-OBS}\n", "", ["keywords lacks 'date_obs'"]),
        ("'{lines:d}_{centre:.0f}'", "'{line:d}'", ["uses 'line'", "did you mean 'lines'?"]),
        ("'{lines:d}_{centre:.0f}'", "'{lines'", ["template '{lines' cannot be filled"]),
        ("'{lines:d}_{centre:.0f}'", "'{site:.1f}'", ["template '{site:.1f}'", "'str'"]),
        ("'{lines:d}_{centre:.0f}'", "'{}'", ["template '{}'"]),
        ("'{lines:d}_{centre:.0f}'", "'{0}'", ["template '{0}'"]),
        ("'{lines:d}_{centre:.0f}'", "'{lines.real}'", ["template '{lines.real}'"]),
        ("'{lines:d}_{centre:.0f}'", "'{lines[0]}'", ["template '{lines[0]}'"]),
        ("'port_{speed}MHz'", "'{speeed}'", ["did you mean 'speed'?"]),
        ("'20x30'", "'20by30'", ["'20by30' is not of the form"]),
        ("data: [0, 20, 0, 30]", "data: [0, 20, 0, 31]", ["[0, 20, 0, 31]", "inside 20 rows"]),
        ("data: [0, 20, 0, 30]", "data: [5, 5, 0, 30]", ["[5, 5, 0, 30]"]),
        ("data: [0, 20, 25, 40]", "data: [0, 20, 10, 40]", ["overlaps"]),
        (
            "overscan: [0, 20, 15, 20]",
            "overscan: [0, 20, 12, 20]",
            ["[0, 20, 12, 20] overlaps [0, 20, 0, 15]"],
        ),
        (
            "overscan: [0, 20, 15, 20]",
            "overscan: [0, 19, 15, 20]",
            ["overscan [0, 19, 15, 20]", "neither the same rows"],
        ),
        (
            "table: [[2, 4.0, 16.0]",
            "table: [[4.0, 16.0]",
            ["readout.table", "2 values found, 3 expected"],
        ),
        ("table: [[2, 4.0, 16.0]", "table: [[2, high, 16.0]", ["readout.table", "'high'"]),
        ("table: [[2, 4.0, 16.0]", "table: [[2, 0, 16.0]", ["readout.table", "above 0"]),
        ("by: [speed]", "by: [spede]", ["readout.by", "did you mean 'speed'?"]),
        ("gain: 1.5, noise: 3", "gain: 1.5, noise: 0", ["noise", "not above 0"]),
        ("gain: 1.5, noise: 3", "gain: 0, noise: 3", ["gain", "not above 0"]),
        ("step: 2.0", "stop: 2.0", ["unknown key 'stop'", "did you mean 'step'?"]),
        ("centre: centre, step: 2.0", "centre: centre", ["wavelength lacks 'step'"]),
        ("model: linear", "model: cubic", ["one of grating, linear"]),
        ("tag: ARC", "tag: ARCS", ["classify", "'ARCS'", "did you mean 'ARC'?"]),
        ("file: 'bias([ _].*)?'", "file: 'bias('", ["not a regular expression"]),
        ("  name: TINY\n", "", ["lacks the key 'name'"]),
    ],
)
def test_wrong_instrument_files_are_refused(old, new, words):
    with pytest.raises(SettingsError) as caught:
        instrument((old, new))
    assert "tiny.yaml, line" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_without_instrument_section_is_refused():
    with pytest.raises(SettingsError, match=r"x\.yaml: lacks the section `instrument`"):
        instrument_from_file(load_yaml("mbias: {}", "x.yaml"), "x", "x.yaml")


def test_instruments_are_loaded_by_name_or_file(tmp_path):
    assert load_instrument("IsoPlane").facts.name == "ISOPLANE"
    path = tmp_path / "tiny.yaml"
    path.write_text(BASE)
    assert load_instrument(str(path)).name == "tiny"
    with pytest.raises(SettingsError, match="did you mean 'isoplane'"):
        load_instrument("isoplan")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_instrument(str(tmp_path / "none.yaml"))


def test_shipped_instruments_are_told_apart_by_their_headers():
    shipped = shipped_instruments()
    assert {"isoplane", "kspec"} <= set(shipped)
    header = {"INSTRUME": "KSPEC"}
    assert [name for name, each in shipped.items() if each.recognises(header)] == ["kspec"]


def test_the_digest_changes_with_any_fact_and_with_nothing_else():
    base = instrument().digest
    assert instrument().digest == base
    assert instrument(("prnu: 0.006", "prnu: 0.007")).digest != base
    assert instrument_from_file(load_yaml(BASE + "\n# note", "o.yaml"), "o", "o").digest == base


def test_infos_of_one_instrument_have_layouts():
    info = FrameInfo("x", flips=(True, False))
    geometry = instrument().geometry((20, 30), info)
    assert (geometry.orient.flip_x, geometry.orient.flip_y) == (True, False)
    assert re.fullmatch(r"[0-9a-f]{32}", instrument().digest)
