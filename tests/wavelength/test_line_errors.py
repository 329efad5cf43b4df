"""What may displace lines in all fibres alike."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.wavelength.components import Components
from kspecpipe.wavelength.groups import Measurement
from kspecpipe.wavelength.line_errors import (
    _blend_error,
    _saturation_error,
    private_variance,
    shared_errors,
    split_error,
)
from kspecpipe.wavelength.lsf import gaussian_lsf, lsf_basis, winged_lsf
from kspecpipe.wavelength.scene import Model, Scene, render

#: A blend of two lamps, and a line of each lamp for itself.
GROUPS = np.array([0, 0, 1, 2])
SPECIES = np.array(["Hg", "Kr", "Hg", "Kr"])


def error_of(flux, *, apart=2.2, listed=(50.0, 50.0, 50.0, 50.0), trusted=True):
    place = np.array([100.0, 100.0 + apart, 300.0, 500.0])
    model = Model(
        gaussian_lsf(lsf_basis(4.0), 4.0), np.array(flux, float), GROUPS,
        np.ones((1, 4)), np.zeros((1, 600)), 0.01,
    )  # fmt: skip
    parts = Components(place, SPECIES, np.array(listed), np.full(4, trusted))
    return split_error(parts, model, 1.0, place)


def test_a_split_as_listed_adds_no_error():
    assert error_of([1000, 1000, 1000, 1000]) == pytest.approx(0)
    assert error_of([1000, 600, 1000, 1000]) == pytest.approx(0)


def test_a_close_blend_split_against_the_list_may_be_displaced():
    error = error_of([1900, 100, 1000, 1000])
    assert 0.2 < error[0] < 1.1
    assert error[1:] == pytest.approx(0)


def test_lines_that_stand_apart_may_differ_from_the_list():
    assert error_of([1900, 100, 1000, 1000], apart=5.0) == pytest.approx(0)


def test_without_another_line_of_the_lamp_nothing_is_contradicted():
    assert error_of([1900, 100, 1000, 0]) == pytest.approx(0)
    assert error_of([1900, 100, 1000, 1000], trusted=False) == pytest.approx(0)


def test_a_close_neighbour_of_unknown_strength_is_an_error_however_the_fit_splits():
    listed = (np.nan, np.nan, 50.0, 50.0)
    for flux in ([1000, 1000, 1000, 1000], [1999, 1, 1000, 1000]):
        assert 0.05 < error_of(flux, listed=listed)[0] < 0.8
    assert error_of([1999, 1, 1000, 1000], listed=listed, apart=5.0) == pytest.approx(0)


def test_lines_of_unknown_strength_are_taken_for_faint_ones():
    bright, faint = (2000.0, np.nan, 50.0, 50.0), (50.0, np.nan, 50.0, 50.0)
    flux = [1999, 1, 1000, 1000]
    assert error_of(flux, listed=bright)[0] < 0.1 * error_of(flux, listed=faint)[0]


def test_the_list_is_compared_as_bright_as_each_lamp_burns():
    assert error_of([1900, 100, 1900, 100]) == pytest.approx(0)
    assert error_of([1000, 1000, 1900, 100])[0] > 0.2


def shared_of(lsf, count=60, nx=601, flux=1e3):
    place = np.linspace(0.0, nx - 1.0, count)
    model = Model(
        lsf, np.full(count, flux), np.arange(count), np.ones((1, count)), np.zeros((1, nx)), 0.01
    )
    one, row = np.ones((1, nx)), np.zeros(1, int)
    scene = Scene(0 * one, one, one > 0, row, row, np.zeros(1), np.ones((1, count), bool))
    scene = replace(scene, value=render(scene, model, place[None]).lines)
    return shared_errors(scene, model, place[None], 5.0)


def test_what_far_wings_displace_does_not_average_out_over_the_lines():
    covariance = shared_of(winged_lsf(lsf_basis(4.0)))
    mean = np.full(60, 1 / 60)
    assert 0.002 < np.sqrt(mean @ covariance @ mean) < 0.03
    assert covariance == pytest.approx(covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    edge, middle = np.sqrt(np.diag(covariance))[[0, 30]]
    assert edge == pytest.approx(np.sqrt(2) * middle, rel=0.01)


def test_lines_without_wings_share_what_no_arc_tells_of():
    plain = np.sqrt(np.diag(shared_of(gaussian_lsf(lsf_basis(4.0), 4.0))))
    assert plain[30] == pytest.approx(0.003, abs=2e-4)


def test_wings_are_known_better_the_brighter_lines_are():
    lsf = winged_lsf(lsf_basis(4.0))
    faint, bright = (np.sqrt(shared_of(lsf, count=8, flux=flux).max()) for flux in (1e3, 1e5))
    assert bright < 0.7 * faint


def test_without_a_line_that_is_seen_nothing_is_known_of_wings_nor_claimed():
    faint = np.sqrt(np.diag(shared_of(winged_lsf(lsf_basis(4.0)), flux=1.0)))
    assert faint[30] == pytest.approx(0.003, abs=2e-4)


def private_of(correlated, sd):
    place = np.linspace(50.0, 1250.0, len(sd))
    measured = Measurement(*np.ones((5, 1, len(sd))) * 1e-6)
    return private_variance(correlated, place, sd, measured)


def test_what_displaces_all_lines_alike_is_none_of_their_own_error():
    u = np.linspace(-1, 1, 20)
    sd = np.full(20, 0.01)
    alike = 0.05**2 * (1 + np.outer(u, u) + np.outer(u**2, u**2))
    assert np.all(private_of(alike, sd) < 1e-3 * np.diag(alike))
    own = np.zeros((20, 20))
    own[7, 7] = 0.02**2
    private = private_of(alike + own, sd)
    assert 0.7 * 0.02**2 < private[7] < 1.1 * 0.02**2
    assert private[9:].max() < 0.1 * 0.02**2


def test_what_lines_share_is_judged_by_those_that_are_measured_best():
    sd = np.where(np.arange(20) < 5, 1.0, 0.01)
    wild = np.diag(np.where(np.arange(20) < 5, 0.5**2, 0.0))
    assert np.all(private_of(wild, sd)[5:] < 1e-4)
    assert private_of(wild, sd)[:5] == pytest.approx(0.25, rel=0.05)


def test_the_farther_out_a_saturated_line_is_seen_the_less_is_known_of_its_place():
    nx, place = 300, np.array([[100.0, 200.0]])
    model = Model(
        gaussian_lsf(lsf_basis(4.0), 4.0), np.full(2, 1e5), np.arange(2),
        np.ones((1, 2)), np.zeros((1, nx)), 0.001,
    )  # fmt: skip
    one, row = np.ones((1, nx)), np.zeros(1, int)

    def error_of_loss(width):
        lost = np.abs(np.arange(nx) - 200) <= width // 2
        scene = Scene(one, one, ~lost[None], row, row, np.zeros(1), np.ones((1, 2), bool))
        return _saturation_error(scene, model, place)

    errors = np.array([error_of_loss(width) for width in (3, 7, 11)])
    assert np.all(errors[:, 0] == 0)
    assert 0.005 < errors[0, 1] < 0.02
    assert errors[1, 1] > 3 * errors[0, 1]
    assert errors[2, 1] >= 1


def blend_error(*, single_at, core=0.0, trusted=True):
    """Error of a blend at 900 when a bright single line is elsewhere; the first line is far."""
    place = np.array([0.0, 899.0, 901.5, single_at])
    model = Model(
        gaussian_lsf(lsf_basis(4.0), 4.0), np.full(4, 1e4), np.array([0, 1, 1, 2]),
        np.ones((1, 4)), np.zeros((1, 1000)), 0.01,
    )  # fmt: skip
    parts = Components(
        place,
        np.array(["Hg", "Hg", "Cd", "Hg"]),
        np.full(4, 50.0),
        np.array([True] * 3 + [trusted]),
    )
    per_group = np.ones((1, 3))
    measured = Measurement(
        0 * per_group, per_group, per_group, 200 * per_group, np.array([[0.0, 0.0, core]])
    )
    return _blend_error(parts, model, place, measured)[1]


def test_the_farther_a_blend_is_from_single_lines_the_less_sure_is_its_split():
    errors = [blend_error(single_at=at) for at in (880.0, 500.0, 100.0)]
    assert errors == sorted(errors)
    assert errors[0] < 0.06
    assert 2 * errors[0] < errors[1]


def test_lost_lines_and_unknown_ones_say_nothing_of_the_shape_of_others():
    alone = blend_error(single_at=880.0, core=1.0)
    assert alone == blend_error(single_at=880.0, trusted=False)
    assert alone > 1.5 * blend_error(single_at=880.0)
