"""Quality control: metrics are judged against limits; what cannot be judged is never green."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from kspecpipe.declare import Declared, MetricSpec


class Flag(StrEnum):
    """Verdict on one value, from good to bad."""

    OK = "ok"
    NA = "na"
    UNJUDGED = "unjudged"
    WARN = "warn"
    FAIL = "fail"
    UNMEASURED = "unmeasured"


BAD_FLAGS = (Flag.FAIL, Flag.UNMEASURED)
_NO_LIMIT = (-math.inf, math.inf)


@dataclass(frozen=True)
class Limits:
    """Closed limits of a metric; None where none is set."""

    warn: tuple[float, float] | None = None
    fail: tuple[float, float] | None = None

    def judge(self, value: float | None) -> Flag:
        """Return the flag of a value; None means that the metric does not apply."""
        if value is None:
            return Flag.NA
        if math.isnan(value):
            return Flag.UNMEASURED
        if self.warn is None and self.fail is None:
            return Flag.UNJUDGED
        for pair, flag in ((self.fail, Flag.FAIL), (self.warn, Flag.WARN)):
            lo, hi = pair or _NO_LIMIT
            if not lo <= value <= hi:
                return flag
        return Flag.OK


@dataclass(frozen=True)
class QCRow:
    """One judged value.

    Parameters
    ----------
    name : str
        Metric.
    value : float
        NaN when unmeasured or not applicable.
    scope : str
        ``frame``, ``exposure`` or ``fibre``.
    exposure : str
        Name of the raw frame, for values per exposure.
    fibre : int
        FIBRE_ID, 0 when the value is of no single fibre.
    basis : str
        Where limits that are not fixed come from; empty for fixed ones.
    """

    name: str
    value: float
    unit: str
    scope: str
    exposure: str
    fibre: int
    limits: Limits
    flag: Flag
    doc: str
    basis: str = ""


def judge(
    metrics: Declared,
    limits: Mapping[str, Limits],
    exposures: Sequence[str],
    fibre_ids: Sequence[int],
) -> list[QCRow]:
    """Judge all metrics of a recipe.

    Parameters
    ----------
    metrics : Declared
        Values: a number for scope ``frame``, one per exposure or fibre otherwise; fibre metrics
        may be of shape (exposure, fibre). None: the precondition does not hold.
    limits : mapping
        Limits by metric name.
    exposures : sequence of str
        Names of the raw frames.
    fibre_ids : sequence of int
        FIBRE_ID in trace order.

    Raises
    ------
    ValueError
        If a metric has the wrong number of values.
    """
    rows: list[QCRow] = []
    for name, spec in metrics.specs.items():
        own = limits.get(spec.label, Limits())
        places = _places(spec, getattr(metrics, name), exposures, fibre_ids)
        for exposure, fibre, value in places:
            number = None if value is None else float(value)
            rows.append(
                QCRow(
                    name=spec.label,
                    value=math.nan if number is None else number,
                    unit=spec.unit,
                    scope=spec.scope,
                    exposure=exposure,
                    fibre=fibre,
                    limits=own,
                    flag=own.judge(number),
                    doc=spec.doc,
                )
            )
    return rows


def worst(rows: Iterable[QCRow]) -> Flag:
    """Return the worst flag; ok when there is none."""
    order = list(Flag)
    return max((row.flag for row in rows), key=order.index, default=Flag.OK)


def failed(rows: Iterable[QCRow]) -> list[QCRow]:
    """Return the rows that failed or were not measured."""
    return [row for row in rows if row.flag in BAD_FLAGS]


def _places(
    spec: MetricSpec, value: Any, exposures: Sequence[str], fibre_ids: Sequence[int]
) -> list[tuple[str, int, Any]]:
    if value is None or spec.scope == "frame":
        return [("", 0, value)]
    values = np.asarray(value, dtype=object)
    if spec.scope == "exposure":
        if values.shape != (len(exposures),):
            raise ValueError(f"{spec.label}: {values.shape} values for {len(exposures)} exposures")
        return list(zip(exposures, [0] * len(exposures), values, strict=True))
    if values.shape == (len(fibre_ids),):
        return list(zip([""] * len(fibre_ids), fibre_ids, values, strict=True))
    if values.shape != (len(exposures), len(fibre_ids)):
        raise ValueError(f"{spec.label}: {values.shape} values for {len(fibre_ids)} fibres")
    return [
        (exposure, fibre, values[i, j])
        for i, exposure in enumerate(exposures)
        for j, fibre in enumerate(fibre_ids)
    ]
