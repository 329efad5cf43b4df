"""What a worker does: one run of one recipe, which never raises."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from kspecpipe.base_recipe import find_recipe
from kspecpipe.errors import ExitCode, KspecError
from kspecpipe.framework.outcome import Outcome, RunOptions
from kspecpipe.machine import forget_peak, peak_memory


@dataclass(frozen=True)
class Order:
    """One run, as it is sent to a worker."""

    recipe: str
    sof: Path
    options: RunOptions


@dataclass(frozen=True)
class Delivery:
    """What came of an order, and what it took [s, s, MB]."""

    outcome: Outcome
    seconds: float
    cpu: float
    memory: float


def perform(order: Order) -> Delivery:
    """Run a recipe; whatever goes wrong becomes an outcome, and the log tells more."""
    start, cpu = time.perf_counter(), time.process_time()
    forget_peak()
    try:
        recipe = find_recipe(order.recipe)
        outcome = recipe(log=quiet_log(), inputFrames=[order.sof], options=order.options).execute()
    except KspecError as error:
        outcome = Outcome(order.recipe, error.exit_code, errors=tuple(str(error).splitlines()))
    except Exception as error:  # a worker must deliver: memory, a recipe of someone else's
        text = f"internal error in {order.recipe}: {type(error).__name__}: {error}"
        outcome = Outcome(order.recipe, ExitCode.NO_PRODUCT, errors=(text,))
    return Delivery(
        outcome=outcome,
        seconds=time.perf_counter() - start,
        cpu=time.process_time() - cpu,
        memory=peak_memory(),
    )


def quiet_log() -> logging.Logger:
    """Return a logger that shows nothing: many workers share one terminal."""
    logger = logging.Logger("kspecpipe.night")  # noqa: LOG001 - of this run only
    logger.addHandler(logging.NullHandler())
    return logger
