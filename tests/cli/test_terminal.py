"""The tables that a run prints."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from kspecpipe.errors import ExitCode
from kspecpipe.framework.outcome import Outcome
from kspecpipe.framework.terminal import interval, print_outcome
from kspecpipe.qc import Flag, Limits, QCRow


def row(name="WIDTH", value=1.5, flag=Flag.OK, scope="frame", exposure="", fibre=0):
    limits = Limits(warn=(1.0, 2.0), fail=(0.0, math.inf))
    return QCRow(name, value, "pixel", scope, exposure, fibre, limits, flag, "how wide")


def printed(*rows, width=100, color=False, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=color, color_system="standard")
    outcome = Outcome(recipe="mbias", exit_code=ExitCode.OK, qc=rows, **options)
    print_outcome(outcome, console if color else Console(file=stream, width=width))
    return stream.getvalue()


def test_value_limits_and_verdict_stand_in_one_line():
    line = next(line for line in printed(row()).splitlines() if "WIDTH" in line)
    assert line.split() == ["WIDTH", "1.5", "pixel", "1", "..", "2", ">=", "0", "ok"]


def test_wide_terminals_show_the_meaning():
    assert "how wide" in printed(row(), width=160)
    assert "how wide" not in printed(row(), width=100)


@pytest.mark.parametrize(
    ("flag", "code"),
    [(Flag.OK, "32"), (Flag.WARN, "33"), (Flag.FAIL, "1;31"), (Flag.UNMEASURED, "1;31")],
)
def test_verdicts_have_their_colours_and_nothing_bad_is_green(flag, code):
    assert f"\x1b[{code}m{flag.value}" in printed(row(flag=flag), color=True)


def test_grey_verdicts_are_not_green():
    for flag in (Flag.NA, Flag.UNJUDGED):
        assert f"\x1b[32m{flag.value}" not in printed(row(flag=flag), color=True)


def test_fibres_are_summed_up_by_median_and_range_with_the_worst_verdict():
    rows = [row(value=v, scope="fibre", fibre=i) for i, v in enumerate((1.0, 3.0, 2.0), 1)]
    rows.append(row(value=9.0, flag=Flag.WARN, scope="fibre", fibre=4))
    text = printed(*rows)
    assert text.count("WIDTH") == 1
    assert "2.5 (1 .. 9)" in text
    assert "warn" in text.split("WIDTH")[1].splitlines()[0]


def test_dead_fibre_does_not_hide_the_verdict_on_the_others():
    rows = [row(scope="fibre", fibre=1), row(value=math.nan, flag=Flag.NA, scope="fibre", fibre=2)]
    assert printed(*rows).split("WIDTH")[1].splitlines()[0].split()[-1] == "ok"


def test_exposures_are_numbered_and_the_numbers_explained():
    names = ["tile 1.fits", "tile [red] 2.fits"]
    text = printed(*[row(scope="exposure", exposure=name) for name in names])
    assert "WIDTH  #1" in text
    assert "WIDTH  #2" in text
    assert "#2  tile [red] 2.fits" in text


def test_single_exposure_needs_no_number():
    assert "#1" not in printed(row(scope="exposure", exposure="tile 1.fits"))


def test_unmeasured_value_is_a_dash():
    assert "-" in printed(row(value=math.nan, flag=Flag.UNMEASURED)).split("WIDTH")[1].split()


def test_paths_are_printed_whole_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "products" / f"[bold]{'x' * 90}.fits"
    text = printed(products=((path, "MASTER_BIAS"),), pictures=(Path("/elsewhere/a.png"),))
    assert f"MASTER_BIAS    products/[bold]{'x' * 90}.fits\n" in text
    assert "/elsewhere/a.png" in text


def test_last_line_tells_how_it_ended():
    text = printed(unchanged=True, timing={"total": 1.25})
    assert text.splitlines()[-1] == "mbias: ok, nothing to do (exit 0), 1.2 s"


def test_intervals_are_written_as_people_do():
    assert interval(None) == ""
    assert interval((1, 2)) == "1 .. 2"
    assert interval((-math.inf, 2)) == "<= 2"
    assert interval((1, math.inf)) == ">= 1"
