"""Bad files and bad lists: each is named with line, file, found and expected."""

import bz2
import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits


def spoil(camera, how):
    """Write three bias frames, spoil the second, and return the list."""
    frames = camera.biases(3)
    how(frames[1])
    return camera.sof_of(frames), frames[1].name


def rewrite(path, content):
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda p: p.unlink(), ["no such file"]),
        (lambda p: rewrite(p, b""), ["empty"]),
        (lambda p: rewrite(p, p.read_bytes()[:4000]), ["truncated", "4000 bytes", "expected"]),
        (lambda p: rewrite(p, p.read_bytes()[:2880]), ["truncated"]),
        (lambda p: rewrite(p, p.read_bytes()[:200]), ["not a readable FITS file"]),
        (lambda p: rewrite(p, b"just some text\n"), ["not a readable FITS file"]),
        (lambda p: rewrite(p, bytes(9000)), ["not a readable FITS file"]),
        (lambda p: rewrite(p, b"\x89PNG\r\n" + bytes(900)), ["not a readable FITS file"]),
        (lambda p: rewrite(p, gzip.compress(p.read_bytes())[:700]), ["FITS file"]),
        (lambda p: rewrite(p, bz2.compress(p.read_bytes())[:700]), ["FITS file"]),
        (lambda p: (p.unlink(), p.mkdir()), ["is a folder"]),
        (lambda p: fits.PrimaryHDU().writeto(p, overwrite=True), ["holds no image"]),
        (lambda p: shutil.copy(p.with_name("bias_001.fits"), p), ["is a copy of bias_001.fits"]),
        (lambda p: (p.unlink(), p.symlink_to(p)), ["bias_002.fits"]),
    ],
)
def test_a_bad_file_is_named_with_line_and_reason(camera, refuses, how, words):
    sof, name = spoil(camera, how)
    text = refuses(3, [f"in.sof, line 2: {name}", *words], "mbias", sof)
    assert "line 1:" not in text
    assert "line 3:" not in text


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"OBSTYPE": "DARK"}, ["tagged BIAS, but header and file name say DARK"]),
        ({"SPEED": "fast"}, ["readmode is fast, but slow in"]),
        ({"INSTRUME": "OTHER"}, ["the header is not of TINY"]),
        ({"DATE_OBS": None}, ["lacks DATE-OBS"]),
        ({"DATE_OBS": "yesterday"}, ["'yesterday' is not an ISO date"]),
        ({"EXPTIME": "long"}, ["EXPTIME = 'long' is not a number"]),
        ({"EXPTIME": -5.0}, ["exposure time -5.0"]),
        ({"SPEED": None}, ["lacks SPEED"]),
    ],
)
def test_a_bad_header_is_named_with_line_and_reason(camera, refuses, cards, words):
    frames = camera.biases(3)
    frames[1] = camera.frame(frames[1].name, **cards)
    refuses(3, [f"in.sof, line 2: {frames[1].name}", *words], "mbias", camera.sof_of(frames))


@pytest.mark.parametrize("shape", [(40, 64), (48, 65), (10, 10), (1, 1), (3, 47, 64)])
def test_a_frame_of_another_shape_names_the_shapes_that_are_known(camera, refuses, shape):
    frames = [*camera.biases(3), camera.frame(data=np.full(shape, 600.0))]
    words = ["in.sof, line 4", f"{shape[-2]}x{shape[-1]}", "48x64, 48x72"]
    refuses(3, words, "mbias", camera.sof_of(frames))


def test_frames_of_two_known_shapes_are_not_mixed(camera, refuses):
    frames = [*camera.biases(3), camera.frame(data=camera.noise((48, 72)))]
    refuses(3, ["in.sof, line 4", "layout is 48x72, but 48x64"], "mbias", camera.sof_of(frames))


