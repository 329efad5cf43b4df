"""Faults of lamp flats that the metrics of tlm and mflat are there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def dim_fibres(factor: float, *numbers: int) -> Any:
    """Let less light through fibres, counted from 0."""

    def edit(scene: Any) -> None:
        passed = np.ones(14)
        passed[list(numbers)] = factor
        scene.dim(scene.of_fibres(passed))

    return edit


def wave(scene: Any) -> None:
    scene.move(rows=0.2 * np.sin(np.arange(scene.adu.shape[2]) / 4))


def blur(scene: Any) -> None:
    scene.blur(2.8, axis=1)


def fade_one(scene: Any) -> None:
    healthy = scene.adu[[0, 2]].copy()
    scene.dim(0.6)
    scene.adu[[0, 2]] = healthy


def spoil_one(scene: Any) -> None:
    scene.adu[1][scene.pixels(0.02)] += 30000


def shift_one(scene: Any) -> None:
    others = scene.adu[1:].copy()
    scene.move(rows=1.2)
    scene.adu[1:] = others


def overexpose(scene: Any) -> None:
    """Saturate the brightest columns of one flat."""
    scene.adu[1][:, 380:400] = 65535


COLD = ["COLDPIX NUM", "COLDPIX FRAC", "N LOW SENS"]
LEVELS = ["FLAT LEVEL", "INNER FIBRE MEAN", "INNER FIBRE SUM", "FIBREXP90"]
UNEVEN = ["THROUGHPUT", "THROUGHPUT RMS", "PROFILE CHI2"]
WAVES = ["TRACE RMS", "TRACE RES SD"]
LOST = ["FIBRES FOUND", "FIBRES DEAD"]
#: What a fault turns red, and what else it may change.
TRACES = {
    "lost fibres": (
        dim_fibres(0.0005, 6, 9, 11),
        LOST,
        ["MATCH SCORE", "REJECTED", "PROFILE CHI2"],
    ),
    "dim fibres": (
        dim_fibres(0.02, 1, 3, 6, 8, 10, 12),
        ["MATCH SCORE"],
        [*UNEVEN, *LEVELS, "FIBREXP50"],
    ),
    "no first fibre": (dim_fibres(0.0005, 0), ["MATCH MARGIN"], []),
    "waves": (wave, WAVES, ["PROFILE CHI2", "TRACE RES MIN", "TRACE RES MAX"]),
    "blur": (blur, ["PROFILE FWHM"], ["PROFILE CHI2"]),
    "one fades": (fade_one, ["FLAT LEVEL SPREAD"], []),
    "one shifts": (shift_one, ["FLAT SHIFT"], ["REJECTED", "FRAMES REJECTED", "PROFILE CHI2"]),
    "many rays": (spoil_one, ["REJECTED"], []),
    "overexposed": (overexpose, ["SATURATED FRACTION"], []),
}


#: tlm and mflat share the code that finds traces; these faults are shown to both.
BOTH = ("lost fibres", "waves", "one shifts")


@pytest.mark.parametrize(
    ("recipe", "fault"), [("mflat", fault) for fault in TRACES] + [("tlm", fault) for fault in BOTH]
)
def test_a_fault_of_the_traces_is_seen_and_only_its_kin(
    night: Any, recipe: str, fault: str
) -> None:
    edit, turned, kin = TRACES[fault]
    night.check(recipe, turned, edit, kin)


def fringe(scene: Any) -> None:
    x, number = np.arange(scene.adu.shape[2]), np.arange(14)[:, None]
    scene.dim(scene.of_fibres(0.75 + 0.25 * np.sin(x / 9 + number)))


def fade(scene: Any) -> None:
    scene.dim(0.01)


def hump(scene: Any) -> None:
    """Make the lamp uneven on a scale that no blaze follows."""
    x = np.arange(scene.adu.shape[2])
    scene.dim(np.broadcast_to(0.7 + 0.3 * np.sin(x / 9), scene.adu.shape[1:]))


def mask_pixels(scene: Any) -> None:
    scene.dim(np.where(scene.pixels(0.04), 0.1, 1.0))


def speckle(scene: Any) -> None:
    response = 1 + 0.06 * scene.rng.standard_normal(scene.adu.shape[1:])
    scene.scale(response)


RIPPLES = ["FLAT RMS", "FRINGE AMPLITUDE"]
RESPONSE = {
    "uneven fibres": (dim_fibres(0.15, 1, 3, 6, 7, 9, 11), UNEVEN[:2], ["PROFILE CHI2"]),
    "one fibre": (dim_fibres(0.15, 7), ["THROUGHPUT"], []),
    "faint": (fade, LEVELS, ["FIBREXP50", "PROFILE CHI2", *RIPPLES]),
    "fringes": (fringe, RIPPLES, ["BLAZE RMS", "PROFILE CHI2"]),
    "humps": (hump, ["BLAZE RMS"], [*RIPPLES, "PROFILE CHI2"]),
    "dull pixels": (mask_pixels, COLD, []),
    "speckles": (speckle, ["PROFILE CHI2"], ["FLAT RMS"]),
}


@pytest.mark.parametrize("fault", RESPONSE)
def test_a_fault_of_the_response_is_seen_and_only_its_kin(night: Any, fault: str) -> None:
    edit, turned, kin = RESPONSE[fault]
    night.check("mflat", turned, edit, kin)
