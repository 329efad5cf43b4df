"""Bad pixels in raw frames: missing, saturated, constant. No product looks right and is not."""

from pathlib import Path

import numpy as np
import pytest

from kspecpipe.io import read_product
from kspecpipe.signal import DQ

SHAPE = (48, 64)


def biases(camera, change, count=4):
    frames = []
    for i in range(count):
        data = camera.noise().astype(np.float32)
        change(data, i)
        frames.append(camera.frame(data=data, rounded=False))
    return camera.sof_of(frames)


def darks(camera, change, count=4, exptime=300.0):
    frames = []
    for i in range(count):
        data = (camera.noise() + 20).astype(np.float32)
        change(data, i)
        frames.append(camera.frame("", "DARK", data, exptime, rounded=False))
    return camera.sof_with_bias(frames)


def set_to(value, where=np.s_[:]):
    def change(data, i):
        del i
        data[where] = value

    return change


WHOLE = [
    (set_to(0.0), "same value"),
    (set_to(65535.0), "same value"),
    (set_to(np.nan), "finite value|no noise"),
    (set_to(np.inf), "finite value|no noise"),
    (set_to(-np.inf), "finite value|no noise"),
    (set_to(612.0), "same value"),
]


@pytest.mark.parametrize(("change", "words"), WHOLE)
@pytest.mark.parametrize("recipe", ["mbias", "mdark"])
def test_frames_without_information_give_no_product(camera, refuses, recipe, change, words):
    sof = (biases if recipe == "mbias" else darks)(camera, change)
    text = refuses(1, [], recipe, sof, output=camera.folder / "bad")
    assert any(word in text for word in words.split("|")), text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65535.0, 3e38])
@pytest.mark.parametrize("recipe", ["mbias", "mdark"])
def test_pixels_bad_in_all_frames_are_flagged(camera, kspec, recipe, value):
    where = np.s_[10:12, 20:23]
    sof = (biases if recipe == "mbias" else darks)(camera, set_to(value, where))
    found = kspec(recipe, sof, output=camera.folder / "out2")
    assert found["exit_code"] == 0, found["errors"]
    image = read_product(Path(found["products"][0]["path"])).image
    assert not image.good[where].any()
    others = np.ones(SHAPE, bool)
    others[where] = False
    assert image.good[others].all()
    assert np.abs(image.value[others]).max() < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf, 65535.0, 3e38, 0.0])
@pytest.mark.parametrize("recipe", ["mbias", "mdark"])
def test_pixels_bad_in_one_frame_do_no_harm(camera, kspec, recipe, value):
    def change(data, i):
        if i == 1:
            data[5:40, 30] = value

    sof = (biases if recipe == "mbias" else darks)(camera, change, count=5)
    found = kspec(recipe, sof, output=camera.folder / "out2")
    assert found["exit_code"] == 0, found["errors"]
    path = next((camera.folder / "out2").glob(f"*master_{recipe[1:]}.fits"))
    image = read_product(path).image
    expected = 600.0 if recipe == "mbias" else 2 * 20 / 300
    noise = 2.0 if recipe == "mbias" else 2 * np.hypot(2, 1) / 300
    column = image.value[5:40, 30][image.good[5:40, 30]]
    # A dark that is too low looks like a dead pixel: it is flagged, which is right too.
    assert column.size > 20 or (recipe, value) == ("mdark", 0.0)
    assert np.abs(column - expected).max(initial=0) < 5 * noise


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_frame_of_nothing_among_good_ones_is_named(camera, refuses, bad):
    def change(data, i):
        if i == bad:
            data[:] = 0

    sof = biases(camera, change)
    refuses(1, [f"bias_{bad + 1:03d}.fits", "same value"], "mbias", sof)


def test_half_a_saturated_detector_is_no_dark_there(camera, kspec):
    sof = darks(camera, set_to(65535.0, np.s_[:, 32:]))
    found = kspec("mdark", sof, output=camera.folder / "out2")
    assert found["exit_code"] in (0, 4), found["errors"]
    image = read_product(next((camera.folder / "out2").glob("*master_dark.fits"))).image
    assert not image.good[:, 32:].any()
    assert image.good[:, :32].mean() > 0.99
    assert np.abs(image.value[:, :32] - 2 * 20 / 300).max() < 0.1


def test_the_bad_pixel_map_knows_what_never_had_a_value(camera, kspec):
    kspec("mdark", darks(camera, set_to(65535.0, np.s_[7, 9])), output=camera.folder / "out2")
    dq = read_product(next((camera.folder / "out2").glob("*bad_pixel_map*.fits"))).dq
    assert dq[7, 9] & DQ.BAD


def test_negative_and_huge_integers_are_read_as_they_are(camera, kspec):
    frames = []
    for _ in range(3):
        data = np.rint(camera.noise()).astype(np.int32) - 2_000_000
        frames.append(camera.frame(data=data, rounded=False))
    found = kspec("mbias", camera.sof_of(frames))
    (level,) = [row["value"] for row in found["qc"] if row["name"] == "BIAS LEVEL"]
    assert level == pytest.approx(600 - 2_000_000, abs=1)
