"""One healthy small night, and what its recipes say of frames into which a fault was planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from scipy.ndimage import gaussian_filter1d, map_coordinates

from kspecpipe.base_recipe import run_recipe
from kspecpipe.framework.outcome import Outcome
from kspecpipe.qc import Flag
from kspecpipe.simulate import FrameCounts, Night, NightPlan, RawFile, simulate_night
from kspecpipe.simulate.detector import expose
from kspecpipe.simulate.exposure import Observation, expose_observation, open_dome

GAIN, RON = 1.12, 4.48
SHAPE = (420, 500)
RAW = {
    "mbias": "BIAS",
    "mdark": "DARK",
    "lflat": "LFLAT",
    "tlm": "FLAT",
    "mflat": "FLAT",
    "marc": "ARC",
    "object": "OBJECT",
}
#: What later recipes are given.
CHAIN = ("mbias", "mdark", "mflat", "marc")
PLAN = NightPlan(size="small", counts=FrameCounts(bias=4, dark=5, flat=3, arc=1, object=1, lflat=3))
ORDER = list(Flag)
SEED = 3


@dataclass
class Scene:
    """Raw frames of one class, in the pipeline's orientation, to be spoilt in place.

    Parameters
    ----------
    adu : ndarray, shape (n, ny, nx)
        Pixels.
    trace : ndarray, shape (nfib, nx), or None
        Row of each fibre's light.
    night : HealthyNight
        The night that they are from.
    """

    adu: np.ndarray
    trace: np.ndarray | None
    night: Any
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    @property
    def light(self) -> np.ndarray:
        """Return the light above the bias [electron]."""
        return np.asarray((self.adu - self.night.zero) * GAIN)

    def pixels(self, share: float) -> np.ndarray:
        """Choose pixels by chance, the same for all frames."""
        return np.asarray(self.rng.random(self.adu.shape[1:]) < share)

    def of_fibres(self, values: np.ndarray) -> np.ndarray:
        """Return the value (nfib,) or (nfib, nx) of the fibre whose light a pixel holds."""
        assert self.trace is not None
        rows = np.arange(self.adu.shape[1])[None, :, None]
        nearness = -0.5 * ((rows - self.trace[:, None]) / 1.7) ** 2
        weight = np.exp(nearness - nearness.max(axis=0))
        values = values if values.ndim == 2 else values[:, None]
        return np.asarray((weight * values[:, None]).sum(axis=0) / weight.sum(axis=0))

    def dim(self, factor: float | np.ndarray) -> None:
        """Let less light arrive on all pixels or some, with the noise that less light has."""
        light = self.light
        lost = np.clip(factor * (1 - factor) * light, 0, None) + (1 - factor**2) * RON**2
        dimmed = factor * light + np.sqrt(lost) * self.rng.standard_normal(light.shape)
        self.adu[:] = self.night.zero + dimmed / GAIN

    def blur(self, sigma: float, axis: int) -> None:
        """Spread the light along an axis and give it the noise that it has."""
        light = gaussian_filter1d(self.light, sigma, axis=axis)
        noise = np.sqrt(np.clip(light, 0, None) + RON**2)
        electron = light + noise * self.rng.standard_normal(light.shape)
        self.adu[:] = self.night.zero + electron / GAIN

    def scale(self, factor: np.ndarray) -> None:
        """Let pixels answer the light differently."""
        self.adu[:] = self.night.zero + self.light * factor / GAIN

    def move(self, rows: Any = 0.0, columns: Any = 0.0) -> None:
        """Move the light by some rows and columns, the same everywhere or (ny, nx)."""
        y, x = np.mgrid[: self.adu.shape[1], : self.adu.shape[2]].astype(float)
        for frame in self.adu:
            frame[:] = map_coordinates(frame, (y - rows, x - columns), order=3, mode="nearest")


Edit = Callable[[Scene], None]


@dataclass
class HealthyNight:
    """A night, the calibrations made of it, and the verdicts on its metrics."""

    night: Night
    folder: Path
    limits: dict[str, Any]
    calibrations: dict[str, list[str]] = field(default_factory=dict)
    healthy: dict[str, dict[str, Flag]] = field(default_factory=dict)
    counter: Any = field(default_factory=itertools.count)

    @cached_property
    def zero(self) -> np.ndarray:
        """Return the bias with its columns and rows [adu]."""
        bias = np.mean([read(file.path) for file in self.night.tagged("BIAS")], axis=0)
        columns, rows = np.median(bias, axis=0), np.median(bias, axis=1)
        return np.asarray(columns + rows[:, None] - np.median(bias))

    def run(
        self, recipe: str, frames: Iterable[str], *, more: Sequence[str] = (), **options: Any
    ) -> Outcome:
        """Run a recipe on frames and the healthy calibrations of the recipes before it."""
        known = itertools.takewhile(lambda name: name != recipe, CHAIN)
        lines = [*frames, *itertools.chain(*(self.calibrations.get(name, []) for name in known))]
        if recipe in ("tlm", "lflat"):
            lines = [*frames, *self.calibrations["mbias"], *self.calibrations["mdark"]]
        sof = self.folder / f"{next(self.counter)}.sof"
        sof.write_text("\n".join([*lines, *more]) + "\n")
        chosen = {"output": self.folder / "products", "instrument": str(self.night.instrument)}
        chosen |= {"plots": "none", "settings": self.limits}
        return run_recipe(recipe, sof, log=False, **(chosen | options))

    def cloudy(self, factor: float) -> np.ndarray:
        """Take a science exposure of which clouds let a fraction through."""
        return take("OBJECT", (), factor)

    def arc(self, *lamps: str) -> np.ndarray:
        """Take an arc with other lamps."""
        return take("ARC", lamps)

    def with_one_sky_fibre(self) -> str:
        """Write an assignment with a single sky fibre and return its line."""
        return self.assigned("one_sky_fibre", dict.fromkeys(self.sky_fibres[1:], "1"))

    def with_sky_and_targets_exchanged(self) -> str:
        """Write an assignment in which sky fibres are targets and targets sky."""
        lines = self.night.assignment.read_text().splitlines()
        other = {"9": "1", "1": "9", "2": "9"}
        kinds = {number: other.get(line.split()[-1], "8") for number, line in enumerate(lines)}
        return self.assigned("other_tile", kinds)

    def assigned(self, name: str, kinds: dict[int, str]) -> str:
        """Write an assignment with other classes, of fibres counted from 0; return its line."""
        lines = self.night.assignment.read_text().splitlines()
        for number, kind in kinds.items():
            lines[number] = f"{lines[number].rsplit(maxsplit=1)[0]} {kind}"
        path = self.folder / f"{name}.assign.txt"
        path.write_text("\n".join(lines) + "\n")
        return f"{path} ASSIGN"

    @property
    def sky_fibres(self) -> list[int]:
        """Return the sky fibres, counted from 0."""
        lines = self.night.assignment.read_text().splitlines()
        return [int(line.split()[0]) - 1 for line in lines if line.split()[-1] == "9"]

    @cached_property
    def faint_fibre(self) -> int:
        """Return the live program fibre, counted from 0, whose target is faintest."""
        with fits.open(self.night.tagged("OBJECT")[0].truth) as hdus:
            light = hdus["TARGET"].data.sum(axis=1)
        lines = self.night.assignment.read_text().splitlines()
        program = [int(line.split()[0]) - 1 for line in lines if line.split()[-1] in "12"]
        return min((fibre for fibre in program if light[fibre] > 0), key=lambda fibre: light[fibre])

    def assignment(self, recipe: str) -> list[str]:
        """Return the line of the fibre assignment, for the recipe that needs it."""
        return [f"{self.night.assignment} ASSIGN"] if recipe == "object" else []

    def flags(self, recipe: str, edit: Edit, **options: Any) -> dict[str, Flag]:
        """Spoil the frames of a recipe and return the worst flag of each metric."""
        return worst_flags(self.spoilt(recipe, edit, **options))

    def value(self, recipe: str, metric: str, edit: Edit) -> float:
        """Spoil the frames of a recipe and return the value of a metric that has only one."""
        (row,) = (row for row in self.spoilt(recipe, edit).qc if row.name == metric)
        return row.value

    def spoilt(self, recipe: str, edit: Edit, **options: Any) -> Outcome:
        """Run a recipe on frames into which a fault was planted."""
        frames = self.night.tagged(RAW[recipe])
        scene = Scene(np.stack([read(file.path) for file in frames]), trace_of(frames[0]), self)
        edit(scene)
        target = self.folder / f"fault_{next(self.counter)}"
        target.mkdir()
        times = options.pop("times", [None] * len(frames))
        lines = []
        for file, pixels, time in zip(frames, scene.adu, times, strict=True):
            write(target / file.path.name, file.path, pixels, time)
            lines.append(f"{target / file.path.name} {file.tag}")
        more = options.pop("more", self.assignment(recipe))
        outcome = self.run(recipe, lines, more=more, save=False, **options)
        assert outcome.qc, outcome.errors
        return outcome

    def check(
        self,
        recipe: str,
        metrics: str | Sequence[str],
        edit: Edit,
        kin: Iterable[str] = (),
        **options: Any,
    ) -> None:
        """Check that a fault turns its metrics red, and no other but their kin."""
        before, after = self.healthy[recipe], self.flags(recipe, edit, **options)
        turned = [metrics] if isinstance(metrics, str) else metrics
        changed = {name: after[name] for name in after if after[name] != before[name]}
        for metric in turned:
            assert after[metric] in (Flag.WARN, Flag.FAIL, Flag.UNMEASURED), (metric, changed)
            assert ORDER.index(after[metric]) > ORDER.index(before[metric]), (metric, changed)
        assert set(changed) <= {*turned, *kin}, changed


def read(path: Path) -> np.ndarray:
    """Return the pixels of a raw file in the pipeline's orientation [adu]."""
    data = path.read_bytes()
    start = header_size(data)
    stored = np.frombuffer(data, ">i2", SHAPE[0] * SHAPE[1], start).reshape(SHAPE)
    return (stored.astype(float) + 32768)[::-1, ::-1]


