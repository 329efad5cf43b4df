import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.background import fit_background
from kspecpipe.signal import DQ, Signal
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces


def scene(n_row=400, n_x=300):
    rows = 180 + 12.0 * np.arange(4)
    y = np.broadcast_to(rows[:, None], (4, n_x)).copy()
    status = np.array(["OK"] * 4)
    traces = Traces(y, np.full(y.shape, 3.7), status, 1.0, 0.0, np.zeros(0))
    r, x = np.mgrid[:n_row, :n_x]
    smooth = 20 + 8 * (r / n_row) + 5 * np.sin(x / 150)
    return traces, FibreLayout(rows, 6.0), smooth


def expose(smooth, traces, rng):
    frame = smooth + 3 * rng.standard_normal(smooth.shape)
    r = np.arange(smooth.shape[0])[:, None, None]
    frame += (3000 * np.exp(-0.5 * ((r - traces.y) / 1.6) ** 2)).sum(axis=1)
    return Signal.of(frame, 9.0)


def test_a_smooth_background_is_recovered_under_the_fibres():
    traces, layout, smooth = scene()
    frame = expose(smooth, traces, np.random.default_rng(1))
    off = fit_background(frame, traces, layout) - smooth
    assert np.abs(off[:, 20:-20]).max() < 1.0
    assert abs(off.mean()) < 0.1


def test_a_ghost_band_and_cosmic_rays_are_left_out():
    traces, layout, smooth = scene()
    rng = np.random.default_rng(2)
    band = 300 * np.exp(-0.5 * ((np.arange(400)[:, None] - 330) / 8) ** 2)
    frame = expose(smooth + band, traces, rng)
    value = frame.value.copy()
    value[rng.integers(0, 400, 500), rng.integers(0, 300, 500)] += 5000
    off = fit_background(Signal.of(value, 9.0), traces, layout) - smooth
    assert np.abs(off[160:240, 20:-20]).max() < 2.0


def test_given_rows_are_used_instead():
    traces, layout, smooth = scene()
    free = FibreLayout(layout.rows, 6.0, ((0, 150), (260, 300)))
    band = 1e4 * ((np.arange(400) > 305)[:, None])
    frame = expose(smooth + band, traces, np.random.default_rng(3))
    off = fit_background(frame, traces, free) - smooth
    assert np.abs(off[150:260, 20:-20]).max() < 1.5


def test_masked_pixels_take_no_part():
    traces, layout, smooth = scene()
    frame = expose(smooth, traces, np.random.default_rng(4))
    mask = np.random.default_rng(5).random(frame.shape) < 0.1
    frame = Signal.of(np.where(mask, np.nan, frame.value), 9.0, mask * int(DQ.BAD))
    assert np.abs((fit_background(frame, traces, layout) - smooth)[:, 20:-20]).max() < 1.2


def test_no_free_row_is_an_error():
    traces, layout, smooth = scene()
    with pytest.raises(RecipeError, match="no row"):
        fit_background(Signal.of(smooth[150:250], 9.0), traces_at(traces, -150), layout_at(layout))


def traces_at(traces, move):
    y = np.linspace(5, 95, 10)[:, None] * np.ones(traces.y.shape[1])
    return Traces(y + 0 * move, np.full(y.shape, 3.7), np.array(["OK"] * 10), 1, 0, np.zeros(0))


def layout_at(layout):
    return FibreLayout(np.linspace(5, 95, 10), layout.tolerance)


def test_frames_of_another_shape_are_refused():
    traces, layout, smooth = scene()
    with pytest.raises(ValueError, match="differ in columns"):
        fit_background(Signal.of(smooth[:, :10], 9.0), traces, layout)


def fill(n_row, lowest, n_fibre, n_x=200):
    """Traces, layout and a sloping background of a frame that fibres fill."""
    rows = lowest + 10.0 * np.arange(n_fibre)
    y = np.broadcast_to(rows[:, None], (n_fibre, n_x)).copy()
    traces = Traces(y, np.full(y.shape, 3.0), np.array(["OK"] * n_fibre), 1.0, 0.0, np.zeros(0))
    slope = 5 + 4 * np.linspace(0, 1, n_row)[:, None] + np.zeros(n_x)
    return traces, FibreLayout(rows, 5.0), slope


def test_between_free_rows_at_both_ends_the_background_is_a_line_not_the_noise_of_their_slopes():
    traces, layout, slope = fill(1000, 80, 85)
    rng = np.random.default_rng(7)
    frame = Signal.of(slope + 5 * rng.standard_normal(slope.shape), 25.0)
    off = fit_background(frame, traces, layout) - slope
    # About 130 free rows, smoothed over 2 sqrt(pi) 40 columns: 0.04 electrons at either end.
    assert np.abs(off[80:920]).max() < 0.25


def test_free_rows_on_one_side_give_one_value_a_column():
    traces, layout, slope = fill(1000, 80, 92)
    rng = np.random.default_rng(8)
    flat = Signal.of(0 * slope + 7 + 5 * rng.standard_normal(slope.shape), 25.0)
    found = fit_background(flat, traces, layout)
    assert np.ptp(found, axis=0).max() < 1e-9
    assert np.abs(found - 7).max() < 0.4
