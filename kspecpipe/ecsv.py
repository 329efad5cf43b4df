"""Plain ECSV tables: written by astropy, read with the numbers of their lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from io import StringIO

from astropy.table import Table


def ecsv_text(table: Table) -> str:
    """Return the text of an ECSV file."""
    stream = StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def ecsv_cells(text: str) -> tuple[list[str], list[tuple[int, str, list[str]]]]:
    """Split the text of an ECSV file into names and cells, whatever it says of their types.

    Who finds a wrong cell can name its line, which astropy's reader does not tell.

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
