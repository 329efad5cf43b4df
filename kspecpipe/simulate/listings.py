"""Text files beside the raw frames: the robot's assignment and the SOFs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspecpipe.simulate.exposure import Dome

_SOF = {
    "BIAS": "bias",
    "DARK": "dark",
    "LFLAT": "lflats",
    "FLAT": "flats",
    "FLATOFF": "flats",
    "ARC": "arcs",
    "SKYFLAT": "skyflats",
    "OBJECT": "objects",
}
#: Plate scale [mm/degree].
_PLATE = 190.0


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file that was written: its tag, mode (none for bias and dark) and truth file."""

    path: Path
    tag: str
    mode: str | None
    exptime: float
    truth: Path
    lamps: tuple[str, ...] = ()

    def sof_line(self) -> str:
        """Return its line in a SOF; a lamp that burned without the others is named."""
        lamp = f":{''.join(self.lamps).upper()}" if 0 < len(self.lamps) < 3 else ""
        return f"{self.path.name} {self.tag}{lamp}"


def write_assignment(out: Path, dome: Dome) -> Path:
    """Write the robot's file: fibre, place, position, rank, class."""
    fibres = next(iter(dome.benches.values())).fibres
    path = out / f"tile_{dome.plan.tile:03d}.assign.txt"
    ra, dec = dome.pointing
    lines = []
    for index, (x, y) in enumerate(fibres.position):
        right = (ra + x / _PLATE / np.cos(np.deg2rad(dec))) % 360.0
        place = f"{index + 1:3d} {x:9.3f} {y:9.3f} {right:12.6f} {dec + y / _PLATE:12.6f}"
        lines.append(f"{place} {index % 5} {fibres.target_class[index]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_sofs(out: Path, files: Sequence[RawFile], assignment: Path) -> dict[str, Path]:
    """Write one SOF for each step of the reduction; with several modes its name tells the mode."""
    many = len({file.mode for file in files if file.mode}) > 1
    sets: dict[str, list[str]] = {}
    for file in files:
        suffix = f"_{file.mode}" if file.mode and many else ""
        sets.setdefault(_SOF[file.tag] + suffix, []).append(file.sof_line())
    for name, lines in sets.items():
        if name.startswith("objects"):
            lines.append(f"{assignment.name} ASSIGN")
    paths = {name: out / f"{name}.sof" for name in sets}
    for name, path in paths.items():
        path.write_text("\n".join(sets[name]) + "\n")
    return paths
