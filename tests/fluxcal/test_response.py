"""The smooth curve between a star and its model."""

import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.lines import smooth_variance
from kspecpipe.fluxcal.response import RatioData, ResponseOptions, fit_ratio

WAVE = np.linspace(3700.0, 8800.0, 1300)
EFFICIENCY = 1 / (1 + np.exp((4000 - WAVE) / 330)) * np.exp(-(((WAVE - 6500) / 2500) ** 2))
MODEL = 1e-15 * (WAVE / 6000) ** -1.2 * (1 - 0.4 * np.exp(-(((WAVE - 4861) / 15) ** 2)))
USE = np.ones(WAVE.size, bool)
TIGHT = ResponseOptions(mismatch=1e-4)


def data(observed, variance, use=USE):
    return RatioData(WAVE, observed, variance, MODEL, use)


def test_a_smooth_response_comes_back_without_noise():
    found = fit_ratio(data(5e17 * EFFICIENCY * MODEL, np.full(WAVE.size, 1e-6)), TIGHT)
    np.testing.assert_allclose(np.exp(found.log_ratio), 5e17 * EFFICIENCY, rtol=2e-3)


def test_masked_regions_are_bridged():
    use = USE & ~((WAVE > 7590) & (WAVE < 7705)) & ~((WAVE > 6864) & (WAVE < 6945))
    observed = np.where(use, EFFICIENCY * MODEL, 0.3 * EFFICIENCY * MODEL)
    found = fit_ratio(data(observed, np.full(WAVE.size, 1e-40), use), TIGHT)
    np.testing.assert_allclose(np.exp(found.log_ratio), EFFICIENCY, rtol=3e-3)


def test_the_range_of_the_data_is_told():
    use = (WAVE > 4000) & (WAVE < 8000)
    found = fit_ratio(data(EFFICIENCY * MODEL, np.full(WAVE.size, 1e-40), use), TIGHT)
    assert found.first == pytest.approx(4000, abs=8)
    assert found.last == pytest.approx(8000, abs=8)
    assert found.variance[0] > 20 * np.median(found.variance)


@pytest.mark.parametrize("snr", [5.0, 10.0])
def test_faint_stars_are_not_biased_even_with_a_variance_from_their_own_counts(snr):
    """The plan's mean of model / observed is off by 4 % at S/N 5; the limit here is 0.5 %."""
    rng = np.random.default_rng(8)
    counts = snr**2 * EFFICIENCY / np.median(EFFICIENCY)
    inner = (WAVE > 4500) & (WAVE < 8500)
    ratio = []
    for _ in range(60):
        observed = rng.poisson(counts).astype(float)
        variance = smooth_variance(np.maximum(observed, 1.0), USE)
        flat = RatioData(WAVE, observed, variance, np.ones_like(MODEL), USE)
        found = fit_ratio(flat, ResponseOptions())
        ratio.append(np.mean(np.exp(-found.log_ratio[inner]) * counts[inner]))
    assert np.std(ratio) / np.sqrt(60) < 0.0015
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.005)


def test_errors_are_honest():
    rng = np.random.default_rng(9)
    sigma = 0.1 * EFFICIENCY * MODEL
    pulls = []
    for _ in range(80):
        found = fit_ratio(data(EFFICIENCY * MODEL + rng.normal(0, sigma), sigma**2), TIGHT)
        pulls.append((found.log_ratio - np.log(EFFICIENCY)) / np.sqrt(found.variance))
    inner = (WAVE > 4200) & (WAVE < 8500)
    spread = np.std(np.array(pulls)[:, inner])
    assert 0.85 < spread < 1.15


