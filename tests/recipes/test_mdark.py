"""Master dark: rates, cosmic rays, hot, dead and unstable pixels, and glow of varying strength."""

import numpy as np
import pytest

from kspecpipe.base_recipe import find_recipe
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.errors import RecipeError
from kspecpipe.frame import FrameInfo, FrameStack
from kspecpipe.io import read_product
from kspecpipe.products.images import MasterBias
from kspecpipe.signal import DQ, Signal

SHAPE = (96, 128)
GAIN, RON, LEVEL = 2.0, 4.0, 600.0


def darks(times, rate=0.2, seed=1):
    rng = np.random.default_rng(seed)
    rates = np.broadcast_to(rate, SHAPE)
    return [LEVEL + (rng.poisson(rates * t) + rng.normal(0, RON, SHAPE)) / GAIN for t in times]


def measure(images, times, saturation=60000.0, **parameters):
    recipe = find_recipe("mdark")(log=False)
    infos = [FrameInfo(f"dark_{i}.fits", tag="DARK", exptime=t) for i, t in enumerate(times)]
    readout = ReadOut(gain=GAIN, ron=RON, saturation=saturation)
    stack = FrameStack.from_arrays(images, readout, infos)
    bias = MasterBias(image=Signal.of(np.full(SHAPE, LEVEL), 0.1))
    products, metrics = recipe.run(
        recipe.Inputs(darks=stack, master_bias=bias), recipe.Parameters(**parameters)
    )
    return products.master_dark, products.bad_pixels.dq, metrics


TIMES = [300.0] * 5


def test_the_rate_comes_back_in_electrons_per_second():
    dark, bad, metrics = measure(darks(TIMES), TIMES)
    noise = np.sqrt((0.2 * 300 + RON**2) / 5) / 300
    assert dark.image.value.mean() == pytest.approx(0.2, abs=0.002)
    assert metrics.rate == pytest.approx(0.2, abs=0.003)
    assert dark.image.value.std() == pytest.approx(noise, rel=0.05)
    assert np.median(dark.image.variance) == pytest.approx(noise**2, rel=0.15)
    assert not bad.any()
    assert dark.glow is None


def test_exposure_times_are_grouped_and_fitted_together():
    times = [100.0, 101.0, 400.0, 400.0, 900.0]
    dark, _, metrics = measure(darks(times), times)
    assert metrics.groups == 3
    assert dark.image.value.mean() == pytest.approx(0.2, abs=0.002)
    assert measure(darks(times), times, exposure_tolerance=0.0)[2].groups == 4


def test_cosmic_rays_do_not_stay():
    images = darks(TIMES)
    rng = np.random.default_rng(7)
    hits = [(rng.integers(0, 96, 60), rng.integers(0, 128, 60)) for _ in images]
    for image, hit in zip(images, hits, strict=True):
        image[hit] += 2000
    dark, _, metrics = measure(images, TIMES)
    clean = measure(darks(TIMES), TIMES)[0].image.value
    assert np.abs(dark.image.value - clean).max() < 0.15
    assert metrics.cosmics == pytest.approx(60 * 5 / sum(TIMES), rel=0.05)


def test_hot_dead_and_unstable_pixels_are_told_apart():
    rate = np.full(SHAPE, 1.0)
    rate[20, 30] = 30.0
    images = darks([300.0] * 8, rate)
    for i, image in enumerate(images):
        image[40, 50] += 1500 * (i % 2)
        image[60, 70] = LEVEL - 3000
    _, bad, metrics = measure(images, [300.0] * 8)
    assert bad[20, 30] & DQ.HOT
    assert bad[40, 50] & DQ.UNSTABLE
    assert bad[60, 70] & DQ.BAD
    assert bad.astype(bool).sum() == 3
    assert metrics.hot == pytest.approx(1 / rate.size, rel=1.5)


def test_the_limit_for_hot_pixels_can_be_set():
    rate = np.full(SHAPE, 0.2)
    rate[20, 30] = 3.0
    images = darks(TIMES, rate)
    assert measure(images, TIMES, hot_rate=0.5)[1][20, 30] & DQ.HOT
    assert not measure(images, TIMES, hot_rate=20.0)[1][20, 30] & DQ.HOT


