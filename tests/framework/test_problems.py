import pytest

from kspecpipe.errors import CalibrationMissingError, InputError
from kspecpipe.framework.problems import Problems


def fail(kind, text):
    def action():
        raise kind(text)

    return action


def test_nothing_is_raised_when_nothing_is_wrong():
    problems = Problems()
    assert problems.attempt(lambda: 5) == 5
    problems.raise_all()


def test_all_problems_are_raised_as_one_with_their_places():
    problems = Problems()
    problems.add("first")
    assert problems.attempt(fail(InputError, "second"), "in.sof, line 2") is None
    with pytest.raises(InputError, match=r"^first\nin\.sof, line 2: second$"):
        problems.raise_all()


@pytest.mark.parametrize(("wrong", "kind"), [(False, CalibrationMissingError), (True, InputError)])
def test_wrong_inputs_weigh_more_than_missing_calibrations(wrong, kind):
    problems = Problems()
    problems.attempt(fail(CalibrationMissingError, "no MASTER_BIAS"))
    if wrong:
        problems.add("truncated")
    with pytest.raises(InputError) as caught:
        problems.raise_all()
    assert type(caught.value) is kind


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        Problems().attempt(lambda: 1 / 0)


def test_files_without_use_are_one_warning_for_each_tag():
    problems = Problems()
    for number in (1, 2, 3):
        problems.leave_out(f"in.sof, line {number}", "FLAT")
    problems.leave_out("in.sof, line 4", "ARC")
    assert problems.left_out == [
        "in.sof, line 1: FLAT is not used by this recipe (and 2 more)",
        "in.sof, line 4: ARC is not used by this recipe",
    ]
