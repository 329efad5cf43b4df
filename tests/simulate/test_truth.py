"""The truth must be true: measured on noise-free images by moments alone."""

import numpy as np
import pytest

from kspecpipe.simulate.exposure import open_dome
from kspecpipe.simulate.light import arc_light, flat_light, object_light
from kspecpipe.simulate.optics import Shift, blur_continuum, blur_lines, fine_columns
from kspecpipe.simulate.plan import NightPlan, Traps
from kspecpipe.simulate.scene import expected_image

SHIFT = Shift(0.83, -0.31, 0.02)


def bench_of(instrument="isoplane", **plan):
    dome = open_dome(NightPlan(instrument=instrument, size="small", **plan), seed=4)
    return next(iter(dome.benches.values()))


@pytest.fixture(scope="module")
def bench():
    return bench_of()


@pytest.mark.parametrize("instrument", ["isoplane", "kspec"])
def test_rows_of_a_lone_fibre_have_the_trace_as_centroid_and_the_truth_as_sum(instrument):
    bench = bench_of(instrument)
    trace = bench.optics.trace(SHIFT)
    fibre = 5
    electron = np.zeros_like(trace)
    electron[fibre] = flat_light(bench, SHIFT, 1.0)[fibre] + 10.0
    image = expected_image(bench.optics, trace, electron, Traps.none())
    row = np.arange(image.shape[0])
    centroid = (row[:, None] * image).sum(axis=0) / image.sum(axis=0)
    np.testing.assert_allclose(image.sum(axis=0), electron[fibre], rtol=1e-12)
    np.testing.assert_allclose(centroid, trace[fibre], atol=2e-4)


@pytest.mark.parametrize("instrument", ["isoplane", "kspec"])
def test_centroid_of_a_line_falls_where_the_wavelength_truth_says(instrument):
    optics = bench_of(instrument).optics
    x = np.arange(optics.n_columns, dtype=float)
    truth = optics.wavelength(x, SHIFT)
    for wavelength in np.linspace(truth.max(axis=0)[30], truth.min(axis=0)[-30], 7):
        line = blur_lines(optics, np.array([wavelength]), np.full((optics.n_fibres, 1), 1e4), SHIFT)
        centroid = (line * x).sum(axis=1) / line.sum(axis=1)
        expected = [np.interp(wavelength, w, x) for w in truth]
        np.testing.assert_allclose(line.sum(axis=1), 1e4, rtol=1e-9)
        np.testing.assert_allclose(centroid, expected, atol=5e-4)


def test_narrow_feature_of_a_continuum_falls_where_a_line_falls(bench):
    optics = bench.optics
    x = np.arange(optics.n_columns, dtype=float)
    at = optics.wavelength(fine_columns(optics.n_columns), SHIFT)
    feature = np.exp(-0.5 * ((at - 6200.0) / 4.0) ** 2) * np.gradient(at, axis=1)
    blurred = blur_continuum(optics, feature)
    centroid = (blurred * x).sum(axis=1) / blurred.sum(axis=1)
    expected = [np.interp(6200.0, w, x) for w in optics.wavelength(x, SHIFT)]
    np.testing.assert_allclose(blurred.sum(axis=1), feature.sum(axis=1), rtol=3e-5)
    np.testing.assert_allclose(centroid, expected, atol=2e-3)


def test_even_continuum_keeps_its_level_up_to_the_edges(bench):
    fine = np.ones((bench.optics.n_fibres, fine_columns(bench.optics.n_columns).size))
    level = blur_continuum(bench.optics, fine)
    np.testing.assert_allclose(level, 4.0, rtol=1e-3)


