"""Master bias: known level, noise, structure, drift and light come back; bad sets are refused."""

import subprocess
import sys

import numpy as np
import pytest

from kspecpipe.base_recipe import find_recipe
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.errors import RecipeError
from kspecpipe.frame import FrameInfo, FrameStack
from kspecpipe.io import read_product
from kspecpipe.signal import DQ

SHAPE = (120, 160)
GAIN, RON = 2.0, 4.0


def frames(count=10, level=600.0, seed=1, pattern=0.0, drift=0.0):
    rng = np.random.default_rng(seed)
    base = level + pattern + drift * np.arange(count)[:, None, None]
    return rng.normal(np.broadcast_to(base, (count, *SHAPE)), RON / GAIN)


def average(images, gain=GAIN, recipe=None, **parameters):
    recipe = recipe or find_recipe("mbias")(log=False)
    infos = [FrameInfo(f"bias_{i}.fits", tag="BIAS") for i in range(len(images))]
    stack = FrameStack.from_arrays(list(images), ReadOut(gain=gain, ron=RON), infos)
    products, metrics = recipe.run(recipe.Inputs(biases=stack), recipe.Parameters(**parameters))
    return products.master_bias.image, metrics


def test_without_noise_in_the_mean_the_level_comes_back():
    image, metrics = average(frames())
    assert image.shape == SHAPE
    error = RON / GAIN / np.sqrt(10 * image.value.size)
    assert abs(image.value.mean() - 600) < 4 * error
    assert abs(metrics.level - 600) < 4 * error


def test_the_variance_is_honest():
    image, _ = average(frames(20))
    pull = (image.value - 600) / np.sqrt((RON / GAIN) ** 2 / 20)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)
    assert np.median(image.variance) == pytest.approx((RON / GAIN) ** 2 / 20, rel=0.1)


def test_the_read_noise_is_measured_in_electrons():
    images = frames(10)
    _, metrics = average(images)
    assert abs(metrics.ron - RON) < 4 * RON / np.sqrt(9 * images[0].size)
    assert metrics.ron_ratio == pytest.approx(1, abs=0.02)


def test_amplifiers_of_different_gain_have_noise_in_electrons():
    gain = np.where(np.arange(SHAPE[1]) < 80, 1.0, 4.0) * np.ones((SHAPE[0], 1))
    images = 600 + np.random.default_rng(5).normal(0, RON, (8, *SHAPE)) / gain
    _, metrics = average(images, gain=gain)
    assert metrics.ron == pytest.approx(RON, rel=0.03)


def test_cosmic_rays_do_not_stay():
    images = frames(7)
    rng = np.random.default_rng(2)
    for image in images:
        image[rng.integers(0, SHAPE[0], 40), rng.integers(0, SHAPE[1], 40)] += 3000
    image, metrics = average(images)
    assert np.abs(image.value - 600).max() < 8
    assert metrics.rejected == pytest.approx(40 / image.value.size, rel=0.2)


@pytest.mark.parametrize(("offset", "dropped"), [(0.0, 0), (5.0, 0), (200.0, 1)])
def test_a_bias_that_the_others_contradict_is_counted_as_left_out(offset, dropped):
    images = frames(5)
    images[2] += offset
    recipe = find_recipe("mbias")(log=False)
    image, _ = average(images, recipe=recipe)
    assert recipe.dropped == dropped
    assert ("bias_2.fits is left out" in "\n".join(recipe.memory.lines)) == bool(dropped)
    if dropped:
        assert abs(image.value.mean() - 600) < 4 * RON / GAIN / np.sqrt(4 * image.value.size)


def test_structure_of_rows_and_columns_is_told_apart():
    rows = np.random.default_rng(3).normal(0, 1.5, (SHAPE[0], 1))
    _, metrics = average(frames(10, pattern=rows))
    assert metrics.rows == pytest.approx(1.5, rel=0.25)
    assert metrics.columns < 0.2
    _, metrics = average(frames(10, pattern=rows[:1] * 0))
    assert metrics.rows < 0.1


def test_a_drift_through_the_set_is_seen():
    _, metrics = average(frames(5, drift=2.0))
    assert metrics.drift == pytest.approx(8.0, abs=0.2)


def test_light_on_part_of_the_detector_is_a_leak():
    light = np.where(np.arange(SHAPE[1]) > 120, 20.0, 0.0)
    _, metrics = average(frames(10, pattern=light))
    assert metrics.leak > 15
    _, metrics = average(frames(10))
    assert abs(metrics.leak) < 0.1


