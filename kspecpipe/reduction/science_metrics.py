"""What a reduced exposure is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kspecpipe.declare import Declared, metric
from kspecpipe.reduction.exposure import ExtractedExposure
from kspecpipe.reduction.science import ReducedExposure
from kspecpipe.reduction.transmission import TrustedThroughput
from kspecpipe.reduction.zero_point import ZeroPoint


class ScienceMetrics(Declared):
    """Metrics of the recipes that reduce science exposures."""

    shift: list[float] = metric(
        "TRACE SHIFT", unit="pixel", scope="exposure", doc="traces, exposure minus flat"
    )
    wave_shift: list[float | None] = metric(
        "WAVE SHIFT",
        unit="pixel",
        scope="exposure",
        doc="sky lines minus arc at the middle of the chip, applied",
        needs="sky lines are strong enough",
    )
    wave_slope: list[float | None] = metric(
        "WAVE SLOPE",
        unit="pixel",
        scope="exposure",
        doc="further shift at the red end, applied",
        needs="strong sky lines span the chip",
    )
    wave_error: list[float | None] = metric(
        "WAVE SHIFT ERROR",
        unit="pixel",
        scope="exposure",
        doc="error of the shift",
        needs="sky lines are strong enough",
    )
    wave_chi2: list[float | None] = metric(
        "SKY LINE CHI2",
        scope="exposure",
        doc="disagreement of the sky lines with the shifted arc solution; 1: within errors",
        needs="at least three sky lines are strong enough",
    )
    cosmics: list[float] = metric(
        "COSMIC FRACTION", scope="exposure", doc="pixels of the fibre block hit by cosmic rays"
    )
    chi2: list[float] = metric(
        "PROFILE CHI2", scope="exposure", doc="median reduced chi-squared of the profile fit"
    )
    usable: list[float] = metric(
        "USABLE FRACTION", scope="exposure", doc="samples of live fibres that carry a value"
    )
    sky_fibres: list[int] = metric(
        "SKY FIBRES", scope="exposure", doc="sky fibres that the sky was made of"
    )
    sky_dropped: list[int | None] = metric(
        "SKY FIBRES DROPPED",
        scope="exposure",
        doc="sky fibres that see more than sky, or less",
        needs="there are sky fibres",
    )
    changed: list[int | None] = metric(
        "FIBRES CHANGED",
        scope="exposure",
        doc="targets whose sky lines differ from those of the others by more than 15 %",
        needs="there are sky fibres",
    )
    negative: list[int | None] = metric(
        "FIBRES NEGATIVE",
        scope="exposure",
        doc="targets from which more than their sky is subtracted, by 8 % of it and 5 errors",
        needs="there are sky fibres",
    )
    sky_residual: list[float | None] = metric(
        "SKY RESIDUAL",
        scope="exposure",
        doc="robust width of the sky fibres' pulls after subtraction",
        needs="at least two sky fibres",
    )
    snr: list[float] = metric(
        "MEDIAN SNR", scope="exposure", doc="median signal-to-noise of the program fibres"
    )
    throughput_flat: float | None = metric(
        "THROUGHPUT VS FLAT",
        doc="robust scatter of the throughput in twilight over that in the lamp flat",
        needs="SKYFLAT and FIBRE_FLAT are given",
    )
    throughput_lines: list[float | None] = metric(
        "THROUGHPUT VS SKY",
        scope="exposure",
        doc="robust scatter of the throughput over that in the sky lines of the exposure",
        needs="sky lines are strong enough, SKYFLAT or FIBRE_FLAT is given",
    )


def science_metrics(
    extracted: Sequence[ExtractedExposure],
    zero_points: Sequence[ZeroPoint],
    reduced: Sequence[ReducedExposure],
    trusted: TrustedThroughput,
) -> dict[str, Any]:
    """Return the values of `ScienceMetrics`."""
    return {
        "shift": [exposure.shift.shift for exposure in extracted],
        "wave_shift": [None if z.error is None else z.applied[0] for z in zero_points],
        "wave_slope": [z.slope for z in zero_points],
        "wave_error": [z.error for z in zero_points],
        "wave_chi2": [z.chi2 for z in zero_points],
        "cosmics": [exposure.cosmics for exposure in extracted],
        "chi2": [float(np.nanmedian(exposure.chi2)) for exposure in extracted],
        "usable": [result.usable for result in reduced],
        "sky_fibres": [result.sky_fibres for result in reduced],
        "sky_dropped": [len(one.dropped) if one.sky_fibres else None for one in reduced],
        "changed": [len(one.changed) if one.sky_fibres else None for one in reduced],
        "negative": [one.negative if one.sky_fibres else None for one in reduced],
        "sky_residual": [result.sky_residual for result in reduced],
        "snr": [result.snr for result in reduced],
        "throughput_flat": trusted.difference,
        "throughput_lines": [result.lines for result in reduced],
    }
