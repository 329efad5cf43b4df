"""Logging of a run: to the terminal, to the log file, and to a logger of the caller's."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

_LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}


class Memory(logging.Handler):
    """Keeps all records as text, so that the log file can be written where the products go."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; what it warns of also by itself, for the outcome of the run."""
        self.lines.append(self.format(record))
        if record.levelno == logging.WARNING:
            self.warnings.append(record.getMessage())


class Forward(logging.Handler):
    """Hands records to a logger of the caller's, such as one of fundamentals."""

    def __init__(self, target: Any) -> None:
        """Remember the target; it needs methods named after the levels."""
        super().__init__(logging.DEBUG)
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the finished text: the empty logger of fundamentals takes one argument only."""
        getattr(self.target, record.levelname.lower(), self.target.info)(record.getMessage())


@contextlib.contextmanager
def python_warnings(log: logging.Logger) -> Iterator[None]:
    """Send the warnings of Python and its packages to the log instead of the terminal."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **_: Any) -> None:
        log.debug("%s: %s (%s, line %s)", category.__name__, message, *place[:2])

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def run_logger(recipe: str, verbosity: int, target: Any = None) -> tuple[logging.Logger, Memory]:
    """Return the logger of one run and its memory.

    Parameters
    ----------
    recipe : str
        Name of the recipe.
    verbosity : int
        -1 quiet, 0 normal, 1 verbose; for the terminal only.
    target : logger, optional
        Logger of the caller's, which then takes the place of the terminal.
    """
    # Not a registered logger: those live as long as the process, with all that they remember.
    logger = logging.Logger(f"kspecpipe.{recipe}", logging.DEBUG)  # noqa: LOG001
    memory = Memory()
    logger.addHandler(memory)
    logger.addHandler(_terminal(verbosity) if target is None else Forward(target))
    return logger, memory


def _terminal(verbosity: int) -> logging.Handler:
    handler = RichHandler(
        console=Console(stderr=True), show_path=False, show_time=False, markup=False
    )
    handler.setLevel(_LEVELS[max(-1, min(1, verbosity))])
    return handler