def test_glow_of_varying_strength_is_kept_as_a_shape():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    glow = np.exp(-np.hypot(y, x) / 80)
    rng = np.random.default_rng(4)
    images = [
        LEVEL + (rng.poisson(0.2 * 300 + a * glow * 300) + rng.normal(0, RON, SHAPE)) / GAIN
        for a in (0.0, 0.5, 1.0, 1.5, 2.0)
    ]
    dark, _, metrics = measure(images, TIMES)
    assert dark.glow is not None
    shape = dark.glow[0].ravel()
    assert abs(np.corrcoef(shape, glow.ravel())[0, 1]) > 0.97
    assert metrics.glow > 100
    assert measure(images, TIMES, glow_components=0)[0].glow is None


def test_one_dark_is_enough_and_says_what_it_cannot_know():
    images = darks([300.0])
    images[0][30, 40] += 3000
    dark, bad, _ = measure(images, [300.0])
    assert bad[30, 40] & DQ.UNSTABLE
    assert dark.image.value[30, 40] == pytest.approx(0.2, abs=0.1)


def test_saturated_pixels_carry_no_rate():
    images = darks(TIMES)
    for image in images:
        image[10, 12] = 65535
    dark, bad, _ = measure(images, TIMES)
    assert not dark.image.good[10, 12]
    assert bad[10, 12] & DQ.BAD
    assert dark.image.good.sum() >= dark.image.value.size - 1


def test_pixels_without_value_are_flagged():
    images = darks(TIMES)
    for image in images:
        image[5, 6] = np.nan
    dark, _, _ = measure(images, TIMES)
    assert dark.image.dq[5, 6] & DQ.NO_DATA
    assert np.isnan(dark.image.value[5, 6])


@pytest.mark.parametrize(
    ("images", "times", "words"),
    [
        ([np.zeros(SHAPE)] * 3, TIMES[:3], "same value"),
        ([np.full(SHAPE, 65535.0)] * 3, TIMES[:3], "same value"),
        ([np.full(SHAPE, np.nan)] * 3, TIMES[:3], "no pixel|none of"),
        (darks([1.0, 1.0]), [0.0, 1.0], r"above 0 s.*bias frames among the darks"),
    ],
)
def test_frames_that_give_no_dark_are_refused(images, times, words):
    with pytest.raises(RecipeError, match=words):
        measure(images, times)


def test_from_files_to_products(camera):
    frames = [camera.dark(300.0), camera.dark(300.0), camera.dark(600.0)]
    outcome = camera.run("mdark", camera.sof_with_bias(frames))
    assert int(outcome.exit_code) == 0
    assert [(path.name, tag) for path, tag in outcome.products] == [
        ("20260129_slow_600s_master_dark.fits", "MASTER_DARK"),
        ("20260129_slow_600s_bad_pixel_map_mdark.fits", "BAD_PIXEL_MAP"),
    ]
    dark = read_product(outcome.products[0][0])
    assert dark.image.value.mean() == pytest.approx(0.5, abs=0.02)
    assert dark.header["ESO PRO REC1 CAL1 CATG"] == "MASTER_BIAS"
    assert dark.header["EXPTIME"] == 600.0


def test_without_bias_the_exit_code_says_so(camera, refused):
    outcome = camera.run("mdark", camera.sof_of([camera.dark()], "DARK"))
    refused(outcome, 5, "no MASTER_BIAS, which is needed (zero level)")


def test_a_bias_of_another_readout_mode_is_refused(camera, refused):
    frames = camera.biases(3, SPEED="fast")
    bias = camera.run("mbias", camera.sof_of(frames), output=camera.folder / "b").products[0][0]
    outcome = camera.run("mdark", camera.sof_of([camera.dark()], "DARK", f"{bias}"))
    refused(outcome, 3, "20260129_fast_master_bias.fits", "readmode is fast, but slow in")
