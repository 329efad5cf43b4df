"""Limits that come from the history: from settings to verdicts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.configuration.yaml_source import load_yaml
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Flag, Limits
from kspecpipe.quality.limit_rules import (
    Incumbent,
    Past,
    PastValue,
    Reference,
    Statistical,
    judge_by_rules,
    read_rule,
    references_of,
)


def past(*values, unit="adu", fibre=0):
    found = [PastValue(float(v), unit, f"p{i}.fits") for i, v in enumerate(values)]
    return Past({("LEVEL", fibre): found}, {"ref.fits": {("LEVEL", 0): PastValue(10.0, unit, "r")}})


def judge(made, rule, known, level="fail"):
    (found,) = judge_by_rules([made], {"LEVEL": {level: rule}}, known)
    return found


@pytest.fixture
def value(row):
    """Return a function that makes a value with wide fixed limits."""
    return lambda number: row("LEVEL", number, Limits(fail=(0, 1000)))


# -- statistical -------------------------------------------------------------------------------


def test_statistical_limits_are_the_median_plus_and_minus_mads_of_the_last(value):
    known = past(10, 11, 12, 13, 14, 900, 900)  # the newest first: the old 900 do not count
    found = judge(value(16.0), Statistical(mad=3, last=5), known)
    assert found.limits.fail == (9.0, 15.0)
    assert found.flag == Flag.FAIL
    assert found.basis == "fail: median +- 3 MAD of the last 5 certified"
    assert judge(value(14.9), Statistical(mad=3, last=5), known).flag == Flag.OK


def test_until_there_are_enough_the_fixed_limits_hold_and_it_says_so(value):
    rule = Statistical(mad=3, last=5, fixed=(0, 5))
    found = judge(value(16.0), rule, past(10, 11, 12))
    assert (found.limits.fail, found.flag) == ((0, 5), Flag.FAIL)
    assert found.basis == "fail: fixed: 3 of 5 values certified"
    below = judge(value(16.0), replace(rule, fixed=None), past(10, 11, 12))
    assert (below.limits.fail, below.flag) == ((0, 1000), Flag.OK)  # of the settings below


def test_without_any_limit_a_value_is_unjudged_never_green(row):
    made = row("LEVEL", 16.0, Limits())
    assert judge(made, Statistical(mad=3, last=5), past()).flag == Flag.UNJUDGED
    half = row("LEVEL", 16.0, Limits(warn=(0, 20)))
    found = judge(half, Statistical(mad=3, last=5), past())
    assert found.flag == Flag.UNJUDGED
    assert found.basis == "fail: none: 0 of 5 values certified"
    assert judge(row("LEVEL", 30.0, Limits(warn=(0, 20))), Incumbent("higher"), past()).flag == (
        Flag.WARN
    )


def test_values_in_another_unit_do_not_count_and_are_counted(value):
    mixed = (
        past(1, 2, 3, unit="electron").certified["LEVEL", 0]
        + past(*range(10, 15)).certified["LEVEL", 0]
    )
    found = judge(value(12.0), Statistical(mad=3, last=5), Past({("LEVEL", 0): mixed}))
    assert found.limits.fail == (9.0, 15.0)
    assert "3 in another unit left out" in found.basis


def test_values_that_do_not_scatter_give_no_limits(value):
    found = judge(value(12.001), Statistical(mad=3, last=5), past(*[12.0] * 5))
    assert found.flag == Flag.OK
    assert "fixed: the last 5 certified values do not scatter" in found.basis


def test_every_fibre_has_limits_of_its_own(value):
    made = replace(value(12.0), fibre=7, scope="fibre")
    found = judge(made, Statistical(mad=3, last=5), past(*range(10, 15), fibre=7))
    assert found.limits.fail == (9.0, 15.0)
    other = judge(replace(made, fibre=8), Statistical(mad=3, last=5), past(*range(10, 15), fibre=7))
    assert "0 of 5" in other.basis


@given(st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9, unique=True), st.floats(0.5, 9))
def test_statistical_limits_hold_the_median_and_scale(values, mad):
    lo, hi = Statistical(mad=mad, last=9).pair(_plain("LEVEL"), past(*values))[0] or (0, 0)
    middle = np.median(values)
    spread = np.median(np.abs(np.array(values) - middle))
    if spread > 0:
        np.testing.assert_allclose([lo, hi], [middle - mad * spread, middle + mad * spread])


def _plain(name):
    from kspecpipe.qc import QCRow

    return QCRow(name, 1.0, "adu", "frame", "", 0, Limits(), Flag.OK, "")


# -- reference and incumbent -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        (Reference("ref.fits", ratio=(0.5, 1.5)), (5.0, 15.0)),
        (Reference("ref.fits", difference=(-1.0, 2.0)), (9.0, 12.0)),
    ],
)
def test_limits_relative_to_a_reference_product(value, rule, limits):
    found = judge(value(14.0), rule, past())
    assert found.limits.fail == limits
    assert found.basis == "fail: relative to ref.fits (10)"


def test_a_ratio_to_a_negative_reference_is_not_inverted(value):
    known = Past({}, {"ref.fits": {("LEVEL", 0): PastValue(-10.0, "adu", "r")}})
    assert judge(value(-11.0), Reference("ref.fits", ratio=(0.5, 1.5)), known).limits.fail == (
        -15.0,
        -5.0,
    )


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (Past(), "fixed: the reference ref.fits is not in the history"),
        (Past({}, {"ref.fits": {}}), "has no such value"),
        (past(unit="electron"), "has it in electron"),
    ],
)
def test_a_reference_that_does_not_help_leaves_the_fixed_limits(value, known, words):
    found = judge(value(14.0), Reference("ref.fits", ratio=(0.5, 1.5)), known)
    assert found.limits.fail == (0, 1000)
    assert words in found.basis


@pytest.mark.parametrize(
    ("worse", "number", "flag"),
    [
        ("higher", 10.9, Flag.OK),
        ("higher", 11.1, Flag.WARN),
        ("higher", 1.0, Flag.OK),
        ("lower", 9.1, Flag.OK),
        ("lower", 8.9, Flag.WARN),
    ],
)
def test_not_worse_than_the_incumbent(value, worse, number, flag):
    found = judge(value(number), Incumbent(worse, margin=0.1), past(10, 500), level="warn")
    assert found.flag == flag
    assert found.basis == "warn: not worse than p0.fits (10)"


def test_what_does_not_apply_stays_so(value):
    made = replace(value(float("nan")), flag=Flag.NA)
    assert judge(made, Incumbent("higher"), past(10)).flag == Flag.NA


# -- settings ----------------------------------------------------------------------------------


def rule(text):
    return read_rule(load_yaml(text, "mine.yaml"), "LEVEL.fail")


def test_rules_are_read_from_settings():
    assert rule("{kind: statistical, mad: 5, last: 9, fixed: [0, 1]}") == Statistical(5, 9, (0, 1))
    assert rule("{kind: reference, product: a.fits, ratio: [1, 2]}") == Reference("a.fits", (1, 2))
    assert rule("{kind: incumbent, worse: lower}") == Incumbent("lower")
    found = rule("{kind: reference, product: a.fits, ratio: [1, 2]}")
    assert references_of({"LEVEL": {"fail": found, "warn": Incumbent("lower")}}) == {"a.fits"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{mad: 5}", "kind is None; write [lo, hi], or a mapping whose kind is one of statistical"),
        ("{kind: statistic, mad: 5}", "did you mean 'statistical'"),
        ("{kind: statistical}", "lacks the key 'mad'"),
        ("{kind: statistical, mad: 0}", "0.0 is not above 0"),
        ("{kind: statistical, mad: 5, last: 2}", "2 is below 5"),
        ("{kind: statistical, mad: 5, fixed: [2, 1]}", "fixed: 2.0 is above 1.0"),
        ("{kind: statistical, mad: 5, fxed: [1, 2]}", "did you mean 'fixed'"),
        ("{kind: reference, product: a.fits}", "give either ratio or difference"),
        ("{kind: reference, product: a.fits, ratio: [2, 1]}", "ratio: 2.0 is above 1.0"),
        ("{kind: incumbent, worse: more}", "must be one of higher, lower"),
    ],
)
def test_wrong_rules_are_errors_with_file_and_line(text, words):
    with pytest.raises(SettingsError) as error:
        rule(text)
    assert str(error.value).startswith("mine.yaml, line 1: ")
    assert words in str(error.value)


def test_a_run_obeys_limits_of_the_history(camera, qc):
    settings = camera.folder / "mine.yaml"
    settings.write_text(
        "mbias:\n  qc:\n    BIAS LEVEL:\n"
        "      fail: {kind: incumbent, worse: higher, margin: 0.01, fixed: [0, 5000]}\n"
    )
    options = {"settings_files": (settings,), "overwrite": True}
    first = camera.run("mbias", camera.sof_of(camera.biases(3)), **options)
    (level,) = [row for row in first.qc if row.name == "BIAS LEVEL"]
    assert level.basis == "fail: fixed: no incumbent is certified in this unit"
    assert level.flag != Flag.FAIL
    assert qc("certify", first.products[0][0], "--why", "good").code == 0
    high = [camera.frame(data=camera.noise(level=700.0)) for _ in range(3)]
    second = camera.run(
        "mbias",
        camera.sof_of(high),
        output=camera.folder / "b",
        qc_store=camera.output / "qc.sqlite",
        **options,
    )
    (level,) = [row for row in second.qc if row.name == "BIAS LEVEL"]
    assert level.flag == Flag.FAIL
    assert "not worse than 20260129_slow_master_bias.fits" in level.basis
    assert int(second.exit_code) == 4


def test_a_history_that_cannot_be_read_leaves_fixed_limits_and_a_warning(camera):
    settings = {"mbias": {"qc": {"BIAS LEVEL": {"fail": {"kind": "statistical", "mad": 5}}}}}
    store = camera.folder / "bad.sqlite"
    store.write_bytes(b"no database" * 500)
    sof = camera.sof_of(camera.biases(3))
    outcome = camera.run("mbias", sof, settings=settings, qc_store=store)
    assert any("limits cannot come from the history" in text for text in outcome.warnings)
    (level,) = [row for row in outcome.qc if row.name == "BIAS LEVEL"]
    assert level.flag == Flag.UNJUDGED
