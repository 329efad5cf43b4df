"""Text files beside the raw frames: the robot's assignment and the SOFs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspecpipe.simulate.exposure import Dome
from kspecpipe.simulate.sky_position import sky_places
from kspecpipe.simulate.standards import neighbours, write_catalogue, write_template_library

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


#: Photometry of the standard stars, and the folder of their templates.
CATALOGUE = "standard_star_atlas_refcat2.csv"
TEMPLATES = "templates"


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
    lines = []
    places = sky_places(dome.pointing, fibres.position)
    for index, ((x, y), (ra, dec)) in enumerate(zip(fibres.position, places, strict=True)):
        place = f"{index + 1:3d} {x:9.3f} {y:9.3f} {ra:12.6f} {dec:12.6f}"
        lines.append(f"{place} {index % 5} {fibres.target_class[index]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_standards(out: Path, dome: Dome, rng: np.random.Generator) -> list[str]:
    """Write catalogue and templates of the standard stars; return their lines in a SOF."""
    stars = list(next(iter(dome.benches.values())).fibres.stars.values())
    if not stars:
        return []
    listed = [*neighbours(stars, rng), *stars]
    rows = [listed[number] for number in rng.permutation(len(listed))]
    lines = [f"{write_catalogue(out / CATALOGUE, rows, rng).name} STD_CATALOG"]
    if dome.plan.library is not None:
        write_template_library(out / TEMPLATES, dome.plan.library)
        lines.append(f"{TEMPLATES} TEMPLATES")
    return lines


def write_sofs(
    out: Path, files: Sequence[RawFile], assignment: Path, standards: Sequence[str] = ()
) -> dict[str, Path]:
    """Write one SOF for each step of the reduction; with several modes its name tells the mode."""
    many = len({file.mode for file in files if file.mode}) > 1
    sets: dict[str, list[str]] = {}
    for file in files:
        suffix = f"_{file.mode}" if file.mode and many else ""
        sets.setdefault(_SOF[file.tag] + suffix, []).append(file.sof_line())
    for name, lines in sets.items():
        if name.startswith("objects"):
            lines.append(f"{assignment.name} ASSIGN")
    for name in [name for name in sets if name.startswith("objects") and standards]:
        sets[name.replace("objects", "standards")] = list(standards)
    paths = {name: out / f"{name}.sof" for name in sets}
    for name, path in paths.items():
        path.write_text("\n".join(sets[name]) + "\n")
    return paths
