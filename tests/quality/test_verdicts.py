"""Certify and reject: recorded, obeyed by recipes, and with their consequences listed."""

import shlex

import pytest

from kspecpipe import io
from kspecpipe.base_recipe import run_recipe
from kspecpipe.cli import main
from kspecpipe.qc import Flag
from kspecpipe.quality.store import InputRecord, ProductRecord, verdicts


@pytest.fixture
def dark_sof(camera):
    """Return the list of darks and of the master bias that they use."""
    return camera.sof_with_bias([camera.dark() for _ in range(3)])


def test_a_rejected_calibration_is_never_used(camera, dark_sof, qc):
    bias = camera.master_bias()
    result = qc("reject", bias, "--who", "ada", "--why", "shutter was open")
    assert result.code == 0, result.err
    assert "rejected by ada" in result.out
    for ignore in (False, True):
        outcome = camera.run("mdark", dark_sof, ignore_input_qc=ignore)
        text = "\n".join(outcome.errors)
        assert int(outcome.exit_code) == 3
        assert "was rejected by ada" in text
        assert "shutter was open" in text
        assert not list(camera.output.glob("*dark*.fits"))
    assert qc("certify", bias, "--why", "it was another frame").code == 0
    assert int(camera.run("mdark", dark_sof).exit_code) == 0


def test_a_certified_calibration_is_used_even_if_a_metric_failed(camera, qc):
    limits = ("mbias.qc.READ NOISE.fail=[0, 0.001]",)
    bias = camera.run("mbias", camera.sof_of(camera.biases(3)), assignments=limits)
    assert int(bias.exit_code) == 4
    path = bias.products[0][0]
    sof = camera.sof_of([camera.dark()], "DARK", f"{path} MASTER_BIAS")
    assert int(camera.run("mdark", sof).exit_code) == 3
    assert qc("certify", path, "--why", "the limit was wrong").code == 0
    outcome = camera.run("mdark", sof)
    assert outcome.products, outcome.errors
    assert any("READ NOISE failed, but it was certified" in text for text in outcome.warnings)


def test_a_verdict_is_on_the_content_so_that_the_same_content_stays_rejected(camera, qc):
    bias = camera.master_bias()
    qc("reject", bias, "--why", "dark")
    bias.unlink()
    again = camera.run("mbias", camera.folder / "bias.sof").products[0][0]
    (md5,) = verdicts(camera.output / "qc.sqlite")
    assert io.read_header(again)["DATAMD5"] == md5


def test_rejecting_lists_what_was_made_with_it_and_commands_that_work(camera, dark_sof, qc):
    bias = camera.master_bias()
    dark = camera.run("mdark", dark_sof)
    result = qc("reject", bias, "--why", "dark")
    lines = result.out.splitlines()
    for path, _ in dark.products:
        assert any(line.strip() == str(path) for line in lines)
    (command,) = [line.strip() for line in lines if line.strip().startswith("kspec mdark")]
    assert "NEW_MASTER_BIAS" in command
    assert "the calibration that takes its place" in lines[-1]
    sof = camera.sof_of(camera.biases(4), name="other.sof")
    good = camera.run("mbias", sof, output=camera.folder / "good").products[0][0]
    words = shlex.split(command.replace("NEW_MASTER_BIAS", str(good)))
    assert main([*words[1:], "--plots", "none", "--instrument", str(camera.instrument)]) == 0


def test_consequences_go_down_the_whole_chain(history, qc):
    for number in (2, 3):
        used = [InputRecord("calibration", "x.fits", "MASTER_BIAS", f"md5-{number - 1}")]
        history.count = number - 1
        history.run(0, recipe="object", inputs=used)
    history.run(0, recipe="marc")
    from_first = history.path.parent
    history.count = 0
    history.run(0)
    result = qc("reject", "mbias_1.fits", "--why", "dark", "--qc-store", history.path)
    assert result.out.index("object_2.fits") < result.out.index("object_3.fits")
    assert str(from_first / "object_2.fits") in result.out
    assert "marc" not in result.out


def test_commands_name_products_where_the_history_lies_now(history, qc, tmp_path):
    history.run(0)
    made = ProductRecord("x.fits", "MASTER_DARK", "k", "md5-dark")
    used = [InputRecord("calibration", "mbias_1.fits", "MASTER_BIAS", "md5-1", "/old/mbias_1.fits")]
    history.run(0, recipe="mdark", products=[made], inputs=used)
    used = [*used, InputRecord("calibration", "x.fits", "MASTER_DARK", "md5-dark", "/old/x.fits")]
    history.run(0, recipe="object", inputs=used)
    moved = tmp_path / "moved" / "qc.sqlite"
    moved.parent.mkdir()
    history.path.rename(moved)
    result = qc("reject", "mbias_1.fits", "--why", "dark", "--qc-store", moved)
    assert "/old" not in result.out
    assert f"kspec object NEW_MASTER_BIAS {moved.parent / 'x.fits'}" in result.out
    assert result.out.splitlines()[-1].startswith("NEW_MASTER_BIAS: the calibration")


