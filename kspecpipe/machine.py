"""What a process may use of its computer, and how much memory it has taken."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_FORGET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def forget_peak() -> None:
    """Begin to measure anew; elsewhere than on Linux the peak stays that of the whole process."""
    with contextlib.suppress(OSError):
        _FORGET.write_text("5", encoding="ascii")


def peak_memory() -> float:
    """Return the most memory at a time since `forget_peak`, or since the process began [MB]."""
    try:
        facts = dict(
            line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines()
        )
        return int(facts["VmHWM"].split()[0]) / 1024
    except (OSError, ValueError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
