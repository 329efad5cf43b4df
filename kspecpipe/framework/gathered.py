"""The input files of a run, sorted by tag, and how strictly they are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kspecpipe.declare import InputSpec
from kspecpipe.errors import InputError
from kspecpipe.frame import RawFrame
from kspecpipe.instrument import Instrument
from kspecpipe.quality.store import Verdict


class CalibrationFile(NamedTuple):
    """A calibration product among the inputs."""

    tag: str
    path: Path
    header: Mapping[str, Any]


@dataclass(frozen=True)
class GatheredInputs:
    """The files of a recipe after verification, before calibrations are loaded.

    Parameters
    ----------
    instrument : Instrument
        Instrument of all of them.
    raw : dict
        Frames by tag.
    calibrations : dict
        Path and primary header by tag.
    user : dict
        Path by tag.
    """

    instrument: Instrument
    raw: dict[str, list[RawFrame]]
    calibrations: dict[str, list[tuple[Path, Mapping[str, Any]]]]
    user: dict[str, Path]
    warnings: tuple[str, ...] = ()

    @property
    def tags(self) -> frozenset[str]:
        """Tags of which there is a file."""
        return frozenset({*self.raw, *self.calibrations, *self.user})

    @property
    def frames(self) -> list[RawFrame]:
        """All raw frames in their order."""
        return [frame for frames in self.raw.values() for frame in frames]

    def products(self, spec: InputSpec) -> list[CalibrationFile]:
        """Return the products that an input takes, of whichever of its tags."""
        return [
            CalibrationFile(tag, *found)
            for tag in spec.tags
            for found in self.calibrations.get(tag, [])
        ]


@dataclass(frozen=True)
class InputPolicy:
    """How strictly inputs are taken; ``verdicts`` are what people decided, by DATAMD5."""

    ignore_input_qc: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


def header_number(path: Path, header: Mapping[str, Any], card: str) -> float:
    """Return a number from the header of a product."""
    value = header.get(card)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{path.name}: {card} is {value!r}; a number was expected")
    return float(value)
