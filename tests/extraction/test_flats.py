import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.flats import (
    exposure_levels,
    fibre_light,
    low_sensitivity_pixels,
    smooth_model,
)
from kspecpipe.extraction.lamps import stitch_lamps
from kspecpipe.extraction.solve import extract_fibres
from kspecpipe.signal import DQ, Signal


def test_levels_follow_fibre_light_not_background(frames, bench, measured):
    rng = np.random.default_rng(1)
    light = frames.lamp(bench)
    scales, pedestals = np.array([1.0, 0.7, 1.4]), [0.0, 900.0, 0.0]
    planes = [
        bench.expose(s * light, rng, background=p) for s, p in zip(scales, pedestals, strict=True)
    ]
    planes = [
        Signal(plane.value - p, plane.variance, plane.dq)
        for plane, p in zip(planes, pedestals, strict=True)
    ]
    first = exposure_levels(planes, measured[1])
    normal = [plane.value / level for plane, level in zip(planes, first, strict=True)]
    second = exposure_levels(planes, measured[1], master=Signal.of(np.mean(normal, axis=0)))
    np.testing.assert_allclose(second / second[0], scales, rtol=1e-3)


def test_the_second_stage_is_the_better_one(frames, bench, measured):
    rng = np.random.default_rng(2)
    light = frames.lamp(bench)
    one, two = bench.expose(light, rng), bench.expose(light, rng)
    hidden = np.zeros(two.shape, dtype=bool)
    hidden[:, 150:250] = True  # the brightest columns of one flat are masked
    two = Signal.of(two.value, two.variance, hidden * int(DQ.BAD))
    first = exposure_levels([one, two], measured[1])
    second = exposure_levels([one, two], measured[1], master=bench.exact(light))
    assert abs(second[1] / second[0] - 1) < 1e-3 < abs(first[1] / first[0] - 1)


def test_a_lamp_that_lights_only_one_end_has_a_level(frames, bench, measured):
    rng = np.random.default_rng(6)
    red = frames.lamp(bench) * np.where(np.arange(bench.n_x) > 0.7 * bench.n_x, 1.0, 0.0)
    planes = [bench.expose(s * red, rng) for s in (1.0, 0.7)]
    planes = [Signal(plane.value - 3.0, plane.variance, plane.dq) for plane in planes]
    levels = exposure_levels(planes, measured[1])
    assert levels[1] / levels[0] == pytest.approx(0.7, abs=0.01)


def test_flats_without_light_are_named(frames, bench, measured):
    rng = np.random.default_rng(3)
    dark = Signal.of(np.full((bench.n_row, bench.n_x), -1.0), 1.0)
    with pytest.raises(RecipeError, match=r"1 of 2 flats \(first: \[1\]\)"):
        exposure_levels([bench.expose(frames.lamp(bench), rng), dark], measured[1])
    masked = Signal.of(dark.value, 1.0, int(DQ.BAD))
    with pytest.raises(RecipeError, match="no usable pixel"):
        fibre_light(masked, measured[1])
    with pytest.raises(ValueError, match="differ in shape"):
        fibre_light(dark, measured[1], master=dark.select(slice(0, 10)))


@pytest.fixture
def dull(frames, bench):
    """Return a flat in which eight pixels see 60 % of their light, its model and the pixels."""
    rng = np.random.default_rng(4)
    frame = bench.expose(frames.lamp(bench), rng)
    value = frame.value * rng.normal(1, 0.005, frame.shape)
    window, weights = bench.windows(12)
    fibre, column = np.arange(8), np.arange(20, 400, 48)[:8]
    row = np.round(bench.y[fibre, column]).astype(int)
    value[row, column] *= 0.6
    frame = Signal(value, frame.variance, frame.dq)
    spectra = extract_fibres(frame, window, weights).spectra
    return frame, smooth_model(spectra, window, weights, bench.n_row), (row, column)


def test_dull_pixels_are_found_and_only_they(dull):
    frame, model, at = dull
    low = low_sensitivity_pixels(frame, model)
    assert low[at].all()
    assert low.sum() <= 8 + 2
    np.testing.assert_array_equal(
        np.nonzero(low_sensitivity_pixels(frame, model, response=0.7)), at
    )
    assert not low_sensitivity_pixels(frame, model, response=0.5).any()
    with pytest.raises(ValueError, match="differ in shape"):
        low_sensitivity_pixels(frame, model[:10])


def test_a_dead_column_is_found_where_no_pixel_of_it_stands_out(frames, bench):
    rng = np.random.default_rng(11)
    light = 0.02 * frames.lamp(bench)
    window, weights = bench.windows(12)
    whole = bench.expose(light, rng)
    value, first, column = whole.value.copy(), bench.n_row // 3, 200
    value[first:, column] *= 0.2
    frame = Signal(value, whole.variance, whole.dq)
    model = smooth_model(
        extract_fibres(frame, window, weights).spectra, *bench.windows(12), bench.n_row
    )
    low = low_sensitivity_pixels(frame, model, low_sensitivity_clipping_sigma=8, response=0.7)
    lit = model > 0.2 * model.max(axis=0)
    noise = np.sqrt(frame.variance + model)
    assert np.median((model / noise)[lit]) < 8
    assert low[first:, column][lit[first:, column]].mean() > 0.9
    assert not np.delete(low, column, axis=1).any()
    assert not low_sensitivity_pixels(whole, model, low_sensitivity_clipping_sigma=8, response=0.7)[
        lit
    ].any()


