import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout


def worst(traces, truth):
    return np.abs(traces.y - truth).max()


def test_noiseless_traces_lie_on_the_light(frames, bench, layout):
    traces = find_traces(bench.exact(frames.lamp(bench)), layout)
    assert worst(traces, bench.y) < 0.1
    assert (traces.status == "OK").all()
    assert traces.match_score > 0.95
    assert traces.runner_up < traces.match_score


def test_noisy_traces_lie_on_the_light(flat, bench, layout):
    traces = find_traces(flat, layout)
    assert worst(traces, bench.y) < 0.1
    assert 0 < traces.rms < 0.05
    assert traces.points["used"].mean() > 0.9


@settings(max_examples=8, deadline=None)
@given(shift=st.floats(-5.5, 5.5), stretch=st.floats(-0.01, 0.01))
def test_nominal_rows_may_be_off_by_the_tolerance(frames, bench, shift, stretch):
    rows = bench.rows + shift + stretch * (bench.rows - bench.rows.mean())
    traces = find_traces(bench.exact(frames.lamp(bench)), FibreLayout(rows, 6.0))
    assert worst(traces, bench.y) < 0.1


@pytest.mark.parametrize("dead", [(0,), (7,), (3,), (3, 4), (0, 7)])
def test_dead_fibres_keep_their_index(frames, bench, layout, dead):
    throughput = np.ones(bench.n_fibre)
    throughput[list(dead)] = 0
    flat = bench.expose(frames.lamp(bench, throughput=throughput), np.random.default_rng(2))
    traces = find_traces(flat, layout)
    assert np.flatnonzero(traces.status == "DEAD").tolist() == list(dead)
    live = traces.live
    assert np.abs(traces.y - bench.y)[live].max() < 0.1
    assert np.abs(traces.y - bench.y)[~live].max() < 0.6  # the bench's rows are not regular


def test_a_weak_fibre_is_low(frames, bench, layout):
    throughput = np.ones(bench.n_fibre)
    throughput[2] = 0.08
    flat = bench.expose(frames.lamp(bench, throughput=throughput), np.random.default_rng(2))
    assert find_traces(flat, layout).status.tolist().count("LOW") == 1


def test_faint_ghosts_beyond_the_last_fibre_are_not_fibres(frames, bench):
    light = frames.lamp(bench)
    ghosts = bench.image(0.03 * light[:2], bench.y[-1] + np.array([[12.0], [24.0]]))
    flat = bench.expose(light, np.random.default_rng(3))
    flat = Signal(flat.value + ghosts, flat.variance, flat.dq)
    # nominal rows nearly a whole pitch too high: the ghosts invite a wrong identification
    traces = find_traces(flat, FibreLayout(bench.rows + 9.0, 12.0))
    assert worst(traces, bench.y) < 0.1


def test_a_diffuse_band_is_not_a_fibre(frames):
    bench = frames.Bench(n_row=320)
    flat = bench.exact(frames.lamp(bench, level=3000))
    rows = np.arange(bench.n_row)[:, None]
    band = 600 * np.exp(-0.5 * ((rows - 270) / 12) ** 2) * np.ones(bench.n_x)
    layout = FibreLayout(bench.rows - 2.0, 6.0)
    traces = find_traces(Signal.of(flat.value + band, flat.variance), layout)
    assert worst(traces, bench.y) < 0.1
    assert (traces.status == "OK").all()


def test_cosmic_rays_and_hot_columns_do_not_bend_traces(flat, bench, layout):
    rng = np.random.default_rng(4)
    value = flat.value.copy()
    value[rng.integers(0, bench.n_row, 300), rng.integers(0, bench.n_x, 300)] += 2e4
    value[:, 123] += 3e4
    assert worst(find_traces(Signal.of(value, flat.variance), layout), bench.y) < 0.1


def test_masked_columns_are_bridged(flat, bench, layout):
    mask = np.zeros(flat.shape, dtype=bool)
    mask[:, 100:140] = True
    value = np.where(mask, np.nan, flat.value)
    traces = find_traces(Signal.of(value, flat.variance, np.where(mask, int(DQ.BAD), 0)), layout)
    assert worst(traces, bench.y) < 0.1


def test_columns_without_light_follow_the_others(frames, bench, layout):
    light = frames.lamp(bench) * (bench.unit > -0.7)
    traces = find_traces(bench.expose(light, np.random.default_rng(5)), layout)
    assert worst(traces, bench.y) < 0.25


def test_blocks_with_gaps_are_told_apart_by_their_gaps(frames):
    rows = np.concatenate([20 + 8.2 * np.arange(9), 120 + 8.2 * np.arange(7)])
    bench = frames.Bench(n_row=200, rows=rows, fwhm=3.0)
    flat = bench.expose(frames.lamp(bench), np.random.default_rng(6))
    traces = find_traces(flat, FibreLayout(rows - 5.0, 9.0))
    assert worst(traces, bench.y) < 0.1


def test_wide_curved_traces_of_fading_brightness_are_found(frames):
    rows = np.cumsum(np.linspace(50, 80, 9))
    bench = frames.Bench(
        n_row=700, n_x=300, rows=rows, fwhm=22.0, tilt=25.0, curvature=-12.0, skew=0.3
    )
    light = 2e5 * np.exp(-0.5 * np.arange(9))[:, None] * np.ones(bench.n_x)
    traces = find_traces(bench.expose(light, np.random.default_rng(7)), FibreLayout(rows, 20.0))
    assert (traces.status != "DEAD").all()
    assert worst(traces, bench.y) < 1.5


def test_no_light_is_an_error(bench, layout):
    dark = bench.expose(0.0, np.random.default_rng(8))
    with pytest.raises(RecipeError, match="no light|fibres found"):
        find_traces(dark, layout)


def test_too_few_traces_are_an_error(frames, bench, layout):
    throughput = np.zeros(bench.n_fibre)
    throughput[:3] = 1
    flat = bench.expose(frames.lamp(bench, throughput=throughput), np.random.default_rng(9))
    with pytest.raises(RecipeError, match="of 8 fibres"):
        find_traces(flat, layout)


def test_more_traces_than_fibres_are_an_error(flat, bench):
    with pytest.raises(RecipeError, match="8 traces found, 7 fibres expected|equally good"):
        find_traces(flat, FibreLayout(bench.rows[:7], 6.0))


def test_two_equally_good_identifications_are_an_error(frames, bench):
    throughput = np.ones(bench.n_fibre)
    throughput[-1] = 0
    flat = bench.expose(frames.lamp(bench, throughput=throughput), np.random.default_rng(10))
    half_a_pitch_low = FibreLayout(bench.rows - 6.03, 12.0)
    with pytest.raises(RecipeError, match="equally good"):
        find_traces(flat, half_a_pitch_low)


def test_a_masked_frame_says_so(flat, layout):
    masked = Signal.of(flat.value, flat.variance, int(DQ.BAD))
    with pytest.raises(RecipeError, match="masked"):
        find_traces(masked, layout)


def test_a_cube_is_refused(flat, layout):
    with pytest.raises(ValueError, match="an image"):
        find_traces(Signal.of(flat.value[None], 1.0), layout)


def test_rows_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="increase"):
        FibreLayout(np.array([3.0, 2.0]), 1.0)


def test_layout_knows_its_blocks():
    layout = FibreLayout(np.array([0.0, 8, 16, 40, 48]), 3.0)
    assert layout.pitch == 8
    assert layout.block_of_fibre.tolist() == [0, 0, 0, 1, 1]
