import numpy as np
import pytest

from kspecpipe import ancillary
from kspecpipe.configuration.instrument_schema import AssignmentFacts
from kspecpipe.errors import InputError
from kspecpipe.fibres import assign, fibre_table, live, of_type, throughput

FACTS = AssignmentFacts(
    columns=["FIBRE_ID", "TARGET_X", "TARGET_Y", "RA", "DEC", "RANK", "CLASS"],
    type={"0": "U", "1": "P", "8": "C", "9": "S", "default": "N"},
)
TEXT = """1 0.5 -0.5 150.1 -30.2 1 1
2 1.5  0.5 150.2 -30.1 2 9   # sky

# comment
3 0 0 0 0 0 8
4 0 0 0 0 0 5
"""


def parse(text):
    return ancillary.parse_assignment(text, FACTS, "t.assign.txt")


def test_an_assignment_gives_types_by_class():
    table = parse(TEXT)
    assert list(table["FIBRE_ID"]) == [1, 2, 3, 4]
    assert list(table["TYPE"]) == ["P", "S", "C", "N"]
    assert list(table["RA"][:2]) == [150.1, 150.2]


def test_carriage_returns_and_tabs_do_not_matter():
    assert list(parse(TEXT.replace("\n", "\r\n").replace(" ", "\t"))["TYPE"]) == list("PSCN")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0 0 0 0 1\n", ["line 1", "6 columns found, 7 expected"]),
        ("1 0 0 0 0 1 1\nx 0 0 0 0 1 1\n", ["line 2", "'x'"]),
        ("1 0 0 north 0 1 1\n", ["line 1", "'north'"]),
        ("1 0 0 0 0 1 1\n1 0 0 0 0 1 9\n", ["[1]", "twice"]),
        ("# nothing\n", ["names no fibre"]),
    ],
)
def test_wrong_assignments_are_refused_with_their_line(text, words):
    with pytest.raises(InputError) as caught:
        parse(text)
    for word in ["t.assign.txt", *words]:
        assert word in str(caught.value)


def test_all_wrong_lines_are_reported_together():
    with pytest.raises(InputError) as caught:
        parse("a\nb\n")
    assert len(str(caught.value).splitlines()) == 2


def test_an_instrument_without_columns_cannot_read_assignments():
    with pytest.raises(InputError, match="columns"):
        ancillary.parse_assignment(TEXT, AssignmentFacts(), "t.txt")


def test_text_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\x00")
    for wrong in (path, tmp_path, tmp_path / "no.txt"):
        with pytest.raises(InputError, match="cannot be read"):
            ancillary.read_text(wrong)


def test_line_lists_are_read_in_the_2dfdr_form(tmp_path):
    path = tmp_path / "ne.arc"
    path.write_text("* neon\n5852.488 100 Ne\n6143.063 80 Ne  # good\n")
    lines = ancillary.read_line_list(path)
    assert list(lines.wavelength) == [5852.488, 6143.063]
    path.write_text("5852.488 bright\n")
    with pytest.raises(InputError, match=r"ne\.arc"):
        ancillary.read_line_list(path)


def test_static_line_lists_come_from_the_package_or_a_file(tmp_path):
    assert len(ancillary.static_line_list("arc_lines.ecsv").wavelength) > 50
    path = tmp_path / "own.arc"
    path.write_text("5852.488 100 Ne\n")
    assert len(ancillary.static_line_list(str(path)).wavelength) == 1
    with pytest.raises(InputError, match="no static calibration 'none'"):
        ancillary.static_text("none")


def test_fibres_without_assignment_are_all_program_fibres():
    table = fibre_table([3, 2, 1], ["OK", "LOW", "DEAD"])
    assert list(table["FIBRE_ID"]) == [3, 2, 1]
    assert list(table["TYPE"]) == ["P"] * 3
    assert list(live(table)) == [True, True, False]
    assert np.isnan(throughput(table)).all()


def test_assignments_are_matched_by_number_and_not_by_row():
    table = assign(fibre_table([4, 3, 2, 1], ["OK", "OK", "DEAD", "OK"]), parse(TEXT))
    assert list(table["TYPE"]) == ["N", "C", "S", "P"]
    assert table["RA"][3] == 150.1
    assert not of_type(table, "S").any()  # the only sky fibre is dead
    assert list(of_type(table, "P")) == [False, False, False, True]


def test_assigning_changes_no_input():
    before = fibre_table([1, 2], ["OK", "OK"])
    assign(before, parse(TEXT))
    assert list(before["TYPE"]) == ["P", "P"]
    assert list(assign(before, None)["TYPE"]) == ["P", "P"]


def test_fibres_that_the_assignment_does_not_name_are_refused():
    with pytest.raises(InputError, match=r"names 4 fibres, but not \[5, 6\] of the 6"):
        assign(fibre_table(range(1, 7), ["OK"] * 6), parse(TEXT))
