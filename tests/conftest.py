"""A small camera that writes raw frames, shared by the tests of framework and recipes.

It shares no code with the pipeline: files are written with astropy, numbers drawn with numpy.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import settings

from kspecpipe.base_recipe import run_recipe
from kspecpipe.framework.outcome import Outcome

# The suite has many properties: forty examples of each are found in a few minutes. In CI they are
# the same each time, so that its verdict is one on the change.
settings.register_profile(
    "suite", max_examples=40, deadline=None, derandomize=os.environ.get("CI") == "true"
)
settings.load_profile("suite")

SHAPE = (48, 64)
LEVEL, GAIN, RON = 600.0, 2.0, 4.0

TINY = """
instrument:
  name: TINY
  recognise: {INSTRUME: TINY}
  keywords:
    date_obs: {from: DATE-OBS}
    exptime: {from: EXPTIME, unit: s}
    speed: {from: SPEED, type: str}
    grating: {from: GRATING, type: str, optional: true}
    target: {from: OBJECT, type: str, optional: true}
  mode: '{grating}'
  readmode: '{speed}'
  classify:
    - {tag: BIAS, keywords: {OBSTYPE: BIAS}}
    - {tag: DARK, keywords: {OBSTYPE: DARK}}
    - {tag: FLAT, keywords: {OBSTYPE: FLAT}}
    - {tag: ARC, keywords: {OBSTYPE: ARC}}
    - {tag: OBJECT, keywords: {OBSTYPE: OBJECT}}
  detector:
    layouts:
      '48x64': {amplifiers: [{data: [0, 48, 0, 64]}]}
      '48x72':
        amplifiers:
          - {data: [0, 48, 0, 32], overscan: [0, 48, 32, 36]}
          - {data: [0, 48, 40, 72], overscan: [0, 48, 36, 40], gain: 3.0}
    gain: 2.0
    noise: 4.0
    saturation: 60000
  fibres: {number: 3, rows: [10, 20, 30]}
"""


@dataclass
class Camera:
    """Writes raw frames of the instrument TINY and runs recipes on them."""

    folder: Path
    seed: int = 1
    start: datetime = datetime(2026, 1, 29, 20, 0, 0)
    written: int = field(default=0)

    @property
    def instrument(self) -> Path:
        """The instrument file."""
        path = self.folder / "tiny.yaml"
        if not path.exists():
            path.write_text(TINY)
        return path

    @property
    def output(self) -> Path:
        """Where the products go."""
        return self.folder / "out"

    def noise(self, shape: tuple[int, ...] = SHAPE, level: float = LEVEL) -> np.ndarray:
        """Return pixels of a bias: a level and read noise [adu]."""
        self.seed += 1
        return np.random.default_rng(self.seed).normal(level, RON / GAIN, shape)

    def header(self, tag: str, exptime: float, cards: dict[str, Any]) -> fits.Header:
        """Return the header of a frame; a card of None is left out."""
        self.written += 1
        date = self.start + timedelta(minutes=self.written)
        facts = {
            "INSTRUME": "TINY",
            "OBSTYPE": tag,
            "DATE-OBS": date.isoformat(timespec="milliseconds"),
            "EXPTIME": exptime,
            "SPEED": "slow",
            "GRATING": "blue",
        } | {name.replace("_", "-"): value for name, value in cards.items()}
        return fits.Header([(k, v) for k, v in facts.items() if v is not None])

    def frame(
        self,
        name: str = "",
        tag: str = "BIAS",
        data: np.ndarray | None = None,
        exptime: float = 0.0,
        *,
        rounded: bool = True,
        **cards: Any,
    ) -> Path:
        """Write one raw frame and return its path."""
        header = self.header(tag, exptime, cards)
        pixels = self.noise() if data is None else data
        if rounded:
            pixels = np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)
        path = self.folder / (name or f"{tag.lower()}_{self.written:03d}.fits")
        fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
        return path

    def biases(self, count: int = 3, **options: Any) -> list[Path]:
        """Write bias frames."""
        return [self.frame(**options) for _ in range(count)]

    def dark(self, exptime: float = 100.0, rate: float = 0.5, **options: Any) -> Path:
        """Write a dark frame with a rate in electron/s."""
        self.seed += 1
        light = np.random.default_rng(self.seed).poisson(rate * exptime, SHAPE) / GAIN
        return self.frame("", "DARK", self.noise() + light, exptime, **options)

    def sof(self, *lines: str, name: str = "in.sof") -> Path:
        """Write a set-of-files list."""
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def sof_of(
        self, paths: Iterable[Path], tag: str = "BIAS", *more: str, name: str = "in.sof"
    ) -> Path:
        """Write a set-of-files list of frames of one tag, and further lines."""
        return self.sof(*[f"{path.name} {tag}" for path in paths], *more, name=name)

    def run(self, recipe: str, source: Any, **options: Any) -> Outcome:
        """Run a recipe silently, without pictures."""
        chosen = {
            "instrument": str(self.instrument),
            "output": self.output,
            "plots": "none",
            "log": False,
        }
        return run_recipe(recipe, source, **(chosen | options))

    def master_bias(self) -> Path:
        """Return a master bias made by the pipeline."""
        found = sorted(self.output.glob("*master_bias.fits"))
        if found:
            return found[0]
        return self.run("mbias", self.sof_of(self.biases(5), name="bias.sof")).products[0][0]

    def sof_with_bias(self, paths: Iterable[Path], tag: str = "DARK") -> Path:
        """Write a set-of-files list of frames and the master bias."""
        return self.sof_of(paths, tag, f"{self.master_bias()} MASTER_BIAS")


@pytest.fixture(scope="session")
def new_camera() -> type[Camera]:
    """Return the class itself, for fixtures of a wider scope."""
    return Camera


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    return Camera(tmp_path)


class InlinePool:
    """Runs every order at once in this process: starting others takes longer than the work."""

    memory = float("inf")

    def __init__(self, workers: int) -> None:
        self.capacity = workers

    def submit(self, function: Callable[[Any], Any], order: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(order))
        return future

    def renew(self) -> None:
        raise AssertionError("no worker can die here")

    def lost(self) -> str:
        return ""

    def close(self, *, wait: bool) -> None:
        self.capacity = int(wait) - 1


@pytest.fixture(scope="session")
def inline() -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which `kspec reduce` works in this process."""

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kspecpipe.cli.reduce.LocalPool", InlinePool)
            yield

    return context


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system of some kilobytes; unmounted afterwards."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def leftovers(folder: Path) -> list[str]:
    """Return names of products and scratch files below a folder."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".fits", ".part", ".png") or path.name.endswith("_qc.ecsv")
    ]


@pytest.fixture
def refused(camera: Camera) -> Callable[..., str]:
    """Check that a run was refused as it should be, and return its message."""

    def check(outcome: Outcome, code: int, *words: str) -> str:
        text = "\n".join(outcome.errors)
        assert int(outcome.exit_code) == code, text
        assert text
        assert "internal error" not in text
        assert "Traceback" not in text
        for word in words:
            assert word in text, f"{word!r} is not in {text!r}"
        assert outcome.products == ()
        assert not camera.output.exists() or leftovers(camera.output) == []
        return text

    return check