def test_pixels_without_value_are_flagged_and_nothing_else():
    images = frames(5)
    images[:, 10, 20] = np.nan
    images[1, 30, 40] = np.inf
    image, _ = average(images)
    assert image.dq[10, 20] == DQ.NO_DATA
    assert np.isnan(image.value[10, 20])
    assert np.isfinite(image.value[30, 40])
    assert image.dq.astype(bool).sum() == 1


def test_inputs_are_not_changed():
    images = frames(4)
    before = images.copy()
    average(images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((4, *SHAPE)), "same value"),
        (np.full((4, *SHAPE), 65535.0), "same value"),
        (np.repeat(frames(1), 3, axis=0), "no noise between them"),
        (np.full((4, *SHAPE), np.nan), "no noise between them"),
        (frames(1), "at least 2"),
    ],
)
def test_frames_that_give_no_bias_are_refused(images, words):
    with pytest.raises(RecipeError, match=words):
        average(images)


def test_from_files_to_product(camera):
    outcome = camera.run("mbias", camera.sof_of(camera.biases(10)))
    assert int(outcome.exit_code) == 0
    ((path, tag),) = outcome.products
    assert (path.name, tag) == ("20260129_slow_master_bias.fits", "MASTER_BIAS")
    product = read_product(path)
    assert abs(product.image.value.mean() - 600) < 0.1
    assert product.header["READMODE"] == "slow"
    assert product.header["ESO PRO DATANCOM"] == 10
    assert {row.name for row in outcome.qc} >= {"READ NOISE", "BIAS LEVEL", "FRAMES BIAS"}
    assert outcome.warnings == ()


def test_overscan_of_both_amplifiers_is_taken_off(camera):
    def raw():
        data = camera.noise((48, 72), 0)
        data[:, :36] += 500
        data[:, 36:] += 900
        return data

    outcome = camera.run("mbias", camera.sof_of([camera.frame(data=raw()) for _ in range(4)]))
    product = read_product(outcome.products[0][0])
    assert product.image.shape == (48, 64)
    np.testing.assert_allclose(product.image.value.mean(axis=0), 0, atol=1.5)
    assert abs(product.image.value.mean()) < 0.3


def test_list_folder_and_sof_give_the_same(camera):
    frames_ = camera.biases(4)
    sof = camera.sof_of(frames_)
    results = [
        camera.run("mbias", source, output=camera.folder / str(i)).products[0][0]
        for i, source in enumerate((sof, [str(p) for p in frames_], camera.folder))
    ]
    assert len({path.read_bytes() for path in results}) == 1


def test_planes_of_a_cube_are_frames(camera):
    outcome = camera.run("mbias", [camera.frame(data=camera.noise((5, 48, 64)))])
    header = read_product(outcome.products[0][0]).header
    assert header["ESO PRO DATANCOM"] == 5
    assert header["ESO PRO REC1 RAW3 NAME"].endswith(".fits[3]")


def test_the_call_of_soxspipe_with_a_logger_of_fundamentals(camera, monkeypatch):
    from fundamentals.logs import emptyLogger

    heard = []
    log = emptyLogger()
    monkeypatch.setattr(log, "info", lambda text: heard.append(text), raising=False)
    monkeypatch.chdir(camera.folder)
    recipe = find_recipe("mbias")(
        log=log,
        settings={"mbias": {"parameters": {"stacked_clipping_sigma": 4}}},
        inputFrames=str(camera.sof_of(camera.biases(3))),
        verbose=False,
        overwrite=False,
        options=None,
    )
    recipe.options = type(recipe.options)(
        instrument=str(camera.instrument), settings=recipe.options.settings, plots="none"
    )
    (path,) = recipe.produce_product()
    assert path == "products/20260129_slow_master_bias.fits"
    assert read_product(camera.folder / path).header["ESO PRO REC1 PARAM1 VALUE"] == 4.0
    assert any("read noise" in text for text in heard)


def test_a_console_logger_of_fundamentals_is_accepted(camera):
    """In a process of its own: the logger of fundamentals takes over all logging."""
    sof = camera.sof_of(camera.biases(3))
    code = f"""
from fundamentals.logs import console_logger
from kspecpipe import run_recipe
log = console_logger(level="INFO")
outcome = run_recipe("mbias", {str(sof)!r}, log=log, output={str(camera.output)!r},
                     instrument={str(camera.instrument)!r}, plots="none")
raise SystemExit(int(outcome.exit_code))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "read noise" in found.stdout
    assert "Traceback" not in found.stderr
