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


#: The halo of the fibres that were dimmed is left.
DARK = ["MATCH SCORE", "REJECTED", "PROFILE CHI2"]
UNEVEN = ["THROUGHPUT", "THROUGHPUT RMS", "PROFILE CHI2"]
TRACES = {
    "FIBRES FOUND": (dim_fibres(0.0005, 6, 9, 11), ["FIBRES DEAD", *DARK]),
    "FIBRES DEAD": (dim_fibres(0.0005, 6, 9, 11), ["FIBRES FOUND", *DARK]),
    "MATCH SCORE": (
        dim_fibres(0.02, 1, 3, 6, 8, 10, 12),
        UNEVEN,
    ),
    "MATCH MARGIN": (dim_fibres(0.0005, 0), []),
    "TRACE RMS": (wave, ["PROFILE CHI2"]),
    "PROFILE FWHM": (blur, ["PROFILE CHI2"]),
    "FLAT LEVEL SPREAD": (fade_one, []),
    "REJECTED": (spoil_one, []),
}


@pytest.mark.parametrize("recipe", ["tlm", "mflat"])
@pytest.mark.parametrize("metric", TRACES)
def test_a_fault_of_the_traces_is_seen_and_only_its_kin(
    night: Any, metric: str, recipe: str
) -> None:
    edit, kin = TRACES[metric]
    night.check(recipe, metric, edit, kin)


def fringe(scene: Any) -> None:
    x, number = np.arange(scene.adu.shape[2]), np.arange(14)[:, None]
    scene.dim(scene.of_fibres(0.75 + 0.25 * np.sin(x / 9 + number)))


def fade(scene: Any) -> None:
    scene.dim(0.01)


def mask_pixels(scene: Any) -> None:
    scene.dim(np.where(scene.pixels(0.04), 0.1, 1.0))


def speckle(scene: Any) -> None:
    response = 1 + 0.06 * scene.rng.standard_normal(scene.adu.shape[1:])
    scene.scale(response)


RESPONSE = {
    "THROUGHPUT RMS": (dim_fibres(0.15, 1, 3, 6, 7, 9, 11), ["THROUGHPUT", "PROFILE CHI2"]),
    "THROUGHPUT": (dim_fibres(0.15, 7), []),
    "FLAT LEVEL": (fade, ["PROFILE CHI2"]),
    "FLAT RMS": (fringe, []),
    "COLDPIX NUM": (mask_pixels, ["COLDPIX FRAC"]),
    "COLDPIX FRAC": (mask_pixels, ["COLDPIX NUM"]),
    "PROFILE CHI2": (speckle, []),
}


@pytest.mark.parametrize("metric", RESPONSE)
def test_a_fault_of_the_response_is_seen_and_only_its_kin(night: Any, metric: str) -> None:
    edit, kin = RESPONSE[metric]
    night.check("mflat", metric, edit, kin)
