"""Pictures of written products: drawn by a process beside the run, where there is a core for it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kspecpipe import io
from kspecpipe.atomic import write_files
from kspecpipe.beside import PATIENCE, fork, leave, spread
from kspecpipe.errors import IdentificationError, KspecError
from kspecpipe.framework.logs import python_warnings
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.framework.writing import read_rows


@dataclass
class Drawn:
    """The pictures that came of one product, and what was said on the way: level and text."""

    pictures: list[str] = field(default_factory=list)
    said: list[tuple[int, str]] = field(default_factory=list)


class Painter:
    """Draws the pictures of a run in this process.

    Parameters
    ----------
    options : RunOptions
        How the recipe is run.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.products: tuple[Path, ...] = ()

    def begin(self, products: Sequence[Path]) -> None:
        """Take the written products; does not wait for their pictures."""
        self.products = tuple(products)

    def finish(self, log: logging.Logger) -> tuple[Path, ...]:
        """Return when the picture of each product stands beside it, or was seen in a window."""
        if self.options.plots == "none":
            return ()
        drawn = self.drawn()
        for level, text in (note for each in drawn for note in each.said):
            log.log(level, "%s", text)
        return tuple(Path(name) for each in drawn for name in each.pictures)

    def drawn(self) -> list[Drawn]:
        """Draw all of them here."""
        return [_draw_one(path, show=self.options.plots == "show") for path in self.products]


class PainterBeside(Painter):
    """Draws in a copy of this process, which loads matplotlib while the recipe computes.

    Of several pictures the copy hands shares to copies of its own. It ends when it has answered, on
    `close`, and when this process is no more. What it does not answer is drawn here.

    Parameters
    ----------
    options : RunOptions
        How the recipe is run.
    processes : int
        Processes that may draw.
    """

    def __init__(self, options: RunOptions, processes: int) -> None:
        super().__init__(options)
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._pid = fork()
        if self._pid == 0:
            try:
                os.close(self._orders)
                os.close(self._answers)
                _serve(orders, answers, processes)
            finally:
                os._exit(0)  # whatever went wrong is met again, and told, by who draws instead
        os.close(orders)
        os.close(answers)
        self._end: signal.Signals | None = signal.SIGTERM  # None: it ends by itself

    def begin(self, products: Sequence[Path]) -> None:
        """Send the products to the copy."""
        super().begin(products)
        with contextlib.suppress(BrokenPipeError):
            _send(self._orders, [str(path) for path in products])

    def drawn(self) -> list[Drawn]:
        """Wait for the answer; draw them here when the copy has died or hangs."""
        if not select.select([self._answers], [], [], PATIENCE)[0]:
            self._end = signal.SIGKILL
            return super().drawn()
        answer = _receive(self._answers)
        if answer is None:
            return super().drawn()
        self._end = None
        return [Drawn(**each) for each in answer]

    def close(self) -> None:
        """End the copy and what it still draws; a half-written picture is removed."""
        # A copy that waits for orders meets their end; a signal may come just before it waits.
        os.close(self._orders)
        if self._end is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, self._end)
        os.waitpid(self._pid, 0)
        os.close(self._answers)


@contextlib.contextmanager
def painting(options: RunOptions) -> Iterator[Painter]:
    """Provide who draws the pictures of a run, before the recipe computes."""
    beside = options.plots == "file" and options.save and options.cores > 1
    if not (beside and sys.platform == "linux"):  # elsewhere a copy of a process may not do much
        yield Painter(options)
        return
    try:
        copy = PainterBeside(options, options.cores)
    except OSError:  # no further process is allowed
        yield Painter(options)
        return
    with contextlib.closing(copy):
        yield copy


def draw_failure(
    folder: Path, recipe: str, error: IdentificationError, log: logging.Logger
) -> tuple[Path, ...]:
    """Draw what a recipe could not tell apart beside its log, if that is possible."""
    from kspecpipe import plots  # matplotlib is loaded when there is something to draw

    picture = folder / f"{recipe}_failed.png"
    try:
        figure = plots.draw_identification(error)
        write_files([(picture, lambda stream: plots.save(figure, stream))])
    except OSError as problem:
        log.warning("%s: no picture: %s", picture.name, problem)
        return ()
    log.error("the light and what it was taken for are drawn in %s", picture.name)
    return (picture,)


def _draw_one(path: Path, *, show: bool = False) -> Drawn:
    from kspecpipe import plots

    drawn = Drawn()
    log = logging.Logger("pictures", logging.DEBUG)  # noqa: LOG001 - of this picture only
    log.addHandler(_Notes(drawn.said))
    picture = path.with_suffix(".png")
    with python_warnings(log):
        try:
            figure = plots.draw(io.read_product(path), read_rows(path))
            if figure is not None and show:
                plots.show(figure)
            elif figure is not None:
                write_files([(picture, lambda stream: plots.save(figure, stream))])
                drawn.pictures.append(str(picture))
        except (KspecError, OSError, ValueError, IndexError, KeyError) as error:
            # The products are written and good: a picture that fails must not take them back.
            log.warning("%s: no picture: %s", path.name, error)
    return drawn


class _Notes(logging.Handler):
    """Keeps what is said so that another process can say it."""

    def __init__(self, notes: list[tuple[int, str]]) -> None:
        super().__init__(logging.DEBUG)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Keep level and text."""
        self.notes.append((record.levelno, record.getMessage()))


def _serve(orders: int, answers: int, processes: int) -> None:
    """Do one order: what the copy does all its life."""
    signal.signal(signal.SIGTERM, leave)
    from kspecpipe import plots  # it takes as long as a picture

    plots.warm_up()
    names = _receive(orders)
    if names is not None:  # else the process that asked is no more
        paths = [Path(name) for name in names]
        _send(answers, [asdict(each) for each in spread(_draw_one, paths, processes)])


def _send(pipe: int, message: object) -> None:
    with os.fdopen(os.dup(pipe), "w", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


def _receive(pipe: int) -> list[Any] | None:
    """Return the next message; None when who should send it is no more."""
    with os.fdopen(os.dup(pipe), encoding="utf-8") as stream:
        line = stream.readline()
    return list(json.loads(line)) if line.endswith("\n") else None
