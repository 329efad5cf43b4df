import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import find_peaks

from kspecpipe.trace.maxima import highest_within, local_maxima, prominence

#: Few levels, so that there are plateaus and equal heights.
curves = st.lists(st.integers(0, 6), max_size=30).map(lambda levels: np.array(levels, dtype=float))


@given(curves)
def test_maxima_are_those_of_scipy(curve):
    assert local_maxima(curve).tolist() == find_peaks(curve)[0].tolist()


@given(st.lists(st.integers(0, 10_000), max_size=30, unique=True), st.integers(1, 12))
def test_of_near_maxima_the_highest_stay_as_in_scipy(levels, distance):
    curve = np.array(levels, dtype=float)
    at = local_maxima(curve)
    kept = at[highest_within(curve[at], at, distance)]
    assert kept.tolist() == find_peaks(curve, distance=distance)[0].tolist()


@given(curves, st.integers(1, 12))
def test_of_equally_high_maxima_one_stays(curve, distance):
    at = local_maxima(curve)
    keep = highest_within(curve[at], at, distance)
    assert np.all(np.diff(at[keep]) >= distance)
    near = np.abs(at[:, None] - at[keep]) < distance
    assert np.all((near & (curve[at[keep]] >= curve[at, None])).any(axis=1))


@given(curves)
def test_prominences_are_those_of_scipy(curve):
    at, properties = find_peaks(curve, prominence=0)
    assert np.array_equal(prominence(curve, at), properties["prominences"])


def test_a_curve_without_ends_has_no_maximum():
    assert local_maxima(np.array([1.0, 2.0])).size == 0
