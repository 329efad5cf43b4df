"""Work in copies of this process, where there are cores for it.

Threads would wait for each other: between large arrays much is done that only one of them may do.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Generic, NoReturn, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 120.0  # seconds to wait for a copy when all else is done: a share of the work takes ten


class _Copy(Generic[Result]):
    """A copy of this process that does some work; what it does not hand over is done here."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._answers, answers = os.pipe()
        self._end = signal.SIGTERM  # what it has half written, it removes on its way out
        self._pid = fork()
        if self._pid == 0:
            try:
                signal.signal(signal.SIGTERM, leave)
                os.close(self._answers)
                _answer(answers, work)
            finally:
                os._exit(0)  # whatever went wrong is met again, and told, by who works instead
        os.close(answers)

    def result(self) -> Result:
        """Wait for the answer; do the work here when the copy has died or hangs."""
        if not select.select([self._answers], [], [], PATIENCE)[0]:
            self._end = signal.SIGKILL
            return self._work()
        try:
            with os.fdopen(os.dup(self._answers), "rb") as stream:
                found: Result = pickle.load(stream)  # noqa: S301 - of this very program
        except (EOFError, pickle.UnpicklingError):
            return self._work()
        return found

    def close(self) -> None:
        """End the copy, whatever it does."""
        os.close(self._answers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, self._end)
        os.waitpid(self._pid, 0)


@contextlib.contextmanager
def beside(work: Callable[[], Result], cores: int) -> Iterator[Callable[[], Result]]:
    """Begin some work in a copy of this process, and go on.

    The copy knows all that this process knows when it begins. What it says is not heard, and what
    it changes is not seen here: the work is a function that returns something.

    Parameters
    ----------
    work : callable
        What is done. If it fails or warns in the copy, it is done here: who waits sees the same.
    cores : int
        Cores that this process may use. With one, the work is done here, when it is asked for.

    Yields
    ------
    callable
        Returns the result, for which it may have to wait; to be called once.
    """
    copy = None
    if cores > 1 and sys.platform == "linux":  # elsewhere a copy of a process may not do much
        with contextlib.suppress(OSError):  # no further process is allowed
            copy = _Copy(work)
    if copy is None:
        yield work
        return
    with contextlib.closing(copy):
        yield copy.result


def spread(work: Callable[[Item], Result], items: Sequence[Item], cores: int) -> list[Result]:
    """Apply a function to all items: the first of them are done here, the others in copies.

    Parameters
    ----------
    work : callable
        Applied to each item, as by `beside`.
    items : sequence
        One after the other if there is only one core.
    cores : int
        Cores that this process may use.

    Returns
    -------
    list
        The results, in the order of the items.
    """
    number = max(1, min(cores, len(items)))
    ends = [len(items) * (i + 1) // number for i in range(number)]
    first, *others = (items[a:b] for a, b in pairwise([0, *ends]))
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(beside(partial(_each, work, own), cores)) for own in others]
        results = _each(work, first)
        for found in begun:
            results += found()
    return results


def fork() -> int:
    """Copy this process: it has no threads of its own that a copy would lack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # for those who allow BLAS threads
        return os.fork()


def leave(number: int, _: object) -> NoReturn:
    """End a copy that is not needed any more: a signal is handled as if a person had asked."""
    raise KeyboardInterrupt(number)


def _each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


def _answer(answers: int, work: Callable[[], object]) -> None:
    """Work and hand over the result: what a copy does all its life."""
    with warnings.catch_warnings(record=True) as said:
        found = work()
    if said:
        return
    with os.fdopen(answers, "wb") as stream:
        pickle.dump(found, stream, protocol=pickle.HIGHEST_PROTOCOL)
