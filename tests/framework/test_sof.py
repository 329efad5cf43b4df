import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.errors import InputError, ProductError
from kspecpipe.sof import TAGS, append_to_sof, format_entry, parse_sof, read_inputs

SOF = Path("/data/night/in.sof")
NAME = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters='/"$~'
    ),
    min_size=1,
    max_size=30,
).map(lambda name: "a" + name + "b.fits")


def one(line: str):
    entries, problems = parse_sof(line, SOF)
    assert problems == []
    assert len(entries) == 1
    return entries[0]


@pytest.mark.parametrize(
    ("line", "name", "tag", "lamp"),
    [
        ("bias.fits BIAS", "bias.fits", "BIAS", None),
        ("Bias 2026 January 29 1.fits BIAS", "Bias 2026 January 29 1.fits", "BIAS", None),
        ("Bias 2026 January 29 1.fits", "Bias 2026 January 29 1.fits", None, None),
        ('"Bias 2026  January.fits" BIAS', "Bias 2026  January.fits", "BIAS", None),
        ("'Bias 2026 # January.fits' BIAS", "Bias 2026 # January.fits", "BIAS", None),
        ('"a b.fits"', "a b.fits", None, None),
        ("flat.fits FLAT:QTH", "flat.fits", "FLAT", "QTH"),
        ("arc.fits ARC:NE", "arc.fits", "ARC", "NE"),
        ("  arc.fits\t\tARC  ", "arc.fits", "ARC", None),
        ("arc.fits ARC # the good one", "arc.fits", "ARC", None),
        ("arc#1.fits ARC", "arc#1.fits", "ARC", None),
        ("sub/folder/arc.fits ARC", "sub/folder/arc.fits", "ARC", None),
        ("tile_046.assign.txt ASSIGN", "tile_046.assign.txt", "ASSIGN", None),
        ("Übersicht 天.fits OBJECT", "Übersicht 天.fits", "OBJECT", None),
        ("raw.FITS.GZ BIAS", "raw.FITS.GZ", "BIAS", None),
        ("it's.fits BIAS", "it's.fits", "BIAS", None),
    ],
)
def test_a_line_is_path_and_tag(line, name, tag, lamp):
    entry = one(line)
    assert entry.path == SOF.parent / name
    assert (entry.tag, entry.lamp, entry.place) == (tag, lamp, "in.sof, line 1")


def test_absolute_paths_stay_and_others_are_relative_to_the_sof():
    assert one("/raw/b.fits BIAS").path == Path("/raw/b.fits")
    assert one("../b.fits BIAS").path == Path("/data/night/../b.fits")


def test_home_and_variables_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("RAW", "/raw dir")
    assert one("~/b.fits BIAS").path == Path("/home/ann/b.fits")
    assert one("$RAW/b.fits BIAS").path == Path("/raw dir/b.fits")
    assert one("${RAW}/x/b.fits").path == Path("/raw dir/x/b.fits")


def test_the_home_of_nobody_is_a_plain_name():
    assert one("~no_such_user_here/b.fits BIAS").path == SOF.parent / "~no_such_user_here/b.fits"


def test_comments_and_empty_lines_count_as_lines():
    entries, _ = parse_sof("# head\n\n   # more\nb.fits BIAS\n", SOF)
    assert [entry.place for entry in entries] == ["in.sof, line 4"]


def test_only_line_feeds_end_a_line():
    entries, problems = parse_sof("a\x0bb.fits BIAS\r\nc\u2028d.fits BIAS\r\n", SOF)
    assert problems == []
    assert [entry.place for entry in entries] == ["in.sof, line 1", "in.sof, line 2"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("b.fits BAIS", ["unknown tag 'BAIS'", "did you mean 'BIAS'"]),
        ("b.fits bias", ["unknown tag 'bias'", "did you mean 'BIAS'"]),
        ("b.fits FLATS:QTH", ["unknown tag 'FLATS:QTH'", "'FLAT'"]),
        ("notes.txt", ["'notes.txt' has no tag", "path TAG"]),
        ('"a b.fits" BIAS BIAS2', ["unknown tag 'BIAS2'"]),
    ],
)
def test_wrong_lines_are_named(line, words):
    entries, problems = parse_sof(f"# one\n{line}\n", SOF)
    assert entries == []
    assert problems[0].startswith("in.sof, line 2: ")
    for word in words:
        assert word in problems[0]


@given(NAME, st.sampled_from(TAGS))
def test_any_quoted_name_comes_back(name, tag):
    entry = one(f'"{name}" {tag}')
    assert (entry.path.name, entry.tag) == (name, tag)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_explained(text):
    entries, problems = parse_sof(text, SOF)
    lines = [line for line in text.split("\n") if line.strip()]
    assert len(entries) + len(problems) <= len(lines)


