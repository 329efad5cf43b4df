"""Fetch a part of the BOSZ 2024 library from its archive."""

from __future__ import annotations

import gzip
import http.client
import itertools
import os
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from kspecpipe.fluxcal.templates import (
    IndexedModel,
    parse_bosz_filename,
    read_index,
    store_index,
)

Outcome = Literal["ok", "skipped", "not found", "error", "planned"]
#: Archive of the library (Meszaros et al. 2024, A&A 688, A197; doi 10.17909/T95G68).
ARCHIVE = "https://archive.stsci.edu/hlsps/bosz/bosz2024"
_TIMEOUT = 60.0
_BLOCK = 1 << 16
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Subgrid:
    """Models to fetch: by default F and G dwarfs.

    Parameters
    ----------
    teff, logg, feh : tuple of float
        Grid [K, cgs, dex].
    alpha_feh : float
        Up to this [M/H] models with [alpha/M] = +0.25 are fetched too.
    hot : float
        From this temperature the atmospheres are ATLAS9 (``ap``), below MARCS (``mp``) [K].
    resolution : int
        Resolving power.
    """

    teff: tuple[float, ...] = tuple(range(5000, 8001, 250))
    logg: tuple[float, ...] = (3.5, 4.0, 4.5, 5.0)
    feh: tuple[float, ...] = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5)
    alpha_feh: float = -0.5
    hot: float = 7500.0
    resolution: int = 10000

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        numbers = np.array([*self.teff, *self.logg, *self.feh])
        if not np.isfinite(numbers).all() or not min((*self.teff, self.resolution)) > 0:
            raise ValueError(
                f"Teff {self.teff}, log g {self.logg}, [M/H] {self.feh} and resolution "
                f"{self.resolution} must be numbers, the first and the last positive"
            )


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch.

    Parameters
    ----------
    workers : int
        Transfers at a time.
    tries : int
        Attempts per file.
    pause : float
        Between attempts [s].
    force : bool
        Fetch what is there already.
    dry_run : bool
        Only say what would be fetched.
    archive : str
        Where from.
    """

    workers: int = 8
    tries: int = 3
    pause: float = 2.0
    force: bool = False
    dry_run: bool = False
    archive: str = ARCHIVE


@dataclass(frozen=True, slots=True)
class FetchSummary:
    """What became of each file.

    Parameters
    ----------
    outcomes : dict
        Outcome by path below the library's folder; ``planned``: not tried.
    problems : dict
        Words on each error.
    """

    outcomes: dict[str, Outcome]
    problems: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        """Count the files with an outcome."""
        return sum(found == outcome for found in self.outcomes.values())

    def text(self) -> str:
        """Summarise in one line."""
        kinds: tuple[Outcome, ...] = ("ok", "skipped", "not found", "error", "planned")
        counts = [f"{self.count(kind)} {kind}" for kind in kinds if kind != "planned"]
        planned = self.count("planned")
        return ", ".join([*counts, f"{planned} planned"] if planned else counts)


def planned_files(subgrid: Subgrid) -> tuple[str, ...]:
    """List the files of a sub-grid, relative to the archive and to the library: wavelengths first.

    Not every combination exists; the archive says so, and that is no error.
    """
    tag = f"r{subgrid.resolution}"
    names = [f"bosz2024_wave_{tag}.txt"]
    for feh, teff, logg in itertools.product(subgrid.feh, subgrid.teff, subgrid.logg):
        code = "ap" if teff >= subgrid.hot else "mp"
        for alpha in (0.0, 0.25) if feh <= subgrid.alpha_feh else (0.0,):
            names.append(
                f"{tag}/m{feh:+.2f}/bosz2024_{code}_t{teff:.0f}_g{logg:+.1f}_m{feh:+.2f}"
                f"_a{alpha:+.2f}_c+0.00_v1_{tag}_resam.txt.gz"
            )
    return tuple(names)


def download_templates(
    folder: Path,
    subgrid: Subgrid | None = None,
    options: FetchOptions | None = None,
    report: Callable[[str, Outcome], None] | None = None,
) -> FetchSummary:
    """Fetch a sub-grid of the library.

    The wavelengths come first: if they cannot be fetched, nothing else is tried. The index is
    written before the models, with all that is to come, so that a library which was cut short knows
    what it lacks; what the archive does not have leaves the index at the end. A file whose size is
    not that of the index is fetched again.

    Parameters
    ----------
    folder : Path
        Where the library is, or will be.
    subgrid : Subgrid, optional
        What to fetch.
    options : FetchOptions, optional
        How.
    report : callable, optional
        Told the name and outcome of each file as it comes.

    Returns
    -------
    FetchSummary
        Outcome of each file.
    """
    wanted, how = subgrid or Subgrid(), options or FetchOptions()
    names = planned_files(wanted)
    if how.dry_run:
        return FetchSummary(dict.fromkeys(names, "planned"))
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    earlier = {model.path: model.size for model in read_index(folder, wanted.resolution)}
    problems: dict[str, str] = {}

    def fetch(name: str) -> Outcome:
        outcome, words = _fetch(folder, name, how, earlier.get(name))
        if outcome == "not found" and name == names[0]:
            outcome, words = "error", "not in the archive; are its address and resolution right?"
        if words:
            problems[name] = words
        if report is not None:
            report(name, outcome)
        return outcome

    outcomes: dict[str, Outcome] = dict.fromkeys(names, "planned")
    outcomes[names[0]] = fetch(names[0])
    if outcomes[names[0]] != "error":
        # Models that were fetched earlier stay in the index.
        listed = list(dict.fromkeys([*earlier, *names[1:]]))
        _index(folder, wanted.resolution, listed, earlier)
        with ThreadPoolExecutor(max_workers=how.workers) as pool:
            outcomes.update(zip(names[1:], pool.map(fetch, names[1:]), strict=True))
        found = [name for name in listed if outcomes.get(name) != "not found"]
        lost = {name: earlier.get(name) for name in found if outcomes.get(name) == "error"}
        _index(folder, wanted.resolution, found, lost)
    return FetchSummary(outcomes, problems)


def _sweep(folder: Path) -> None:
    """Remove what an earlier run left when it was killed; younger parts may still be growing."""
    for part in folder.rglob(".*.part"):
        if time.time() - part.stat().st_mtime > 2 * _TIMEOUT:
            part.unlink(missing_ok=True)


def _fetch(folder: Path, name: str, options: FetchOptions, size: int | None) -> tuple[Outcome, str]:
    """Fetch one file, with several tries, unless it is there with the size it had, if known."""
    target = folder / name
    there = target.stat().st_size if target.exists() else 0
    if not options.force and there > 0 and size in (None, there):
        return "skipped", ""
    for place in _places(name):
        outcome, words = _try_often(f"{options.archive}/{place}", target, options)
        if outcome != "not found":
            return outcome, words
    return "not found", ""


def _places(name: str) -> tuple[str, ...]:
    """Where in the archive a file may be; the wavelengths have moved between its versions."""
    if "/" in name:
        return (name,)
    tag = name.rsplit("_", 1)[1].removesuffix(".txt")
    return name, f"wavelength_grids/{name}", f"{tag}/{name}"


def _try_often(url: str, target: Path, options: FetchOptions) -> tuple[Outcome, str]:
    """Fetch from one address, with several tries."""
    words = ""
    for attempt in range(options.tries):
        if attempt:
            time.sleep(options.pause)
        try:
            _transfer(url, target)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return "not found", ""
            words = f"HTTP status {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            words = str(error) or type(error).__name__
        else:
            return "ok", ""
    return "error", words


def _transfer(url: str, target: Path) -> None:
    """Copy a file from the archive; it gets its name only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as source:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        try:
            size = 0
            with os.fdopen(handle, "wb") as sink:
                while block := source.read(_BLOCK):
                    size += sink.write(block)
            _require_whole(Path(name), size, source.headers.get("Content-Length"))
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _require_whole(path: Path, size: int, announced: str | None) -> None:
    """Refuse what broke off: by its size, or by its end if nothing announced the size."""
    if size == 0 or (announced is not None and size != int(announced)):
        raise OSError(f"{size} bytes came, {announced or 'more'} were announced")
    if announced is None and path.read_bytes()[:2] == _GZIP:
        try:
            gzip.decompress(path.read_bytes())
        except (EOFError, zlib.error) as error:
            raise OSError(f"{size} bytes came, not the whole file ({error})") from None


def _index(
    folder: Path, resolution: int, names: Sequence[str], sizes: Mapping[str, int | None]
) -> None:
    """Write the index of these models; ``sizes`` are those that files should have, if known."""
    models = []
    for name in names:
        path = folder / name
        size = sizes.get(name) or (path.stat().st_size if path.exists() else None)
        models.append(IndexedModel(name, size, parse_bosz_filename(name)))
    store_index(folder, resolution, models)
