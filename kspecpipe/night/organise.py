"""Which frames belong to one night, and which of them can be combined."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kspecpipe.declare import InputSpec
from kspecpipe.instrument import Instrument
from kspecpipe.night.frames import NightFrame

_MJD_EPOCH = dt.date(1858, 11, 17)
_NEAR_NOON = 1.0 / 24  # [d] frames so near to noon show that the site's noon divides no nights
_CLEAR_GAP = 2.0 / 24  # [d] a time of day without frames that divides nights


def nights_of(
    frames: Sequence[NightFrame], instruments: Mapping[str, Instrument]
) -> list[NightFrame]:
    """Return the frames with their nights filled in.

    Parameters
    ----------
    frames : sequence of NightFrame
        Frames of any number of nights and instruments.
    instruments : mapping
        Instruments by name; their sites tell when it is noon.
    """
    splits = {
        name: night_split([f.mjd for f in frames if f.instrument == name], local_noon(instrument))
        for name, instrument in instruments.items()
    }
    return [replace(frame, night=night_of(frame.mjd, splits[frame.instrument])) for frame in frames]


def local_noon(instrument: Instrument) -> float:
    """Return the fraction of the UTC day at which it is noon at the site."""
    site = instrument.facts.site
    return 0.5 if site is None else (0.5 - site.longitude / 360.0) % 1.0


def night_split(times: Sequence[float], noon: float) -> float:
    """Return the fraction of the UTC day that divides one night from the next.

    That is noon at the site. When frames were taken around that time, the site of the instrument
    file is not where they come from: then it is the middle of the time of day without frames.

    Parameters
    ----------
    times : sequence of float
        MJD of the frames.
    noon : float
        Fraction of the day.
    """
    phases = np.sort(np.mod(np.asarray(times, dtype=float), 1.0))
    if phases.size == 0 or np.abs(np.mod(phases - noon + 0.5, 1.0) - 0.5).min() > _NEAR_NOON:
        return noon
    gaps = np.diff(np.append(phases, phases[0] + 1.0))
    widest = int(np.argmax(gaps))
    if gaps[widest] < _CLEAR_GAP:
        return noon
    return float((phases[widest] + gaps[widest] / 2) % 1.0)


def night_of(mjd: float, split: float) -> str:
    """Return the date of the evening, ISO."""
    return (_MJD_EPOCH + dt.timedelta(days=int(np.floor(mjd - split)))).isoformat()


def combinable(
    frames: Iterable[NightFrame], spec: InputSpec, *, by_mode: bool
) -> list[list[NightFrame]]:
    """Return the frames that a recipe can take together, sorted by time.

    Parameters
    ----------
    frames : iterable of NightFrame
        Frames of the input's tag, of one night.
    spec : InputSpec
        The declaration: what must match, and how well.
    by_mode : bool
        Products of different instrument modes are different.
    """
    exact = [name for name in spec.match if name != "exptime"] + ["layout", "instrument"]
    exact += ["mode"] if by_mode else []
    sets = _partition(frames, lambda frame: tuple(frame.value(name) for name in exact))
    if "exptime" not in spec.match:
        return sets
    tolerance = max(spec.tolerance.get("exptime", 0.0), 1e-3)
    return [part for found in sets for part in _by_exptime(found, tolerance)]


def _partition(
    frames: Iterable[NightFrame], key: Callable[[NightFrame], object]
) -> list[list[NightFrame]]:
    sets: dict[object, list[NightFrame]] = {}
    for frame in frames:
        sets.setdefault(key(frame), []).append(frame)
    return list(sets.values())


def _by_exptime(frames: Sequence[NightFrame], tolerance: float) -> list[list[NightFrame]]:
    """Divide by exposure time; each lamp has its own, and the largest sets of all go together."""
    ranked: dict[int, list[NightFrame]] = {}
    for of_lamp in _partition(frames, lambda frame: frame.lamp):
        sets: list[list[NightFrame]] = []
        for frame in sorted(of_lamp, key=lambda one: one.info.exptime):
            first = sets[-1][0].info.exptime if sets else -1.0
            if sets and abs(frame.info.exptime - first) <= tolerance * frame.info.exptime:
                sets[-1].append(frame)
            else:
                sets.append([frame])
        # Of sets of equal size the longer exposure is the better one.
        for rank, found in enumerate(sorted(sets, key=len)[::-1]):
            ranked.setdefault(rank, []).extend(found)
    return [sorted(found, key=lambda one: one.mjd) for found in ranked.values()]
