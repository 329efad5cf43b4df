"""Faults of science exposures that the metrics of object are there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def sink(scene: Any) -> None:
    scene.move(rows=-4.0)


def flex(scene: Any) -> None:
    scene.move(columns=2.0)


def stretch(scene: Any) -> None:
    """Move lines by little: of a large stretch, which is unlikely, the lines are blamed."""
    scene.move(columns=np.linspace(-0.26, 0.26, scene.adu.shape[2]))


def scatter_lines(scene: Any) -> None:
    """Move sky lines near and far alike in all fibres, as a wrong arc solution would."""
    scene.move(columns=np.sin(np.arange(scene.adu.shape[2]) / 40))


def cloud_over(factor: float) -> Any:
    def edit(scene: Any) -> None:
        scene.adu[:] = scene.night.cloudy(factor)

    return edit


def let_rays_in(scene: Any) -> None:
    scene.adu[:, scene.pixels(0.04)] += 3000


def disturb(scene: Any) -> None:
    """Add noise that nobody knows of, as from a bad cable."""
    scene.adu += 12 * scene.rng.standard_normal(scene.adu.shape)


def saturate(scene: Any) -> None:
    scene.adu[:, :, 200:225] = 65535


def stain(scene: Any) -> None:
    """Let sky fibres differ from what the flat says of them."""
    passed = np.ones(14)
    passed[scene.night.sky_fibres] = 1 + 0.25 * np.array([-1, 1, -1, 1])
    scene.scale(scene.of_fibres(passed))


def clog(scene: Any) -> None:
    """Let every other fibre pass less than the flat says."""
    scene.scale(scene.of_fibres(1 - 0.3 * (np.arange(14) % 2)))


def lose(factor: float) -> Any:
    """Let one program fibre pass less than the flat says."""

    def edit(scene: Any) -> None:
        scene.dim(scene.of_fibres(np.where(np.arange(14) == scene.night.faint_fibre, factor, 1.0)))

    return edit


#: What noise or missing lines do to the comparison of sky fibres, and of throughputs.
SKY = ["SKY FIBRES DROPPED", "THROUGHPUT VS SKY", "FIBRES CHANGED", "FIBRES NEGATIVE"]
LINES = ["WAVE SHIFT", "WAVE SLOPE", "WAVE SHIFT ERROR", "SKY LINE CHI2"]
FAULTS = {
    "TRACE SHIFT": (sink, []),
    "WAVE SHIFT": (flex, ["WAVE SHIFT ERROR"]),
    "WAVE SLOPE": (stretch, []),
    "WAVE SHIFT ERROR": (cloud_over(0.045), SKY),
    "SKY LINE CHI2": (scatter_lines, [*LINES, *SKY]),
    "COSMIC FRACTION": (let_rays_in, ["WAVE SHIFT ERROR", *SKY]),
    "PROFILE CHI2": (disturb, ["SKY RESIDUAL", "COSMIC FRACTION", "WAVE SLOPE", *SKY]),
    "USABLE FRACTION": (saturate, ["SKY RESIDUAL", *LINES, *SKY]),
    "SKY RESIDUAL": (disturb, ["PROFILE CHI2", "COSMIC FRACTION", "WAVE SLOPE", *SKY]),
    "SKY FIBRES DROPPED": (
        stain,
        ["SKY RESIDUAL", "THROUGHPUT VS SKY", "FIBRES CHANGED", "FIBRES NEGATIVE"],
    ),
    "THROUGHPUT VS SKY": (clog, ["SKY RESIDUAL", "PROFILE CHI2", *SKY]),
    "FIBRES CHANGED": (lose(0.5), []),
    "MEDIAN SNR": (cloud_over(0.0), ["TRACE SHIFT", *LINES, *SKY]),
}


@pytest.mark.parametrize("metric", FAULTS)
def test_object_sees_the_fault_and_only_its_kin_does(night: Any, metric: str) -> None:
    edit, kin = FAULTS[metric]
    night.check("object", metric, edit, kin)


def test_object_says_that_the_sky_comes_from_one_fibre(night: Any) -> None:
    def leave(scene: Any) -> None:
        del scene

    more = [night.with_one_sky_fibre()]
    night.check("object", "SKY FIBRES", leave, ["SKY RESIDUAL", "SKY FIBRES DROPPED"], more=more)


def test_object_sees_that_the_assignment_is_that_of_another_tile(night: Any) -> None:
    def leave(scene: Any) -> None:
        del scene

    kin = ["SKY RESIDUAL", "MEDIAN SNR", *SKY]
    more = [night.with_sky_and_targets_exchanged()]
    night.check("object", "FIBRES NEGATIVE", leave, kin, more=more)
