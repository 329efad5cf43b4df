"""The FIBRES table: one row per fibre in trace order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe.errors import InputError
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal

_NUMBERS = ("RA", "DEC", "TARGET_X", "TARGET_Y", "RANK")


def fibre_table(fibre_ids: Sequence[int], status: Sequence[str] | Any) -> Table:
    """Return the table of fibres without assignment: all of type P.

    Parameters
    ----------
    fibre_ids : sequence of int
        FIBRE_ID in trace order.
    status : sequence of str
        Measured status: OK, LOW or DEAD.
    """
    count = len(fibre_ids)
    table = Table()
    table["FIBRE_ID"] = np.asarray(fibre_ids, dtype=np.int32)
    table["NAME"] = np.array([f"fibre_{number:03d}" for number in fibre_ids], dtype="U64")
    table["TYPE"] = np.full(count, "P", dtype="U1")
    table["STATUS"] = np.asarray(status, dtype="U4")
    for name in _NUMBERS:
        table[name] = np.full(count, np.nan)
    table["CLASS"] = np.full(count, "", dtype="U16")
    table["THROUGHPUT"] = np.full(count, np.nan)
    return table


def assign(table: Table, assignment: Table | None) -> Table:
    """Return the table with types and targets from an assignment, matched by FIBRE_ID.

    Raises
    ------
    InputError
        If fibres of the instrument are missing in the assignment.
    """
    filled = table.copy()
    if assignment is None:
        return filled
    rows = {int(row["FIBRE_ID"]): row for row in assignment}
    missing = [int(number) for number in table["FIBRE_ID"] if int(number) not in rows]
    if missing:
        raise InputError(
            f"the assignment names {len(rows)} fibres, but not {missing[:10]} of the "
            f"{len(table)} that are on the detector; is it of this instrument?"
        )
    for i, number in enumerate(table["FIBRE_ID"]):
        row = rows[int(number)]
        filled["TYPE"][i] = row["TYPE"]
        filled["CLASS"][i] = row["CLASS"]
        for name in (*_NUMBERS, "NAME"):
            if name in row.colnames:
                filled[name][i] = row[name]
    return filled


def live(table: Table) -> BoolArray:
    """Return which fibres pass light."""
    return np.asarray(table["STATUS"] != "DEAD")


def without_dead(spectra: Signal, table: Table) -> Signal:
    """Return spectra (nfib, nx) in which dead fibres have no data: what is there is not theirs."""
    dead = np.broadcast_to(~live(table)[:, None], spectra.shape)
    empty = Signal(
        np.where(dead, np.nan, spectra.value), np.where(dead, np.nan, spectra.variance), spectra.dq
    )
    return empty.flag(dead, DQ.NO_DATA)


def of_type(table: Table, kind: str) -> BoolArray:
    """Return which live fibres are of a type."""
    return np.asarray(table["TYPE"] == kind) & live(table)


def divisor(table: Table) -> FloatArray:
    """Return the throughput by which spectra are divided, shape (nfib, 1); 1 where unknown."""
    known = throughput(table)
    return np.where(np.isfinite(known), known, 1.0)[:, None]


def throughput(table: Table) -> FloatArray:
    """Return the throughput of each fibre."""
    return np.asarray(table["THROUGHPUT"], dtype=float)
