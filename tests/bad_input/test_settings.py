"""Bad settings, modes, instruments and outputs."""

import pytest

SETTINGS = [
    ("mbias: {parameters: {stacked_cliping_sigma: 3}}", ["line 1", "did you mean"]),
    ("mbias:\n  parameters:\n    stacked_clipping_sigma: many\n", ["line 3", "must be number"]),
    ("mbias:\n  parameters:\n    stacked_clipping_sigma: 0\n", ["line 3", "not above 0"]),
    ("mbias:\n  parameters:\n    stacked_clipping_sigma: .nan\n", ["line 3", "not finite"]),
    ("mbias: {parameters: {stacked_clipping_iterations: 2.5}}", ["line 1", "must be integer"]),
    ("mbias: {parameters: {stacked_clipping_iterations: 99}}", ["99 is above 50"]),
    ("mbais: {parameters: {}}", ["line 1", "unknown recipe 'mbais'", "'mbias'"]),
    ("mbias: {parameter: {}}", ["unknown key 'parameter'", "'parameters'"]),
    ("mbias: {qc: {BIAS LEVELS: {fail: [0, 1]}}}", ["no metric 'BIAS LEVELS'", "'BIAS LEVEL'"]),
    ("mbias: {qc: {BIAS LEVEL: {fail: [2, 1]}}}", ["2.0 is above 1.0"]),
    ("mbias: {qc: {BIAS LEVEL: {fail: 1}}}", ["must be list of number, number"]),
    ("mbias: !!python/object/apply:os.system ['touch /tmp/never']", ["line 1", "not allowed"]),
    ("a: &a [*a]", ["line 1"]),
    ("mbias: {parameters: {", ["not valid YAML"]),
    ("mbias:\n\tparameters: {}\n", ["line 2", "not valid YAML"]),
    ("150: {}\n", ["line 1", "is not a string; write it in quotes"]),
    ("mbias: {}\nmbias: {}\n", ["line 2", "stands twice"]),
    ("[1, 2]", ["must be a mapping"]),
    ("just text", ["must be a mapping"]),
    ("instrument: {detector: {gian: 2}}", ["line 1", "unknown key 'gian'", "'gain'"]),
    ("instrument: {detector: {gain: -2}}", ["line 1", "not above 0"]),
    ("instrument: {fibres: {number: 9}}", ["line 1", "fibres.number is 9"]),
    ("instrument: {mode: '{nothing}'}", ["line 1", "uses 'nothing'"]),
]


@pytest.mark.parametrize(("text", "words"), SETTINGS)
def test_bad_settings_are_a_usage_error_with_file_and_line(camera, refuses, text, words):
    path = camera.folder / "mine.yaml"
    path.write_text(text)
    sof = camera.sof_of(camera.biases(3))
    refuses(2, ["mine.yaml", *words], "mbias", sof, "--settings", path)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("mbias.stacked_clipping_sigma=0", ["not above 0"]),
        ("mbias.nothing=1", ["no parameter 'nothing'"]),
        ("mbias", ["write recipe.parameter=value"]),
        ("nothing.x=1", ["unknown recipe 'nothing'"]),
        ("mbias.stacked_clipping_sigma=[1", ["not valid YAML"]),
        ("mbias.stacked_clipping_sigma=!!python/name:os.system", ["not allowed"]),
        ("mbias.stacked_clipping_sigma=__import__('os')", ["must be number"]),
    ],
)
def test_bad_assignments_are_a_usage_error_that_quotes_them(camera, refuses, assignment, words):
    sof = camera.sof_of(camera.biases(3))
    refuses(2, [f"--set {assignment}", *words], "mbias", sof, "--set", assignment)