LISTS = [
    ("{0} BIAS\n{0} BIAS\n{1} BIAS\n", ["line 2", "stands twice (first at in.sof, line 1)"]),
    ("{0} BIAS\n./{0} BIAS\n{1} BIAS\n", ["line 2", "stands twice"]),
    ("{0} BIAS\n{1} BAIS\n{2} BIAS\n", ["line 2", "unknown tag 'BAIS'", "did you mean 'BIAS'"]),
    ("{0} BIAS\n{1}\n{2} MASTER_BIAS\n", ["line 3", "tagged MASTER_BIAS", "no PRO.CATG"]),
    ("{0} BIAS\nnotes.txt\n", ["line 2", "'notes.txt' has no tag"]),
    ("{0} BIAS\n{1} BIAS\n", ["2 BIAS frames; at least 3 needed"]),
    ("{0} ARC\n{1} ARC\n{2} ARC\n", ["0 BIAS frames; at least 3 needed"]),
    ("", ["names no frames"]),
    ("# nothing yet\n\n", ["names no frames"]),
    ("nowhere/{0} BIAS\n", ["line 1", "no such file"]),
    ("$NOT_SET_HERE/{0} BIAS\n", ["line 1", "no such file"]),
    ("~nobody_at_all/{0} BIAS\n", ["line 1", "no such file"]),
    ("x" * 300 + ".fits BIAS\n", ["line 1", "cannot be opened"]),
    ("nul\0.fits BIAS\n", ["line 1"]),
    ("a.txt ASSIGN\n", ["line 1", "no such file"]),
]


@pytest.mark.parametrize(("text", "words"), LISTS)
def test_a_bad_list_is_named_with_its_line(camera, refuses, text, words):
    names = [path.name for path in camera.biases(3)]
    sof = camera.folder / "in.sof"
    sof.write_text(text.format(*names))
    lined = [f"in.sof, {word}" if word.startswith("line") else word for word in words]
    refuses(3, lined, "mbias", sof)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe\x00\x00", ["cannot be read"]), (bytes(5000), ["in.sof"])],
)
def test_a_list_that_is_no_text_is_refused(camera, refuses, content, words):
    sof = camera.folder / "in.sof"
    sof.write_bytes(content)
    refuses(3, words, "mbias", sof)


@pytest.mark.parametrize("name", ["none.sof", "x" * 400, "no/where.sof", "none.fits"])
def test_a_missing_list_is_named(camera, refuses, name):
    refuses(3, ["no such file" if len(name) < 300 else "x" * 100], "mbias", camera.folder / name)


def test_all_problems_come_at_once(camera, refuses):
    names = [path.name for path in camera.biases(2)]
    sof = camera.sof(f"{names[0]} BIAS", f"{names[0]} BIAS", "a BAIS", "b.txt", "c.fits BIAS")
    text = refuses(3, [], "mbias", sof)
    assert [f"line {n}:" in text for n in (2, 3, 4)] == [True] * 3


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("lead", ["", "\ufeff"])
def test_lists_of_every_sort_that_are_good_are_read(camera, kspec, monkeypatch, ending, lead):
    monkeypatch.setenv("HOME", str(camera.folder))
    monkeypatch.setenv("RAW", str(camera.folder))
    frames = [
        camera.frame("Bias 2026 January 29 1.fits"),
        camera.frame("Bias 2026  two blanks.fits"),
        camera.frame("Übersicht 天 é.fits"),
        camera.frame("home.fits"),
        camera.frame("variable.fits"),
        camera.frame("tab.fits"),
        camera.frame("hash #1.fits"),
        camera.frame("UPPER.FITS"),
    ]
    lines = [
        f"{frames[0].name} BIAS",
        f'"{frames[1].name}" BIAS',
        f"{frames[2].name} BIAS   # comment",
        "~/home.fits BIAS",
        "$RAW/variable.fits BIAS",
        "\ttab.fits\tBIAS\t",
        '"hash #1.fits"   BIAS',
        f"{camera.folder}/UPPER.FITS",
        "",
        "   # the end",
    ]
    sof = camera.folder / "good.sof"
    sof.write_bytes((lead + ending.join(lines)).encode())
    found = kspec("mbias", sof)
    assert (found["exit_code"], found["errors"]) == (0, [])
    (frames_used,) = [row["value"] for row in found["qc"] if row["name"] == "FRAMES BIAS"]
    assert frames_used == 8


