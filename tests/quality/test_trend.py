"""Drifts, steps and crossings: what is planted is found, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.qc import Limits
from kspecpipe.quality.trend import analyse, find_steps, fit_drift, nightly, running_median

LIMITS = {"warn": None, "fail": (0.8, 1.2)}
MONTH = np.arange(30.0)


def noise(n, seed=1, scale=0.01):
    return np.random.default_rng(seed).normal(0, scale, n)


# -- the numerics ------------------------------------------------------------------------------


@given(slope=st.floats(-10, 10), level=st.floats(-1e3, 1e3), start=st.floats(50000, 70000))
def test_a_line_comes_back_exactly(slope, level, start):
    drift = fit_drift(start + MONTH, level + slope * (MONTH - 29))
    assert drift.slope == pytest.approx(slope, abs=1e-6)
    assert drift.level == pytest.approx(level, abs=1e-4)


def test_a_line_is_not_moved_by_a_third_of_wild_values():
    values = 1.0 - 0.005 * MONTH + noise(30)
    values[[3, 9, 12, 17, 20, 22, 25, 28]] = 5.0
    assert fit_drift(MONTH, values).slope == pytest.approx(-0.005, abs=0.003)


def test_the_test_of_drifts_has_its_nominal_rate():
    """Under pure noise the chance is uniform: one in ten is below 0.1."""
    chances = [fit_drift(MONTH, noise(30, seed)).chance for seed in range(400)]
    share = np.mean(np.array(chances) < 0.1)
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)


def test_the_slope_is_unbiased():
    slopes = np.array([fit_drift(MONTH, 0.02 * MONTH + noise(30, s)).slope for s in range(200)])
    assert abs(slopes.mean() - 0.02) < 4 * slopes.std() / np.sqrt(200)


def test_values_that_do_not_change_have_no_drift():
    drift = fit_drift(MONTH, np.ones(30))
    assert (drift.slope, drift.chance) == (0.0, 1.0)
    assert not drift.significant


def test_a_step_is_found_on_its_night_and_is_no_drift():
    values = np.where(MONTH < 18, 1.0, 0.9) + noise(30)
    (step,) = find_steps(MONTH, values)
    assert step.mjd == 18
    assert step.before - step.after == pytest.approx(0.1, abs=0.02)
    trend = analyse(MONTH, values, LIMITS)
    assert trend.drift is not None
    assert trend.drift.since == 18
    assert trend.crossings == ()


def test_two_steps_are_found():
    nights = np.arange(60.0)
    values = np.select([nights < 20, nights < 40], [1.0, 0.8], 1.0) + noise(60)
    assert [step.mjd for step in find_steps(nights, values)] == [20, 40]


@pytest.mark.parametrize("seed", range(5))
def test_a_drift_and_noise_are_no_steps(seed):
    nights = np.arange(80.0)
    assert find_steps(nights, noise(80, seed)) == ()
    assert find_steps(nights, 1 - 0.005 * nights + noise(80, seed)) == ()
    assert find_steps(nights, 1 - 0.005 * np.clip(nights - 50, 0, None) + noise(80, seed)) == ()


def test_a_crossing_is_announced_for_the_right_day():
    values = 1.0 - 0.004 * MONTH
    (crossing,) = analyse(MONTH, values, LIMITS).crossings
    assert (crossing.kind, crossing.limit) == ("fail", 0.8)
    assert crossing.days == pytest.approx(50 - 29)
    (rising,) = analyse(MONTH, 1.0 + 0.004 * MONTH, LIMITS).crossings
    assert rising.limit == 1.2


def test_a_limit_that_was_crossed_is_crossed_in_no_days():
    assert analyse(MONTH, 0.7 - 0.004 * MONTH, LIMITS).crossings[0].days == 0.0


def test_a_crossing_far_away_or_of_no_limit_is_not_announced():
    assert analyse(MONTH, 1.0 - 0.001 * MONTH, LIMITS).crossings == ()
    assert analyse(MONTH, 1.0 - 0.004 * MONTH, {"warn": None}).crossings == ()
    assert analyse(MONTH, 1.0 - 0.004 * MONTH, {"fail": (-np.inf, 1.2)}).crossings == ()


def test_a_dying_lamp_is_announced_ten_days_before_and_a_healthy_one_is_not():
    """The benchmark bench_trend.py does the same for hundreds of lamps and years."""
    rng = np.random.default_rng(5)
    for _ in range(8):
        nights = np.sort(rng.choice(71, 57, replace=False)).astype(float)
        lamp = 1.0 - 0.005 * np.clip(nights - 30, 0, None) + rng.normal(0, 0.01, 57)
        known = nights <= 60  # the limit is reached on night 70
        assert analyse(nights[known], lamp[known], LIMITS).crossings
        healthy = 1.0 + rng.normal(0, 0.01, 57)
        for last in range(8, 58):
            assert analyse(nights[:last], healthy[:last], LIMITS).crossings == ()


@pytest.mark.parametrize(
    ("mjd", "values"),
    [
        (np.arange(3.0), np.ones(4)),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.array([1.0, 1.0]), np.ones(2)),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan])),
    ],
)
def test_wrong_shapes_are_refused(mjd, values):
    with pytest.raises(ValueError, match="night"):
        analyse(mjd, values, LIMITS)


@pytest.mark.parametrize("count", range(5))
def test_too_few_nights_say_nothing(count):
    trend = analyse(np.arange(float(count)), np.arange(float(count)), LIMITS)
    assert (trend.drift, trend.steps, trend.crossings) == (None, (), ())


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 20), st.floats(-5, 5)), min_size=1, max_size=40))
def test_a_night_has_the_median_of_its_values(pairs):
    mjd, values = (np.array(column) for column in zip(*pairs, strict=True))
    nights, medians = nightly(mjd, values)
    assert (np.diff(nights) > 0).all()
    for night, median in zip(nights, medians, strict=True):
        assert median == np.median(values[np.floor(mjd) == night])


def test_the_running_median_follows_a_line_inside():
    smooth = running_median(MONTH, 2 * MONTH, days=6)
    np.testing.assert_allclose(smooth[3:-3], 2 * MONTH[3:-3])


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def lamp(history, row):
    """Return the history of a lamp that falls by 0.5 % a day from night 20, also per fibre."""
    limits = Limits(warn=(900, 1200), fail=(800, 1200))
    values = 1000 * (1 - 0.005 * np.clip(np.arange(45) - 20, 0, None)) + 10 * noise(45, 3, 1.0)
    for day, value in enumerate(values):
        fibres = [
            row(
                "THROUGHPUT",
                value * (1 + 0.1 * f) / 1000,
                Limits(fail=(0.8, 2)),
                fibre=f + 1,
                scope="fibre",
                unit="",
            )
            for f in range(3)
        ]
        history.run(day, [row("FLAT LEVEL", value, limits), *fibres], recipe="mflat")
    return history


def test_the_command_announces_the_crossing_and_draws_it(lamp, qc, tmp_path):
    result = qc("trend", "FLAT LEVEL", "--mode", "slow", "--qc-store", lamp.path)
    assert result.code == 0, result.err
    assert "45 nights from 2026-01-29 to 2026-03-14" in result.out
    assert "has crossed its warn limit (900 adu)" in result.out
    days = int(result.out.split("its fail limit in about ")[1].split()[0])
    assert 12 <= days <= 20  # 16 at 0.5 % a day
    picture = tmp_path / "here" / "trend_flat_level_slow.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_says_the_same(lamp, qc):
    found = qc("trend", "FLAT LEVEL", "--qc-store", lamp.path, "--json").object
    assert len(found["values"]) == 45
    assert found["drift"]["significant"]
    assert found["drift"]["per_day"] == pytest.approx(-5, abs=1)
    assert {crossing["kind"] for crossing in found["crossings"]} == {"warn", "fail"}
    json.dumps(found, allow_nan=False)


def test_days_cut_the_history(lamp, qc):
    found = qc("trend", "FLAT LEVEL", "--qc-store", lamp.path, "--json", "--days", "9.5").object
    assert len(found["values"]) == 10


def test_a_metric_per_fibre_names_the_fibres_that_will_fail(lamp, qc, tmp_path):
    picture = tmp_path / "fibres.png"
    result = qc("trend", "THROUGHPUT", "--qc-store", lamp.path, "-o", picture)
    assert "WARNING: fibre 1 crosses its fail limit in about" in result.out
    assert picture.exists()


def test_events_explain_steps(history, row, qc):
    for day in range(40):
        history.run(day, [row("LEVEL", 10.0 + noise(1, day, 0.1)[0] + (5 if day >= 25 else 0))])
    (history.path.parent / "events.yaml").write_text(
        "- {date: 2026-02-23, text: new lamp}\n- {date: 2026-02-23, text: other, mode: fast}\n"
    )
    result = qc("trend", "LEVEL", "--qc-store", history.path)
    assert "step on 2026-02-23: 10" in result.out
    assert "(new lamp)" in result.out
    assert "drift: none that is significant" in result.out


def test_a_metric_that_changed_its_unit_is_not_mixed(history, row, qc):
    for day in range(12):
        history.run(day, [row("LEVEL", 10.0 + day % 3, unit="adu" if day < 6 else "electron")])
    result = qc("trend", "LEVEL", "--qc-store", history.path)
    assert "note: 6 values in adu are left out: the unit is electron now" in result.out
    assert "6 nights" in result.out


def test_inverted_limits_are_told_and_never_green(history, row, qc):
    upside_down = Limits(fail=(20, 10))
    assert str(upside_down.judge(15.0)) == "fail"
    for day in range(6):
        history.run(day, [row("LEVEL", 15.0, upside_down)])
    result = qc("trend", "LEVEL", "--qc-store", history.path)
    assert "the fail limits 20 .. 10 are inverted: nothing fits" in result.out


def test_values_without_limits_and_unmeasured_ones_are_told(history, row, qc):
    for day in range(6):
        history.run(day, [row("LEVEL", float("nan") if day == 2 else 15.0 + day, Limits())])
    result = qc("trend", "LEVEL", "--qc-store", history.path)
    assert "note: 1 values were not measured or do not apply" in result.out
    assert "note: it has no limits" in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("FLAT LEVLE",), "did you mean 'FLAT LEVEL'"),
        (("FLAT LEVEL", "--mode", "fast"), "knows no mode 'fast'"),
        (("FLAT LEVEL", "--days", "-1"), "a number above 0"),
        (("FLAT LEVEL", "--events", "none.yaml"), "no such file"),
        (("FLAT LEVEL", "-o", "trend.gif"), "pictures are PNG"),
        (("NEVER",), "none of 3 values was measured"),
        (("TWICE",), "choose of: --recipe marc --mode slow --instrument TINY, --recipe mbias"),
    ],
)
def test_usage_errors_are_told(lamp, row, qc, words, message):
    for day in range(3):
        lamp.run(day, [row("NEVER", float("nan"))])
        lamp.run(day, [row("TWICE", 1.0)])
        lamp.run(day, [row("TWICE", 1.0)], recipe="marc")
    result = qc("trend", *words, "--qc-store", lamp.path)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date: 2026-02-23\n", "line 1: a list of events is expected"),
        ("- {date: soon, text: lamp}\n", "line 1: date 'soon' is no date"),
        ("- {date: 2026-02-23}\n", "lacks the key 'text'"),
        ("- {date: 2026-02-23, txt: lamp}\n", "did you mean 'text'"),
    ],
)
def test_wrong_events_are_errors_with_file_and_line(lamp, qc, text, message):
    (lamp.path.parent / "events.yaml").write_text(text)
    result = qc("trend", "FLAT LEVEL", "--qc-store", lamp.path)
    assert result.code == 2
    assert "events.yaml, line 1" in result.err
    assert message in result.err
