import numpy as np
import pytest

from kspecpipe.combine.align import LIGHT, move, regridding, sky_zero_points
from kspecpipe.signal import Signal
from kspecpipe.sky.rebin import Grid

GRID = Grid(5000.0, 4.0, 500)
LINES = (5100.0, 5577.3, 5890.0, 6300.3, 6363.8, 6863.0)


def sky(shift_pixels=0.0, strength=1.0, lines=True):
    """Return a sky of three fibres whose lines lie a number of pixels to the red."""
    wave = GRID.wavelength - shift_pixels * GRID.step
    light = sum(900 * np.exp(-0.5 * ((wave - at) / 7) ** 2) for at in LINES if lines)
    return strength * np.stack([(50 + light + wave / 500) * each for each in (1.0, 0.8, 1.2)])


def noise_of(stack):
    return np.broadcast_to(np.abs(stack) + 100.0, stack.shape)


@pytest.mark.parametrize("shift", [0.01, 0.1, 0.4])
def test_shifts_of_the_sky_lines_are_found(shift):
    stack = np.stack([sky(shift), sky(0.0), sky(-shift)])
    found = sky_zero_points(stack, noise_of(stack))
    # One step of a linear fit: large shifts come out 5 % too large.
    assert found.shift == pytest.approx([shift, 0, -shift], abs=0.005 + 0.06 * shift)
    assert (found.error < 0.02).all()


def test_the_strength_of_the_sky_does_not_matter():
    stack = np.stack([sky(0.1, 0.5), sky(0.0, 1.0), sky(-0.1, 2.0)])
    assert sky_zero_points(stack, noise_of(stack)).shift[[0, 2]] == pytest.approx(
        [0.1, -0.1], abs=0.01
    )


def test_a_sky_without_lines_is_unmeasured():
    stack = np.stack([sky(lines=False)] * 3)
    assert np.isnan(sky_zero_points(stack, noise_of(stack)).shift).all()


def test_no_sky_at_all_is_unmeasured():
    stack = np.full((2, 3, 500), np.nan)
    assert np.isnan(sky_zero_points(stack, np.ones(stack.shape)).shift).all()


def test_errors_of_zero_points_are_true():
    rng = np.random.default_rng(4)
    clean = np.stack([sky(), sky()])
    pulls = []
    for _ in range(60):
        stack = clean + np.sqrt(noise_of(clean)) * rng.standard_normal(clean.shape)
        found = sky_zero_points(stack, noise_of(clean))
        pulls.append(found.shift[0] / found.error[0])
    # Half of the mean of two exposures is the exposure itself: half of its noise cancels.
    assert 0.5 < np.std(pulls) < 1.3


def test_a_shift_is_undone():
    moved = Signal.of(sky(0.3), 1.0)
    plan = regridding(GRID, 0.3, np.zeros(3), moved.good)
    back, correlation = move(moved, plan, np.zeros((3, 3)))
    inner = slice(5, -5)
    assert back.value[:, inner] == pytest.approx(sky()[:, inner], abs=6)
    assert correlation[:, 0] == pytest.approx(np.full(3, 0.24), abs=0.15)


def test_a_velocity_is_added():
    velocity = np.array([30.0, -30.0, 0.0])
    spectra = Signal.of(sky(), 1.0)
    plan = regridding(GRID, 0.0, velocity, spectra.good)
    moved, _ = move(spectra, plan, np.zeros((3, 3)))
    near = np.abs(GRID.wavelength - 6300.3) < 30
    level = np.nan_to_num(moved.value[:, near] - 70)
    centre = (level * GRID.wavelength[near]).sum(axis=1) / level.sum(axis=1)
    assert centre - centre[2] == pytest.approx(6300.3 * velocity / LIGHT, abs=0.1)


def test_flux_is_conserved_by_a_move():
    light = np.zeros((1, 500))
    light[0, 100:400] = 100.0
    spectra = Signal.of(light, 1.0)
    plan = regridding(GRID, 0.37, np.zeros(1), spectra.good)
    moved, _ = move(spectra, plan, np.zeros((1, 3)))
    assert np.nansum(moved.value) == pytest.approx(light.sum(), rel=1e-6)
