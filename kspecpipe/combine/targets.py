"""Whether the fibres of several products saw the same targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from kspecpipe.errors import InputError
from kspecpipe.signal import BoolArray, FloatArray

#: Arcsec by which the coordinates of one target may differ.
_SAME_TARGET = 1.0
_MEANS = ("AIRMASS", "VBARY", "THROUGHPUT")


def require_same_targets(tables: Sequence[Table], names: Sequence[str]) -> None:
    """Refuse products whose fibres are not the same or saw different targets.

    Parameters
    ----------
    tables : sequence of Table
        FIBRES of each product.
    names : sequence of str
        Their names, for the message.

    Raises
    ------
    InputError
        If numbers, identities, types or coordinates of the fibres differ.
    """
    first = tables[0]
    for table, name in zip(tables[1:], names[1:], strict=True):
        if list(table["FIBRE_ID"]) != list(first["FIBRE_ID"]):
            raise InputError(
                f"{name}: has {len(table)} fibres, {names[0]} has {len(first)}, or they differ in "
                "FIBRE_ID; they are not of one spectrograph"
            )
        differing = _differing(first, table)
        if differing.any():
            ids = [int(i) for i in np.asarray(first["FIBRE_ID"])[differing][:5]]
            raise InputError(
                f"{name}: {differing.sum()} fibres (first: {ids}) saw other targets than in "
                f"{names[0]}; only exposures of one assignment can be combined"
            )


def mean_fibres(tables: Sequence[Table], weight: Sequence[float] | FloatArray) -> Table:
    """Return one table for all exposures: airmass, velocity and throughput are averaged.

    A fibre is as alive as in its best exposure.
    """
    mean = tables[0].copy()
    share = np.asarray(weight, dtype=float)[:, None]
    for name in _MEANS:
        if all(name in table.colnames for table in tables):
            rows = np.array([np.asarray(table[name], dtype=float) for table in tables])
            known = np.isfinite(rows)
            total = np.where(known, share, 0.0).sum(axis=0)
            average = np.full(len(mean), np.nan)
            np.divide(np.nansum(rows * share, axis=0), total, out=average, where=total > 0)
            mean[name] = average
    order = {"OK": 0, "LOW": 1, "DEAD": 2}
    states = np.array([[str(state) for state in table["STATUS"]] for table in tables])
    mean["STATUS"] = [min(column, key=lambda s: order.get(s, 2)) for column in states.T]
    return mean


def _differing(first: Table, second: Table) -> BoolArray:
    """Find fibres of another type, or with a target elsewhere on the sky."""
    types = np.asarray(first["TYPE"]).astype(str) != np.asarray(second["TYPE"]).astype(str)
    ra, dec = (
        [np.asarray(table[name], dtype=float) for table in (first, second)]
        for name in ("RA", "DEC")
    )
    known = np.isfinite(ra[0]) & np.isfinite(ra[1]) & np.isfinite(dec[0]) & np.isfinite(dec[1])
    turned = (ra[0] - ra[1] + 180.0) % 360.0 - 180.0
    with np.errstate(invalid="ignore"):
        apart = 3600 * np.hypot(turned * np.cos(np.radians(dec[0])), dec[0] - dec[1])
        elsewhere = known & (apart > _SAME_TARGET)
    differing: BoolArray = types | elsewhere
    return differing
