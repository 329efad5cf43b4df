"""`kspec RECIPE SOF`: the whole way from the command line to products."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def words(camera):
    """Return the words that run mbias on five frames."""
    sof = camera.sof_of(camera.biases(5))
    return ["mbias", sof, "-o", camera.output, "--instrument", camera.instrument, "--plots", "none"]


def test_recipe_writes_prints_and_returns_zero(kspec, words, camera):
    result = kspec(*words)
    assert result.code == 0
    assert "READ NOISE" in result.out
    assert "MASTER_BIAS" in result.out
    assert "mbias: ok (exit 0)" in result.out
    assert len(list(camera.output.glob("*_master_bias.fits"))) == 1


def test_json_is_one_object_and_all_else_goes_to_stderr(kspec, words):
    result = kspec(*words, "--json")
    found = result.object
    assert found["exit_code"] == result.code == 0
    (product,) = found["products"]
    assert product["tag"] == "MASTER_BIAS"
    assert Path(product["path"]).exists()
    assert {row["name"] for row in found["qc"]} >= {"READ NOISE", "FRAMES BIAS"}
    assert found["timing"]["total"] > 0
    assert "read noise" in result.err


def test_quiet_run_prints_nothing_but_warnings(kspec, words):
    result = kspec(*words, "-q")
    assert result.out == ""
    assert "read noise" not in result.err


def test_products_go_into_another_list_once(kspec, words, camera):
    following = camera.sof("dark.fits DARK", name="next.sof")
    for _ in range(2):
        assert kspec(*words, "--products-sof", following).code == 0
    lines = following.read_text().splitlines()
    assert lines[0] == "dark.fits DARK"
    assert len(lines) == 2
    assert lines[1].endswith("_master_bias.fits MASTER_BIAS")


def test_second_run_has_nothing_to_do(kspec, words):
    kspec(*words)
    assert "nothing to do" in kspec(*words).out


def test_no_save_writes_nothing(kspec, words, camera):
    result = kspec(*words, "--no-save")
    assert result.code == 0
    assert "READ NOISE" in result.out
    assert not camera.output.exists()


@pytest.mark.parametrize("target", ["folder", "nowhere/next.sof"])
def test_list_that_cannot_be_written_is_refused_before_the_run(kspec, words, camera, target):
    (camera.folder / "folder").mkdir()
    result = kspec(*words, "--products-sof", camera.folder / target)
    assert result.code == 2
    assert "--products-sof" in result.err
    assert not camera.output.exists()


def test_list_that_is_no_text_is_an_error_that_keeps_the_products(kspec, words, camera):
    target = camera.folder / "next.sof"
    target.write_bytes(b"\xff\xfe\x00")
    result = kspec(*words, "--products-sof", target, "--json")
    assert result.code == 1
    assert "the products are written, but cannot be added" in result.object["errors"][0]
    assert Path(result.object["products"][0]["path"]).exists()
    assert target.read_bytes() == b"\xff\xfe\x00"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "nonsense"], "write recipe.parameter=value"),
        (["--set", "mbias.stacked_clipping_sigm=3"], "did you mean 'stacked_clipping_sigma'?"),
        (["--set", "mbais.stacked_clipping_sigma=3"], "did you mean 'mbias'?"),
        (["--set", "mbias.stacked_clipping_sigma=high"], "must be number"),
        (["--set", "mbias.stacked_clipping_sigma=-1"], "-1.0 is not above 0"),
        (["--set", "mbias.qc.READ NOIS.warn=[0, 1]"], "did you mean 'READ NOISE'?"),
        (["--set", "mbias.stacked_clipping_sigma=!!python/name:os.system"], "not allowed"),
        (["--set", "mbias.stacked_clipping_sigma=[1"], "not valid YAML"),
        (["--settings", "nowhere.yaml"], "nowhere.yaml"),
        (["--instrument", "isoplan"], "did you mean 'isoplane'?"),
    ],
)
def test_wrong_settings_are_usage_errors_as_text_and_json(kspec, words, camera, extra, message):
    for more in ([], ["--json"]):
        result = kspec(*words, *extra, *more)
        assert result.code == 2
        assert message in " ".join(result.err.split())
        assert list(camera.output.glob("*.fits")) == []
    assert message in " ".join(result.object["errors"])


@pytest.mark.parametrize(
    ("source", "code"), [("nowhere.sof", 3), (".", 3), ("empty.sof", 3), ("bad.fits", 3)]
)
def test_inputs_that_are_no_frames_are_input_errors(kspec, camera, source, code, monkeypatch):
    monkeypatch.chdir(camera.folder)
    Path("empty.sof").write_text("# nothing\n")
    Path("bad.fits").write_text("no FITS")
    result = kspec("mbias", source, "-o", "out", "--json")
    assert result.code == result.object["exit_code"] == code
    assert result.object["errors"]


def test_output_that_is_a_file_gives_no_product(kspec, words, camera):
    camera.output.write_text("a file")
    result = kspec(*words, "--json")
    assert result.code == 1
    assert result.object["products"] == []
    assert camera.output.read_text() == "a file"


def test_failed_metric_exits_with_four(kspec, words):
    result = kspec(*words, "--set", "mbias.qc.READ NOISE.fail=[0, 0.5]", "--json")
    assert result.code == 4
    flags = {row["name"]: row["flag"] for row in result.object["qc"]}
    assert flags["READ NOISE"] == "fail"
    assert json.dumps(result.object)


def test_help_of_a_recipe_shows_its_parameters(kspec):
    text = kspec("mbias", "--help").out
    assert "mbias.stacked_clipping_sigma=5.0 sigma  (number)" in text
