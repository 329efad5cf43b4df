"""Pseudo-continua."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.fluxcal.continuum import (
    ContinuumOptions,
    fit_continuum,
    normalize_by_model,
    normalize_continuum,
)

WAVE = np.linspace(4000.0, 8000.0, 1200)
CONTINUUM = 100 * (1 + 0.3 * np.sin((WAVE - 4000) / 1500)) * (WAVE / 6000) ** -1.5
LINES = 1 - sum(
    depth * np.exp(-0.5 * ((WAVE - at) / 8.0) ** 2)
    for at, depth in ((4340, 0.4), (4861, 0.5), (5175, 0.3), (5890, 0.3), (6563, 0.6))
)


@pytest.mark.parametrize("method", ["bspline", "polynomial", "running_median"])
def test_the_continuum_of_a_spectrum_with_lines_is_found(method):
    options = ContinuumOptions(method=method, order=3 if method == "bspline" else 8)
    good = np.ones(WAVE.size, bool)
    ratio = fit_continuum(WAVE, CONTINUUM * LINES, good, options) / CONTINUUM
    assert np.abs(ratio[20:-20] - 1).max() < 0.03
    assert np.abs(np.median(ratio) - 1) < 0.005


def test_a_smooth_spectrum_is_its_own_continuum():
    good = np.ones(WAVE.size, bool)
    np.testing.assert_allclose(fit_continuum(WAVE, CONTINUUM, good), CONTINUUM, rtol=1e-4)


def test_bad_samples_and_dark_ones_do_not_count():
    flux, good = CONTINUUM.copy(), np.ones(WAVE.size, bool)
    flux[300:330], good[300:330] = 1e6, False
    flux[600:610] = -50.0
    ratio = fit_continuum(WAVE, flux, good) / CONTINUUM
    assert np.abs(ratio - 1).max() < 0.01


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-18, 1e6))
def test_the_normalised_spectrum_does_not_depend_on_the_unit(scale):
    good = np.ones(WAVE.size, bool)
    one = normalize_continuum(WAVE, CONTINUUM * LINES, good)[0]
    other = normalize_continuum(WAVE, scale * CONTINUUM * LINES, good)[0]
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_model_is_divided_by_its_own_continuum():
    np.testing.assert_allclose(normalize_by_model(CONTINUUM * LINES, CONTINUUM), LINES)


def test_shapes_and_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="wavelength"):
        fit_continuum(WAVE, CONTINUUM[1:], np.ones(WAVE.size, bool))
    with pytest.raises(ValueError, match="cannot fix"):
        fit_continuum(WAVE, CONTINUUM, np.arange(WAVE.size) < 5)
