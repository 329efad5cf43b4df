"""Metrics that count or measure a fault say how large it is, not only that there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def add_noise(electron: float) -> Any:
    def edit(scene: Any) -> None:
        scene.adu += electron / 1.12 * scene.rng.standard_normal(scene.adu.shape)

    return edit


def quieten(scene: Any) -> None:
    """Leave a twentieth of the noise, as when frames are averaged behind one's back."""
    level = scene.adu.mean(axis=0)
    scene.adu[:] = level + 0.05 * (scene.adu - level)


def test_the_read_noise_is_measured(night: Any) -> None:
    """A difference of frames with n pixels tells the noise to 1 / sqrt(n), here 0.2 %."""
    found = night.value("mbias", "READ NOISE", add_noise(6.0))
    assert found == pytest.approx(np.hypot(4.48, 6.0), rel=0.03)


def test_frames_that_are_too_quiet_are_seen(night: Any) -> None:
    kin = ["READ NOISE RATIO", "ROW STRUCTURE", "COLUMN STRUCTURE", "LIGHT LEAK"]
    night.check("mbias", "READ NOISE", quieten, kin)


def test_fibres_without_light_are_counted(night: Any) -> None:
    def darken(scene: Any) -> None:
        passed = np.ones(14)
        passed[[3, 6, 9]] = 0.0005
        scene.dim(scene.of_fibres(passed))

    assert night.value("tlm", "FIBRES DEAD", darken) == 1 + 3


def test_dull_pixels_are_counted(night: Any) -> None:
    """Nearly all dull pixels in the bright cores of fibres are found."""
    planted: list[float] = []

    def dull(scene: Any) -> None:
        where = scene.pixels(0.02)
        bright = scene.light.mean(axis=0) > 0.3 * np.quantile(scene.light.mean(axis=0), 0.99)
        planted.append(float(np.sum(where & bright)))
        scene.dim(np.where(where, 0.1, 1.0))

    assert night.value("mflat", "N LOW SENS", dull) >= 0.9 * (sum(planted) or np.inf)
