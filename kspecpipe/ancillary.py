"""Text inputs: fibre assignments, line lists, and the static calibrations of the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from kspecpipe.configuration.instrument_schema import AssignmentFacts
from kspecpipe.errors import InputError, RecipeError
from kspecpipe.regions import WavelengthRegion, parse_regions
from kspecpipe.signal import FloatArray
from kspecpipe.wavelength.linelist import LineList, parse_line_list

if TYPE_CHECKING:
    from kspecpipe.fluxcal import TemplateGrid, TemplateLibrary
    from kspecpipe.fluxcal.extinction import ExtinctionCurve

_FITS_NAME = re.compile(r"\.(fits?|fits?\.gz)$", re.IGNORECASE)
ASSIGNMENT_COLUMNS = ("TARGET_X", "TARGET_Y", "RA", "DEC", "RANK")


def read_text(path: Path) -> str:
    """Read a text file; raises `InputError` when that is not possible."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: cannot be read as text: {error}") from None


def read_line_list(path: Path) -> LineList:
    """Read arc or sky lines (ECSV or the 2dfdr form)."""
    try:
        return parse_line_list(read_text(path))
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from None


def read_transmission(path: Path) -> tuple[FloatArray, FloatArray]:
    """Read the air's transmission at airmass 1: two columns, or ECSV with these two columns first.

    Returns
    -------
    (ndarray, ndarray)
        Air wavelength [Angstrom], rising, and transmission between 0 and 1.

    Raises
    ------
    InputError
        If there are no such numbers.
    """
    text = read_text(path)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if text.startswith("# %ECSV"):
        lines = lines[1:]
    try:
        rows = [[float(word) for word in line.split()[:2]] for line in lines]
        wavelength, transmission = np.array(rows, dtype=float).reshape(-1, 2).T
    except ValueError as error:
        raise InputError(
            f"{path.name}: {error}; expected wavelength [Angstrom] and transmission in two columns"
        ) from None
    if len(wavelength) < 2 or (np.diff(wavelength) <= 0).any():
        raise InputError(
            f"{path.name}: {len(wavelength)} wavelengths; at least 2 are expected, and rising"
        )
    if not ((transmission >= 0) & (transmission <= 1)).all():
        raise InputError(f"{path.name}: a transmission lies outside 0 to 1")
    return wavelength, transmission


def static_text(name: str) -> str:
    """Return the text of a static calibration of the package.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    entry = files("kspecpipe.static_calibrations") / name
    if not entry.is_file():
        raise InputError(f"there is no static calibration {name!r}")
    return entry.read_text(encoding="utf-8")


def static_line_list(name: str) -> LineList:
    """Return a line list of the package, or of a file when ``name`` is the path of one."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return read_line_list(path)
    return parse_line_list(static_text(name))


def load_standard_star_catalog(path: Path) -> Table:
    """Read a catalogue of standard stars (ATLAS Refcat2 as CSV, or the first table of a FITS)."""
    from kspecpipe.fluxcal.catalogue import parse_refcat2, require_refcat2
    from kspecpipe.io import read_table

    try:
        if _FITS_NAME.search(path.name):
            # A file without a table is a catalogue without columns.
            return require_refcat2(read_table(path, 1) or Table())
        return parse_refcat2(read_text(path))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def open_templates(path: Path) -> TemplateLibrary:
    """Open a library of template spectra; it must be whole.

    Raises
    ------
    InputError
        If there is none in the folder, it is empty, incomplete, or there are several.
    """
    from kspecpipe.fluxcal.templates import TemplateLibrary

    try:
        return TemplateLibrary(path)
    except RecipeError as error:
        raise InputError(f"TEMPLATES: {error}") from None


def read_templates(path: Path) -> TemplateGrid:
    """Read all models of a library, or those parsed before."""
    try:
        return open_templates(path).grid()
    except RecipeError as error:
        raise InputError(f"TEMPLATES: {error}") from None


def check_user_file(path: Path, tag: str) -> None:
    """Look into a file of the user's own that can be wrong in ways worth telling early."""
    if tag == "STD_CATALOG":
        load_standard_star_catalog(path)
    elif tag == "TEMPLATES":
        open_templates(path)


def static_extinction() -> dict[str, ExtinctionCurve]:
    """Return the extinction curves of the package by their short names."""
    from kspecpipe.fluxcal.extinction import parse_extinction

    names = ("ctio", "la_silla", "siding_spring")
    return {name: parse_extinction(static_text(f"extinction_{name}.ecsv"), name) for name in names}


def load_mask_regions(mask_name: str = "telluric_regions") -> tuple[WavelengthRegion, ...]:
    """Return regions of the package: ``telluric_regions`` or ``stellar_lines``.

    Raises
    ------
    InputError
        If there are none of that name.
    """
    return parse_regions(static_text(f"{mask_name}.ecsv"))


def parse_assignment(text: str, facts: AssignmentFacts, name: str) -> Table:
    """Parse a fibre assignment: blank-separated columns without header.

    Parameters
    ----------
    text : str
        Content of the file.
    facts : AssignmentFacts
        Columns and meaning of the classes.
    name : str
        File name, for messages.

    Returns
    -------
    Table
        One row per fibre with FIBRE_ID, TYPE, CLASS and the columns of the file.

    Raises
    ------
    InputError
        With every line that cannot be understood.
    """
    if not facts.columns:
        raise InputError(f"{name}: the instrument file has no `assignment: columns`")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            rows.append(_assignment_row(words, facts))
        except ValueError as error:
            problems.append(f"{name}, line {number}: {error}")
    numbers = [row["FIBRE_ID"] for row in rows]
    twice = sorted({n for n in numbers if numbers.count(n) > 1})
    if twice:
        problems.append(f"{name}: the fibres {twice} stand twice")
    if not rows and not problems:
        problems.append(f"{name}: names no fibre")
    if problems:
        raise InputError("\n".join(problems))
    return Table(rows)


def _assignment_row(words: list[str], facts: AssignmentFacts) -> dict[str, Any]:
    if len(words) < len(facts.columns):
        raise ValueError(f"{len(words)} columns found, {len(facts.columns)} expected")
    row: dict[str, Any] = dict(zip(facts.columns, words, strict=False))
    row["FIBRE_ID"] = int(row["FIBRE_ID"])
    for column in ASSIGNMENT_COLUMNS:
        if column in row:
            row[column] = float(row[column])
    row["CLASS"] = str(row.get("CLASS", ""))
    row["TYPE"] = str(row["TYPE"]) if "TYPE" in row else _fibre_type(row["CLASS"], facts.type)
    return row


def _fibre_type(number: str, types: Mapping[str, str]) -> str:
    return types.get(number, types.get("default", "N"))
