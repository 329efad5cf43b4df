"""Lines on pixels, and the normal equations of what all rows share."""

from dataclasses import replace

import numpy as np
import pytest

from kspecpipe.wavelength.design import Design, LsfColumns
from kspecpipe.wavelength.groups import doubting_weights, measure_groups
from kspecpipe.wavelength.lsf import free_changes, gaussian_lsf, lsf_basis
from kspecpipe.wavelength.scene import Model, Scene, render, sample_weights
from kspecpipe.wavelength.shape import Freedom, lsf_columns

NX, ROWS = 200, 3
#: A blend, a line over the edge of a block of pixels, and one over the edge of the chip.
PLACES = np.array([60.3, 63.1, 128.2, 196.4])
GROUPS = np.array([0, 0, 1, 2])


@pytest.fixture
def scene():
    good = np.ones((ROWS, NX), bool)
    good[1, 126:131] = False
    return Scene(
        np.zeros((ROWS, NX)), np.full((ROWS, NX), 25.0), good,
        np.arange(ROWS), np.zeros(ROWS, int), np.linspace(-1, 1, ROWS), np.ones((1, 4), bool),
    )  # fmt: skip


@pytest.fixture
def model():
    response = np.array([[1.0], [0.7], [1.4]]) * np.ones(4)
    intensity = np.array([9e3, 4e3, 2e4, 7e3])
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    return Model(lsf, intensity, GROUPS, response, np.zeros((ROWS, NX)), 0.01)


def positions(moved=(0.0, 0.0, 0.0)):
    return PLACES + np.asarray(moved)[GROUPS] + np.array([[-0.4], [0.0], [0.3]])


def test_normal_equations_are_those_of_numerical_derivatives(scene, model):
    rng = np.random.default_rng(3)
    smooth = np.vander(np.linspace(-1, 1, NX), 2)
    shape = LsfColumns(rng.normal(size=(ROWS, 1, NX, 2)), (0, 0), rng.normal(size=(ROWS, 2)))
    level = np.array([1.0, 2.0, 3.0])
    drawn = render(scene, model, positions())
    weight, residual = rng.uniform(0, 1, (2, ROWS, NX))

    def lines(intensity, moved=(0, 0, 0)):
        return render(scene, replace(model, intensity=intensity), positions(moved)).lines

    strengths = [lines(row) for row in np.eye(4)]
    moves = [
        (lines(model.intensity, move) - lines(model.intensity, -move)) / 2e-4
        for move in 1e-4 * np.eye(3)
    ]
    columns = [
        *strengths,
        *(level[:, None] * s for s in smooth.T),
        *moves,
        *(
            f[:, None] * part
            for f in shape.factor.T
            for part in np.moveaxis(shape.parts[:, 0], 2, 0)
        ),
    ]
    matrix = np.stack([column.ravel() for column in columns], axis=1)

    found = Design(drawn, smooth, level, GROUPS, 3, shape).normal_equations(weight, residual)
    normal = matrix.T @ (weight.ravel()[:, None] * matrix)
    size = np.sqrt(np.diag(normal))
    assert (
        np.max(np.abs(found[0] - normal) / np.outer(size, size)) < 2e-4
    )  # slopes are those of a table
    pull = matrix.T @ (weight * residual).ravel()
    assert np.max(np.abs(found[1] - pull) / size) < 2e-4 * np.linalg.norm(residual)


@pytest.mark.parametrize("variation", [0.0, 0.2])
def test_columns_of_the_lsf_are_what_its_changes_do_to_the_lines(scene, model, variation):
    # Above the middle of its pixel, below it, on its edge, and beside the chip.
    place = positions() + np.array([0.0, -0.3, 0.3, 40.0])
    freedom = Freedom(model.intensity, model.intensity, True, variation, 0.5, GROUPS)
    drawn, changes = render(scene, model, place), free_changes(model.lsf.basis)
    columns = lsf_columns(scene, model, drawn, freedom)
    assert columns.count == freedom.terms * len(changes)
    laid = np.empty((ROWS, NX, columns.count))
    columns.lay(slice(0, NX), laid)
    for term in range(freedom.terms):
        for number in (0, 9, len(changes) - 1):
            coefficients = model.lsf.coefficients.copy()
            coefficients[term] += changes[number]
            changed = replace(model, lsf=replace(model.lsf, coefficients=coefficients))
            expected = render(scene, changed, place).lines - drawn.lines
            found = laid[..., term * len(changes) + number]
            assert found == pytest.approx(expected, abs=1e-9 * model.intensity.max())


