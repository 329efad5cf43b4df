"""What is known of jobs that have run: one small file each, so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kspecpipe._version import __version__
from kspecpipe.atomic import write_text
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.errors import ExitCode
from kspecpipe.framework.execution import shipped_layers
from kspecpipe.framework.outcome import Outcome, RunOptions
from kspecpipe.framework.registry import recipe_names
from kspecpipe.instrument import Instrument
from kspecpipe.night.associate import Choice
from kspecpipe.night.jobs import Job

_FINISHED = (ExitCode.OK, ExitCode.QC_FAILED)
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """What is kept of a job.

    Parameters
    ----------
    fingerprint : str
        Of everything that the job was made from.
    exit_code : int
        How it ended.
    products : tuple of (name, category, size, time)
        What it made.
    """

    job: str
    recipe: str
    fingerprint: str
    exit_code: int
    products: tuple[tuple[str, str, int, int], ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    qc_failed: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    chosen: tuple[Mapping[str, Any], ...] = ()
    misses: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0


@dataclass
class Settings:
    """The settings of all recipes and modes, each resolved once."""

    instruments: Mapping[str, Instrument]
    options: RunOptions
    _known: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def digest(self, job: Job) -> str:
        """Return a checksum of what a job's recipe is set to.

        Raises
        ------
        SettingsError
            If a setting is wrong.
        """
        instrument = self.instruments[str(job.wish.values["instrument"])]
        mode = str(job.wish.values.get("mode", ""))
        key = (instrument.name, job.recipe.name, mode)
        if key not in self._known:
            options = self.options
            user = layered.user_layers(
                layered.Overrides(options.settings_files, options.assignments, options.settings),
                recipe_names(),
            )
            layers = shipped_layers(instrument, mode, options.instrument or "")
            resolved = layered.resolve(job.recipe.describe(), [*layers, *user])
            facts = [
                repr(one.sections["instrument"]) for one in user if "instrument" in one.sections
            ]
            parts = [instrument.digest, repr(resolved.parameters), repr(resolved.limits), *facts]
            self._known[key] = _digest(parts)
        return self._known[key]


def fingerprint(job: Job, chosen: Sequence[Choice], settings: Settings) -> str:
    """Return a checksum of all that a job depends on, by the names and times of its files."""
    files = [(frame.tag, str(frame.path), frame.stamp) for frame in job.frames]
    products = [*job.members, *(choice.candidate for choice in chosen)]
    files += [(one.catg, str(one.path), stamp_of(one.path)) for one in products]
    files += [(tag, str(path), stamp_of(path)) for tag, path in sorted(job.user.items())]
    parts = [__version__, job.recipe.name, job.qualifier, settings.options.plots, files]
    return _digest([*parts, settings.digest(job), [int(choice.level) for choice in chosen]])


def stamp_of(path: Path) -> Stamp:
    """Return size and time of a file; zeros when there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_size, status.st_mtime_ns


def read_entry(path: Path) -> Entry | None:
    """Read what is known of a job; None when there is nothing, or it cannot be understood."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        products = tuple(tuple(item) for item in values.pop("products"))
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return Entry(products=products, **known)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_entry(path: Path, entry: Entry) -> None:
    """Write what is known of a job; raises OSError when that is not possible."""
    write_text(path, json.dumps(vars(entry), indent=1) + "\n")


def still_holds(entry: Entry | None, wanted: str, folder: Path) -> bool:
    """Return whether a job has been done with the same inputs, and its products are there."""
    return (
        entry is not None
        and entry.fingerprint == wanted
        and entry.exit_code in _FINISHED
        and bool(entry.products)
        and all(stamp_of(folder / name) == (a, b) for name, _, a, b in entry.products)
    )


def made_by(outcome: Outcome) -> tuple[tuple[str, str, int, int], ...]:
    """Return the products of an outcome with their sizes and times."""
    return tuple((path.name, catg, *stamp_of(path)) for path, catg in outcome.products)


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]
