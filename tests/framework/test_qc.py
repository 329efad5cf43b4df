import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.declare import Declared, metric
from kspecpipe.qc import Flag, Limits, failed, judge, worst


class Metrics(Declared):
    level: float = metric("LEVEL", unit="adu", doc="level")
    drift: list = metric("DRIFT", scope="exposure")
    width: list = metric("WIDTH", scope="fibre", needs="light")


def rows_of(**values):
    filled = {"level": 1.0, "drift": [1.0, 2.0], "width": None} | values
    limits = {"LEVEL": Limits(warn=(0, 2), fail=(-1, 3)), "WIDTH": Limits(fail=(3, 5))}
    return judge(Metrics(**filled), limits, ["a", "b"], [1, 2, 3])


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (0.0, Flag.OK),
        (2.0, Flag.OK),
        (2.1, Flag.WARN),
        (-0.5, Flag.WARN),
        (3.0, Flag.WARN),
        (3.1, Flag.FAIL),
        (-math.inf, Flag.FAIL),
        (math.nan, Flag.UNMEASURED),
        (None, Flag.NA),
    ],
)
def test_limits_are_closed_and_fail_weighs_more_than_warn(value, flag):
    assert Limits(warn=(0, 2), fail=(-1, 3)).judge(value) == flag


def test_what_has_no_limit_is_never_green():
    assert Limits().judge(1.0) == Flag.UNJUDGED
    assert Limits().judge(math.nan) == Flag.UNMEASURED
    assert Limits().judge(None) == Flag.NA


@given(st.floats(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_only_values_inside_are_ok(value, a, b):
    lo, hi = min(a, b), max(a, b)
    flag = Limits(fail=(lo, hi)).judge(value)
    expected = Flag.OK if lo <= value <= hi else Flag.FAIL
    assert flag == (Flag.UNMEASURED if math.isnan(value) else expected)


def test_each_scope_has_its_rows():
    rows = rows_of(width=[4.0, 6.0, math.nan])
    places = [(row.name, row.exposure, row.fibre, row.flag.value) for row in rows]
    assert places == [
        ("LEVEL", "", 0, "ok"),
        ("DRIFT", "a", 0, "unjudged"),
        ("DRIFT", "b", 0, "unjudged"),
        ("WIDTH", "", 1, "ok"),
        ("WIDTH", "", 2, "fail"),
        ("WIDTH", "", 3, "unmeasured"),
    ]
    assert [row.name for row in failed(rows)] == ["WIDTH", "WIDTH"]
    assert worst(rows) == Flag.UNMEASURED


def test_fibre_metrics_may_differ_between_exposures():
    rows = [row for row in rows_of(width=np.full((2, 3), 4.0)) if row.name == "WIDTH"]
    assert [(row.exposure, row.fibre) for row in rows] == [
        (name, fibre) for name in "ab" for fibre in (1, 2, 3)
    ]


def test_a_precondition_that_does_not_hold_is_grey():
    (row,) = [row for row in rows_of() if row.name == "WIDTH"]
    assert (row.flag, math.isnan(row.value)) == (Flag.NA, True)


def test_single_fibres_may_be_without_a_value():
    rows = [row for row in rows_of(width=[4.0, None, 4.0]) if row.name == "WIDTH"]
    assert [row.flag for row in rows] == [Flag.OK, Flag.NA, Flag.OK]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drift": [1.0]}, r"DRIFT: \(1,\) values for 2 exposures"),
        ({"width": [1.0, 2.0]}, r"WIDTH: \(2,\) values for 3 fibres"),
    ],
)
def test_the_wrong_number_of_values_is_a_mistake(values, message):
    with pytest.raises(ValueError, match=message):
        rows_of(**values)


def test_nothing_judged_is_ok():
    assert worst([]) == Flag.OK