def test_strings_that_yaml_would_bend_stay_what_they_are(camera, kspec):
    """150_620 and NO without quotes are a mode and a word, no number and no falsehood."""
    text = camera.instrument.read_text().replace("mode: '{grating}'", "mode: 150_620")
    own = camera.folder / "own.yaml"
    own.write_text(text.replace("readmode: '{speed}'", "readmode: NO"))
    sof = camera.sof_of(camera.biases(3))
    found = kspec("mbias", sof, "--instrument", own, instrument=False)
    assert found["exit_code"] == 0
    assert found["products"][0]["path"].endswith("20260129_no_master_bias.fits")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("isoplan", ["unknown instrument 'isoplan'", "did you mean 'isoplane'"]),
        ("none.yaml", ["none.yaml", "cannot be read"]),
        ("../settings/isoplane", ["unknown instrument"]),
    ],
)
def test_an_unknown_instrument_is_a_usage_error(camera, refuses, name, words):
    sof = camera.sof_of(camera.biases(3))
    refuses(2, words, "mbias", sof, "--instrument", name, instrument=False)


def test_an_unreadable_settings_file_is_a_usage_error(camera, refuses):
    sof = camera.sof_of(camera.biases(3))
    binary = camera.folder / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (camera.folder / "none.yaml", camera.folder, binary):
        refuses(2, [path.name, "cannot be read"], "mbias", sof, "--settings", path)


def test_headers_of_no_known_instrument_ask_for_one(camera, refuses):
    sof = camera.sof_of(camera.biases(3))
    words = ["in.sof, line 1: bias_001.fits", "isoplane", "kspec", "--instrument"]
    refuses(3, words, "mbias", sof, instrument=False)


def test_an_unmeasured_readout_mode_says_how_to_give_gain_and_noise(camera, kspec, refuses):
    text = camera.instrument.read_text().replace("    gain: 2.0\n    noise: 4.0\n", "")
    camera.instrument.write_text(text)
    sof = camera.sof_of(camera.biases(3))
    words = ["bias_001.fits", "'slow' are not measured", "instrument: {detector: {gain"]
    refuses(3, words, "mbias", sof)
    own = camera.folder / "mine.yaml"
    own.write_text("instrument: {detector: {gain: 2.0, noise: 4.0}}")
    assert kspec("mbias", sof, "--settings", own)["exit_code"] == 0


# -- outputs -----------------------------------------------------------------------------------


def test_an_output_that_is_a_file_is_refused_and_the_file_stays(camera, refuses):
    path = camera.folder / "taken"
    path.write_text("mine")
    sof = camera.sof_of(camera.biases(3))
    refuses(1, ["taken"], "mbias", sof, output=path)
    refuses(1, ["taken"], "mbias", sof, output=path / "below")
    assert path.read_text() == "mine"


def test_an_output_without_permission_is_refused(camera, refuses, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    refuses(1, ["no permission"], "mbias", camera.sof_of(camera.biases(3)))


def test_an_output_that_cannot_be_named_is_refused(camera, refuses):
    path = camera.folder / ("x" * 300)
    refuses(1, ["name too long"], "mbias", camera.sof_of(camera.biases(3)), output=path)


def test_a_folder_in_the_place_of_a_product_is_refused(camera, refuses):
    taken = camera.output / "20260129_slow_master_bias.fits"
    taken.mkdir(parents=True)
    sof = camera.sof_of(camera.biases(3))
    refuses(1, [taken.name], "mbias", sof)
    refuses(1, [taken.name], "mbias", sof, "--overwrite")


def test_folders_in_the_place_of_companions_are_a_warning(camera, kspec):
    for ending in (".log", "_qc.ecsv"):
        (camera.output / f"20260129_slow_master_bias{ending}").mkdir(parents=True)
    found = kspec("mbias", camera.sof_of(camera.biases(3)))
    assert found["exit_code"] == 0
    assert len(found["products"]) == 1


@pytest.mark.parametrize(
    "words",
    [[], ["--plots", "all"], ["--no-such-option"], ["-v", "-q"], ["--json", "--instrument"]],
)
def test_wrong_words_are_a_usage_error(camera, capsys, words):
    from kspecpipe.cli import main

    source = [str(camera.sof_of(camera.biases(3)))] if words else []
    assert main(["mbias", *source, *words]) == 2
    assert "Traceback" not in capsys.readouterr().err
