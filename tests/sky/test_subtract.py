from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.model import SkyOptions
from kspecpipe.sky.rebin import Grid
from kspecpipe.sky.subtract import subtract_sky


def subtract(night, **options):
    grid = Grid.from_wavelength(night.wavelength)
    options.setdefault("blaze", night.blaze)
    return grid, subtract_sky(
        night.spectra,
        night.wavelength,
        night.lsf,
        night.sky_fibres,
        grid,
        SkyOptions(**options),
    )


def robust_width(values: np.ndarray) -> float:
    low, high = np.nanpercentile(values, [25, 75])
    return float(high - low) * 0.7413


def test_sky_rows_are_noise_of_the_stated_size_and_correlation(observe):
    night = observe(seed=50, nfib=24, sky=tuple(range(0, 24, 3)), lines=150)
    _, result = subtract(night)
    pull = (result.reduced.value / result.reduced.error)[result.model.used]
    assert 0.95 < robust_width(pull) < 1.08
    assert np.nanmean(pull[np.abs(pull) < 5] ** 2) == pytest.approx(1, abs=0.08)
    for lag in (1, 2, 3):
        measured = np.nanmean(pull[:, lag:] * pull[:, :-lag])
        assert measured == pytest.approx(np.mean(result.correlation[:, lag - 1]), abs=0.08)


def test_program_fibres_agree_with_the_truth(observe):
    night = observe(
        seed=51, nfib=24, sky=tuple(range(0, 24, 3)), lines=150, objects=3.0, throughput_error=0.0
    )
    grid, result = subtract(night)
    ratio, pulls = [], []
    for f in np.flatnonzero(~night.sky_fibres):
        density = night.true_object[f] / np.gradient(night.wavelength[f])
        truth = np.interp(grid.wavelength, night.wavelength[f], density) * grid.step
        ratio.append(np.nanmedian(result.reduced.value[f] / truth))
        pulls.append((result.reduced.value[f] - truth) / result.reduced.error[f])
    assert 0.99 < np.median(ratio) < 1.01
    assert robust_width(np.array(ratio)) < 0.03
    assert 0.95 < robust_width(np.array(pulls)) < 1.08


def test_products_obey_their_own_arithmetic(observe):
    night = observe(seed=50, nfib=24, sky=tuple(range(0, 24, 3)), lines=150)
    grid, result = subtract(night)
    parts = (result.rwss, result.sky, result.reduced)
    assert all(part.shape == (24, grid.n) for part in parts)
    assert np.allclose(
        result.reduced.value, result.rwss.value - result.sky.value, equal_nan=True, rtol=1e-12
    )
    assert np.allclose(
        result.reduced.variance, result.rwss.variance + result.sky.variance, equal_nan=True
    )
    assert np.nanmax(np.abs(result.lsf[:, 5:-5] / 16 - 1)) < 0.5
    for part in parts:
        assert np.array_equal(np.isnan(part.value), ~part.good)


def test_bad_samples_leave_no_residual_of_sky_lines(observe):
    night = observe(seed=52, nfib=24, sky=tuple(range(0, 24, 3)), lines=150)
    dq = night.spectra.dq.copy()
    value = night.spectra.value.copy()
    line = int(np.argmax(night.true_sky[5]))
    dq[:, line - 1] = DQ.COSMIC
    value[:, line - 1] = np.nan
    dq[:, 100:110] = DQ.BAD
    bad = replace(night, spectra=Signal(value, night.spectra.variance, dq))
    _, result = subtract(bad)
    pull = (result.reduced.value / result.reduced.error)[result.model.used]
    assert np.nanmax(np.abs(pull)) < 6
    lost = np.isnan(result.reduced.value).sum(axis=1)
    assert (lost >= 8).all()
    assert (lost[1:-1] <= 25).all()
    # Two thirds of the line are still there.
    assert np.isfinite(result.reduced.value[:, 20:90]).all()


def test_a_lone_sky_fibre_serves_others_but_not_itself(observe):
    _, result = subtract(observe(seed=53, sky=(3,)))
    assert np.isnan(result.reduced.value[3]).all()
    assert (result.reduced.dq[3] & DQ.NO_DATA).all()
    assert np.isfinite(result.rwss.value[3]).mean() > 0.9
    assert np.isfinite(result.reduced.value[[2, 4]]).mean() > 0.9


def test_a_dead_fibre_keeps_its_row_as_nan(observe):
    night = observe(seed=54)
    wavelength, value = night.wavelength.copy(), night.spectra.value.copy()
    wavelength[6] = value[6] = np.nan
    dead = replace(
        night,
        wavelength=wavelength,
        spectra=Signal(value, night.spectra.variance, night.spectra.dq),
    )
    _, result = subtract(dead)
    for part in (result.rwss, result.sky, result.reduced):
        assert np.isnan(part.value[6]).all()
        assert (part.dq[6] & DQ.NO_DATA).all()
    assert np.isnan(result.correlation[6]).all()
    assert np.isfinite(result.reduced.value[5]).mean() > 0.9


def test_inputs_are_not_modified(observe):
    night = observe(seed=54)
    before = [
        a.copy()
        for a in (night.spectra.value, night.spectra.variance, night.spectra.dq, night.wavelength)
    ]
    subtract(night, components=2)
    after = (night.spectra.value, night.spectra.variance, night.spectra.dq, night.wavelength)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_components_remove_what_no_term_of_the_model_describes(observe):
    """Wings beside the sky lines, of fibre-dependent strength and either sign."""
    night = observe(
        nfib=40, sky=tuple(range(0, 40, 2)), lines=150, line_flux=6000.0, lsf_spread=0, seed=55
    )
    strength = np.random.default_rng(9).normal(0, 0.015, (40, 1))
    shifted = {step: np.roll(night.true_sky, step, axis=1) for step in (-8, -5, 5, 8)}
    ghost = strength * (shifted[5] + shifted[-5] - shifted[8] - shifted[-8])
    spectra = Signal(night.spectra.value + ghost, night.spectra.variance, night.spectra.dq)
    haunted = replace(night, spectra=spectra)
    spread = {}
    for number in (0, 2):
        _, result = subtract(haunted, components=number, match="none", contamination=1.0)
        # In units of the noise of the light: what the lines leave is in the error of the sky.
        pull = result.reduced.value / result.rwss.error
        spread[number] = np.nanstd(pull[result.model.used])
    assert spread[0] > 2
    assert spread[2] < 1.3


def test_components_of_noise_change_nothing_that_matters(observe):
    night = observe(seed=50, nfib=24, sky=tuple(range(0, 24, 3)), lines=150)
    without, with_them = (subtract(night, components=k)[1] for k in (0, 2))
    change = (with_them.reduced.value - without.reduced.value) / without.reduced.error
    assert robust_width(change) < 0.1
    pull = (with_them.reduced.value / with_them.reduced.error)[with_them.model.used]
    assert 0.95 < robust_width(pull) < 1.08


def test_components_need_eight_sky_fibres(observe):
    night = observe(seed=54)
    without, with_them = (subtract(night, components=k)[1] for k in (0, 3))
    assert np.array_equal(without.reduced.value, with_them.reduced.value, equal_nan=True)
