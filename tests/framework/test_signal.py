import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspecpipe.signal import DQ, UNUSABLE, Signal

SHAPE = (3, 4)
VALUES = hnp.arrays(np.float64, SHAPE, elements=st.floats(-1e6, 1e6))
VARIANCES = hnp.arrays(np.float64, SHAPE, elements=st.floats(0, 1e6))
FLAGS = hnp.arrays(np.uint16, SHAPE, elements=st.integers(0, 1023))
SIGNALS = st.builds(Signal, VALUES, VARIANCES, FLAGS)


def copies(signal):
    return [part.copy() for part in (signal.value, signal.variance, signal.dq)]


def unchanged(signal, before):
    for part, old in zip((signal.value, signal.variance, signal.dq), before, strict=True):
        np.testing.assert_array_equal(part, old)


@given(SIGNALS, SIGNALS)
def test_sums_and_differences_add_variances_and_join_flags(a, b):
    before = copies(a)
    for result, value in ((a.add(b), a.value + b.value), (a.subtract(b), a.value - b.value)):
        np.testing.assert_array_equal(result.value, value)
        np.testing.assert_array_equal(result.variance, a.variance + b.variance)
        np.testing.assert_array_equal(result.dq, a.dq | b.dq)
    unchanged(a, before)


@given(SIGNALS, SIGNALS)
def test_what_was_added_can_be_taken_off(a, b):
    np.testing.assert_allclose(a.add(b).subtract(b).value, a.value, atol=1e-9 * 1e6)


@given(SIGNALS, st.floats(-1e3, 1e3))
def test_a_factor_scales_the_variance_with_its_square(a, factor):
    result = a.scale(factor)
    np.testing.assert_allclose(result.value, a.value * factor)
    np.testing.assert_allclose(result.variance, a.variance * factor**2)
    np.testing.assert_array_equal(result.dq, a.dq)


@given(SIGNALS, SIGNALS)
def test_division_by_zero_is_nan_and_flagged_and_nothing_else_is(a, b):
    b = Signal(np.where(np.abs(b.value) < 1, 0, b.value), b.variance, b.dq)
    result = a.divide(b)
    zero = b.value == 0
    np.testing.assert_array_equal(np.isnan(result.value), zero)
    assert np.all(result.dq[zero] & DQ.NO_DATA)
    np.testing.assert_array_equal(result.dq[~zero], (a.dq | b.dq)[~zero])


def test_the_variance_of_a_quotient_is_that_of_many_trials():
    rng = np.random.default_rng(1)
    a, b = rng.normal(50, 2, 400_000), rng.normal(20, 0.5, 400_000)
    result = Signal.of(np.array([50.0]), 4.0).divide(Signal.of(np.array([20.0]), 0.25))
    assert result.variance[0] == pytest.approx(np.var(a / b), rel=0.02)


@given(SIGNALS)
def test_good_is_finite_and_without_an_unusable_bit(signal):
    signal.value[0, 0], signal.variance[1, 1] = np.nan, np.inf
    good = signal.good
    assert not good[0, 0]
    assert not good[1, 1]
    bits = np.array([bool(DQ(int(d)) & UNUSABLE) for d in signal.dq.ravel()]).reshape(SHAPE)
    rest = np.ones(SHAPE, bool)
    rest[0, 0] = rest[1, 1] = False
    np.testing.assert_array_equal(good[rest], ~bits[rest])


@pytest.mark.parametrize("bit", list(DQ))
def test_only_four_bits_make_a_sample_unusable(bit):
    signal = Signal.of(np.ones(2)).flag(np.array([True, False]), bit)
    assert list(signal.dq) == [bit, 0]
    assert list(signal.good) == [bit not in (DQ.BAD, DQ.SATURATED, DQ.COSMIC, DQ.NO_DATA), True]


def test_a_signal_of_numbers_broadcasts():
    signal = Signal.of(np.ones((2, 3), int), 4.0, DQ.HOT)
    assert (signal.shape, signal.value.dtype.kind) == ((2, 3), "f")
    assert signal.error[0, 0] == 2.0
    assert signal.variance.flags.writeable
    assert Signal.of(np.ones(3, np.float32)).value.dtype == np.float32


def test_selecting_keeps_the_three_parts_together():
    signal = Signal.of(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) + 1)
    part = signal.select((slice(None), 1))
    np.testing.assert_array_equal(part.value, [1, 4])
    np.testing.assert_array_equal(part.variance, [2, 5])


def test_parts_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"value \(3,\), variance \(2,\) and dq \(3,\) differ"):
        Signal(np.ones(3), np.ones(2), np.zeros(3, np.uint16))


def test_the_fraction_of_samples_with_a_bit_is_counted():
    dq = [[DQ.SATURATED, 0], [DQ.SATURATED | DQ.BAD, DQ.BAD]]
    signal = Signal.of(np.ones((2, 2)), dq=dq)
    assert [signal.fraction(bit) for bit in (DQ.SATURATED, DQ.BAD, DQ.HOT)] == [0.5, 0.5, 0.0]
    assert np.isnan(Signal.of(np.zeros((0, 4))).fraction(DQ.BAD))
