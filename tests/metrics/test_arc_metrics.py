"""Faults of arc exposures that the metrics of marc are there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def darken(first: int, last: int) -> Any:
    """Let no light fall on some columns."""

    def edit(scene: Any) -> None:
        x = np.arange(scene.adu.shape[2])
        scene.dim(np.where((x >= first) & (x < last), 0.0, 1.0))

    return edit


def warp(scene: Any) -> None:
    """Move the lines of every fibre along the dispersion by an amount of its own."""
    x, number = np.arange(scene.adu.shape[2]), np.arange(14)[:, None]
    scene.move(columns=scene.of_fibres(0.4 * np.sin(x / 11 + number)))


def bend(scene: Any) -> None:
    """Move lines near and far alike in all fibres, which no smooth dispersion follows."""
    scene.move(columns=0.18 * np.sin(np.arange(scene.adu.shape[2]) / 6))


def blur(scene: Any) -> None:
    scene.blur(1.95, axis=2)


def sink(scene: Any) -> None:
    scene.move(rows=-4.0)


def lamps(*names: str) -> Any:
    def edit(scene: Any) -> None:
        scene.adu[:] = scene.night.arc(*names)

    return edit


def few_lines(scene: Any) -> None:
    """Let two lamps burn, dimly: one of them has few lines, the other hardly any here."""
    lamps("Hg", "Cd")(scene)
    scene.dim(np.full(scene.adu.shape[2], 0.4))


def overexpose(scene: Any) -> None:
    """Let the cores of the brightest lines saturate."""
    scene.adu[scene.light > 0.3 * np.percentile(scene.light, 99.9)] = 65535


#: Lines that do not fit, or are left out for it.
FIT = ["LINES USED", "WAVE RMS", "WAVE HELD OUT", "WAVE COVERAGE"]
FEW = ["LINES IDENTIFIED", *FIT, "LAMPS OFF", "LAMP FLUX MIN"]
FAULTS = {
    "LINES IDENTIFIED": (few_lines, FEW),
    "LINES USED": (few_lines, FEW),
    "WAVE RMS": (warp, FIT),
    "WAVE HELD OUT": (bend, ["WAVE RMS"]),
    "WAVE MARGIN": (darken(320, 500), ["WAVE COVERAGE", "LINES USED"]),
    "WAVE COVERAGE": (darken(0, 210), FIT),
    "LSF FWHM": (blur, FIT),
    "TRACE SHIFT": (sink, []),
    "SATURATED FRACTION": (overexpose, ["WAVE RMS", "WAVE COVERAGE"]),
    "LAMPS OFF": (lamps("Ne", "Ar", "Kr"), ["LAMP FLUX MIN"]),
    "LAMP FLUX MIN": (lamps("Ne", "Ar", "Kr"), ["LAMPS OFF"]),
}


@pytest.mark.parametrize("metric", FAULTS)
def test_marc_sees_the_fault_and_only_its_kin_does(night: Any, metric: str) -> None:
    edit, kin = FAULTS[metric]
    night.check("marc", metric, edit, kin)
