"""Fibres that pass another part of the light than was known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspecpipe.fibres import fibre_table
from kspecpipe.reduction.science import Calibration, ReducedExposure, reduce_exposure
from kspecpipe.signal import DQ
from kspecpipe.sky.rebin import Grid

PARAMETERS = SimpleNamespace(
    subtract_sky=True,
    sky_contamination=0.08,
    sky_components=0,
    min_throughput=0.2,
    telluric="none",
)


def reduce(night, factor: dict[int, float], **types: str) -> ReducedExposure:
    """Reduce an exposure in which some fibres pass only a factor of what was known."""
    passed = np.ones((len(night.wavelength), 1))
    for fibre, part in factor.items():
        passed[fibre] = part
    spectra = replace(
        night.spectra,
        value=night.spectra.value * passed,
        variance=night.spectra.variance * np.maximum(passed, 0.3),
    )
    table = fibre_table(np.arange(len(passed)) + 1, ["OK"] * len(passed))
    table["TYPE"] = np.where(night.sky_fibres, "S", "P")
    for fibre, kind in types.items():
        table["TYPE"][int(fibre[1:])] = kind
    table["THROUGHPUT"] = 1.0
    grid = Grid.from_wavelength(night.wavelength)
    calibration = Calibration(None, table, grid)
    return reduce_exposure(spectra, night.wavelength, night.lsf, calibration, PARAMETERS)


def test_healthy_fibres_are_not_said_to_have_changed(observe):
    result = reduce(observe(seed=60), {})
    assert result.changed == ()
    assert not np.any(result.reduced.spectra.dq & DQ.LOW_THROUGHPUT)


@pytest.mark.parametrize(("factor", "flagged"), [(0.5, False), (1.4, False), (0.03, True)])
def test_a_fibre_that_changed_is_named_and_gets_the_sky_that_it_sees(observe, factor, flagged):
    night = observe(seed=60, objects=0.2)
    result = reduce(night, {6: factor})
    ((number, part),) = result.changed
    assert number == 7
    assert part == pytest.approx(factor, abs=0.05)
    for spectra in (result.extracted.spectra, result.reduced.spectra):
        low = (spectra.dq & DQ.LOW_THROUGHPUT) > 0
        assert low[6].all() == flagged
        assert not np.delete(low, 6, axis=0).any()
    sky = np.nansum(result.extracted.sky, axis=1) / np.nansum(night.true_sky, axis=1)
    assert sky[6] == pytest.approx(factor, abs=0.05)
    assert np.delete(sky, 6) == pytest.approx(1, abs=0.03)


def test_a_fibre_that_is_not_in_use_may_see_what_it_likes(observe):
    assert reduce(observe(seed=60), {6: 0.0}, f6="N").changed == ()


@pytest.mark.parametrize(("excess", "wrong"), [(0.03, 0), (0.25, 1)])
def test_a_fibre_that_sees_less_continuum_than_its_sky_is_counted(observe, excess, wrong):
    night = observe(seed=60, objects=0.2)
    darker = night.spectra.value.copy()
    darker[6] -= night.true_object[6] + excess * np.median(night.true_sky[6])
    changed = replace(night, spectra=replace(night.spectra, value=darker))
    assert reduce(changed, {}).negative == wrong
    assert reduce(changed, {}, f6="N").negative == 0