def write(target: Path, source: Path, adu: np.ndarray, exptime: float | None = None) -> None:
    """Write pixels under the header of another file, byte by byte: some cards are broken."""
    data = source.read_bytes()
    start = header_size(data)
    header, end = data[:start], data[start + 2 * SHAPE[0] * SHAPE[1] :]
    if exptime is not None:
        header = header.replace(b"2400000", f"{exptime * 1000:7.0f}".encode())
    stored = np.clip(np.rint(adu[::-1, ::-1]), 0, 65535) - 32768
    target.write_bytes(header + stored.astype(">i2").tobytes() + end)


def header_size(data: bytes) -> int:
    """Return where the pixels begin."""
    return (data.index(b"END" + 77 * b" ") // 2880 + 1) * 2880


def trace_of(file: RawFile) -> np.ndarray | None:
    """Return the true traces of a raw frame, if it has fibre light."""
    with fits.open(file.truth) as hdus:
        return np.array(hdus["TRACE"].data) if "TRACE" in hdus else None


def take(tag: str, lamps: tuple[str, ...], factor: float = 1.0) -> np.ndarray:
    """Take another exposure with the instrument of the night."""
    dome, rng = open_dome(PLAN, SEED), np.random.default_rng(8)
    mode = next(iter(dome.benches.values())).optics.mode
    seen = Observation(tag, mode, lamps=lamps)
    light = expose_observation(dome, seen, rng).expected * factor
    raw = expose(light, seen.exptime, dome.chip, dome.instrument, PLAN.traps, rng)
    return np.asarray(raw.data[::-1, ::-1], dtype=float)


def worst_flags(outcome: Outcome) -> dict[str, Flag]:
    """Return the worst flag of each metric."""
    flags: dict[str, Flag] = {}
    for row in outcome.qc:
        before = flags.get(row.name, Flag.OK)
        # Fibres without light are "na" in every night; they must not hide a warning.
        flags[row.name] = max(before, row.flag, key=ORDER.index)
    return flags


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> HealthyNight:
    folder = tmp_path_factory.mktemp("metrics")
    shipped = yaml.safe_load(files("kspecpipe.settings").joinpath("isoplane.yaml").read_text())
    limits = {name: {"qc": shipped[name]["qc"]} for name in RAW}
    # The other lamps have no bright line on the small chip.
    limits["instrument"] = {"lamps": {"default": ["Hg", "Ne"]}}
    found = HealthyNight(simulate_night(folder / "raw", PLAN, seed=SEED), folder, limits)
    for recipe in dict.fromkeys([*CHAIN, *RAW]):
        lines = [f"{file.path} {file.tag}" for file in found.night.tagged(RAW[recipe])]
        outcome = found.run(recipe, lines, more=found.assignment(recipe))
        assert outcome.products, outcome.errors
        found.calibrations[recipe] = [f"{path} {tag}" for path, tag in outcome.products]
        found.healthy[recipe] = worst_flags(outcome)
    return found
