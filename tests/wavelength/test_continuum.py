"""The continuum under arc lines."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.signal import DQ, Signal
from kspecpipe.wavelength.first_model import beside_saturation
from kspecpipe.wavelength.groups import update_continuum
from kspecpipe.wavelength.lsf import gaussian_lsf, lsf_basis
from kspecpipe.wavelength.scene import Model, Scene, render

NX = 400
AT = np.array([[80.0, 200.0, 215.0]])
HUMP = 800 * np.exp(-0.5 * ((np.arange(NX) - 205.0) / 25.0) ** 2) + 100


def observe(continuum, intensity, assumed):
    """Lay lines on a continuum; the model starts without one and with the assumed strengths."""
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    empty = Scene(
        np.zeros((1, NX)), np.full((1, NX), 900.0), np.ones((1, NX), bool),
        np.zeros(1, int), np.zeros(1, int), np.zeros(1), np.ones((1, 3), bool),
    )  # fmt: skip
    true = Model(lsf, intensity, np.arange(3), np.ones((1, 3)), np.zeros((1, NX)), 0.01)
    value = continuum + render(empty, true, AT).lines
    scene = Scene(
        value, empty.variance, empty.good, empty.fibre, empty.exposure, empty.place, empty.seen
    )
    model = Model(lsf, assumed, np.arange(3), np.ones((1, 3)), np.zeros((1, NX)), 0.01)
    return scene, model


def test_a_hump_under_lines_is_followed():
    strength = np.array([2e4, 5e4, 1e5])
    scene, model = observe(HUMP, strength, strength)
    found = update_continuum(scene, model, render(scene, model, AT), 8.0).continuum[0]
    assert np.max(np.abs(found - HUMP)) < 0.1 * 800


def test_light_that_the_model_misses_in_a_bright_line_is_not_continuum():
    strength = np.array([2e4, 5e4, 1e5])
    scene, model = observe(np.full(NX, 100.0), strength, 0.97 * strength)
    found = update_continuum(scene, model, render(scene, model, AT), 8.0).continuum[0]
    missed = 0.03 * 1e5 / 4.26
    assert np.max(np.abs(found - 100)) < 0.1 * missed


@pytest.mark.parametrize("level", [-50.0, 0.0, 700.0])
def test_a_constant_is_kept(level):
    scene, model = observe(np.full(NX, level), np.zeros(3), np.zeros(3))
    found = update_continuum(scene, model, render(scene, model, AT), 8.0).continuum[0]
    assert found == pytest.approx(np.full(NX, level), rel=1e-5, abs=1e-3)


def test_scattered_light_is_followed_where_it_is_noisy_however_dark_the_chip_is_elsewhere():
    strength = np.zeros(3)
    scene, model = observe(HUMP, strength, strength)
    noisy = np.where(np.abs(np.arange(NX) - 205) < 150, 9e4, 100.0)[None]
    scene = replace(scene, variance=noisy)
    found = update_continuum(scene, model, render(scene, model, AT), 6.0).continuum[0]
    assert np.max(np.abs(found - HUMP)) < 0.03 * 800


def lost(first, end):
    """Which of 60 samples are lost when those from ``first`` to ``end`` are saturated."""
    dq = np.zeros((1, 60), np.uint16)
    dq[0, first:end] = DQ.SATURATED
    return np.flatnonzero(beside_saturation(Signal.of(np.ones((1, 60)), np.ones((1, 60)), dq), 4.0))


def test_the_flanks_of_a_line_that_is_just_saturated_are_kept():
    assert lost(30, 34).tolist() == list(range(29, 35))


def test_the_foot_of_a_line_that_has_lost_more_than_its_core_is_left_out():
    assert lost(26, 36).tolist() == list(range(19, 43))
