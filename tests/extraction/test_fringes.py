import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.extraction.fringes import fine_structure, flat_rms, fringe_amplitude
from kspecpipe.signal import DQ, Signal

X = np.arange(1200)


def fibre_flat(amplitude, noise=0.0, period=14.3, rng=None):
    """Three fibre flats of different colour with fringes and noise."""
    colour = 1 + 0.1 * np.linspace(-1, 1, 3)[:, None] * X / X.size
    value = colour * (1 + amplitude * np.sin(2 * np.pi * X / period))
    if rng is not None:
        value = value + noise * rng.standard_normal(value.shape)
    return Signal.of(value, noise**2)


@settings(max_examples=15, deadline=None)
@given(amplitude=st.floats(0.005, 0.2), period=st.floats(8, 20))
def test_the_amplitude_of_fringes_is_measured(amplitude, period):
    assert fringe_amplitude(fibre_flat(amplitude, period=period)) == pytest.approx(
        amplitude, rel=0.15
    )


def test_noise_is_not_taken_for_fringes():
    flat = fibre_flat(0.0, 0.02, rng=np.random.default_rng(1))
    assert (fringe_amplitude(flat) < 0.02).all()
    seen = fibre_flat(0.04, 0.02, rng=np.random.default_rng(2))
    assert fringe_amplitude(seen) == pytest.approx(0.04, rel=0.35)


def test_the_colour_of_a_fibre_is_no_structure():
    inner = np.abs(X - X.size / 2) < X.size / 2 - 40
    structure, measured = fine_structure(fibre_flat(0.0))
    assert measured.all()
    assert np.abs(structure[:, inner]).max() < 1e-3


def test_the_rms_is_that_of_fringes_and_noise():
    flat = fibre_flat(0.04, 0.01, rng=np.random.default_rng(3))
    assert flat_rms(flat) == pytest.approx(np.hypot(0.04 / np.sqrt(2), 0.01), rel=0.1)


def test_extrapolated_and_dead_samples_do_not_count():
    flat = fibre_flat(0.04)
    dark = np.zeros(flat.shape, dtype=bool)
    dark[:, :300] = True
    spoilt = Signal(np.where(dark, 5.0, flat.value), flat.variance, flat.dq)
    assert flat_rms(spoilt.flag(dark, DQ.EXTRAPOLATED)) == pytest.approx(0.04 / np.sqrt(2), rel=0.1)
    dead = np.broadcast_to(np.array([True, False, False])[:, None], flat.shape)
    assert np.isnan(flat_rms(flat.flag(dead, DQ.NO_DATA))).tolist() == [True, False, False]
    assert np.isnan(fringe_amplitude(flat.flag(dead, DQ.NO_DATA))).tolist() == [True, False, False]
