import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.signal import DQ, Signal
from kspecpipe.trace.shift import ShiftOptions, measure_shift

COLUMN = np.arange(400)


def arc(bench, rng, number=12):
    """Lines which move a little from fibre to fibre."""
    spectra = np.zeros(bench.y.shape)
    for centre, power in zip(
        rng.uniform(10, 390, number), rng.uniform(2.5, 4.5, number), strict=True
    ):
        place = centre + 0.2 * np.arange(bench.n_fibre)[:, None]
        spectra += 10**power * np.exp(-0.5 * ((COLUMN - place) / 1.7) ** 2) / 4.3
    return spectra


def with_rays(frame, rng, number=60):
    value = frame.value.copy()
    row, column = (
        rng.integers(0, value.shape[0], number),
        rng.integers(0, value.shape[1] - 3, number),
    )
    for step in range(3):
        value[row, column + step] += rng.exponential(3000, number)
    return Signal(value, frame.variance, frame.dq)


@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-3.9, 3.9), seed=st.integers(0, 2**16))
def test_arcs_tell_their_shift_to_a_hundredth_of_a_pixel(bench, measured, shift, seed):
    rng = np.random.default_rng(seed)
    frame = bench.expose(arc(bench, rng), rng, bench.y + shift)
    found = measure_shift(frame, measured[1], measured[0])
    assert abs(found.shift - shift) < 4 * np.hypot(found.error, 0.0025)
    assert found.error < 0.02


@pytest.mark.parametrize("shift", [0.0, 1.4, -2.7])
def test_cosmic_rays_do_not_move_the_shift(bench, measured, shift):
    rng = np.random.default_rng(3)
    frame = with_rays(bench.expose(arc(bench, rng, 25), rng, bench.y + shift), rng)
    found = measure_shift(frame, measured[1], measured[0])
    assert abs(found.shift - shift) < 0.012


def test_sky_continuum_is_enough(bench, measured):
    rng = np.random.default_rng(4)
    frame = bench.expose(np.full(bench.y.shape, 120.0), rng, bench.y - 1.13, background=5.0)
    found = measure_shift(frame, measured[1], measured[0])
    assert abs(found.shift + 1.13) < 4 * found.error
    assert found.error < 0.02


def test_a_lamp_that_is_bright_at_one_end_tells_the_shift_of_all_columns(bench, measured):
    rng = np.random.default_rng(8)
    lamp = np.tile(np.linspace(2e3, 2e4, COLUMN.size), (bench.n_fibre, 1))
    turned = bench.y + 0.3 + 0.02 * (COLUMN / 199.5 - 1)
    frame = bench.expose(lamp, rng, turned)
    few = 64 * bench.n_fibre
    found = [
        measure_shift(
            frame,
            measured[1],
            measured[0],
            options=ShiftOptions(max_samples=few, everywhere=everywhere),
        ).shift
        for everywhere in (False, True)
    ]
    assert found[0] > 0.31
    assert abs(found[1] - 0.3) < 0.003


def test_errors_are_honest(bench, measured):
    pulls = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        frame = bench.expose(np.full(bench.y.shape, 150.0), rng, bench.y + 0.6)
        found = measure_shift(frame, measured[1], measured[0])
        pulls.append((found.shift - 0.6) / found.error)
    assert np.std(pulls) < 1 + 4 / np.sqrt(2 * 12)
    assert np.std(pulls) > 0.3


def test_a_stretch_is_measured_and_applied(bench, measured):
    rng = np.random.default_rng(5)
    middle = (bench.y[0, 200] + bench.y[-1, 200]) / 2
    moved = bench.y + 0.8 + 0.004 * (bench.y - middle)
    found = measure_shift(bench.expose(arc(bench, rng, 30), rng, moved), measured[1], measured[0])
    assert abs(found.stretch - 0.004) < 0.0004
    assert np.abs(found.apply(measured[1].y) - moved).max() < 0.03


def test_shifts_are_frame_minus_flat(frames, bench, measured):
    frame = bench.exact(frames.lamp(bench), bench.y + 1.0)
    assert measure_shift(frame, measured[1], measured[0]).shift == pytest.approx(1.0, abs=0.01)


def test_a_dark_frame_has_no_shift_not_zero(bench, measured):
    frame = bench.expose(0.0, np.random.default_rng(6), background=20.0)
    found = measure_shift(frame, measured[1], measured[0])
    assert np.isnan(found.shift)
    assert not found.measured
    with pytest.raises(ValueError, match="not measured"):
        found.apply(measured[1].y)


def test_masked_pixels_take_no_part(bench, measured):
    rng = np.random.default_rng(7)
    frame = bench.expose(arc(bench, rng, 25), rng, bench.y + 0.5)
    mask = rng.random(frame.shape) < 0.03
    frame = Signal.of(np.where(mask, 1e7, frame.value), frame.variance, mask * int(DQ.BAD))
    assert abs(measure_shift(frame, measured[1], measured[0]).shift - 0.5) < 0.01


def test_frames_of_another_shape_are_refused(flat, measured):
    with pytest.raises(ValueError, match="differ in columns"):
        measure_shift(flat.select((slice(None), slice(0, 100))), measured[1], measured[0])