def test_what_nobody_used_has_no_consequences(camera, qc):
    bias = camera.master_bias()
    assert "nothing in this history was made with it" in qc("reject", bias, "--why", "x").out


def test_a_product_that_was_deleted_can_be_rejected_by_its_name(camera, qc):
    bias = camera.master_bias()
    bias.unlink()
    assert qc("reject", bias, "--why", "dark").code == 0
    assert [v.verdict for v in verdicts(camera.output / "qc.sqlite").values()] == ["rejected"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("reject", "{bias}"), 2, "--why"),
        (("reject", "{bias}", "--why", " "), 1, "needs a person and a reason"),
        (("certify", "{bias}", "--why", "x", "--who", ""), 1, "needs a person and a reason"),
        (("reject", "nothing.fits", "--why", "x", "--qc-store", "{out}"), 1, "knows no product"),
        (("reject", "{raw}", "--why", "x", "--qc-store", "{out}"), 2, "is no product"),
        (("reject", "{bias}", "{raw}", "--why", "x"), 2, "is no product"),
    ],
)
def test_bad_input_is_told_and_nothing_recorded(camera, qc, words, code, message):
    names = {"bias": camera.master_bias(), "raw": camera.frame(), "out": camera.output}
    result = qc(*(word.format(**names) for word in words))
    assert result.code == code
    assert message in result.err
    assert verdicts(camera.output / "qc.sqlite") == {}


def test_a_store_that_cannot_be_read_is_a_warning_of_the_recipe(camera, dark_sof):
    store = camera.folder / "bad.sqlite"
    store.write_bytes(b"no database" * 500)
    outcome = camera.run("mdark", dark_sof, qc_store=store)
    assert int(outcome.exit_code) == 0
    assert any("it is not known which calibrations were rejected" in t for t in outcome.warnings)


# -- where the history is, and who writes it ---------------------------------------------------


def test_the_store_can_be_anywhere_by_option_or_settings(camera, tmp_path):
    sof = camera.sof_of(camera.biases(3))
    option, settings = tmp_path / "option.sqlite", tmp_path / "settings.sqlite"
    camera.run("mbias", sof, qc_store=option)
    camera.run(
        "mbias",
        sof,
        overwrite=True,
        output=camera.folder / "2nd",
        settings={"qc": {"store": str(settings)}},
    )
    assert option.exists()
    assert settings.exists()
    assert not (camera.output / "qc.sqlite").exists()
    assert not (camera.folder / "2nd" / "qc.sqlite").exists()


def test_a_misspelt_setting_of_the_history_is_an_error_with_its_place(camera):
    path = camera.folder / "mine.yaml"
    path.write_text("qc:\n  stroe: x.sqlite\n")
    outcome = camera.run("mbias", camera.sof_of(camera.biases(3)), settings_files=(path,))
    assert int(outcome.exit_code) == 2
    assert "mine.yaml, line 2: unknown key 'stroe' in qc; did you mean 'store'?" in outcome.errors


def test_a_worker_hands_its_record_to_the_only_writer(camera):
    outcome = camera.run("mbias", camera.sof_of(camera.biases(3)), record=False)
    assert not (camera.output / "qc.sqlite").exists()
    (record,) = outcome.records
    assert record.products[0].name == outcome.products[0][0].name
    assert record.products[0].md5 == io.read_header(outcome.products[0][0])["DATAMD5"]
    assert record.night == "2026-01-29"
    assert {item.path for item in record.inputs} == {
        str(path) for path in camera.folder.glob("bias_*.fits")
    }


def test_a_run_that_has_nothing_to_do_leaves_no_record(camera):
    sof = camera.sof_of(camera.biases(3))
    assert camera.run("mbias", sof).records
    outcome = camera.run("mbias", sof)
    assert outcome.unchanged


def test_a_failure_is_recorded_with_its_reason(camera):
    outcome = run_recipe("mbias", camera.folder / "none.sof", output=camera.output, log=False)
    (record,) = outcome.records
    assert record.exit_code == 3
    assert "none.sof" in record.message
    assert not [row for row in record.metrics if row.flag == Flag.OK]
