"""Broadening with a line-spread function that changes with wavelength."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.fluxcal.broaden import broaden, broadening_operator, describe_coarse_library
from kspecpipe.fluxcal.grid import bin_spectrum, resample_spectrum

SOURCE = 3500 * np.exp(np.arange(9500) * 1e-4)
WAVE = np.arange(4000.0, 8600.0, 4.0)
LSF = 6.0 + 10.0 * (WAVE - 4000) / 4600


def test_a_spectrum_is_blurred_with_the_width_of_each_wavelength(blur):
    flux = 1 - 0.8 * np.exp(-0.5 * (((SOURCE - 4500) % 400 - 200) / 1.5) ** 2)
    fine = np.arange(3900.0, 8800.0, 0.1)
    truth = blur(fine, np.interp(fine, SOURCE, flux), WAVE, LSF)
    seen = broaden(broadening_operator(SOURCE, WAVE, LSF), flux[None])[0]
    assert np.abs(truth - 1).max() > 0.1
    np.testing.assert_allclose(seen, truth, atol=0.004)


def test_the_templates_own_width_is_allowed_for():
    resolution = 800.0
    width = SOURCE / resolution / 2.3548
    centre = 5200.0
    line = lambda w, s: np.exp(-0.5 * ((w - centre) / s) ** 2) / s  # noqa: E731
    flux = line(SOURCE, width[np.argmin(np.abs(SOURCE - centre))])
    seen = broaden(broadening_operator(SOURCE, WAVE, LSF, resolution=resolution), flux[None])[0]
    sigma = np.interp(centre, WAVE, LSF) / 2.3548
    expected = line(WAVE, sigma)
    np.testing.assert_allclose(seen, expected, atol=0.02 * expected.max())


@settings(max_examples=15, deadline=None)
@given(level=st.floats(1e-3, 1e3), velocity=st.floats(-500, 500))
def test_a_constant_stays_constant_and_everything_is_linear(level, velocity):
    operator = broadening_operator(SOURCE, WAVE, LSF, velocity=velocity)
    seen = broaden(operator, np.stack([np.full(SOURCE.size, level), np.sin(SOURCE / 50)]))
    np.testing.assert_allclose(seen[0], level, rtol=1e-9)
    np.testing.assert_allclose(
        broaden(operator, (level + np.sin(SOURCE / 50))[None])[0], seen.sum(axis=0), rtol=1e-6
    )


def test_beyond_the_template_there_is_nothing():
    wave = np.array([3480.0, 3501.0, 5000.0, 9500.0])
    seen = broaden(broadening_operator(SOURCE, wave, np.full(4, 8.0)), np.ones((1, SOURCE.size)))[0]
    assert np.isnan(seen).tolist() == [True, True, False, True]


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        broadening_operator(SOURCE, WAVE, LSF[1:])


@pytest.mark.parametrize("resolution", [300.0, 2000.0])
def test_templates_coarser_than_the_spectra_are_told_with_the_resolution_that_is_needed(resolution):
    lsf = np.stack([LSF, np.full(LSF.shape, np.nan)])
    text = describe_coarse_library(resolution, WAVE, lsf)
    if resolution > 1000:
        assert text == ""
    else:
        needed = np.median(WAVE / LSF)
        assert "resolution 300" in text
        assert float(text.split()[-1]) == pytest.approx(needed, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(cells=st.integers(3, 3000))
def test_binning_conserves_the_integral_for_bins_wider_and_narrower_than_samples(cells):
    flux = 2 + np.sin(WAVE / 37.0)
    edges = np.linspace(4100.0, 8500.0, cells + 1)
    total = np.sum(bin_spectrum(WAVE, flux, edges) * np.diff(edges))
    node = np.union1d(WAVE, edges)
    node = node[(node >= 4100) & (node <= 8500)]
    assert total == pytest.approx(np.trapezoid(np.interp(node, WAVE, flux), node), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(step=st.floats(0.5, 200.0), start=st.floats(3900.0, 4400.0))
def test_resampling_conserves_the_light_and_knows_nothing_beyond(step, start):
    flux = 2 + np.sin(WAVE / 37.0)
    out = start + step * np.arange(3, int(5000 / step))
    seen = resample_spectrum(WAVE, flux, out)
    inside = (out - step / 2 >= WAVE[0]) & (out + step / 2 <= WAVE[-1])
    assert (np.isfinite(seen) == inside).all()
    edges = out[inside][0] - step / 2, out[inside][-1] + step / 2
    node = np.union1d(WAVE, edges)
    node = node[(node >= edges[0]) & (node <= edges[1])]
    total = np.trapezoid(np.interp(node, WAVE, flux), node)
    assert np.nansum(seen) * step == pytest.approx(total, rel=1e-6)


def test_resampling_to_the_same_or_a_sloped_axis_keeps_a_straight_line():
    uneven = 4000.0 * np.exp(np.arange(700) * 1e-3)
    line = 3.0 + 0.01 * WAVE
    found = resample_spectrum(WAVE, line, uneven)
    known = np.isfinite(found)
    # Pixels that widen have their centre of light a little beyond their centre.
    np.testing.assert_allclose(found[known], (3.0 + 0.01 * uneven)[known], rtol=1e-5)
    with pytest.raises(ValueError, match="must be alike"):
        resample_spectrum(WAVE, line[1:], uneven)