def test_wrong_blanketing_in_the_blue_tilts_the_response_little():
    """The model lacks lines that take 15 % of the light blueward of 4000 Angstrom."""
    observed = EFFICIENCY * MODEL * (1 - 0.15 / (1 + np.exp((WAVE - 3950) / 25)))
    noise = (0.01 * EFFICIENCY * MODEL) ** 2
    inner = (WAVE > 4000) & (WAVE < 4400)
    off = [
        np.abs(fit_ratio(data(observed, noise), options).log_ratio - np.log(EFFICIENCY))[
            inner
        ].max()
        for options in (ResponseOptions(blanketing=1.0), ResponseOptions())
    ]
    assert off[1] < 0.05
    assert off[1] < 0.8 * off[0]


def test_where_lines_are_wrong_the_curve_is_drawn_on_from_where_they_are_right():
    """Blueward of 4700 the model's lines are wrong by 10 % and its continuum by a bump of 4 %."""
    rng = np.random.default_rng(12)
    bump = 0.04 * np.exp(-(((WAVE - 4400) / 100) ** 2))
    near = (WAVE > 4200) & (WAVE < 4600)
    off = []
    for lines in (0.0, 3.0):
        errors = []
        for _ in range(12):
            wrong = np.where(WAVE < 4700, 0.1 * rng.normal(size=WAVE.size) + bump, 0.0)
            observed = EFFICIENCY * MODEL * np.exp(wrong)
            noise = (0.01 * EFFICIENCY * MODEL) ** 2
            found = fit_ratio(data(observed, noise), ResponseOptions(lines=lines))
            errors.append((found.log_ratio - np.log(EFFICIENCY))[near])
        off.append(np.sqrt(np.mean(np.square(errors))))
    assert off[1] < 0.7 * off[0]


def test_lines_that_the_model_has_not_right_are_told_where_they_are_and_noise_is_not():
    rng = np.random.default_rng(10)
    sigma = 0.02 * EFFICIENCY * MODEL
    lines = np.where(WAVE < 5000, 0.06 * rng.normal(size=WAVE.size), 0.0)
    observed = EFFICIENCY * MODEL * np.exp(lines) + rng.normal(0, sigma)
    misfit = fit_ratio(data(observed, sigma**2), ResponseOptions()).misfit
    assert np.mean(misfit[WAVE < 4700]) == pytest.approx(0.06, rel=0.15)
    assert np.mean(misfit[WAVE > 6000]) < 0.005


@pytest.mark.parametrize("snr", [5.0, 30.0])
def test_a_perfect_model_has_no_misfit_whatever_the_noise(snr):
    rng = np.random.default_rng(11)
    sigma = EFFICIENCY * MODEL / snr
    misfit = [
        fit_ratio(
            data(EFFICIENCY * MODEL + rng.normal(0, sigma), sigma**2), ResponseOptions()
        ).misfit
        for _ in range(20)
    ]
    assert np.mean(misfit) < 0.1 / snr


def test_outliers_do_not_pull_the_curve():
    observed = EFFICIENCY * MODEL
    observed = np.where(np.arange(WAVE.size) % 40 == 7, 5 * observed, observed)
    found = fit_ratio(data(observed, (0.01 * EFFICIENCY * MODEL) ** 2), ResponseOptions())
    inner = WAVE > 4050  # bluer samples count too little to hold the curve
    np.testing.assert_allclose(np.exp(found.log_ratio)[inner], EFFICIENCY[inner], rtol=0.02)


def test_a_dark_spectrum_and_too_few_samples_are_refused():
    with pytest.raises(RecipeError, match="no light"):
        fit_ratio(data(np.zeros(WAVE.size), np.ones(WAVE.size)), TIGHT)
    with pytest.raises(RecipeError, match="only 9 samples"):
        fit_ratio(data(EFFICIENCY, np.ones(WAVE.size), np.arange(WAVE.size) < 9), TIGHT)


def test_the_variance_is_smooth_but_keeps_the_peaks_of_the_sky():
    variance = np.full(500, 4.0)
    variance[100::2] += 1.0
    variance[240:244] = 400.0
    smooth = smooth_variance(variance, np.ones(500, bool))
    assert (smooth[240:244] >= 200).all()
    assert np.ptp(smooth[120:200]) < 0.1
