"""One exposure whose REDUCED follows from EXTRACTED by hand: the grid is that of the pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kspecpipe import fibres
from kspecpipe.audit.reduced import AuditedFiles
from kspecpipe.signal import DQ, Signal
from kspecpipe.spectra import Extracted, Reduced, TramlineMap
from kspecpipe.trace.model import POINT_DTYPE, Traces
from kspecpipe.trace.table import Profile

NFIB, NX, PITCH, RON, PRNU = 5, 120, 7.3, 4.0, 0.006
DEAD = 1


def profile_at(offset: np.ndarray) -> np.ndarray:
    """Skewed profile with wings: the share of light per pixel."""
    core = np.exp(-0.5 * (offset / np.where(offset < 0, 1.5, 1.9)) ** 2)
    return core + 0.02 / (1 + (offset / 2.5) ** 2)


def tramline_map() -> TramlineMap:
    offset = np.arange(-80, 81) / 10
    table = profile_at(offset)[None, None, :]
    profile = Profile(table / (0.1 * table.sum()), np.zeros(1), np.zeros(1), -8.0, 0.1)
    y = 20 + PITCH * np.arange(NFIB)[:, None] + 0.004 * np.arange(NX)
    status = np.array(["DEAD" if i == DEAD else "OK" for i in range(NFIB)])
    traces = Traces(y, np.full(y.shape, 4.0), status, 0.0, 0.0, np.zeros(0, POINT_DTYPE))
    return TramlineMap.of(traces, profile, fibres.fibre_table(range(1, NFIB + 1), status), None)


def pixel_variances(light: np.ndarray, tramlines: TramlineMap) -> np.ndarray:
    """Diagonal of the covariance of a fit of all fibres to each column, by dense algebra."""
    rows = np.arange(int(20 + PITCH * NFIB + 12))
    variances = np.empty(light.shape)
    for x in range(NX):
        design = profile_at(rows[:, None] - tramlines.traces.value[None, :, x])
        inside = np.abs(rows[:, None] - tramlines.traces.value[None, :, x]) <= 8
        design = np.where(inside, design, 0)
        design /= design.sum(axis=0)
        electrons = design @ light[:, x]
        pixel = RON**2 + electrons + (PRNU * electrons) ** 2
        variances[:, x] = np.diag(np.linalg.inv(design.T @ (design / pixel[:, None])))
    return variances


@pytest.fixture
def exposure() -> Callable[..., AuditedFiles]:
    def build(*, sky: bool = True, **changes: Any) -> AuditedFiles:
        tramlines = tramline_map()
        table = tramlines.fibres.copy()
        table["THROUGHPUT"] = [1.0, np.nan, 0.8, 1.1, 0.6]
        wavelength = 5000 + 2.0 * np.arange(NX) + np.zeros((NFIB, 1))
        live = (np.arange(NFIB) != DEAD)[:, None]
        light = np.where(live, 500 * (1 + np.arange(NFIB)[:, None]) + 3.0 * np.arange(NX), 0)
        light[2] *= 0.01
        variance = pixel_variances(light, tramlines)
        flat = 1 + 0.04 * np.sin(np.arange(NX) / 3 + np.arange(NFIB)[:, None])
        native = np.where(live, 0.3 * light, np.nan) if sky else np.full(light.shape, np.nan)
        spectra = Signal.of(np.where(live, light, np.nan), np.where(live, variance, np.nan))
        extracted = Extracted(
            spectra=spectra.flag(np.broadcast_to(~live, light.shape), DQ.NO_DATA),
            wavelength=np.where(live, wavelength, np.nan),
            lsf=np.full(light.shape, 8.0),
            flat=flat,
            sky=native,
            flat_variance=np.full(light.shape, 1e-5),
            sky_variance=np.full(light.shape, 9.0),
            ron=np.full(light.shape, RON),
            pixel_variance=np.full(light.shape, RON**2),
            noise={"PRNU": PRNU},
            fibres=table,
        )
        response = flat * np.nan_to_num(np.asarray(table["THROUGHPUT"]), nan=1.0)[:, None]
        rwss = extracted.spectra.value / response
        model = native / response
        total = (variance + rwss**2 * 1e-5 * (response / flat) ** 2) / response**2
        total = total + (9.0 / response**2 if sky else 0.0)
        left = rwss - model if sky else rwss
        reduced = Reduced(
            spectra=Signal(left, np.where(live, total, np.nan), extracted.spectra.dq),
            rwss=rwss,
            sky=model,
            sky_variance=9.0 / response**2,
            lsf=extracted.lsf,
            axis={"CRVAL1": 5000.0, "CDELT1": 2.0},
            fibres=table,
        )
        return AuditedFiles(reduced, extracted.replace(**changes), tramlines)

    return build
