"""The lamp's spectrum is taken out of a fibre flat by wavelength, not by column."""

from __future__ import annotations

import numpy as np
import pytest

from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.lamp import without_lamp

NFIB, NX = 9, 800
COLUMN = np.arange(NX)
OFFSET = np.linspace(-1.5, 1.5, NFIB)[:, None]
WAVELENGTH = 4000 + 4.0 * (COLUMN + OFFSET) * (1 + 2e-5 * COLUMN)
#: Fibres differ in colour, and some have fringes.
RESPONSE = 1 + 0.02 * np.linspace(-1, 1, NX) * np.linspace(-1, 1, NFIB)[:, None]
RESPONSE = RESPONSE * (1 + 0.04 * np.cos(COLUMN / 14 * 2 * np.pi + 5 * OFFSET) * (COLUMN > 500))


def lamp(wavelength: np.ndarray) -> np.ndarray:
    """Dark in the blue, with a steep edge; electrons per Angstrom."""
    edge = 1 / (1 + np.exp(-(wavelength - 4700) / 130))
    return np.asarray(2e4 * edge * np.exp(-(((wavelength - 6500) / 1500) ** 2)))


def observed(noise: float = 0.0, dark: bool = True) -> tuple[Signal, np.ndarray]:
    """Return a flat as mflat makes it, and its blaze."""
    width = np.gradient(WAVELENGTH, axis=1)
    light = lamp(WAVELENGTH) * width * RESPONSE
    blaze = np.median(light, axis=0)
    spread = noise * np.sqrt(light)
    light = light + np.random.default_rng(2).normal(size=light.shape) * spread
    flat = Signal.of(light / blaze, spread**2 / blaze**2 + 1e-12)
    if dark:
        unlit = np.broadcast_to(COLUMN < 150, flat.shape)
        flat = flat.flag(unlit, DQ.EXTRAPOLATED)
        flat = Signal(np.where(unlit, 1.1, flat.value), flat.variance, flat.dq)
    return flat, blaze


def relative(response: Signal) -> np.ndarray:
    """Return what is left of fibre-to-fibre differences at equal wavelengths."""
    ratio = response.value / RESPONSE
    return np.asarray(ratio / np.median(ratio, axis=0))


def test_fibres_agree_at_the_edge_of_the_lamp_where_columns_differ():
    flat, blaze = observed(dark=False)
    lit = COLUMN > 150
    assert np.abs(relative(flat) - 1)[:, lit].max() > 0.02
    assert np.abs(relative(without_lamp(flat, blaze, WAVELENGTH)) - 1)[:, lit].max() < 0.004


def test_no_common_shape_is_left_either():
    flat, blaze = observed(dark=False)
    ratio = without_lamp(flat, blaze, WAVELENGTH).value / RESPONSE
    smooth = ratio[:, 200:480]
    assert np.abs(smooth / np.median(smooth) - 1).max() < 0.01


def test_where_the_lamp_is_dark_the_nearest_response_is_held():
    flat, blaze = observed()
    own = without_lamp(flat, blaze, WAVELENGTH)
    held = own.value[:, :150] / RESPONSE[:, 150:215].mean(axis=1, keepdims=True)
    assert np.abs(held / np.median(held) - 1).max() < 0.01
    assert ((own.dq & DQ.EXTRAPOLATED) > 0)[:, :150].all()
    assert not own.dq[:, 150:].any()


def test_noise_stays_what_it_is_relative_to_the_flat():
    flat, blaze = observed(noise=1.0)
    clean, _ = observed()
    own = without_lamp(flat, blaze, WAVELENGTH)
    assert own.variance[:, 160:] / own.value[:, 160:] ** 2 == pytest.approx(
        flat.variance[:, 160:] / flat.value[:, 160:] ** 2, rel=1e-6
    )
    pulls = (own.value - without_lamp(clean, blaze, WAVELENGTH).value)[:, 200:] / own.error[:, 200:]
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * pulls.size) + 0.02


def test_dead_fibres_and_flats_without_light_stay_as_they_are():
    flat, blaze = observed()
    wavelength = WAVELENGTH.copy()
    wavelength[4] = np.nan
    own = without_lamp(flat, blaze, wavelength)
    assert np.array_equal(own.value[4, 150:], flat.value[4, 150:])
    assert np.isfinite(own.value).all()
    nothing = without_lamp(flat, np.zeros(NX), WAVELENGTH)
    assert np.array_equal(nothing.value, flat.value)


def test_a_straight_slit_needs_no_correction_but_that_of_the_blaze():
    wavelength = np.broadcast_to(WAVELENGTH[4], WAVELENGTH.shape)
    light = lamp(wavelength) * np.gradient(wavelength, axis=1)
    flat = Signal.of(light / light[0], 1e-10)
    own = without_lamp(flat, light[0], wavelength)
    assert np.abs(own.value / np.median(own.value) - 1)[:, 30:-30].max() < 0.01


def test_arrays_that_do_not_belong_together_are_refused():
    flat, blaze = observed()
    with pytest.raises(ValueError, match="do not belong together"):
        without_lamp(flat, blaze[:-1], WAVELENGTH)
    with pytest.raises(ValueError, match="do not belong together"):
        without_lamp(flat, blaze, WAVELENGTH[:, :-1])
