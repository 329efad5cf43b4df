"""Where jobs run: processes of this computer, or a Dask cluster; both are an Executor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Protocol

from kspecpipe.errors import ProductError, SettingsError

#: Libraries that would start threads of their own in each worker.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
#: What Python and the libraries take in each worker [byte].
INTERPRETER = 200e6
_FOR_OTHERS = 0.15  # of the memory that is free
_ASK = 5.0  # [s] how often a cluster is asked for its size
_LEAST_QUEUED = 16  # jobs that show a cluster without workers, or one that grows, what is wanted


class Pool(Protocol):
    """An executor that can be replaced when it breaks."""

    memory: float

    @property
    def capacity(self) -> int:
        """Jobs that are handed out at a time."""

    def submit(self, function: Callable[[Any], Any], order: Any) -> Future[Any]:
        """Hand an order to a worker."""

    def renew(self) -> None:
        """Start again after a worker died."""

    def lost(self) -> str:
        """Say why no work can be done any more; empty when it can."""

    def close(self, *, wait: bool) -> None:
        """Stop the workers."""


class LocalPool:
    """Spawned processes of this computer, one thread each.

    Parameters
    ----------
    workers : int
        Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self.memory = (1 - _FOR_OTHERS) * free_memory()
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.capacity, mp_context=_Context(), initializer=_leave_with_parent
        )

    def submit(self, function: Callable[[Any], Any], order: Any) -> Future[Any]:
        """Hand an order to a worker."""
        with _pinned():
            return self._executor.submit(function, order)

    def renew(self) -> None:
        """Start again after a worker died: the executor of Python ends all others with it."""
        self.close(wait=False)
        self._executor = self._start()

    def lost(self) -> str:
        """Return nothing: this computer is here as long as we are."""
        return ""

    def close(self, *, wait: bool) -> None:
        """Stop the workers; without waiting, what they do is broken off."""
        if not wait:
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)


class ClusterPool:
    """Workers of a running Dask scheduler, which see the same files under the same names.

    Parameters
    ----------
    address : str
        ``tcp://host:port``.

    Raises
    ------
    SettingsError
        If Dask is not installed.
    ProductError
        If the scheduler does not answer.
    """

    def __init__(self, address: str, patience: float = 10.0) -> None:
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            raise SettingsError(
                "--scheduler needs Dask: pip install 'kspecpipe[cluster]'"
            ) from None
        self.address = address
        try:
            self._client = distributed.Client(address, timeout=patience, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ProductError(
                f"--scheduler {address}: no scheduler answers ({type(error).__name__}); "
                "is `dask scheduler` running, and the address right?"
            ) from None
        self._executor: Any = self._client.get_executor(pure=False, retries=0)
        self.memory = float("inf")
        self._asked, self._threads = -_ASK, 0

    @property
    def capacity(self) -> int:
        """Twice the threads that there are now: no worker waits, and no long queue is watched."""
        now = time.monotonic()
        if now - self._asked > _ASK and not self.lost():
            self._asked = now
            with contextlib.suppress(OSError, TimeoutError, RuntimeError):
                self._threads = sum(self._client.nthreads().values())
        return max(2 * self._threads, _LEAST_QUEUED)

    def submit(self, function: Callable[[Any], Any], order: Any) -> Future[Any]:
        """Hand an order to a worker."""
        future: Future[Any] = self._executor.submit(function, order)
        return future

    def renew(self) -> None:
        """Do nothing: Dask replaces workers and starts their jobs again by itself."""

    def lost(self) -> str:
        """Say whether the scheduler is gone."""
        if self._client.status == "running":
            return ""
        return f"the scheduler {self.address} is gone ({self._client.status})"

    def close(self, *, wait: bool) -> None:
        """Leave the scheduler as it is."""
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self._executor.shutdown(wait=wait)  # Dask's own form: without waiting it cancels
            self._client.close(timeout=2)


def free_memory() -> float:
    """Return the memory that can be had [byte]; without bound where that is not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - no file of ours
            facts = dict(line.split(":", 1) for line in lines)
        return float(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")


@contextlib.contextmanager
def _pinned() -> Iterator[None]:
    """Let processes that are started meanwhile use one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Worker(SpawnProcess):
    """A process that does not import the main module again: it may be a script without guard."""

    def start(self) -> None:
        """Start it while the main module is an empty one."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Context(SpawnContext):
    """Python's spawn, with our processes."""

    Process = _Worker


def _leave_with_parent() -> None:
    """End this worker when the coordinator is killed; else it would wait for orders for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
