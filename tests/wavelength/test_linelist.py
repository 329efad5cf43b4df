"""Line lists of both forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.wavelength.linelist import LineList, parse_line_list

ARC = """* Neon
5852.4878 100 NeI
6402.248  200 Ne I   # bright
# a comment

6506.5277
"""


def test_the_arc_form_is_read_with_comments_labels_and_gaps():
    found = parse_line_list(ARC, default_species="Ne")
    assert found.wavelength.tolist() == [5852.4878, 6402.248, 6506.5277]
    assert found.species.tolist() == ["NeI", "Ne", "Ne"]
    assert found.intensity[:2].tolist() == [100, 200]
    assert np.isnan(found.intensity[2])


def test_shipped_arc_lines_have_four_lamps_and_air_wavelengths(lines):
    assert set(lines.species) == {"Hg", "Ar", "Ne", "Kr", "Cd"}
    assert len(lines) > 150
    assert np.min(np.abs(lines.wavelength - 5460.750)) < 1e-3
    assert np.all(np.diff(lines.wavelength) > 0)


def test_shipped_sky_lines_hold_the_oxygen_lines(sky_lines):
    for wavelength in (5577.338, 6300.304, 6363.776):
        assert np.min(np.abs(sky_lines.wavelength - wavelength)) < 1e-6


@pytest.mark.parametrize(("text", "number"), [("5852 1\nfive 2", 2), ("# x\n\n-3 1", 3)])
def test_a_line_that_cannot_be_read_is_named_by_number(text, number):
    with pytest.raises(ValueError, match=f"line {number} of the line list"):
        parse_line_list(text)


def test_an_empty_list_and_a_table_without_wavelengths_are_refused():
    with pytest.raises(ValueError, match="holds no line"):
        parse_line_list("# nothing\n")
    with pytest.raises(ValueError, match="columns"):
        parse_line_list("# %ECSV 1.0\n# delimiter: ','\nlambda,species\n5852,Ne\n")


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        LineList(np.ones(2), np.array(["a"]), np.ones(2))


def test_species_are_selected_without_regard_to_case(lines):
    assert set(lines.of_species(["HG", "ne"]).species) == {"Hg", "Ne"}


@given(st.lists(st.floats(3000, 11000), min_size=1, max_size=30))
def test_any_list_comes_back_sorted_and_complete(values):
    text = "\n".join(f"{value!r} 1 X" for value in values)
    assert parse_line_list(text).wavelength.tolist() == sorted(values)
