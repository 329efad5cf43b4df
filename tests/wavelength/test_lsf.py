"""The empirical LSF."""

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.errors import InputError
from kspecpipe.signal import Signal
from kspecpipe.spectra import WaveSolution
from kspecpipe.wavelength.lsf import (
    N_TERM,
    free_changes,
    gaussian_lsf,
    lsf_basis,
    measure_fwhm,
    place_terms,
    positive_wings,
    stretches,
    winged_lsf,
    without_negative_wings,
)

_SAMPLES = 50
CENTRE = place_terms(np.zeros(1), np.zeros(1))


def evaluate(lsf, distance, terms):
    return tuple(part[..., 0] for part in lsf.evaluate(distance, 1, terms))


@given(st.floats(2.2, 9.0))
def test_the_first_guess_has_unit_flux_no_centroid_and_its_fwhm(fwhm):
    lsf = gaussian_lsf(lsf_basis(fwhm), fwhm)
    step = lsf.basis.offset[1] - lsf.basis.offset[0]
    start = lsf.basis.offset[: round(1 / step)]
    offset = start[:, None] + np.arange(2 * lsf.basis.reach)
    value, _ = lsf.evaluate(start, offset.shape[1], np.broadcast_to(CENTRE, (start.size, N_TERM)))
    assert value.sum() * step == pytest.approx(1, abs=1e-6)
    assert (value * offset).sum() * step == pytest.approx(0, abs=1e-6)
    assert measure_fwhm(lsf, CENTRE)[0] == pytest.approx(fwhm, rel=0.03)


def test_the_slope_is_the_derivative():
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    d = np.linspace(-6, 6, 50)
    terms = np.broadcast_to(CENTRE, (50, N_TERM))
    up, down = evaluate(lsf, d + 0.01, terms)[0], evaluate(lsf, d - 0.01, terms)[0]
    assert np.allclose(evaluate(lsf, d, terms)[1], (up - down) / 0.02, atol=2e-4)


def test_the_lsf_ends_where_it_says():
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    far = np.array([-lsf.basis.reach - 1.0, lsf.basis.reach + 1.0])
    value, slope = evaluate(lsf, far, np.broadcast_to(CENTRE, (2, N_TERM)))
    assert np.all(value == 0)
    assert np.all(slope == 0)


def test_a_window_has_the_values_of_its_pixels():
    rng = np.random.default_rng(3)
    lsf = winged_lsf(lsf_basis(3.3))
    lsf.coefficients[1:] = rng.normal(0, 0.01, lsf.coefficients[1:].shape)
    start = rng.uniform(-lsf.basis.reach - 2, lsf.basis.reach, (7, 5))
    terms = place_terms(rng.uniform(-1, 1, (7, 5)), rng.uniform(-1, 1, (7, 5)))
    together = lsf.evaluate(start, 60, terms)
    for pixel in (0, 1, 30, 59):
        alone = evaluate(lsf, start + pixel, terms)
        fine = terms @ lsf.coefficients @ lsf.basis.table
        inside = np.abs(start + pixel) <= lsf.basis.reach
        for part, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(part[..., pixel], one, atol=1e-12)
        for index in np.argwhere(inside):
            at = tuple(index)
            exact = np.interp(start[at] + pixel, lsf.basis.offset, fine[at])
            assert together[0][at][pixel] == pytest.approx(exact, abs=1e-12)


def wing_distance(basis):
    return np.abs(basis.moment / basis.flux) / basis.fwhm


def test_a_fit_starts_with_wings_on_both_sides():
    lsf = winged_lsf(lsf_basis(4.0))
    value, _ = evaluate(lsf, np.array([-8.0, 8.0]), np.broadcast_to(CENTRE, (2, N_TERM)))
    assert np.all(value > 1e-4 * evaluate(lsf, np.zeros(1), CENTRE)[0])


def test_wings_that_fall_are_left_alone():
    basis = lsf_basis(4.0)
    shape = winged_lsf(basis).coefficients[0]
    assert np.allclose(without_negative_wings(basis, shape), shape, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_cut_wings_never_rise_outwards_nor_fall_below_zero(seed):
    basis = lsf_basis(4.0)
    rng = np.random.default_rng(seed)
    shape = winged_lsf(basis).coefficients[0]
    shape = shape + 0.05 * shape.max() * rng.standard_normal(shape.size)
    cut = positive_wings(shape, wing_distance(basis))
    top = int(np.argmax(shape))
    outer = wing_distance(basis) > 1
    assert np.all(cut >= 0)
    assert np.all(np.diff(cut[top:][outer[top:]]) <= 0)
    assert np.all(np.diff(cut[:top][outer[:top]]) >= 0)


@given(st.integers(0, 2**32 - 1))
def test_a_shape_without_negative_wings_keeps_unit_flux_and_no_centroid(seed):
    basis = lsf_basis(4.0)
    rng = np.random.default_rng(seed)
    shape = winged_lsf(basis).coefficients[0]
    shape = shape + 0.03 * shape.max() * rng.standard_normal(shape.size)
    kept = without_negative_wings(basis, shape)
    assert kept @ basis.flux == pytest.approx(1, abs=1e-9)
    assert kept @ basis.moment == pytest.approx(0, abs=1e-9)


def test_free_changes_are_all_that_keep_flux_and_centroid():
    basis = lsf_basis(4.0)
    changes = free_changes(basis)
    assert changes @ changes.T == pytest.approx(np.eye(len(basis.flux) - 2), abs=1e-12)
    assert changes @ basis.flux == pytest.approx(0, abs=1e-12)
    assert changes @ basis.moment == pytest.approx(0, abs=1e-12)


def test_a_line_shape_of_another_version_is_refused_in_words():
    image = np.zeros((2, 5))
    solution = WaveSolution(
        wavelength=Signal.of(image, image),
        error=image,
        lsf=image,
        lsf_shape=np.zeros((4, 20)),
        lsf_basis={"LSFFWHM": 3.0},
        lines=Table(),
        shifts=Table(),
        fibres=Table(),
    )
    with pytest.raises(InputError, match=r"has 4 terms where 6 are known.*run marc again"):
        _ = solution.line_shape


@pytest.mark.parametrize("side", [0, 1])
def test_a_stretch_widens_one_side_and_keeps_flux_and_centroid(side):
    lsf = winged_lsf(lsf_basis(4.0))
    basis, change = lsf.basis, stretches(lsf)[side]
    line, wider = (lsf.coefficients[0] + f * change for f in (0.0, 0.05))
    before, after = line @ basis.table, wider @ basis.table
    top = [np.argmax(shape) for shape in (before, after)]

    def halves(shape):
        above = np.flatnonzero(shape > shape.max() / 2)
        return np.abs(above[[0, -1]] - np.argmax(shape)) / _SAMPLES

    growth = halves(after) / halves(before)
    assert growth[side] == pytest.approx(1.05, abs=0.015)
    assert growth[1 - side] == pytest.approx(1.0, abs=0.015)
    assert change @ basis.flux == pytest.approx(0, abs=1e-4)
    assert change @ basis.moment == pytest.approx(0, abs=5e-3)
    assert abs(top[1] - top[0]) < 0.1 * _SAMPLES
