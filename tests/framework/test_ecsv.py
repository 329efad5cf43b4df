from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from kspecpipe.ecsv import ecsv_cells, ecsv_text

TABLE = Table(
    {
        "name": np.array(["LEVEL", "TRACE RMS", 'of "two" kinds', ""]),
        "value": [1.5, np.nan, -np.inf, 0.1 + 0.2],
        "fibre": np.array([0, 1, 2, -3], dtype=np.int32),
        "used": [True, False, True, False],
    }
)


@pytest.mark.parametrize("rows", [4, 0])
def test_astropy_reads_the_same_table_again(rows):
    again = Table.read(ecsv_text(TABLE[:rows]).splitlines(), format="ascii.ecsv")
    assert again.colnames == TABLE.colnames
    for name in TABLE.colnames:
        assert again[name].dtype.kind == TABLE[name].dtype.kind
        np.testing.assert_array_equal(again[name], TABLE[name][:rows])


def test_cells_of_a_written_table_are_found_with_their_line_numbers():
    names, rows = ecsv_cells(ecsv_text(TABLE))
    assert names == TABLE.colnames
    assert [cells[0] for _, _, cells in rows] == list(TABLE["name"])
    lines = ecsv_text(TABLE).splitlines()
    assert all(lines[number - 1] == line for number, line, _ in rows)


def test_another_delimiter_is_taken_from_the_header():
    text = "# %ECSV 1.0\n# ---\n# delimiter: ','\na,b\n1, 2\n"
    assert ecsv_cells(text) == (["a", "b"], [(5, "1, 2", ["1", "2"])])


def test_a_text_without_lines_has_no_columns():
    assert ecsv_cells("# %ECSV 1.0\n\n") == ([], [])