def test_significance_is_asked_for_too(dull):
    frame, model, _ = dull
    assert not low_sensitivity_pixels(frame, model, low_sensitivity_clipping_sigma=1000).any()


def test_pixels_without_light_are_never_dull(dull):
    frame, model, _ = dull
    dark = Signal.of(np.zeros(frame.shape), frame.variance)
    assert not low_sensitivity_pixels(dark, 0 * model).any()
    assert not low_sensitivity_pixels(frame, model)[np.abs(model) < 10].any()


def test_the_smooth_model_forgets_single_bad_samples(frames, bench, dull):
    _, model, (row, column) = dull
    truth = bench.exact(frames.lamp(bench)).value
    assert np.abs(model[row, column] / truth[row, column] - 1).max() < 0.03


def test_the_smooth_model_bridges_missing_samples(frames, bench):
    window, weights = bench.windows(12)
    spectra = Signal.of(frames.lamp(bench))
    gap = np.zeros(spectra.shape, dtype=bool)
    gap[2, 100:104] = True
    holed = Signal(np.where(gap, np.nan, spectra.value), spectra.variance, spectra.dq)
    whole = smooth_model(spectra, window, weights, bench.n_row)
    filled = smooth_model(holed, window, weights, bench.n_row)
    np.testing.assert_allclose(filled, whole, rtol=1e-3, atol=1e-3 * whole.max())


def two_lamps(rng):
    x = np.arange(800)
    blue = 5e3 * np.exp(-0.5 * ((x - 150) / 130) ** 2)
    red = 2e4 * np.exp(-0.5 * ((x - 600) / 200) ** 2)
    throughput = np.array([0.8, 1.0, 1.2])[:, None]
    return [
        Signal.of(
            throughput * lamp + np.sqrt(throughput * lamp + 50) * rng.standard_normal((3, 800)),
            throughput * lamp + 50,
        )
        for lamp in (blue, red)
    ]


def test_lamps_are_joined_where_both_shine():
    blue, red = two_lamps(np.random.default_rng(5))
    red = red.flag(np.arange(800)[None] == 700 + np.zeros((3, 1), int), DQ.HOT)
    found = stitch_lamps({"QTH": red, "D2": blue})
    (joint,) = found.crossovers
    assert found.joints == [("D2", "QTH", joint)]
    assert 200 < joint < 450
    assert (found.lamp[:joint] == 1).all()
    assert (found.lamp[joint:] == 0).all()
    assert found.scales[0] == 1.0
    np.testing.assert_array_equal(found.spectra.value[:, joint:], red.value[:, joint:])
    np.testing.assert_allclose(
        found.spectra.variance[:, :joint], blue.variance[:, :joint] * found.scales[1] ** 2
    )
    assert (found.spectra.dq[:, 700] == DQ.HOT).all()
    left, right = (found.spectra.value[:, joint + a : joint + a + 8].mean() for a in (-8, 0))
    assert abs(left / right - 1) < 0.25


def test_a_single_lamp_is_itself():
    blue, _ = two_lamps(np.random.default_rng(6))
    found = stitch_lamps({"": blue})
    np.testing.assert_array_equal(found.spectra.value, blue.value)
    assert found.crossovers == ()


def test_dead_fibres_do_not_stop_the_stitching():
    blue, red = two_lamps(np.random.default_rng(8))
    dead = np.broadcast_to(np.array([False, True, False])[:, None], blue.shape)
    lamps = {
        "D2": blue.flag(dead, DQ.NO_DATA),
        "QTH": red.flag(dead, DQ.NO_DATA),
    }
    found = stitch_lamps(lamps)
    assert (found.spectra.dq[1] == DQ.NO_DATA).all()
    whole = stitch_lamps({"D2": blue, "QTH": red})
    assert abs(found.crossovers[0] - whole.crossovers[0]) < 20


def test_lamps_that_are_not_scaled_step_at_the_crossover():
    blue, red = two_lamps(np.random.default_rng(9))
    found = stitch_lamps({"D2": blue, "QTH": red}, scale=False)
    assert found.scales == (1.0, 1.0)
    (joint,) = found.crossovers
    np.testing.assert_array_equal(found.spectra.value[:, :joint], blue.value[:, :joint])


def test_lamps_without_common_light_cannot_be_joined():
    blue, red = two_lamps(np.random.default_rng(7))
    with pytest.raises(RecipeError, match="D2 and QTH have no column in common"):
        stitch_lamps({"D2": blue, "QTH": red}, min_snr=1e4)
    with pytest.raises(ValueError, match="shapes"):
        stitch_lamps({})
