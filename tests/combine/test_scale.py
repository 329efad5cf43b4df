import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.combine.scale import relative_scales, unit_scales
from kspecpipe.signal import DQ, Signal

COUNT = 3


def test_factors_of_exposures_are_found_within_their_errors(exposures):
    true = np.array([1.2, 1.0, 0.8])
    found = relative_scales(exposures(COUNT, factors=np.repeat(true[:, None], 6, 1)), np.ones(3))
    assert np.abs(found.common - true).max() < 4 * found.error.max()
    assert found.error.max() < 0.005


def test_fibres_keep_a_factor_of_their_own_when_they_differ(exposures):
    true = np.ones((COUNT, 6))
    true[0, 5], true[1, 5], true[2, 5] = 1.3, 0.8, 0.9
    true[0, 3], true[1, 3], true[2, 3] = 0.9, 1.1, 1.0
    found = relative_scales(exposures(COUNT, factors=true), np.ones(COUNT))
    assert np.abs(found.value[:, [3, 5]] - true[:, [3, 5]]).max() < 0.02


def test_fibres_without_light_take_the_factor_of_their_exposure(exposures):
    true = np.repeat([[1.4], [0.6]], 6, axis=1)
    found = relative_scales(exposures(2, factors=true), np.ones(2))
    assert found.value[:, 0] == pytest.approx(found.common, abs=0.02)


def test_without_scatter_between_fibres_their_noise_is_not_followed(exposures):
    """The factors of faint fibres would else carry the noise of their few photons."""
    found = relative_scales(exposures(2, seed=5), np.ones(2))
    assert np.abs(found.value[:, 1] - found.common).max() < 0.01


def test_one_factor_for_all_fibres_can_be_asked_for(exposures):
    true = np.ones((2, 6))
    true[0, 5] = 1.5
    found = relative_scales(exposures(2, factors=true), np.ones(2), per_fibre=False)
    assert np.ptp(found.value, axis=1) == pytest.approx(0, abs=1e-12)


def test_without_light_the_expected_factors_are_taken(exposures):
    dark = exposures(2, truth=np.zeros((6, 600)))
    found = relative_scales(dark, np.array([600.0, 1800.0]))
    assert found.common.tolist() == [0.5, 1.5]
    assert np.isinf(found.error).all()


def test_cosmic_rays_and_bad_samples_do_not_move_a_factor(exposures):
    stack = exposures(COUNT)
    clean = relative_scales(stack, np.ones(COUNT)).value
    stack.value[0, :, 50:60] = 1e6
    stack.value[1, :, 100:140] = np.nan
    spoiled = stack.flag(~np.isfinite(stack.value), DQ.NO_DATA)
    assert relative_scales(spoiled, np.ones(COUNT)).value == pytest.approx(clean, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(level=st.floats(1e-18, 1e4))
def test_the_unit_of_the_flux_does_not_matter(level):
    rng = np.random.default_rng(3)
    value = (100 + rng.standard_normal((2, 3, 200))) * np.array([1.1, 0.9])[:, None, None]
    plain = Signal.of(value, 1.0)
    other = plain.scale(level)
    found = [relative_scales(each, np.ones(2)).value for each in (plain, other)]
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def test_unit_scales_change_nothing():
    scales = unit_scales((2, 4))
    assert (scales.value == 1).all()
    assert scales.value.shape == (2, 4)
    assert scales.common.shape == (2,)
