"""Header values that would hurt if they were believed: they end up as harmless file names."""

import pytest

from kspecpipe.io import read_product

NASTY = [
    "../../../etc/passwd",
    "..",
    "a/b",
    "/absolute",
    "$HOME",
    "~",
    "-rf",
    "name with blanks",
    "quote'quote",
    'double"quote',
    "semi;colon|pipe&",
    "*?[]",
    "{grating}",
    "{0.__class__}",
    "%s%n%d",
    "x" * 66,
    "NaN",
    "150_620",
    "NO",
    "",
]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("card", ["SPEED", "GRATING", "OBJECT"])
def test_products_stay_in_their_folder_whatever_the_header_says(camera, kspec, card, value):
    before = {path.name for path in camera.folder.iterdir()}
    frames = camera.biases(3, **{card: value})
    found = kspec("mbias", camera.sof_of(frames))
    assert found["exit_code"] == 0, found["errors"]
    after = {path.name for path in camera.folder.iterdir()} - before
    assert after == {p.name for p in frames} | {"in.sof", "out", "tiny.yaml"}
    assert all(path.parent == camera.output for path in camera.output.rglob("*"))
    product = read_product(camera.output / found["products"][0]["path"].rsplit("/", 1)[1])
    if card == "SPEED":
        assert product.header["READMODE"] == value.strip().lower()


@pytest.mark.parametrize("value", [True, 5, 2.5, 10**15])
def test_values_of_another_type_are_taken_as_text(camera, kspec, value):
    assert kspec("mbias", camera.sof_of(camera.biases(3, SPEED=value)))["exit_code"] == 0


@pytest.mark.parametrize("text", ["nul\0nul", "tab\ttab", "line\nbreak", "\x1b[31mred", "é"])
def test_bytes_that_no_header_may_hold_stop_nothing(camera, kspec, text):
    frames = camera.biases(3, SPEED="PLACEHOLDER")
    for path in frames:
        value = text.encode("utf-8").ljust(11)[:11]
        path.write_bytes(path.read_bytes().replace(b"PLACEHOLDER", value))
    found = kspec("mbias", camera.sof_of(frames))
    assert found["exit_code"] in (0, 3)
    assert found["exit_code"] == 0 or "bias_001.fits" in found["errors"][0]


def test_long_file_names_are_kept_in_header_and_history(camera, kspec):
    frames = [camera.frame("b" * 200 + f"_{i}.fits") for i in range(3)]
    found = kspec("mbias", camera.sof_of(frames))
    assert found["exit_code"] == 0
    (path,) = camera.output.glob("*.fits")
    assert read_product(path).header["ESO PRO REC1 RAW2 NAME"] == frames[1].name


@pytest.mark.parametrize(
    "name", ["a'b.fits", "a;b.fits", "a\\b.fits", "-o.fits", "a%d.fits", "%s.fits"]
)
def test_odd_file_names_are_read(camera, kspec, name):
    frames = [camera.frame(name), *camera.biases(2)]
    found = kspec("mbias", camera.sof_of(frames))
    assert found["exit_code"] == 0, found["errors"]


def test_broken_cards_stop_nothing(camera, kspec):
    frames = camera.biases(3, BROKEN1="x" * 20, BROKEN2="y" * 20)
    cards = [b"HIERARCH PI CAMERA NAME 'PIXIS: 1300BX", b'CONTINUE  \'"0" width="1340"']
    for path in frames:
        raw = path.read_bytes()
        at = raw.index(b"BROKEN1 =")
        path.write_bytes(raw[:at] + b"".join(c.ljust(80) for c in cards) + raw[at + 160 :])
    assert kspec("mbias", camera.sof_of(frames))["exit_code"] == 0


def test_the_worst_dates_are_refused_or_taken_but_never_believed_blindly(camera, kspec):
    for date in (
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59",
        "2026-02-30T00:00:00",
        "2026",
        "1e9",
    ):
        frames = camera.biases(3, DATE_OBS=date)
        found = kspec("mbias", *frames, "--overwrite")
        assert found["exit_code"] in (0, 3)
        if found["exit_code"] == 3:
            assert "ISO" in found["errors"][0]


@pytest.mark.parametrize("exptime", ["nan", "inf", "-inf", "1e30", "1e-30", "1e400"])
def test_exposure_times_that_are_none_are_refused(camera, refuses, exptime):
    bias = camera.master_bias()
    dark = camera.frame(tag="DARK", exptime=exptime)
    sof = camera.sof_of([dark], "DARK", f"{bias} MASTER_BIAS")
    refuses(3, [dark.name, "exp"], "mdark", sof, output=camera.folder / "dark")


def test_an_exposure_time_of_zero_is_no_dark(camera, refuses):
    sof = camera.sof_with_bias([camera.frame(tag="DARK", exptime=0.0)])
    refuses(1, ["must be above 0 s"], "mdark", sof, output=camera.folder / "dark")
