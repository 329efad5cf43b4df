"""Bad input is refused with a reason, never solved wrongly."""

from types import SimpleNamespace

import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.plots import draw_identification
from kspecpipe.signal import DQ, Signal
from kspecpipe.wavelength.arcs import ArcSpectra
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.predict import predict_grating
from kspecpipe.wavelength.solve import solve_arcs
from kspecpipe.wavelength.trust import TrustLimits, WavelengthError, check_solution

LIVE = np.ones(14, bool)


@pytest.fixture(scope="module")
def good_arc(arcs, expose):
    return expose(arcs.Recipe(mode="150_620"))


def solve(value, variance, prediction, lines, dq=0, lamps=()):
    return solve_arcs([ArcSpectra(Signal.of(value, variance, dq), lamps)], lines, prediction, LIVE)


def test_a_dark_is_no_arc(good_arc, lines):
    rng = np.random.default_rng(2)
    value = rng.normal(50, 10, (14, 1340))
    hot = rng.random(value.shape) < 0.003
    value[hot] += rng.exponential(500, hot.sum())
    with pytest.raises(RecipeError, match="emission lines.*needed.*lamps on"):
        solve(value, 100.0, predict_grating(**good_arc.prediction), lines)


def test_a_flat_with_fringes_is_no_arc(good_arc, lines):
    x = np.arange(1340)
    flat = 2e4 * np.exp(-0.5 * ((x - 700) / 400) ** 2)
    flat = flat * (1 + 0.045 * np.sin(2 * np.pi * x / 14) * (x > 600)) * np.ones((14, 1))
    value = np.random.default_rng(3).poisson(flat).astype(float)
    with pytest.raises(WavelengthError) as caught:
        solve(value, flat + 100, predict_grating(**good_arc.prediction), lines)
    assert {"peaks", "explained"} & set(caught.value.diagnostics)


def test_an_empty_frame_and_a_saturated_one_are_refused(good_arc, lines):
    prediction = predict_grating(**good_arc.prediction)
    with pytest.raises(RecipeError, match="emission lines.*lamps on"):
        solve(np.zeros((14, 1340)), 1.0, prediction, lines)
    with pytest.raises(RecipeError, match="saturated or masked"):
        solve(np.full((14, 1340), 6e4), 6e4, prediction, lines, dq=DQ.SATURATED)


def test_a_refusal_shows_the_arc_and_where_its_lines_would_be(good_arc, lines):
    prediction = predict_grating(**{**good_arc.prediction, "lines": 300})
    with pytest.raises(WavelengthError) as caught:
        solve(good_arc.value, good_arc.variance, prediction, lines)
    error = caught.value
    assert len(error.light) == 1340
    assert {"peaks"} < set(error.places)
    best = next(place for name, place in error.places.items() if name != "peaks")
    nearest = np.min(np.abs(np.array(best)[:, None] - error.places["peaks"]), axis=1)
    assert np.max(nearest) < 3  # its lines are those matched with peaks
    figure = draw_identification(error)
    assert len(figure.axes[0].lines) == 1 + len(error.places)
    assert figure.axes[0].get_xlabel() == "column [pixel]"


def test_mirrored_spectra_are_recognised(good_arc, lines):
    prediction = predict_grating(**good_arc.prediction)
    with pytest.raises(RecipeError, match="mirrored"):
        solve(good_arc.value[:, ::-1].copy(), good_arc.variance[:, ::-1].copy(), prediction, lines)


@pytest.mark.parametrize(("grooves", "centre"), [(300, 4900), (600, 4300), (600, 6800)])
def test_the_wrong_grating_in_the_header_is_refused(good_arc, lines, grooves, centre):
    prediction = predict_grating(**{**good_arc.prediction, "lines": grooves, "centre": centre})
    with pytest.raises(RecipeError):
        solve(good_arc.value, good_arc.variance, prediction, lines)


def test_lamps_of_another_list_are_refused(good_arc, lines):
    rng = np.random.default_rng(5)
    iron = LineList(
        np.sort(rng.uniform(3600, 8800, 150)), np.full(150, "Fe"), 10 ** rng.uniform(-1, 3, 150)
    )
    prediction = predict_grating(**good_arc.prediction)
    with pytest.raises(RecipeError):
        solve(good_arc.value, good_arc.variance, prediction, iron)
    with pytest.raises(RecipeError, match="no line of the lamps Th"):
        solve(good_arc.value, good_arc.variance, prediction, lines, lamps=("Th",))


def test_three_lines_are_too_few(arcs, lines, expose):
    only = np.isin(lines.wavelength, [4678.1493, 4799.9123, 5085.8217])
    arc = expose(arcs.Recipe(mode="600_450", unlisted=False), lines.select(only))
    with pytest.raises(RecipeError, match="3 emission lines found"):
        solve(arc.value, arc.variance, predict_grating(**arc.prediction), lines)


@pytest.mark.parametrize(
    ("used", "held_out", "fine"), [(8, 0.1, True), (8, 0.2, False), (12, 0.2, True)]
)
def test_few_lines_must_agree_better_than_many(used, held_out, fine):
    numbers = {"coverage": 0.8, "agreeing": 1.0, "error": 0.15, "model_error": 0.001}
    numbers |= {"n_used": used, "held_out": held_out}
    state = SimpleNamespace(groups=None)
    if fine:
        check_solution(numbers, state, np.zeros(9), TrustLimits())
        return
    with pytest.raises(WavelengthError, match="8 lines leave 0.35 pixels of doubt"):
        check_solution(numbers, state, np.zeros(9), TrustLimits())


@pytest.mark.parametrize("seed", range(6))
def test_hard_arcs_are_solved_rightly_or_refused(arcs, lines, expose, spectra, seed):
    rng = np.random.default_rng(seed)
    recipe = arcs.Recipe(
        mode=sorted(arcs.MODES)[seed % 5],
        seed=seed,
        shift=rng.uniform(-75, 75),
        scale=rng.uniform(0.92, 1.08),
        angle=rng.uniform(-28, 28),
        brightness=10 ** rng.uniform(4.5, 6.3),
        saturation=10 ** rng.uniform(4.7, 6),
        off=("Kr",) if seed % 2 else (),
    )
    arc = expose(recipe)
    try:
        found = solve_arcs([spectra(arc)], lines, predict_grating(**arc.prediction), LIVE)
    except RecipeError as error:
        assert len(str(error)) > 60  # a reason, not only a refusal
        return
    low, high = found.diagnostics["range"]
    inside = (arc.wavelength > low) & (arc.wavelength < high)
    error = (found.wavelength - arc.wavelength) / np.gradient(arc.wavelength, axis=1)
    assert np.max(np.abs(error[inside])) < 0.5