def test_a_folder_is_a_list_too_and_other_frames_are_a_warning(camera, kspec):
    camera.biases(3)
    camera.frame(tag="ARC")
    (camera.folder / "readme.txt").write_text("no frame")
    found = kspec("mbias", camera.folder)
    assert found["exit_code"] == 0
    assert any("ARC is not used by this recipe" in text for text in found["warnings"])


def test_frames_that_are_all_of_another_recipe_say_what_this_one_needs(camera, refuses):
    sof = camera.sof_of(camera.biases(3))
    words = ["line 1: bias_001.fits: BIAS is not used", "(and 2 more)"]
    text = refuses(3, words, "mdark", sof, instrument=False)
    assert text.endswith("there is nothing else; DARK and MASTER_BIAS is needed")


def test_missing_calibration_and_wrong_input_together_are_wrong_input(camera, refuses):
    words = ["no MASTER_BIAS", "no such file"]
    refuses(3, words, "mdark", camera.sof(f"{camera.dark().name} DARK", "none.fits DARK"))
    refuses(5, words[:1], "mdark", camera.sof_of([camera.dark()], "DARK"))


def test_a_second_master_bias_is_refused(camera, refuses):
    bias = camera.master_bias()
    second = camera.folder / "second.fits"
    shutil.copy(bias, second)
    sof = camera.sof_of([camera.dark()], "DARK", f"{bias}", f"{second} MASTER_BIAS")
    out = camera.folder / "dark"
    refuses(3, ["2 files of MASTER_BIAS", "one is expected"], "mdark", sof, output=out)


@pytest.mark.parametrize(
    ("card", "value", "words"),
    [
        ("INSTRUME", "OTHER", ["is of the instrument OTHER, not TINY"]),
        ("READMODE", "fast", ["readmode is fast, but slow in"]),
        ("HIERARCH ESO PRO SHAPE", "9x9", ["shape is 9x9, but 48x64 in"]),
        ("HIERARCH ESO PRO LAYOUT", "9x9", ["layout is 9x9, but 48x64 in"]),
        ("HIERARCH ESO PRO CATG", "MASTER_DARK", ["tagged MASTER_BIAS, but PRO.CATG"]),
        ("HIERARCH ESO PRO CATG", "NONSENSE", ["NONSENSE"]),
        ("HIERARCH ESO QC READ NOISE FLAG", "fail", ["quality control failed (READ NOISE)"]),
        ("MJD-OBS", "never", ["MJD-OBS is 'never'"]),
    ],
)
def test_a_product_of_another_kind_or_mode_is_refused(camera, refuses, card, value, words):
    bias = camera.master_bias()
    with fits.open(bias, mode="update") as hdus:
        hdus[0].header[card] = value
    out = camera.folder / "dark"
    sof = camera.sof_of([camera.dark()], "DARK", f"{bias} MASTER_BIAS")
    refuses(3, [bias.name, *words], "mdark", sof, output=out)


@pytest.mark.parametrize("part", ["VARIANCE", "DQ"])
def test_a_product_that_lacks_a_part_is_refused(camera, refuses, part):
    bias = camera.master_bias()
    with fits.open(bias) as hdus:
        whole = [hdu.copy() for hdu in hdus if hdu.name != part]
    fits.HDUList(whole).writeto(bias, overwrite=True)
    out = camera.folder / "dark"
    sof = camera.sof_with_bias([camera.dark()])
    refuses(3, [bias.name, f"lacks the HDU {part}"], "mdark", sof, output=out)


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6])
def test_a_product_cut_short_is_refused(camera, refuses, fraction):
    bias = camera.master_bias()
    bias.write_bytes(bias.read_bytes()[: int(fraction * bias.stat().st_size)])
    sof = camera.sof_of([camera.dark()], "DARK", f"{bias} MASTER_BIAS")
    refuses(3, [bias.name], "mdark", sof, output=camera.folder / "dark")