@given(st.lists(st.tuples(NAME, st.sampled_from(TAGS)), max_size=5, unique_by=lambda p: p[0]))
def test_products_written_to_a_sof_are_read_back(tmp_path_factory, products):
    folder = tmp_path_factory.mktemp("sof")
    sof = folder / "out.sof"
    append_to_sof(sof, [(folder / name, tag) for name, tag in products])
    entries, problems = parse_sof(sof.read_text(encoding="utf-8"), sof)
    assert problems == []
    assert [(entry.path.name, entry.tag) for entry in entries] == products


def test_a_product_of_the_same_path_replaces_its_line(tmp_path):
    sof = tmp_path / "all.sof"
    sof.write_text("# mine\nraw.fits BIAS\nold.fits MASTER_BIAS  # kept\n")
    append_to_sof(sof, [(tmp_path / "m.fits", "MASTER_BIAS")])
    append_to_sof(sof, [(tmp_path / "m.fits", "MASTER_DARK")])
    assert sof.read_text().splitlines() == [
        "# mine",
        "raw.fits BIAS",
        "old.fits MASTER_BIAS  # kept",
        "m.fits MASTER_DARK",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["all.sof"]


def test_a_sof_that_cannot_be_written_is_a_product_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProductError, match=r"all\.sof"):
        append_to_sof(tmp_path / "file" / "all.sof", [(tmp_path / "m.fits", "MASTER_BIAS")])


def test_paths_below_the_sof_are_written_short(tmp_path):
    assert format_entry(tmp_path / "sub" / "m.fits", "ARC", tmp_path) == "sub/m.fits ARC"
    assert format_entry(Path("/elsewhere/m.fits"), "ARC", tmp_path) == "/elsewhere/m.fits ARC"


def test_a_folder_gives_its_fits_files_in_order(tmp_path):
    for name in ("b.fits", "a.fit", "c.txt", "d.fits.gz", ".kspec_x.part"):
        (tmp_path / name).write_text("")
    assert [entry.path.name for entry in read_inputs(tmp_path)] == ["a.fit", "b.fits", "d.fits.gz"]


def test_files_folders_and_lists_may_be_mixed(tmp_path):
    for name in ("x.fits", "sub/y.fits", "z.fits"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "in.sof").write_text("z.fits BIAS\n")
    entries = read_inputs([tmp_path / "x.fits", str(tmp_path / "sub"), tmp_path / "in.sof"])
    assert [entry.path.name for entry in entries] == ["x.fits", "y.fits", "z.fits"]
    assert [entry.tag for entry in entries] == [None, None, "BIAS"]


def test_all_problems_are_reported_together(tmp_path):
    sof = tmp_path / "in.sof"
    sof.write_text("a.fits BIAS\nb.fits BAIS\na.fits BIAS\nc.txt\n./a.fits DARK\n")
    with pytest.raises(InputError) as caught:
        read_inputs(sof)
    text = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in text] == [
        "in.sof, line 2",
        "in.sof, line 4",
        "in.sof, line 3",
        "in.sof, line 5",
    ]
    assert "a.fits: stands twice (first at in.sof, line 1)" in text[2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_crlf_and_byte_order_marks_do_not_matter(tmp_path, encoding):
    sof = tmp_path / "in.sof"
    sof.write_bytes("Bias ä 1.fits BIAS\r\n# c\r\nb.fits\tBIAS\r\n".encode(encoding))
    assert [entry.path.name for entry in read_inputs(sof)] == ["Bias ä 1.fits", "b.fits"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "names no frames"),
        (b"# only\n", "names no frames"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_useless_lists_are_refused(tmp_path, content, word):
    sof = tmp_path / "in.sof"
    sof.write_bytes(content)
    with pytest.raises(InputError, match=word):
        read_inputs(sof)


def test_a_missing_list_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"no\.sof: no such file; a SOF, a folder or FITS files"):
        read_inputs(tmp_path / "no.sof")


def test_no_input_at_all_is_said():
    with pytest.raises(InputError, match="no input frames"):
        read_inputs([])


def test_an_empty_folder_names_no_frames(tmp_path):
    with pytest.raises(InputError, match="names no frames"):
        read_inputs(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300 + ".fits", "x" * 300, "nul\0.fits", "nul\0"])
def test_names_that_no_file_can_have_are_input_errors(tmp_path, name):
    for line in (f"{name} BIAS", f"dir/{name}"):
        entries, problems = parse_sof(line, tmp_path / "in.sof")
        assert len(entries) + len(problems) == 1
    if not name.endswith(".fits"):
        with pytest.raises(InputError, match="no such file"):
            read_inputs(tmp_path / name)


def test_a_folder_that_cannot_be_listed_is_an_input_error(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", os.fspath(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="cannot be read"):
        read_inputs(tmp_path)
