import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.combine.coadd import coadd
from kspecpipe.signal import DQ, Signal


def test_equal_exposures_come_back_exactly(truth):
    stack = Signal.of(np.stack([truth + 5] * 3), 4.0)
    mean = coadd(stack)
    assert mean.spectra.value == pytest.approx(truth + 5)
    assert mean.spectra.variance == pytest.approx(np.full(truth.shape, 4 / 3))
    assert not mean.rejected.any()
    assert mean.weight.sum(axis=0) == pytest.approx(np.ones(truth.shape))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_pulls_are_standard_normal_and_unbiased(exposures, truth, count):
    mean = coadd(exposures(count, seed=count)).spectra
    pull = (mean.value - truth) / np.sqrt(mean.variance)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)


def test_low_counts_are_not_favoured(exposures):
    """Weights from each sample's own photon noise would pull the mean 1 / counts down."""
    faint = np.full((20, 600), 30.0)
    mean = coadd(exposures(4, ron=3.0, truth=faint)).spectra
    error = np.sqrt(39 / 4 / faint.size)
    assert abs(mean.value.mean() - 30) < 4 * error


def test_signal_to_noise_grows_with_the_root_of_the_number(exposures):
    one, nine = (exposures(n, seed=4) for n in (1, 9))
    gain = np.median(coadd(one).spectra.error / coadd(nine).spectra.error)
    assert gain == pytest.approx(3, rel=0.01)


def test_a_noisier_exposure_weighs_less(exposures):
    stack = exposures(2)
    stack.variance[1] *= 9
    mean = coadd(stack)
    assert np.median(mean.weight[1]) == pytest.approx(0.1, abs=0.01)
    assert np.median(mean.weight[0] + mean.weight[1]) == pytest.approx(1)


@pytest.mark.parametrize("height", [12.0, 60.0, 5000.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_cosmic_rays_in_one_exposure_are_found(exposures, truth, height, count):
    stack = exposures(count, seed=8)
    rng = np.random.default_rng(2)
    hit = (rng.integers(0, 6, 80), rng.integers(5, 595, 80))
    noise = np.sqrt(stack.variance[0][hit])
    for offset, share in ((-1, 0.3), (0, 1.0), (1, 0.3)):
        stack.value[0, hit[0], hit[1] + offset] += share * height * noise
        stack.variance[0, hit[0], hit[1] + offset] += share * height * noise  # it has photons too
    mean = coadd(stack)
    near = np.abs(mean.spectra.value - truth)[hit] / np.sqrt(mean.spectra.variance[hit])
    # Of two exposures 4.5 sigma of their difference are 4.5 sigma of their mean, and noise on top.
    assert near.max() < (5 if count > 2 else 6.5)
    assert mean.rejected[0][hit].mean() > (0.99 if height > 20 else 0.9)


def test_good_samples_are_kept(exposures):
    rejected = coadd(exposures(5, seed=21)).rejected
    assert rejected.mean() < 2e-4  # the tails of normal noise beyond 4.5 sigma, and flanks


def test_nothing_is_rejected_on_request(exposures):
    stack = exposures(3)
    stack.value[0, 2, 100] += 1e5
    mean = coadd(stack, reject_sigma=0)
    assert not mean.rejected.any()
    assert mean.spectra.value[2, 100] > 1e4


def test_differences_between_exposures_of_bright_targets_are_no_outliers(exposures, truth):
    """At a signal-to-noise ratio of 1000 the seeing is seen."""
    bright = 1e6 * (1 + truth / truth.max())
    stack = exposures(3, truth=bright)
    stack.value[0] *= 1 + 0.01 * np.sin(np.arange(600) / 30)
    assert coadd(stack, model_error=0.0).rejected.mean() > 0.1
    assert coadd(stack, model_error=0.01).rejected.mean() < 1e-3


def test_what_one_exposure_lacks_the_others_give(exposures):
    stack = exposures(3)
    stack.value[0, 1, 50:70] = np.nan
    stack = stack.flag(~np.isfinite(stack.value), DQ.COSMIC)
    mean = coadd(stack)
    assert np.isfinite(mean.spectra.value).all()
    assert (mean.spectra.dq == 0).all()
    assert (mean.weight[0, 1, 50:70] == 0).all()
    grown = mean.spectra.variance[1, 55] / np.median(mean.spectra.variance[1, 80:120])
    assert grown == pytest.approx(1.5, rel=0.2)


def test_samples_that_nobody_has_are_nan_and_say_why(exposures):
    stack = exposures(2)
    stack.value[:, 3, 10] = np.nan
    stack.value[:, 3, 20] = np.nan
    flagged = np.zeros(stack.shape, bool)
    flagged[:, 3, 10] = True
    mean = coadd(stack.flag(flagged, DQ.SATURATED)).spectra
    assert np.isnan(mean.value[3, [10, 20]]).all()
    assert np.isnan(mean.variance[3, [10, 20]]).all()
    assert mean.dq[3, 10] == DQ.SATURATED
    assert mean.dq[3, 20] == DQ.NO_DATA


def test_informing_bits_of_used_samples_join(exposures):
    stack = exposures(2)
    bits = np.zeros(stack.shape, bool)
    bits[1, :, 5] = True
    mean = coadd(stack.flag(bits, DQ.TELLURIC))
    assert (mean.spectra.dq[:, 5] == DQ.TELLURIC).all()


def test_chi_squared_is_one_for_honest_errors_and_shows_dishonest_ones(exposures):
    stack = exposures(6)
    assert coadd(stack).chi2 == pytest.approx(np.ones(6), abs=0.12)
    small = Signal(stack.value, stack.variance / 4, stack.dq)
    assert np.median(coadd(small, reject_sigma=0).chi2) == pytest.approx(4, rel=0.1)


def test_a_single_exposure_has_no_scatter(exposures):
    mean = coadd(exposures(1))
    assert np.isnan(mean.chi2).all()
    assert np.isfinite(mean.spectra.value).all()


def test_a_plane_is_no_stack():
    with pytest.raises(ValueError, match="three axes, not 2"):
        coadd(Signal.of(np.ones((2, 3))))


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-17, 1e6), seed=st.integers(0, 2**32 - 1))
def test_the_mean_is_linear_in_the_flux(scale, seed):
    rng = np.random.default_rng(seed)
    stack = Signal.of(rng.normal(50, 3, (3, 2, 80)), 9.0)
    plain, scaled = coadd(stack), coadd(stack.scale(scale))
    assert scaled.spectra.value == pytest.approx(plain.spectra.value * scale, rel=1e-6)
    assert (scaled.rejected == plain.rejected).all()
