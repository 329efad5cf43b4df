"""Fibres laid on each other, and the peaks of their sum."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.signal import Signal
from kspecpipe.wavelength.align import fill_gaps, stack_fibres
from kspecpipe.wavelength.peaks import find_peaks, subtract_continuum


def voigt_like(x, centre, width=1.8):
    return 1 / (1 + ((x - centre) / width) ** 2) ** 2


def test_peaks_are_found_where_lines_are_and_nowhere_else():
    x = np.arange(600.0)
    centres = np.array([80.3, 91.1, 250.6, 400.0, 555.5])
    value = sum(5000 * voigt_like(x, c) for c in centres) + 300 + 0.2 * x
    noise = np.random.default_rng(3).normal(0, np.sqrt(value))
    found = find_peaks(value + noise, value)
    assert len(found) == centres.size
    assert np.all(np.abs(found.x - centres) < 0.15)


def test_a_hot_sample_is_no_line():
    value = np.random.default_rng(1).normal(100, 10, 400)
    value[200] += 4000
    assert len(find_peaks(value, np.full(400, 100.0))) == 0


def test_a_saturated_line_is_one_peak_at_its_middle_with_a_wide_error():
    x = np.arange(300.0)
    value = np.minimum(1e6 * voigt_like(x, 150.0), 5e4)
    found = find_peaks(value, value + 100, value >= 5e4)
    assert len(found) == 1
    assert abs(found.x[0] - 150) < 0.6
    assert found.blur[0] > 0.5


def test_the_continuum_goes_and_lines_stay():
    x = np.arange(500.0)
    hump = 500 * np.exp(-0.5 * ((x - 250) / 120) ** 2)
    line = 1000 * voigt_like(x, 260)
    left = subtract_continuum(hump + line)
    assert abs(left[260] - 1000) < 100
    assert np.all(np.abs(left[np.abs(x - 260) > 25]) < 100)


@settings(max_examples=15, deadline=None)
@given(tilt=st.floats(-6, 6), seed=st.integers(0, 1000))
def test_the_shift_of_every_fibre_is_measured(tilt, seed):
    rng = np.random.default_rng(seed)
    x, centres = np.arange(500.0), rng.uniform(30, 470, 12)
    shift = tilt * np.linspace(-0.5, 0.5, 7)
    value = np.stack([sum(9000 * voigt_like(x, c + s) for c in centres) + 50 for s in shift])
    signal = Signal.of(rng.normal(value, np.sqrt(value)), value)
    stack = stack_fibres(signal, np.ones(7, bool))
    assert np.max(np.abs(stack.shift - shift)) < 0.12
    assert np.min(stack.quality) > 0.8


def test_fibres_without_light_are_not_aligned():
    x = np.arange(300.0)
    value = np.stack([sum(9000 * voigt_like(x, c) for c in (50, 120, 220))] * 3)
    live = np.array([True, False, True])
    stack = stack_fibres(Signal.of(value, value + 10), live)
    assert np.isnan(stack.shift[1])
    assert np.all(np.isfinite(stack.shift[live]))


def test_gaps_are_bridged_along_the_row():
    value = np.array([[1.0, 99.0, 3.0, 4.0]])
    good = np.array([[True, False, True, True]])
    assert np.allclose(fill_gaps(value, good), [[1, 2, 3, 4]])
