"""`kspec params`: values and the layers they come from."""

import pytest

MINE = """
mbias:
  parameters: {stacked_clipping_iterations: 7}
  qc: {READ NOISE: {warn: [1, 2]}}
"""


@pytest.fixture
def frames(camera):
    """Return a SOF, an instrument file with settings, and a settings file."""
    with camera.instrument.open("a") as stream:
        stream.write("mbias: {parameters: {stacked_clipping_sigma: 4.5}}\n")
    mine = camera.folder / "mine.yaml"
    mine.write_text(MINE)
    return camera.sof_of(camera.biases(3)), camera.instrument, mine


def sources(result):
    return {name: item["source"] for name, item in result.object["parameters"].items()}


def test_defaults_are_shown_without_anything_else(kspec):
    result = kspec("params", "mbias")
    assert result.code == 0
    assert "stacked_clipping_sigma" in result.out
    assert "default" in result.out
    assert set(sources(kspec("params", "mbias", "--json")).values()) == {"default"}


def test_each_value_names_the_layer_that_set_it(kspec, frames):
    sof, instrument, mine = frames
    words = ["params", "mbias", sof, "--instrument", instrument, "--settings", mine]
    found = kspec(*words, "--json")
    assert sources(found) == {
        "stacked_clipping_sigma": "tiny.yaml",
        "stacked_clipping_iterations": "mine.yaml",
    }
    assert found.object["parameters"]["stacked_clipping_sigma"]["value"] == 4.5
    assert "1 .. 2" in kspec(*words).out


def test_limits_that_come_from_the_history_are_shown_with_what_holds_until_then(kspec, frames):
    _, instrument, mine = frames
    mine.write_text(
        """mbias:
  qc:
    READ NOISE: {fail: {kind: statistical, mad: 5, last: 7, fixed: [1, 9]}}
    BIAS LEVEL: {warn: {kind: reference, product: a.fits, ratio: [0.9, 1.1]}, fail: [0, .inf]}
    BIAS DRIFT: {fail: {kind: incumbent, worse: higher, margin: 0.2}}
"""
    )
    words = ["params", "mbias", "--instrument", instrument, "--settings", mine]
    text = " ".join(kspec(*words).out.split())
    found = kspec(*words, "--json").object["qc"]
    rule = "median +- 5 MAD of the last 7 certified"
    assert found["READ NOISE"]["fail"] == {"limits": [1.0, 9.0], "history": rule}
    assert found["BIAS LEVEL"]["warn"]["history"] == "0.9 .. 1.1 of a.fits"
    assert found["BIAS LEVEL"]["fail"] == {"limits": [0.0, None], "history": None}
    assert found["BIAS DRIFT"]["fail"]["limits"] is None
    for part in ("READ NOISE", "BIAS LEVEL", "BIAS DRIFT", "MAD", "until", "none"):
        assert part in text


def test_command_line_wins(kspec, frames):
    sof, instrument, mine = frames
    words = ["--instrument", instrument, "--settings", mine, "--json"]
    words += ["--set", "mbias.stacked_clipping_iterations=9"]
    found = kspec("params", "mbias", sof, *words)
    assert found.object["parameters"]["stacked_clipping_iterations"]["value"] == 9
    assert sources(found)["stacked_clipping_iterations"].startswith("--set")


def test_settings_of_a_mode_beside_the_instrument_file_are_found(kspec, camera):
    beside = camera.instrument.with_name("tiny_blue.yaml")
    beside.write_text("mbias: {parameters: {stacked_clipping_sigma: 3}}\n")
    words = ["--instrument", camera.instrument, "--mode", "blue", "--json"]
    assert sources(kspec("params", "mbias", *words))["stacked_clipping_sigma"] == beside.name


def test_shipped_modes_are_known(kspec):
    found = kspec("params", "object", "--instrument", "isoplane", "--mode", "150_620", "--json")
    assert sources(found)["grid"] == "isoplane_150_620.yaml"
    assert found.object["parameters"]["grid"]["value"]["step"] > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["mbais"], 2, "did you mean 'mbias'?"),
        (["mbias", "--mode", "blue"], 2, "--mode needs --instrument"),
        (["mbias", "--instrument", "isoplane", "--mode", "150_62"], 2, "did you mean '150_620'?"),
        (["mbias", "--set", "mbias.sigma=1"], 2, "has no parameter 'sigma'"),
        (["mbias", "--set", "what"], 2, "write recipe.parameter=value"),
        (["mbias", "nowhere.sof"], 3, "no such file"),
        (["mbias", "x.sof", "--instrument", "isoplane", "--mode", "150_620"], 2, "not both"),
    ],
)
def test_nonsense_is_refused(kspec, words, code, message):
    result = kspec("params", *words)
    assert result.code == code
    assert message in result.err
