"""Parse the command line and hand over to the module of the command."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from kspecpipe._version import __version__
from kspecpipe.errors import ExitCode, KspecError, ProductError, SettingsError
from kspecpipe.framework.registry import recipe_names

#: Command -> (module with `configure` and `run`, help).
COMMANDS = {
    "recipes": ("kspecpipe.cli.listing", "list the recipes"),
    "man": ("kspecpipe.cli.manual", "manual page of a recipe, the instrument file, the products"),
    "params": ("kspecpipe.cli.params", "parameters of a recipe and where each value comes from"),
    "check": ("kspecpipe.cli.check", "check input frames or an instrument file without reducing"),
    "qc": ("kspecpipe.cli.qc", "history of quality control: table, trend, report, verdicts"),
    "plan": ("kspecpipe.cli.plan", "show what a folder of raw frames can be reduced to"),
    "reduce": ("kspecpipe.cli.reduce", "reduce a whole folder of raw frames"),
    "why": ("kspecpipe.cli.why", "why a product or a frame got the calibrations that it got"),
    "replay": ("kspecpipe.cli.replay", "make a product again from its own header, and compare"),
    "audit": ("kspecpipe.cli.audit", "rebuild a product from its factors and check its errors"),
    "export": ("kspecpipe.cli.export", "write one file per fibre for other programs"),
    "show": ("kspecpipe.cli.show", "draw a product"),
    "templates": ("kspecpipe.cli.templates", "list, check and fetch spectra for flux calibration"),
    "simulate": ("kspecpipe.cli.simulate", "simulate a night of raw frames with known truth"),
    "demo": ("kspecpipe.cli.demo", "simulate a night and reduce it, recipe by recipe"),
    "completion": ("kspecpipe.cli.completion", "print a completion script for bash, zsh or fish"),
}
EXIT_CODES = {
    0: "ok",
    1: "no trustworthy product, or it could not be written",
    2: "usage or settings are wrong",
    3: "input frames are missing, unreadable or do not fit together",
    4: "products were written, but a quality-control metric failed",
    5: "a required calibration is missing",
}
#: The matrices are small: threads of the linear algebra wait for each other more than they work.
#: OpenMP is left alone: the search for cosmic rays gains from it.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: New objects before cycles are searched for: most belong to libraries and live to the end, and
#: the interpreter's 700 would have them searched five hundred times, for a tenth of a short run.
_COLLECT_AFTER = 50_000


class UsageError(SettingsError):
    """The words of the command line are wrong."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are ours: exit code 2, one message, JSON where it is asked."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, after the usage."""
        self.print_usage(sys.stderr)
        raise UsageError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    gc.set_threshold(_COLLECT_AFTER)
    atexit.register(gc.freeze)  # else all that was ever loaded is searched once more at the end
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has left; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except KspecError as error:
        return _fail(words, error)
    except KeyboardInterrupt:
        return _fail(words, ProductError("interrupted; nothing half-written is left"))
    except Exception as error:
        if "--debug" in words:
            raise
        return _fail(words, ProductError(_unexpected(error)))
    return code


def parser_of(name: str) -> tuple[Parser, Callable[[argparse.Namespace, str], int]]:
    """Return the parser of a command or recipe and the function that runs it.

    Raises
    ------
    UsageError
        If there is no such command.
    """
    recipes = recipe_names()
    if name in COMMANDS:
        module = import_module(COMMANDS[name][0])
    elif name in recipes:
        module = import_module("kspecpipe.cli.recipe")
    else:
        from kspecpipe.configuration.yaml_source import nearest

        raise UsageError(f"unknown command {name!r}; {nearest(name, [*recipes, *COMMANDS])}")
    parser = Parser(prog=f"kspec {name}", allow_abbrev=False)
    module.configure(parser, name)
    if not any("--debug" in action.option_strings for action in parser._actions):
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser, module.run


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview(recipe_names()))
        return int(ExitCode.OK) if words else int(ExitCode.USAGE)
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"kspecpipe {__version__}\n")
        return int(ExitCode.OK)
    parser, run = parser_of(words[0])
    return run(parser.parse_args(words[1:]), words[0])


def _fail(words: Sequence[str], error: KspecError) -> int:
    """Report a failure that happened outside a recipe's own run."""
    for line in str(error).splitlines():
        sys.stderr.write(f"kspec: {line}\n")
    if "--json" in words:
        import json

        from kspecpipe.framework.outcome import Outcome

        name = words[0] if words[0] != "--json" else ""
        lines = tuple(str(error).splitlines())
        outcome = Outcome(recipe=name, exit_code=error.exit_code, errors=lines)
        sys.stdout.write(json.dumps(outcome.as_json(), allow_nan=False) + "\n")
    return int(error.exit_code)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"internal error: {type(error).__name__}: {error}; --debug shows where"


def _overview(recipes: Sequence[str]) -> str:
    lines = [
        f"kspecpipe {__version__}: reduction pipeline for fibre spectrographs",
        "",
        "usage: kspec RECIPE SOF [options]      reduce; options: kspec RECIPE --help",
        "       kspec COMMAND ...",
        "",
        f"recipes: {' '.join(recipes)}",
        "         (what each does: kspec recipes; its manual: kspec man RECIPE)",
        "",
        "commands:",
        *(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "exit codes:",
        *(f"  {code:<10} {text}" for code, text in EXIT_CODES.items()),
        "",
        "start here: kspec demo",
    ]
    return "\n".join(lines) + "\n"
