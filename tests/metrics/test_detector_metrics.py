"""Faults of the detector that the metrics of mbias, mdark and lflat are there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def add(adu: float) -> Any:
    return lambda scene: np.add(scene.adu, adu, out=scene.adu)


def add_noise(electron: float) -> Any:
    def edit(scene: Any) -> None:
        scene.adu += electron / 1.12 * scene.rng.standard_normal(scene.adu.shape)

    return edit


def stripe_rows(scene: Any) -> None:
    scene.adu += 8 * scene.rng.standard_normal((scene.adu.shape[1], 1))


def stripe_columns(scene: Any) -> None:
    scene.adu += 12 * scene.rng.standard_normal(scene.adu.shape[2])


def drift(scene: Any) -> None:
    scene.adu[1] += 30


def let_light_in(scene: Any) -> None:
    scene.adu[:, 40:120, 350:480] += 60


def let_rays_in(share: float, electron: float) -> Any:
    def edit(scene: Any) -> None:
        for frame in scene.adu:
            frame[scene.pixels(share)] += electron / 1.12

    return edit


def spoil_one(scene: Any) -> None:
    scene.adu[2][scene.pixels(0.01)] += 300


MBIAS = {
    "BIAS LEVEL": (add(2000.0), ()),
    "READ NOISE": (add_noise(70.0), ["READ NOISE RATIO"]),
    "READ NOISE RATIO": (add_noise(4.5), ()),
    "ROW STRUCTURE": (stripe_rows, ["LIGHT LEAK"]),
    "COLUMN STRUCTURE": (stripe_columns, ["LIGHT LEAK"]),
    "BIAS DRIFT": (drift, ["REJECTED", "FRAMES REJECTED"]),
    "LIGHT LEAK": (let_light_in, ["ROW STRUCTURE", "COLUMN STRUCTURE"]),
    "REJECTED": (spoil_one, ()),
}


@pytest.mark.parametrize("metric", MBIAS)
def test_mbias_sees_the_fault_and_only_its_kin_does(night: Any, metric: str) -> None:
    edit, kin = MBIAS[metric]
    night.check("mbias", metric, edit, kin)


def warm_up(scene: Any) -> None:
    scene.adu += scene.rng.poisson(0.3 * 2400, scene.adu.shape) / 1.12


def heat_pixels(scene: Any) -> None:
    scene.adu[:, scene.pixels(0.03)] += 2000


def unsettle_pixels(scene: Any) -> None:
    where = scene.pixels(0.03)
    scene.adu[:, where] += 300 * scene.rng.random((len(scene.adu), where.sum()))


def kill_pixels(scene: Any) -> None:
    scene.adu[:, scene.pixels(0.03)] -= 300


def glow(scene: Any) -> None:
    y, x = np.mgrid[: scene.adu.shape[1], : scene.adu.shape[2]]
    scene.adu[1] += 800 * np.exp(-np.hypot(y - 420, x) / 80)


MDARK = {
    "DARK RATE": (warm_up, ()),
    "HOT FRACTION": (heat_pixels, ()),
    "UNSTABLE FRACTION": (unsettle_pixels, ["HOT FRACTION"]),
    "DEAD FRACTION": (kill_pixels, ()),
    "COSMIC RATE": (let_rays_in(0.08, 1500.0), ["UNSTABLE FRACTION"]),
    "GLOW VARIATION": (glow, ()),
}


@pytest.mark.parametrize("metric", MDARK)
def test_mdark_sees_the_fault_and_only_its_kin_does(night: Any, metric: str) -> None:
    edit, kin = MDARK[metric]
    night.check("mdark", metric, edit, kin)


def test_mdark_sees_darks_of_which_no_two_are_alike(night: Any) -> None:
    times = (2300, 2400, 2500, 2600, 2700)
    night.check("mdark", "EXPOSURE GROUPS", add(0.0), times=times)


def speckle(scene: Any) -> None:
    response = 1 + 0.05 * scene.rng.standard_normal(scene.adu.shape[1:])
    scene.scale(response)


def fade(scene: Any) -> None:
    scene.dim(0.03)


def mask_pixels(scene: Any) -> None:
    scene.dim(np.where(scene.pixels(0.04), 0.1, 1.0))


LFLAT = {
    "PRNU": (speckle, ()),
    "FLAT LEVEL": (fade, ()),
    "BAD FRACTION": (mask_pixels, ()),
}


@pytest.mark.parametrize("metric", LFLAT)
def test_lflat_sees_the_fault_and_only_its_kin_does(night: Any, metric: str) -> None:
    edit, kin = LFLAT[metric]
    night.check("lflat", metric, edit, kin)


def test_the_response_rms_is_that_of_the_detector(night: Any) -> None:
    frames = [f"{file.path} LFLAT" for file in night.night.tagged("LFLAT")]
    rows = night.run("lflat", frames, save=False).qc
    (prnu,) = [row.value for row in rows if row.name == "PRNU"]
    assert prnu == pytest.approx(0.006, rel=0.1)
