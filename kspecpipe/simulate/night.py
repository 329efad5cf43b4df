"""Simulate a night: raw frames, fibre assignment, SOFs and the truth beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspecpipe.simulate import lightfield
from kspecpipe.simulate.description import write_description
from kspecpipe.simulate.exposure import Dome, Observation, expose_observation, open_dome
from kspecpipe.simulate.fibres import STANDARD
from kspecpipe.simulate.fits_cards import write_raw
from kspecpipe.simulate.instruments import Mode
from kspecpipe.simulate.listings import RawFile, write_assignment, write_sofs, write_standards
from kspecpipe.simulate.plan import LAMPS, NightPlan
from kspecpipe.simulate.standard import standard_cards, standard_name
from kspecpipe.simulate.truth import write_fibre_truth, write_frame_truth

_SEPARATE = (("Hg", "Ar"), ("Ne",), ("Kr",), ("Cd",))
_HOURS_PER_MODE = 3.0


@dataclass(frozen=True, slots=True)
class Night:
    """Everything that was written.

    Parameters
    ----------
    folder : Path
        Where the raw files are.
    files : tuple of RawFile
        Raw files, each with its truth.
    sofs : dict
        SOF of each step (``bias``, ``flats``, ...); with several modes ``flats_300_490``.
    fibres : dict
        Truth that does not change from frame to frame, by mode.
    assignment : Path
        Fibre assignment file.
    instrument : Path
        Instrument YAML that fits these frames (nominal numbers); needed for small ones.
    """

    folder: Path
    files: tuple[RawFile, ...]
    sofs: dict[str, Path]
    fibres: dict[str, Path]
    assignment: Path
    instrument: Path

    def tagged(self, tag: str, mode: str | None = None) -> tuple[RawFile, ...]:
        """Return the files of a tag, of one mode or all."""
        return tuple(f for f in self.files if f.tag == tag and mode in (None, f.mode))


def simulate_night(out: Path, plan: NightPlan | None = None, seed: int = 1) -> Night:
    """Write a night of raw frames with known truth.

    Parameters
    ----------
    out : Path
        Folder for raw files, SOFs and assignment; the truth goes into its sub-folder ``truth``.
    plan : NightPlan, optional
        What to take; default: a small ISOPLANE programme in 150_620.
    seed : int
        Equal seeds and plans give equal files.

    Returns
    -------
    Night
        The files.

    Raises
    ------
    ValueError
        If the instrument has no such mode.
    """
    dome = open_dome(plan or NightPlan(), seed)
    beside = out / "truth"
    beside.mkdir(parents=True, exist_ok=True)
    programme = list(_programme(dome.plan, [bench.optics.mode for bench in dome.benches.values()]))
    seeds = np.random.SeedSequence(seed).spawn(len(programme))
    files = []
    for number, (seen, child) in enumerate(zip(programme, seeds, strict=True), start=1):
        files.append(_take(out, dome, seen, number, np.random.default_rng(child)))
    fibres = {name: beside / f"fibres_{name}.fits" for name in dome.benches}
    for name, path in fibres.items():
        write_fibre_truth(path, dome.benches[name])
    assignment = write_assignment(out, dome)
    standards: list[str] = []
    if dome.plan.counts.object:
        standards = write_standards(out, dome, np.random.default_rng([seed, STANDARD, 1]))
    sofs = write_sofs(out, files, assignment, standards)
    return Night(out, tuple(files), sofs, fibres, assignment, write_description(beside, dome))


def _programme(plan: NightPlan, modes: Sequence[Mode]) -> Iterator[Observation]:
    """Yield the files of a night."""
    counts = plan.counts
    if plan.cube and counts.bias:
        yield Observation("BIAS", None, planes=counts.bias)
    else:
        yield from (Observation("BIAS", None, i + 1) for i in range(counts.bias))
    for number, mode in enumerate(modes):
        hours = number * _HOURS_PER_MODE
        for tag in ("lflat", "flat", "flatoff", "arc", "skyflat", "object"):
            for lamps in _lamp_sets(plan, tag):
                for index in range(getattr(counts, tag)):
                    yield Observation(tag.upper(), mode, index + 1, lamps, hours=hours)
    yield from (Observation("DARK", None, i + 1) for i in range(counts.dark))


def _lamp_sets(plan: NightPlan, tag: str) -> list[tuple[str, ...]]:
    """Return the lamps of each arc or flat."""
    if tag != "arc":
        return [(lamp,) for lamp in plan.flat_lamps if tag == "flat"] or [()]
    if plan.separate_lamps:
        return [lamps for lamps in _SEPARATE if plan.missing_lamp not in lamps]
    return [tuple(lamp for lamp in LAMPS if lamp != plan.missing_lamp)]


def _take(
    out: Path, dome: Dome, seen: Observation, number: int, rng: np.random.Generator
) -> RawFile:
    """Expose, read out and write one file and its truth."""
    taken = expose_observation(dome, seen, rng)
    name, cards = _label(dome, seen, number)
    planes = np.stack([plane.data for plane in taken.planes])
    write_raw(out / name, planes, cards, cube=dome.instrument.writer == "lightfield")
    beside = out / "truth" / f"truth_{name}"
    write_frame_truth(beside, dome, taken, name)
    mode = seen.mode.name if seen.mode else None
    return RawFile(out / name, seen.tag, mode, seen.exptime, beside, seen.lamps)


def _label(dome: Dome, seen: Observation, number: int) -> tuple[str, list[str]]:
    """Return file name and header cards as the instrument's program writes them."""
    mode = seen.mode or next(iter(dome.benches.values())).optics.mode
    tile = f"tile_{dome.plan.tile:03d}" if seen.tag == "OBJECT" else None
    if dome.instrument.writer == "standard":
        cards = standard_cards(seen, mode, tile or seen.tag.lower())
        return standard_name(seen.start, number), cards
    shot = lightfield.Shot(seen.start, seen.exptime, dome.plan.readout, number)
    lamp = seen.lamps if dome.plan.separate_lamps or seen.tag == "FLAT" else ()
    word = tile or lightfield.class_word(seen.tag, lamp)
    cards = lightfield.lightfield_cards(
        dome.instrument, mode, shot, broken=dome.plan.traps.broken_cards
    )
    style = lightfield.old_name if dome.plan.names == "old" else lightfield.new_name
    return style(word, seen.mode, shot, seen.index), cards
