"""`kspec check --instrument FILE`: every problem, with its line."""

from pathlib import Path

import pytest

from kspecpipe.cli.instrument_check import examine_instrument
from kspecpipe.errors import SettingsError
from kspecpipe.instrument import shipped_instruments

GOOD = """\
instrument:
  name: MINE
  recognise: {INSTRUME: MINE}
  keywords:
    date_obs: {from: DATE-OBS}
    exptime: {from: EXPTIME, unit: s}
    lines: {from: GRATING, type: int}
    centre: {from: WAVE, type: float}
    speed: {from: SPEED}
  mode: '{lines:d}_{centre:.0f}'
  readmode: '{speed}'
  classify:
    - {tag: BIAS, file: 'bias.*'}
    - {tag: FLAT, keywords: {OBSTYPE: FLAT}}
  detector:
    layouts:
      '100x200': {amplifiers: [{data: [0, 100, 0, 200]}]}
    readout:
      by: [speed]
      table:
        - [slow, 1.1, 3.0]
  fibres: {number: 3, rows: [20, 40, 60]}
  wavelength:
    {model: grating, focal_length: 320, pixel: 0.02, dispersion: 23, dispersion_lines: 1200}
  assignment: {columns: [FIBRE_ID, CLASS], type: {'9': S, default: P}}
mbias:
  parameters: {stacked_clipping_sigma: 4}
"""


@pytest.fixture
def written(tmp_path):
    """Return a function that writes the good file with one text replaced."""

    def write(old: str = "", new: str = "") -> Path:
        assert old in GOOD
        path = tmp_path / "mine.yaml"
        path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return path

    return write


def line_of(text: str) -> int:
    """Return the line of the good file in which a text stands."""
    return GOOD[: GOOD.index(text)].count("\n") + 1


def test_good_file_is_summed_up(kspec, written):
    result = kspec("check", "--instrument", written())
    assert result.code == 0
    assert result.err == ""
    for text in ("OK: MINE", "100 rows and 200 columns", "1 read-out modes", "rows 20 to 60"):
        assert text in result.out


@pytest.mark.parametrize("name", sorted(shipped_instruments()))
def test_shipped_instruments_are_free_of_problems_and_doubts(name):
    found = examine_instrument(name)
    assert found.problems == []
    assert found.warnings == []


def test_instrument_of_the_documentation_is_free_of_problems():
    path = Path(__file__).parents[2] / "docs" / "examples" / "lhd.yaml"
    found = examine_instrument(str(path))
    assert found.problems == []
    assert found.instrument is not None
    assert len(found.instrument.fibre_rows) == 29


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  name: MINE", "  nam: MINE", "did you mean 'name'?"),
        ("{from: EXPTIME, unit: s}", "{form: EXPTIME}", "did you mean 'from'?"),
        ("number: 3", "number: 4", "blocks or rows place 3 fibres"),
        ("rows: [20, 40, 60]", "rows: 20", "must be list of number, found 20"),
        ("tag: FLAT", "tag: FLAD", "unknown tag 'FLAD'; did you mean 'FLAT'?"),
        ("file: 'bias.*'", "file: 'bias('", "not a regular expression"),
        ("file: 'bias.*'", "", "lacks"),
        ("[0, 100, 0, 200]", "[0, 101, 0, 200]", "is not inside 100 rows"),
        ("[0, 100, 0, 200]", "[0, 100, 0]", "needs 4 values, found 3"),
        ("by: [speed]", "by: [sped]", "no keyword 'sped'; did you mean 'speed'?"),
        ("[slow, 1.1, 3.0]", "[slow, 1.1]", "2 values found, 3 expected (speed, gain, noise)"),
        ("{lines:d}", "{line:d}", "did you mean 'lines'?"),
        ("type: int", "type: str", "cannot be filled"),
        ("model: grating", "model: linear", "lacks 'centre'"),
        ("model: grating", "model: prism", "must be one of grating, linear"),
        ("    lines: {from: GRATING, type: int}\n", "", "'lines'"),
        ("'9': S", "'9': X", "'X' is none of P, S, C, U, N"),
        ("mbias:", "mbais:", "did you mean 'mbias'?"),
        ("sigma: 4", "sigma: -4", "is not above 0"),
        ("focal_length: 320", "focal_length: -1", "-1.0 is not above 0"),
    ],
)
def test_each_problem_is_found_and_named(kspec, written, old, new, message):
    if old == "file: 'bias.*'" and not new:
        old, new, message = ", file: 'bias.*'", "", "has neither `file` nor `keywords`"
    result = kspec("check", "--instrument", written(old, new))
    assert result.code == 2
    assert message in result.err
    assert "mine.yaml, line" in result.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("type: int}", "type: integer}"),
        ("[0, 100, 0, 200]", "[0, 100, 0]"),
        ("tag: FLAT", "tag: FLAD"),
        ("[slow, 1.1, 3.0]", "[slow, 1.1]"),
        ("'9': S", "'9': X"),
        ("number: 3", "number: none"),
    ],
)
def test_problem_is_named_with_its_line(kspec, written, old, new):
    assert (
        f"mine.yaml, line {line_of(old)}: " in kspec("check", "--instrument", written(old, new)).err
    )


def test_all_problems_come_at_once(kspec, tmp_path):
    path = tmp_path / "mine.yaml"
    text = GOOD
    for old, new in (("type: int", "type: big"), ("pixel: 0.02", "pixel: no"), ("mbias", "mbais")):
        text = text.replace(old, new)
    path.write_text(text)
    result = kspec("check", "--instrument", path, "--json")
    assert result.code == 2
    assert len(result.object["errors"]) == 3


def test_mode_file_beside_is_checked_too(kspec, written):
    path = written()
    path.with_name("mine_150_620.yaml").write_text("mbias: {parametres: {}}\n")
    result = kspec("check", "--instrument", path)
    assert result.code == 2
    assert "mine_150_620.yaml, line 1" in result.err


def test_doubtful_values_are_warnings(kspec, written):
    path = written("recognise: {INSTRUME: MINE}", "recognise: {}")
    result = kspec("check", "--instrument", path)
    assert result.code == 0
    assert "must be named with --instrument" in result.err
    path = written("rows: [20, 40, 60]}", "rows: [20, 40, 60], rows_without_light: [[30, 50]]}")
    assert "holds fibre rows: 40" in kspec("check", "--instrument", path).err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the section `instrument`"),
        ("instrument: [1, 2", "not valid YAML"),
        ("instrument: 5", "must be a mapping"),
        ("instrument: !!python/object:os.system {}", "not allowed"),
        ("- 1", "must be a mapping"),
    ],
)
def test_what_is_no_instrument_file_is_refused(kspec, tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    result = kspec("check", "--instrument", path)
    assert result.code == 2
    assert message in result.err


def test_unknown_instrument_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'isoplane'"):
        examine_instrument("isoplan")
