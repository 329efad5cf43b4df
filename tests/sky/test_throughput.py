from __future__ import annotations

import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.throughput import (
    Throughput,
    compare_throughputs,
    flag_low_throughput,
    throughput_from_sky_lines,
    throughput_from_skyflat,
)


def through_fibres(night, seed=0) -> tuple[Signal, np.ndarray]:
    """Spectra as they are before division by a throughput, and that throughput."""
    truth = np.random.default_rng(seed).uniform(0.6, 1.4, night.night.nfib)
    scaled = night.spectra.scale(truth[:, None])
    return Signal(scaled.value, scaled.variance, night.spectra.dq), truth / np.median(truth)


def deviation(found: Throughput, truth: np.ndarray) -> np.ndarray:
    ratio = found.value / truth
    return ratio / np.nanmedian(ratio) - 1


ALL = np.ones(14, bool)


def test_sky_lines_give_the_throughput_of_fibres_on_galaxies(observe):
    night = observe(seed=40, line_flux=4000.0)
    spectra, truth = through_fibres(night)
    found = throughput_from_sky_lines(spectra, night.wavelength, ALL)
    error = deviation(found, truth)
    assert np.median(np.abs(error)) < 0.004
    assert np.abs(error).max() < 0.015
    assert 0.4 < np.std(error / found.error) < 2.0
    assert np.median(found.value) == pytest.approx(1)


def test_sky_lines_are_right_without_noise_whatever_the_lsf(observe):
    night = observe(seed=41, noise=False, lsf_spread=0.08)
    spectra, truth = through_fibres(night)
    found = throughput_from_sky_lines(spectra, night.wavelength, ALL)
    assert np.abs(deviation(found, truth)).max() < 0.015


def test_twilight_gives_the_throughput_with_honest_errors(observe):
    night = observe(seed=42, objects=0.0, continuum=3000.0, lines=0, line_flux=0.1, nfib=30, sky=())
    spectra, truth = through_fibres(night)
    found = throughput_from_skyflat(spectra, night.wavelength, np.ones(30, bool))
    error = deviation(found, truth)
    assert np.abs(error).max() < 0.004
    assert 0.6 < np.std(error / found.error) < 1.5


def test_dead_fibres_stay_nan_and_do_not_change_the_others(observe):
    night = observe(seed=40, line_flux=4000.0)
    spectra, _ = through_fibres(night)
    live = ALL.copy()
    live[[2, 9]] = False
    found = throughput_from_sky_lines(spectra, night.wavelength, live)
    assert np.isnan(found.value[[2, 9]]).all()
    assert np.isnan(found.error[[2, 9]]).all()
    whole = throughput_from_sky_lines(spectra, night.wavelength, ALL)
    ratio = (found.value / whole.value)[live]
    assert np.ptp(ratio) < 0.01


def test_no_sky_lines_is_an_error_that_says_what_to_use_instead(observe):
    night = observe(seed=27, lines=0, line_flux=0.1)
    with pytest.raises(RecipeError, match="no sky line stands out.*Give a SKYFLAT"):
        throughput_from_sky_lines(night.spectra, night.wavelength, ALL)


def test_negative_twilight_is_refused_with_the_fibres_named(observe):
    night = observe(seed=42, objects=0.0, continuum=3000.0, lines=0, line_flux=0.1, nfib=30, sky=())
    value = night.spectra.value.copy()
    value[[4, 7]] *= -1
    spectra = Signal(value, night.spectra.variance, night.spectra.dq)
    with pytest.raises(RecipeError, match=r"2 live fibres \(first: \[4, 7\]\) is not positive"):
        throughput_from_skyflat(spectra, night.wavelength, np.ones(30, bool))


def test_fewer_than_two_usable_fibres_are_refused(observe):
    night = observe(seed=40, line_flux=4000.0)
    with pytest.raises(RecipeError, match="1 of 1 live fibres have usable spectra"):
        throughput_from_sky_lines(night.spectra, night.wavelength, np.arange(14) == 3)
    with pytest.raises(ValueError, match="do not belong together"):
        throughput_from_skyflat(night.spectra, night.wavelength, np.ones(5, bool))


def test_comparison_finds_the_fibre_that_disagrees_and_ignores_the_scale():
    value = np.array([1.0, 0.8, 1.2, np.nan, 1.1])
    error = np.full(5, 0.01)
    other = 3 * value.copy()
    other[2] *= 1.1
    result = compare_throughputs(
        Throughput(value, error, error), Throughput(other, 3 * error, error)
    )
    assert result.worst_fibre == 2
    assert result.worst == pytest.approx(1 - 1 / 1.1)
    assert result.rms == pytest.approx(0, abs=1e-12)
    nothing = Throughput(np.full(5, np.nan), error, error)
    assert np.isnan(compare_throughputs(nothing, nothing).rms)
    assert compare_throughputs(nothing, nothing).worst_fibre == -1
    with pytest.raises(ValueError, match="5 fibres cannot be compared with 2"):
        compare_throughputs(nothing, Throughput(np.ones(2), np.ones(2), np.ones(2)))


def test_low_unknown_and_negative_fibres_are_flagged_in_all_samples():
    spectra = Signal.of(np.ones((4, 6)), 1.0)
    flagged = flag_low_throughput(spectra, np.array([1.0, 0.1, np.nan, -0.5]), 0.2)
    assert (flagged.dq == np.array([[0], [DQ.LOW_THROUGHPUT]] + [[DQ.LOW_THROUGHPUT]] * 2)).all()
    assert not spectra.dq.any()
