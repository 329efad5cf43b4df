"""Reduce frames as they land: files that are still being written are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kspecpipe.errors import InputError
from kspecpipe.night.frames import Listing, NightFrame

PAUSE = 3.0  # [s] between looks
#: A file is whole when it has not changed for this time [s].
SETTLED = 2.0
#: A set of calibration frames is complete when none has come for this time [s].
QUIET = 30.0

Stamp = tuple[int, int]


@dataclass
class Watcher:
    """Remembers when each file was last seen to change.

    Science frames are taken as soon as they are whole, with the calibrations that there are: that
    is the quick look. A set of calibration frames is taken when it is complete; what depends on it
    is then done again.

    Parameters
    ----------
    clock : callable
        Time [s].
    """

    clock: Callable[[], float] = time.time
    _seen: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _done: frozenset[tuple[Path, Stamp]] = frozenset()
    _news: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to wait."""
        self._news = self.clock()

    def ripe(self, listing: Listing) -> Listing:
        """Return the frames that can be taken now."""
        now = self.clock()
        for frame in listing.frames:
            if self._seen.get(frame.path, ((-1, -1), 0.0))[0] != frame.stamp:
                # What was here before us tells by its own time how long it has been whole.
                since = now if self._done or frame.stamp[1] / 1e9 > now - QUIET else 0.0
                self._seen[frame.path] = (frame.stamp, since)
                self._news = now
        young = {
            _set_of(frame) for frame in listing.frames if now - self._seen[frame.path][1] < QUIET
        }
        frames = [
            frame
            for frame in listing.frames
            if now - self._seen[frame.path][1] >= SETTLED
            and (frame.tag == "OBJECT" or _set_of(frame) not in young)
        ]
        return replace(listing, frames=tuple(frames))

    def is_new(self, listing: Listing) -> bool:
        """Return whether there is something that the last pass did not have."""
        found = frozenset((frame.path, frame.stamp) for frame in listing.frames)
        return bool(found) and found != self._done

    def took(self, listing: Listing) -> None:
        """Remember what a pass had."""
        self._done = frozenset((frame.path, frame.stamp) for frame in listing.frames)

    @property
    def idle(self) -> float:
        """Time since something came [s]."""
        return self.clock() - self._news


def watch(
    look: Callable[[], Listing],
    reduce: Callable[[Listing], None],
    *,
    patience: float | None = None,
    watcher: Watcher | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Reduce what has landed, again and again.

    Parameters
    ----------
    look : callable
        Scans the folder.
    reduce : callable
        Reduces frames; what is unchanged costs nothing.
    patience : float or None
        Time without anything new after which to end [s]; None: go on until interrupted.
    watcher : Watcher, optional
        Remembers what was seen.
    sleep : callable
        Waits between two looks.
    """
    watcher = watcher or Watcher()
    while True:
        try:
            listing = watcher.ripe(look())
        except InputError:  # nothing has landed yet, or the disk is away for a moment
            listing = None
        if listing is not None and watcher.is_new(listing):
            reduce(listing)
            watcher.took(listing)
        elif patience is not None and watcher.idle >= patience:
            return
        sleep(PAUSE)


def _set_of(frame: NightFrame) -> tuple[str, str, str]:
    return (frame.tag, frame.info.mode, frame.info.readmode)
