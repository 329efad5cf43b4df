"""The thin layer over the package fundamentals: its empty logger and its clock helpers.

It is imported when needed: fundamentals takes a tenth of a second to load. Its ``tools()`` and
``fmultiprocess`` are not used: the one runs command-line values through ``exec``, the other hangs
when a worker dies.
"""

from __future__ import annotations

from typing import Any


def silent_logger() -> Any:
    """Return the logger of fundamentals that says nothing."""
    from fundamentals.logs import emptyLogger

    return emptyLogger()


def utc_now() -> str:
    """Return the present time as fundamentals writes it: ``YYYY-MM-DDTHH:MM:SS``."""
    from fundamentals.times import get_now_sql_datetime

    return str(get_now_sql_datetime())


def elapsed(start: str, end: str) -> str:
    """Return the time between two dates of `utc_now` in words."""
    from fundamentals.times import calculate_time_difference

    return str(calculate_time_difference(start, end)).strip() or "0s"
