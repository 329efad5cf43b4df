import numpy as np
import pytest

from kspecpipe.combine.splice import Segment, common_grid, splice
from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.rebin import Grid

BLUE, RED, INNER = Grid(4000.0, 4.0, 500), Grid(5600.0, 3.0, 700), Grid(4600.0, 1.0, 800)
NFIB = 4


def light(wave):
    """Electron per Angstrom of each fibre; the first is faint."""
    shape = 60 + 20 * np.sin(wave / 300) + 40 * np.exp(-0.5 * ((wave - 5700) / 25) ** 2)
    return np.linspace(0.01, 1, NFIB)[:, None] * shape


def segment(grid, factor=1.0, noise=1.0, seed=1):
    rng = np.random.default_rng(seed)
    clean = light(grid.wavelength) * np.broadcast_to(factor, (NFIB,))[:, None]
    sigma = noise / np.sqrt(grid.step)
    return Segment(Signal.of(clean + sigma * rng.standard_normal(clean.shape), sigma**2), grid)


def test_the_common_grid_covers_all_at_the_finest_step():
    grid = common_grid([BLUE, RED])
    assert grid.step == 3.0
    assert grid.wavelength[0] <= BLUE.wavelength[0] < grid.wavelength[0] + 3
    assert grid.wavelength[-1] == RED.wavelength[-1]
    assert (RED.start - grid.start) / 3 == pytest.approx(round((RED.start - grid.start) / 3))
    assert common_grid([RED, BLUE]) == grid


@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
def test_the_scale_of_two_arms_is_found_and_taken_out(factor):
    found = splice([segment(BLUE), segment(RED, factor, seed=2)], common_grid([BLUE, RED]))
    (join,) = found.joins
    assert (join.start, join.stop) == (RED.edges[0], BLUE.edges[-1])
    assert abs(join.common - factor) < 4 * join.error
    assert join.error < 0.01 * factor
    assert abs(join.step) < 0.005
    truth = light(common_grid([BLUE, RED]).wavelength)
    pull = (found.spectra.value - truth) / found.spectra.error
    assert abs(np.nanmedian(pull)) < 0.1
    assert 1.48 * np.nanmedian(np.abs(pull)) == pytest.approx(1, abs=0.1)


def test_each_fibre_has_its_own_scale_if_its_light_tells():
    factor = np.array([1.0, 1.1, 0.9, 1.3])
    found = splice([segment(BLUE), segment(RED, factor, seed=2)], common_grid([BLUE, RED]))
    assert found.joins[0].scale[1:] == pytest.approx(factor[1:], abs=0.03)
    same = splice(
        [segment(BLUE), segment(RED, factor, seed=2)], common_grid([BLUE, RED]), per_fibre=False
    )
    assert np.ptp(same.joins[0].scale) == pytest.approx(0, abs=1e-12)


def test_the_ratio_is_measured_but_not_applied_on_request():
    arms = [segment(BLUE), segment(RED, 2.0, seed=2)]
    found = splice(arms, common_grid([BLUE, RED]), scale=False)
    assert found.joins[0].common == pytest.approx(2, rel=0.02)
    assert (found.factor == 1).all()


def test_there_is_no_step_where_two_arms_meet():
    grid = common_grid([BLUE, RED])
    found = splice([segment(BLUE, noise=0.05), segment(RED, 1.7, noise=0.05, seed=2)], grid)
    ratio = found.spectra.value[1:] / light(grid.wavelength)[1:]
    for edge in (RED.edges[0], BLUE.edges[-1]):
        at = int(np.searchsorted(grid.wavelength, edge))
        before, after = (np.nanmedian(ratio[:, part]) for part in _sides(at))
        assert abs(after / before - 1) < 0.002


def _sides(at):
    return slice(at - 20, at - 2), slice(at + 2, at + 20)


def test_shares_add_up_and_run_from_one_to_the_other():
    grid = common_grid([BLUE, RED])
    share = splice([segment(BLUE), segment(RED)], grid).share
    assert share.sum(axis=0) == pytest.approx(np.ones(share.shape[1:]))
    assert (share[0][:, grid.wavelength < 5590] == 1).all()
    assert (share[1][:, grid.wavelength > 6010] == 1).all()
    middle = share[1][:, np.abs(grid.wavelength - 5800) < 30]
    assert 0.2 < middle.mean() < 0.8


def test_a_segment_within_another_takes_its_place():
    grid = common_grid([BLUE, INNER])
    found = splice([segment(BLUE), segment(INNER, 1.2, seed=3)], grid)
    assert (found.share[1][:, np.abs(grid.wavelength - 5000) < 200] == 1).all()
    assert (found.share[0][:, grid.wavelength < 4590] == 1).all()
    assert (found.share[0][:, grid.wavelength > 5410] == 1).all()
    assert found.joins[0].common == pytest.approx(1.2, rel=0.02)


def test_where_one_arm_lacks_data_the_other_gives_it():
    hole = segment(RED)
    bad = np.zeros(hole.spectra.shape, bool)
    bad[:, 20:40] = True
    hole = Segment(hole.spectra.flag(bad, DQ.BAD), RED)
    grid = common_grid([BLUE, RED])
    found = splice([segment(BLUE), hole], grid)
    inside = (grid.wavelength > 5665) & (grid.wavelength < 5710)
    assert np.isfinite(found.spectra.value[:, inside]).all()
    assert (found.share[0][:, inside] == 1).all()


def test_samples_that_nobody_has_are_nan():
    grid = common_grid([BLUE, RED])
    empty = segment(BLUE)
    dead = np.zeros(empty.spectra.shape, bool)
    dead[2] = True
    arms = [Segment(empty.spectra.flag(dead, DQ.NO_DATA), BLUE), segment(RED)]
    found = splice(arms, grid).spectra
    assert np.isnan(found.value[2, grid.wavelength < 5590]).all()
    assert (found.dq[2, grid.wavelength < 5590] & DQ.NO_DATA).all()
    assert np.isfinite(found.value[2, grid.wavelength > 6010]).all()


def test_arms_without_overlap_are_refused():
    far = Grid(6100.0, 3.0, 400)
    with pytest.raises(ValueError, match="10 common pixels are needed"):
        splice([segment(BLUE), segment(far)], common_grid([BLUE, far]))


def test_arms_without_light_in_common_are_refused():
    dark = Segment(Signal.of(np.zeros((NFIB, RED.n)), 1e6), RED)
    with pytest.raises(ValueError, match="too little light"):
        splice([segment(BLUE), dark], common_grid([BLUE, RED]))


def test_samples_of_the_finest_grid_are_not_resampled():
    grid = common_grid([BLUE, RED])
    red = segment(RED)
    found = splice([segment(BLUE), red], grid, scale=False).spectra
    assert (found.value[:, -300:] == red.spectra.value[:, -300:]).all()
