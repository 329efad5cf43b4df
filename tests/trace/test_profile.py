from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from kspecpipe.extraction.solve import extract_fibres
from kspecpipe.signal import Signal
from kspecpipe.trace.clean import block_width, clean_blocks, solve_blocks
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.profile import extend_wings, measure_profile, sample_profile
from kspecpipe.trace.profile_fit import fit_profile, spline_values
from kspecpipe.trace.table import Profile


def test_noiseless_profile_and_centroids_are_exact(frames, bench, layout):
    flat = bench.exact(frames.lamp(bench))
    profile, traces = measure_profile(flat, find_traces(flat, layout))
    assert np.abs(traces.y - bench.y).max() < 0.01
    window, weights = sample_profile(profile, traces.y)
    truth = bench.profile(window, weights.shape[1])
    assert np.abs(weights - truth).max() < 0.01 * truth.max()


def test_noisy_centroids_are_good_to_five_thousandths_of_a_pixel(measured, bench):
    _, traces = measured
    off = traces.y - bench.y
    assert np.sqrt(np.mean(off**2)) < 0.005
    assert traces.rms > 0


def test_refining_improves_the_traces(measured, flat, bench, layout):
    before = find_traces(flat, layout)
    assert np.std(measured[1].y - bench.y) < np.std(before.y - bench.y)


def test_measured_widths_are_those_of_the_profile(measured, bench):
    _, traces = measured
    ratio = traces.width / bench.widths
    assert ratio.std() < 0.03
    assert 0.9 < ratio.mean() < 1.3  # pixel integration and skewness widen it


def test_light_of_ghosts_stays_out_of_the_profile(frames, bench, layout):
    light = frames.lamp(bench)
    ghosts = bench.image(0.03 * light[:2], bench.y[-1] + np.array([[12.0], [24.0]]))
    flat = bench.expose(light, np.random.default_rng(11))
    flat = Signal(flat.value + ghosts, flat.variance, flat.dq)
    _, traces = measure_profile(flat, find_traces(flat, layout))
    assert np.sqrt(np.mean((traces.y - bench.y) ** 2)) < 0.006


def test_columns_without_light_are_extrapolated_to_three_hundredths(frames, layout):
    bench = frames.Bench(n_x=600)
    light = frames.lamp(bench) * (bench.unit > -0.7)
    flat = bench.expose(light, np.random.default_rng(5))
    _, traces = measure_profile(flat, find_traces(flat, layout))
    off = traces.y - bench.y
    dark = bench.unit < -0.7
    assert np.sqrt(np.mean(off[:, ~dark] ** 2)) < 0.005
    assert np.sqrt(np.mean(off[:, dark] ** 2)) < 0.03


def test_fibres_of_different_width_keep_their_centroids_and_their_flux(frames, layout):
    bench = frames.Bench(skew=1.2)
    bench.widths = bench.widths * (1 + 0.04 * np.cos(2.5 * np.arange(8)))[:, None]
    bench.skews = np.full_like(bench.skews, 1.2)
    flat = bench.exact(frames.lamp(bench, throughput=np.linspace(0.8, 1.2, 8)))
    profile, traces = measure_profile(flat, find_traces(flat, layout))
    assert np.sqrt(np.mean((traces.y - bench.y) ** 2)) < 0.005
    ratio = (traces.width / bench.widths).mean(axis=1)
    assert ratio.std() < 0.005
    window, weights = sample_profile(profile, traces.y)
    truth = bench.profile(window, weights.shape[1])
    shared = (weights * truth).sum(axis=1) / (truth**2).sum(axis=1)
    assert np.ptp(shared.mean(axis=1)) < 0.01