def test_a_line_without_core_in_any_row_says_nothing_of_changes_of_the_lsf(scene, model):
    good = scene.good.copy()
    good[:, 120:137] = False
    lost = replace(scene, good=good)
    freedom = Freedom(model.intensity, model.intensity, True, 0.2, 0.5, GROUPS)
    parts = lsf_columns(lost, model, render(lost, model, positions()), freedom).parts
    assert np.any(parts[:, 0, 128] != 0)
    assert not np.any(parts[:, 1:, 128] != 0)


def test_without_movers_strengths_continuum_and_shape_follow_each_other(scene, model):
    drawn = render(scene, model, positions())
    shape = LsfColumns(np.zeros((ROWS, 1, NX, 2)), (0,), np.ones((ROWS, 1)))
    design = Design(drawn, np.ones((NX, 5)), np.ones(ROWS), GROUPS, 0, shape)
    assert [(p.start, p.stop) for p in design.parts] == [(0, 4), (4, 9), (9, 9), (9, 11)]


def test_lines_with_other_fluxes_need_not_be_drawn_again(scene, model):
    drawn = render(scene, model, positions())
    response, intensity = np.full((ROWS, 4), 1.3), np.array([0.5, 2.0, 1.0, 3.0])
    changed = replace(
        model, response=model.response * response, intensity=model.intensity * intensity
    )
    expected = render(scene, changed, positions())
    found = drawn.relit(response, intensity)
    for name in ("value", "slope", "unit", "lines", "blunt"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
    # The line that has lost its core in one row is a guess there.
    assert found.blunt[1].max() > 0 == found.blunt[0, :150].max()
    assert found.lost[1, 2]
    assert not found.lost[0, 2]


def test_cut_windows_hold_the_pixels_within_reach(scene, model):
    drawn = render(scene, model, positions())
    cut = drawn.within(3.0)
    near = np.abs(drawn.pixel - drawn.position[..., None])[:, :3] < 3.0
    assert cut.pixel.shape[-1] == 7
    assert np.sum(near) == np.sum(near[..., near.shape[-1] // 2 - 3 : near.shape[-1] // 2 + 4])
    assert drawn.within(1e3) is drawn


def test_a_saturated_line_does_not_silence_the_faint_ones_beside_it(scene, model):
    good = scene.good.copy()
    good[:, 120:137] = False
    lost = replace(scene, good=good)
    freedom = Freedom(model.intensity, model.intensity, True, 0.2, 0.5, GROUPS)
    bright = replace(model, intensity=model.intensity * np.array([1.0, 1.0, 1e5, 1.0]))
    near = np.rint(positions()[0]).astype(int)
    for each in (model, bright):
        parts = lsf_columns(lost, each, render(lost, each, positions()), freedom).parts
        assert all(np.any(parts[0, 1:, x] != 0) for x in near[[0, 1, 3]])


def test_a_blend_that_the_model_does_not_know_says_little_of_the_shape(scene, model):
    drawn = render(scene, model, positions())
    known = replace(scene, value=drawn.lines)
    measured = measure_groups(known, model, drawn, 6.0)
    value = drawn.lines.copy()
    value[:, 60:63] += 40 * np.sqrt(scene.variance[:, 60:63])
    strange = replace(scene, value=value)
    calm, doubted = (doubting_weights(each, model, drawn, measured) for each in (known, strange))
    usual = sample_weights(known, model, drawn)
    assert calm == pytest.approx(usual)
    assert np.all(doubted[:, 61] < 0.25 * usual[:, 61])
    assert doubted[:, 100:] == pytest.approx(usual[:, 100:])
