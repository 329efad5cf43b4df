"""The metrics that every recipe has, measured by the framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kspecpipe.declare import Declared, MetricSpec, metric
from kspecpipe.framework.gathered import CalibrationFile, GatheredInputs
from kspecpipe.products.product import PRIMARY, Product
from kspecpipe.provenance import PIPE_ID
from kspecpipe.qc import Limits

Used = Sequence[CalibrationFile]


class CommonMetrics(Declared):
    """What can be said of any run, whatever the recipe."""

    age: float | None = metric(
        "CALIBRATION AGE",
        unit="d",
        doc="largest distance in time between a calibration and the first raw frame",
        needs="a calibration and raw frames are used",
    )
    level: int | None = metric(
        "CALIB LEVEL",
        doc="farthest calibration: 0 same night, 1 3 days, 2 30 days, 3 any",
        needs="a plan of the night chose the calibrations",
    )
    versions: int | None = metric(
        "VERSION MISMATCH",
        doc="calibrations made by another version of the pipeline",
        needs="a calibration is used",
    )
    dropped: int = metric(
        "FRAMES REJECTED", doc="frames that were left out: the others contradict them"
    )
    empty: float | None = metric(
        "NAN FRACTION",
        doc="samples of live fibres without a value, in the emptiest product",
        needs="a product has pixels",
    )
    temperature: float | None = metric(
        "DETECTOR TEMP",
        unit="deg C",
        doc="median of the raw frames",
        needs="the raw headers tell it",
    )


#: Limits of the common metrics; settings may set others for each recipe.
COMMON_LIMITS = {
    "CALIBRATION AGE": Limits(warn=(0.0, 30.0), fail=(0.0, 1000.0)),
    "CALIB LEVEL": Limits(warn=(0.0, 1.0), fail=(0.0, 9.0)),
    "VERSION MISMATCH": Limits(warn=(0.0, 0.0), fail=(0.0, 99.0)),
    "FRAMES REJECTED": Limits(warn=(0.0, 0.0), fail=(0.0, 999.0)),
    "NAN FRACTION": Limits(warn=(0.0, 0.3), fail=(0.0, 0.95)),
    # What no detector that is cooled at all should leave; an instrument may ask for less.
    "DETECTOR TEMP": Limits(warn=(-200.0, 0.0), fail=(-273.15, 40.0)),
}


def measure(
    gathered: GatheredInputs, used: Used, products: Any, dropped: int, level: int | None
) -> CommonMetrics:
    """Measure the common metrics of a run.

    Parameters
    ----------
    gathered : GatheredInputs
        Verified inputs.
    used : sequence of CalibrationFile
        Calibrations that were taken.
    products : Declared
        Products of the recipe.
    dropped : int
        Frames that the recipe left out.
    level : int or None
        Association level, if an association chose the inputs.
    """
    first = gathered.frames[0].info.mjd if gathered.frames else np.nan
    dates = [float(header.get("MJD-OBS", np.nan)) for _, _, header in used]
    ages = [abs(date - first) for date in dates if np.isfinite(date) and np.isfinite(first)]
    makers = [header.get("ESO PRO REC1 PIPE ID") for _, _, header in used]
    parts = [part for part in map(nan_fraction, _each(products)) if part is not None]
    return CommonMetrics(
        age=max(ages, default=None),
        level=level,
        versions=sum(maker != PIPE_ID for maker in makers) if used else None,
        dropped=dropped,
        empty=max(parts, default=None),
        temperature=_temperature(gathered),
    )


def nan_fraction(product: Product) -> float | None:
    """Return the share of samples without a value in the main array; dead fibres do not count."""
    for name, spec in product.hdus().items():
        value = getattr(product, name)
        if spec.hdu != PRIMARY or spec.kind not in ("signal", "image") or value is None:
            continue
        data = np.asarray(value.value if spec.kind == "signal" else value)
        if not np.issubdtype(data.dtype, np.floating) or not data.size:
            return None
        fibres = getattr(product, "fibres", None)
        if fibres is not None and len(fibres) == len(data) and "STATUS" in fibres.colnames:
            data = data[np.asarray(fibres["STATUS"]) != "DEAD"]
        return float(np.isnan(data).mean()) if data.size else 1.0
    return None


def frame_counts(
    declared: type[Declared], gathered: GatheredInputs
) -> tuple[Declared, dict[str, Limits]]:
    """Return the number of raw frames of each tag as metrics; fewer than recommended warn."""
    specs = {
        f"frames_{spec.tag.lower()}": spec
        for spec in declared.specs.values()
        if spec.kind == "raw" and spec.tag in gathered.raw
    }
    namespace: dict[str, Any] = {
        name: MetricSpec(f"FRAMES {spec.tag}", doc=f"number of {spec.tag} frames")
        for name, spec in specs.items()
    }
    counts = type("FrameCounts", (Declared,), namespace)
    values = {name: len(gathered.raw[spec.tag]) for name, spec in specs.items()}
    limits = {
        f"FRAMES {spec.tag}": Limits(warn=(float(spec.recommended), float("inf")))
        for spec in specs.values()
    }
    return counts(**values), limits


def _each(products: Any) -> Iterator[Product]:
    for name in products.specs:
        value = getattr(products, name)
        several = value if isinstance(value, list) else [value]
        yield from (product for product in several if product is not None)


def _temperature(gathered: GatheredInputs) -> float | None:
    found = [frame.info.keywords.get("temperature") for frame in gathered.frames]
    values = [float(value) for value in found if isinstance(value, int | float)]
    return float(np.median(values)) if values else None
