"""Plain ECSV tables, of numbers and text: astropy's own reader and writer load its coordinates."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from astropy.io.ascii.basic import Basic
from astropy.table import Table

#: What ECSV calls a type, by the kind of a column; numbers are named as numpy names them.
_NAMES = {"U": "string", "b": "bool"}


def ecsv_text(table: Table) -> str:
    """Return the text of an ECSV file.

    Parameters
    ----------
    table : Table
        Columns of numbers and text without units; its meta data are left out.
    """
    columns = [
        f"# - {{name: {column.name}, datatype: {_NAMES.get(column.dtype.kind, column.dtype.name)}}}"
        for column in table.itercols()
    ]
    start = ["# %ECSV 1.0", "# ---", "# datatype:", *columns, "# schema: astropy-2.0"]
    return "\n".join([*start, *Basic().write(table)]) + "\n"


def ecsv_cells(text: str) -> tuple[list[str], list[tuple[int, str, list[str]]]]:
    """Split the text of an ECSV file into names and cells, whatever it says of their types.

    Returns
    -------
    names : list of str
        Names of the columns; none of an empty table.
    rows : list of (int, str, list of str)
        Number, text and cells of each line.
    """
    lines = text.splitlines()
    delimiter = next((m[1] for line in lines if (m := re.match(r"# delimiter: '(.)'", line))), " ")
    body = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    names, *cells = _split([line for _, line in body], delimiter) or [[]]
    rows = zip(body[1:], cells, strict=True)
    return names, [(number, line, values) for (number, line), values in rows]


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
