import json
from pathlib import Path

import pytest

from kspecpipe.errors import (
    CalibrationMissingError,
    ExitCode,
    InputError,
    KspecError,
    ProductError,
    RecipeError,
    SettingsError,
)
from kspecpipe.framework.outcome import Outcome, merge
from kspecpipe.qc import Flag, Limits, QCRow

NAN_ROW = QCRow(
    "LEVEL",
    float("nan"),
    "adu",
    "frame",
    "",
    0,
    Limits(warn=(0, float("inf"))),
    Flag.UNMEASURED,
    "doc",
)


def outcome(code: ExitCode, **values) -> Outcome:
    return Outcome(recipe="mbias", exit_code=code, **values)


def test_json_has_null_for_what_is_no_number():
    found = outcome(
        ExitCode.QC_FAILED, products=((Path("/a/m.fits"), "MASTER_BIAS"),), qc=(NAN_ROW,)
    )
    text = json.dumps(found.as_json(), allow_nan=False)
    read = json.loads(text)
    assert (read["recipe"], read["status"], read["exit_code"]) == ("mbias", "qc failed", 4)
    assert read["products"] == [{"path": "/a/m.fits", "tag": "MASTER_BIAS"}]
    (row,) = read["qc"]
    assert (row["value"], row["warn"], row["fail"]) == (None, [0, None], None)
    assert {"warnings", "errors", "timing"} <= set(read)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, 4), 4),
        ((4, 5), 5),
        ((5, 3), 3),
        ((3, 2), 2),
        ((2, 1), 1),
        ((1, 0, 4), 1),
    ],
)
def test_the_worst_code_of_several_runs_counts(codes, expected):
    merged = merge([outcome(ExitCode(code), warnings=(str(code),)) for code in codes])
    assert merged.exit_code == expected
    assert merged.warnings == tuple(map(str, codes))


def test_a_single_run_is_not_changed_by_merging():
    one = outcome(ExitCode.OK, timing={"load": 0.1, "total": 0.3})
    assert merge([one]) == one


def test_unchanged_means_that_nothing_at_all_was_done():
    some = [outcome(ExitCode.OK, unchanged=True), outcome(ExitCode.OK)]
    assert not merge(some).unchanged
    assert merge(some[:1] * 2).unchanged


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_has_a_word(code):
    assert outcome(code).status


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError, 1),
        (ProductError, 1),
        (SettingsError, 2),
        (InputError, 3),
        (CalibrationMissingError, 5),
    ],
)
def test_every_error_has_its_exit_code(error, code):
    assert error.exit_code == code
    assert issubclass(error, KspecError)