def test_what_a_dead_fibre_leaks_is_not_taken_for_wings(frames, bench, layout):
    light = frames.lamp(bench, level=1e5, throughput=[0.006, 1, 0.8, 1.2, 0.9, 1, 1.1, 0.9])
    flat = bench.exact(light, background=20.0)
    found = find_traces(flat, layout)
    assert found.live.tolist() == [False] + 7 * [True]
    profile, traces = measure_profile(flat, found)
    assert np.abs(traces.y - bench.y)[1:].max() < 0.01
    window, weights = sample_profile(profile, traces.y)
    truth = bench.profile(window, weights.shape[1])
    assert np.abs(weights - truth)[1:].max() < 0.004 * truth.max()


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-4, 4))
def test_samples_sum_to_one_and_have_their_centroid_on_the_trace(measured, shift):
    profile, traces = measured
    window, weights = sample_profile(profile, traces.y, shift=shift)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)  # single precision
    rows = window[:, None, :] + np.arange(weights.shape[1])[:, None]
    centroid = np.einsum("fyx,fyx->fx", rows, weights)
    assert np.abs(centroid - traces.y - shift).max() < 0.005


def test_a_profile_is_rebuilt_from_table_and_axes(measured):
    profile, traces = measured
    again = Profile(
        profile.table.astype(np.float32),
        profile.fibre_node,
        profile.x_node,
        profile.first_offset,
        profile.step,
    )
    _, weights = sample_profile(profile, traces.y)
    _, rebuilt = sample_profile(again, traces.y)
    np.testing.assert_allclose(rebuilt, weights, atol=1e-6)


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Profile(np.zeros((2, 1, 9)), np.arange(3.0), np.zeros(1), -1.0, 0.25)
    with pytest.raises(ValueError, match="one over an integer"):
        Profile(np.zeros((1, 1, 9)), np.zeros(1), np.zeros(1), -1.0, 0.3)


def test_wings_that_scattered_light_hid_are_found_when_it_is_gone(frames, bench, layout):
    light = frames.lamp(bench)
    floor = 600.0
    lit = bench.expose(light, np.random.default_rng(7), background=floor)
    profile, traces = measure_profile(lit, find_traces(lit, layout))
    wide = extend_wings(replace(lit, value=lit.value - floor), traces, profile)

    def recovered(one):
        spectra = extract_fibres(bench.exact(light), *sample_profile(one, traces.y)).spectra
        return np.nanmedian(spectra.value / light)

    # Half the pitch is not the end of the wings, which hold 5 % of the light.
    assert recovered(profile) < 0.998
    assert recovered(wide) == pytest.approx(1, abs=7e-4)


def test_widths_of_fibres_hold_only_what_does_not_change_evenly_along_the_slit(flat, measured):
    profile, traces = measured
    spectra = solve_blocks(clean_blocks(flat, block_width(traces, 48), traces), traces, profile)
    common = fit_profile(spectra, traces, 11.0, (2, 1))
    own = fit_profile(spectra, traces, 11.0, (2, 1), common).own
    middle = own[:, own.shape[1] // 2]
    place = np.arange(middle.size) - (middle.size - 1) / 2
    # The stretch of the profile is not quite the same for all fibres, so its height is not.
    assert abs(middle.sum()) < 0.05 * np.abs(middle).sum()
    assert abs(place @ middle) < 0.05 * np.abs(place * middle).sum()


def test_a_dead_fibre_has_the_profile_of_the_others(frames, bench, layout):
    throughput = np.ones(bench.n_fibre)
    throughput[3] = 0
    flat = bench.expose(frames.lamp(bench, throughput=throughput), np.random.default_rng(6))
    profile, traces = measure_profile(flat, find_traces(flat, layout))
    assert traces.status[3] == "DEAD"
    np.testing.assert_allclose(traces.width[3], np.median(traces.width, axis=0), rtol=0.05)


def test_frames_of_another_shape_are_refused(flat, measured):
    with pytest.raises(ValueError, match="differ in columns"):
        measure_profile(flat.select((slice(None), slice(0, 100))), measured[1])


@pytest.mark.parametrize("unit", [0.0, 0.3, -1.7, 4.0])
def test_splines_between_knots_are_those_of_scipy(unit):
    knot, value = spline_values(np.array([unit]))
    spline = BSpline.basis_element(np.arange(-3.0, 4.0), extrapolate=False)
    expected = np.nan_to_num(spline(unit - np.arange(-12, 13)))
    found = np.zeros(25)
    found[knot[0] + 12] = value[0]
    np.testing.assert_allclose(found, expected, atol=1e-14)