def test_lines_have_a_long_blue_wing_and_the_profile_is_no_gaussian(bench):
    optics = bench.optics
    x = np.arange(optics.n_columns, dtype=float)
    line = blur_lines(optics, np.array([6200.0]), np.ones((optics.n_fibres, 1)), SHIFT)[0]
    mean = (line * x).sum()
    spread = np.sqrt((line * (x - mean) ** 2).sum())
    assert (line * ((x - mean) / spread) ** 3).sum() < -0.5
    peak = x[line.argmax()]
    assert 0.1 < peak - mean < 1.0
    assert 3.5 < (line > line.max() / 2).sum() <= 6
    assert line[x < mean - 5].sum() > 2 * line[x > mean + 5].sum()


def test_lines_shift_by_two_and_a_half_to_three_pixels_from_first_fibre_to_last():
    for seed in range(5):
        dome = open_dome(NightPlan(), seed)
        column = dome.benches["150_620"].optics.column(np.array([5500.0, 7000.0]), Shift())
        assert np.all(abs(column[-1] - column[0] - 2.75) < 0.35)


def test_dispersion_is_that_of_the_real_solution_and_off_the_nominal_by_six_per_cent():
    dome = open_dome(NightPlan(modes=("150_620", "600_680")), seed=1)
    for mode, nominal, factor in (("150_620", 3.68, 1.06), ("600_680", 0.92, 0.98)):
        optics = dome.benches[mode].optics
        wavelength = optics.wavelength(np.arange(1340.0), Shift())[7]
        mean = (wavelength[-1] - wavelength[0]) / 1339
        assert mean / nominal == pytest.approx(factor, abs=0.015)
        line = np.polyval(np.polyfit(np.arange(1340.0), wavelength, 1), np.arange(1340.0))
        assert np.ptp(wavelength - line) > 5 * mean, "the grating equation is not linear"


def test_header_centre_is_off_by_up_to_tens_of_pixels():
    errors = [
        open_dome(NightPlan(size="small"), s).benches["150_620"].optics.centre_error
        for s in range(12)
    ]
    assert 10 < np.abs(errors).max() <= 25


def test_traces_tilt_by_four_rows_and_hardly_bend():
    optics = open_dome(NightPlan(), 1).benches["150_620"].optics
    trace = optics.trace(Shift())
    x = np.arange(1340.0)
    bend = [np.ptp(y - np.polyval(np.polyfit(x, y, 1), x)) for y in trace]
    np.testing.assert_allclose(trace[:, 0] - trace[:, -1], 3.6, atol=0.25)
    assert max(bend) < 0.1
    np.testing.assert_allclose(np.diff(trace[:, 670]), 12.06, atol=1.0)
    assert trace[0, 670] == pytest.approx(574.75, abs=0.8)


def test_flat_is_dark_below_4150_and_fringes_are_red_of_6700():
    bench = open_dome(NightPlan(traps=Traps(dead_fibre=False)), 1).benches["150_620"]
    light = flat_light(bench, SHIFT, 1.0)
    wavelength = bench.optics.wavelength(np.arange(1340.0), SHIFT)
    assert light[wavelength < 4120].max() < 1e-3 * light.max()
    kernel = np.ones(29) / 29
    for electron, at in zip(light, wavelength, strict=True):
        ripple = electron / (np.convolve(electron, kernel, "same") + 1e-9) - 1
        inside = slice(20, 1310)
        blue = ripple[inside][(at[inside] > 5200) & (at[inside] < 6600)]
        red = ripple[inside][(at[inside] > 7100) & (at[inside] < 8600)]
        assert blue.std() < 3e-3
        assert 0.025 < red.std() < 0.045


def test_fringes_sit_on_the_same_pixels_in_flat_and_science():
    def ripple(light, traps):
        bench = open_dome(NightPlan(traps=traps), 1).benches["150_620"]
        return light(bench)[0, 1000:1300]

    for light in (
        lambda b: flat_light(b, Shift(), 1.0),
        lambda b: object_light(b, SHIFT, 2400.0, 1.2).sky,
    ):
        ratio = ripple(light, Traps()) / ripple(light, Traps(fringes=False))
        flat = ripple(lambda b: flat_light(b, Shift(), 1.0), Traps())
        smooth = ripple(lambda b: flat_light(b, Shift(), 1.0), Traps(fringes=False))
        np.testing.assert_allclose(ratio, flat / smooth, rtol=1e-9)
        assert np.ptp(ratio) > 0.07


