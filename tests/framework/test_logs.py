import logging

import pytest
from fundamentals.logs import emptyLogger

from kspecpipe.framework.logs import python_warnings, run_logger
from kspecpipe.framework.runtime import elapsed, silent_logger, utc_now


class Listener:
    def __init__(self):
        self.heard = []

    def __getattr__(self, level):  # noqa: D105
        return lambda text: self.heard.append((level, text))


def test_the_memory_keeps_all_records_whatever_the_terminal_shows():
    log, memory = run_logger("mbias", -1, Listener())
    log.debug("a %d", 1)
    log.warning("b %s", "%d")
    assert [line.split(" ", 2)[2].split(None, 1) for line in memory.lines] == [
        ["DEBUG", "a 1"],
        ["WARNING", "b %d"],
    ]
    assert memory.warnings == ["b %d"]


def test_a_logger_of_the_caller_hears_every_level():
    listener = Listener()
    log, _ = run_logger("mbias", 0, listener)
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("x %s", level)
    assert listener.heard == [
        (level, f"x {level}") for level in ("debug", "info", "warning", "error", "critical")
    ]


def test_an_ordinary_logger_takes_the_records(caplog):
    target = logging.getLogger("observer")
    log, _ = run_logger("mbias", 0, target)
    with caplog.at_level(logging.INFO, logger="observer"):
        log.info("read noise %.1f", 4.0)
    assert caplog.messages == ["read noise 4.0"]


@pytest.mark.parametrize("target", [emptyLogger(), silent_logger()])
def test_the_silent_logger_of_fundamentals_is_silent(target, capsys):
    log, memory = run_logger("mbias", 1, target)
    log.error("wrong %s", "file")
    assert capsys.readouterr() == ("", "")
    assert memory.lines[0].endswith("wrong file")


@pytest.mark.parametrize(("verbosity", "shown"), [(-1, "W"), (0, "IW"), (1, "DIW"), (5, "DIW")])
def test_verbosity_chooses_what_the_terminal_shows(verbosity, shown, capsys):
    log, _ = run_logger("mbias", verbosity)
    log.debug("Dtext")
    log.info("Itext")
    log.warning("Wtext")
    out, err = capsys.readouterr()
    assert out == ""
    assert [letter for letter in "DIW" if f"{letter}text" in err] == list(shown)


def test_markup_in_messages_is_shown_as_it_is(capsys):
    log, _ = run_logger("mbias", 0)
    log.info("cube.fits[2] [red]")
    assert "cube.fits[2] [red]" in capsys.readouterr().err


def test_two_runs_do_not_hear_each_other():
    (a, first), (_, second) = run_logger("mbias", 0, Listener()), run_logger("mbias", 0, Listener())
    a.info("only here")
    assert (len(first.lines), len(second.lines)) == (1, 0)


def test_the_clock_is_that_of_fundamentals():
    assert len(utc_now()) == 19
    assert elapsed("2026-01-29T20:00:00", "2026-01-29T20:01:05") == "1m 5s"
    assert elapsed("2026-01-29T20:00:00", "2026-01-29T20:00:00") == "0s"


def test_warnings_of_packages_go_to_the_log_and_not_to_the_terminal(capsys):
    import warnings

    log, memory = run_logger("mbias", 0, Listener())
    with python_warnings(log):
        warnings.simplefilter("always")
        warnings.warn("mean of empty slice", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == ""
    assert "RuntimeWarning: mean of empty slice" in memory.lines[0]