def test_sky_and_target_make_up_the_light_and_sky_fibres_see_sky_only(bench):
    light = object_light(bench, SHIFT, 2400.0, 1.3)
    np.testing.assert_allclose(light.sky + light.target, light.electron)
    kind = bench.fibres.target_class
    assert {0, 2, 5, 8, 9} <= set(kind.tolist())
    assert np.all(light.target[kind == 9] == 0)
    assert np.all(light.electron[kind == 5] == 0), "a parked fibre sees nothing"
    live = (kind == 9) & (bench.fibres.status == "OK")
    assert light.sky[live].min() > 10


def test_objects_reach_signal_to_noise_ratios_of_three_to_fifty():
    reached = []
    for seed in range(4):
        bench = open_dome(NightPlan(), seed).benches["150_620"]
        light = object_light(bench, Shift(), 2400.0, 1.2)
        noise = np.sqrt(light.electron + 5 * 4.48**2)
        galaxy = (bench.fibres.target_class == 2) & (bench.fibres.status == "OK")
        reached += np.median(light.target / noise, axis=1)[galaxy].tolist()
    assert min(reached) > 0.5
    assert np.percentile(reached, 20) < 6
    assert 15 < max(reached) < 80


def test_arc_has_saturated_lines_second_orders_and_lines_of_the_lamps_that_burn():
    bench = open_dome(NightPlan(traps=Traps(arc_continuum=False)), 1).benches["150_620"]
    x = np.arange(1340.0)
    wavelength = bench.optics.wavelength(x, Shift())[7]
    every = arc_light(bench, Shift(), ("Hg", "Ar", "Ne", "Kr", "Cd"), 1.0)[7]
    neon = arc_light(bench, Shift(), ("Ne",), 1.0)[7]
    assert every.max() > 65535 * 1.12 / 0.25

    def near(light, at):
        return light[abs(wavelength - at) < 12].sum()

    assert near(every, 5085.82) > 1e3 * near(neon, 5085.82)
    assert near(neon, 6402.25) > 0.5 * near(every, 6402.25)
    twice = arc_light(bench, Shift(), ("Hg",), 1.0)[7]
    assert near(twice, 2 * 4358.335) > 0.01 * near(twice, 4358.335)


def test_throughput_spreads_by_thirty_per_cent_and_one_fibre_is_dead():
    fibres = open_dome(NightPlan(size="small"), 3).benches["150_620"].fibres
    live = fibres.status == "OK"
    assert live.sum() == 13
    assert fibres.status[4] == "DEAD"
    assert np.ptp(fibres.throughput[live]) > 0.45
    assert np.median(fibres.relative_throughput()[live]) == pytest.approx(1)
    assert fibres.throughput[4] < 0.01
    chosen = open_dome(NightPlan(size="small", dead=(1, 14)), 3).benches["150_620"].fibres
    assert (chosen.status == "DEAD").nonzero()[0].tolist() == [0, 13]


def test_sixteen_fibres_have_two_that_are_nearly_dark():
    fibres = open_dome(NightPlan(n_fibres=16), 3).benches["150_620"].fibres
    assert (fibres.status == "LOW").sum() == 2
    assert fibres.throughput[fibres.status == "LOW"].max() < 0.05


def test_perfect_instrument_has_no_accident():
    bench = bench_of(traps=Traps.none())
    assert np.all(bench.fibres.throughput == 1)
    assert bench.optics.centre_error == 0
    assert set(bench.lamp_ratio.values()) == {1.0}
    wavelength = bench.optics.wavelength(np.arange(500.0), Shift())
    assert np.ptp(wavelength, axis=0).max() == 0
