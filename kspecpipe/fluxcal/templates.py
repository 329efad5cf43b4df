"""A library of template spectra on disk, in the layout and format of BOSZ 2024.

The layout is ``bosz2024_wave_r10000.txt`` (one wavelength a line, vacuum Angstrom) and
``r10000/m+0.00/bosz2024_mp_t6000_g+4.0_m+0.00_a+0.00_c+0.00_v1_r10000_resam.txt.gz`` (Eddington
flux H and continuum, one row per wavelength). This module and `download` are the only ones of flux
calibration that read files, all of them text; the parsed models are kept beside the index.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.containers import StellarTemplate, TemplateParameters
from kspecpipe.fluxcal.grid import (
    BANDS,
    TemplateGrid,
    TemplateSummary,
    assemble_grid,
    grid_axes,
    summarise_template,
)
from kspecpipe.signal import FloatArray

_NAME = re.compile(
    r"bosz\d*_(?P<atmos>[a-z]+)_t(?P<teff>\d+)_g(?P<logg>[+-][\d.]+)_m(?P<feh>[+-][\d.]+)"
    r"_a(?P<alpha_m>[+-][\d.]+)_c(?P<carbon_m>[+-][\d.]+)_v(?P<vmicro>[\d.]+?)"
    r"_r(?P<resolution>\d+)(?:_[a-z]+)?\.txt(?:\.gz)?$"
)
_WAVE = re.compile(r"bosz\d*_wave_r(?P<resolution>\d+)\.txt(?:\.gz)?$")
_COLUMNS = ("filepath", "teff", "logg", "feh", "alpha_m", "carbon_m", "vmicro", "atmos", "bytes")
_CACHE_VERSION = 1


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """One model of the index: its file below the library's folder, size if known, parameters."""

    path: str
    size: int | None
    parameters: TemplateParameters


@dataclass(frozen=True, slots=True)
class LibraryReport:
    """What `check_library` found.

    Parameters
    ----------
    resolution : int
        Resolving power in the names.
    indexed, present : int
        Models in the index, and how many of them are there.
    missing, truncated, unlisted : tuple of str
        Files that are not there, whose size differs from the index, and that it does not list.
    """

    resolution: int
    indexed: int
    present: int
    missing: tuple[str, ...]
    truncated: tuple[str, ...]
    unlisted: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every model of the index is there, whole."""
        return self.indexed > 0 and not self.missing and not self.truncated


def parse_bosz_filename(name: str) -> TemplateParameters:
    """Read the parameters of a model from the name of its file.

    Raises
    ------
    ValueError
        If the name has another form.
    """
    match = _NAME.search(name)
    if match is None:
        raise ValueError(f"{name} is no name of a BOSZ model")
    keys = ("teff", "logg", "feh", "alpha_m", "carbon_m", "vmicro")
    numbers = {key: float(match[key]) for key in keys}
    return TemplateParameters(**numbers, atmos=match["atmos"])


def library_resolutions(folder: Path) -> tuple[int, ...]:
    """Return the resolving powers whose wavelength file is in a library."""
    found = (_WAVE.search(path.name) for path in sorted(folder.glob("*.txt*")))
    return tuple(sorted({int(match["resolution"]) for match in found if match}))


def write_index(folder: Path, resolution: int | None = None) -> Path:
    """List the models of a library in ``index_r<resolution>.csv``, with their sizes.

    Parameters
    ----------
    folder : Path
        The library.
    resolution : int, optional
        Resolving power; None: the only one there is.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    RecipeError
        If there is no model.
    """
    chosen = _choose_resolution(folder, resolution)
    models = _scan(folder, chosen)
    if not models:
        raise RecipeError(_empty(folder, chosen))
    return store_index(folder, chosen, models)


def store_index(folder: Path, resolution: int, models: Sequence[IndexedModel]) -> Path:
    """Write an index of these models, in place of the one there is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for model in models:
        p = model.parameters
        size = "" if model.size is None else model.size
        numbers = (p.teff, p.logg, p.feh, p.alpha_m, p.carbon_m, p.vmicro)
        writer.writerow([model.path, *(f"{n:g}" for n in numbers), p.atmos, size])
    path = index_path(folder, resolution)
    _replace(path, text.getvalue().encode())
    return path


def index_path(folder: Path, resolution: int) -> Path:
    """Where the index of a library lies."""
    return folder / f"index_r{resolution}.csv"


def read_index(folder: Path, resolution: int) -> tuple[IndexedModel, ...]:
    """Read the index; empty if there is none.

    Raises
    ------
    RecipeError
        If the file is no index.
    """
    path = index_path(folder, resolution)
    if not path.exists():
        return ()
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        return tuple(_row_model(row) for row in rows)
    except (KeyError, ValueError, TypeError) as error:
        raise RecipeError(
            f"{path.name} is no index of BOSZ models ({error}); make it anew with "
            "kspec templates index"
        ) from None


def check_library(folder: Path, resolution: int | None = None) -> LibraryReport:
    """Compare a library with its own index; without one, with what is there.

    Raises
    ------
    RecipeError
        If there is no library of that resolution in the folder.
    """
    chosen = _choose_resolution(folder, resolution)
    there = _scan(folder, chosen)
    indexed = read_index(folder, chosen) or there
    size = {model.path: model.size for model in there}
    missing = tuple(m.path for m in indexed if m.path not in size)
    truncated = tuple(
        m.path for m in indexed if m.path in size and m.size not in (None, size[m.path])
    )
    unlisted = tuple(sorted(set(size) - {model.path for model in indexed}))
    present = len(indexed) - len(missing)
    return LibraryReport(chosen, len(indexed), present, missing, truncated, unlisted)


class TemplateLibrary:
    """A library on disk: its index at once, its models when they are asked for.

    Parameters
    ----------
    folder : Path
        Folder of the library.
    resolution : int, optional
        Resolving power; None: the only one there is.

    Raises
    ------
    RecipeError
        If the folder holds no library of this resolution, none of its models, or not all models
        of its index.
    """

    def __init__(self, folder: Path, resolution: int | None = None) -> None:
        report = check_library(folder, resolution)
        _require_complete(folder, report)
        self.folder = folder
        self.resolution = report.resolution
        listed = read_index(folder, report.resolution)
        self.models = listed or _scan(folder, report.resolution)

    def __len__(self) -> int:
        """Count the models."""
        return len(self.models)

    def wavelength(self) -> FloatArray:
        """Vacuum wavelengths that all models share [Angstrom]."""
        wave = _numbers(_wave_path(self.folder, self.resolution)).ravel()
        if wave.size < 2 or not (np.diff(wave) > 0).all():
            raise RecipeError(f"the wavelengths of {self.folder.name} do not rise")
        return wave

    def query(
        self,
        teff_range: tuple[float, float] = (0.0, np.inf),
        logg_range: tuple[float, float] = (-np.inf, np.inf),
        feh_range: tuple[float, float] = (-np.inf, np.inf),
    ) -> tuple[IndexedModel, ...]:
        """Return the models in a box of parameters, limits included; no spectrum is read."""
        return tuple(
            model
            for model in self.models
            if teff_range[0] <= model.parameters.teff <= teff_range[1]
            and logg_range[0] <= model.parameters.logg <= logg_range[1]
            and feh_range[0] <= model.parameters.feh <= feh_range[1]
        )

    @property
    def grid_params(self) -> FloatArray:
        """Teff [K], log g, [M/H] and [alpha/M] of all models, shape (n, 4)."""
        rows = (model.parameters for model in self.models)
        return np.array([(row.teff, row.logg, row.feh, row.alpha_m) for row in rows])

    def nearest(self, teff: float, logg: float, feh: float, alpha_m: float = 0.0) -> IndexedModel:
        """Return the nearest model, in units of 250 K, 0.5, 0.25 and 0.25 dex."""
        steps = (self.grid_params - np.array([teff, logg, feh, alpha_m])) / (250.0, 0.5, 0.25, 0.25)
        return self.models[int(np.argmin((steps**2).sum(axis=1)))]

    def get_template(
        self, teff: float, logg: float, feh: float, alpha_m: float = 0.0
    ) -> StellarTemplate:
        """Read the nearest model, see `nearest` and `load`."""
        return self.load(self.nearest(teff, logg, feh, alpha_m))

    def load(self, model: IndexedModel) -> StellarTemplate:
        """Read one model over its full range.

        Raises
        ------
        RecipeError
            If the file is damaged or does not fit the wavelengths.
        """
        return self._load(model, self.wavelength())

    def grid(self, *, keep: bool = True) -> TemplateGrid:
        """Parse all models, or take those parsed before.

        Parameters
        ----------
        keep : bool
            Keep the parsed models in ``cache_r<resolution>.npz`` beside the index; if the folder
            cannot be written they live in memory only.

        Raises
        ------
        RecipeError
            If a model is damaged.
        """
        cached = self._read_cache()
        if cached is not None:
            return cached
        wave = self.wavelength()
        try:
            axes = grid_axes(wave)
        except ValueError as error:
            raise RecipeError(f"{self.folder.name}: {error}") from None
        rows = [summarise_template(self._load(m, wave), axes) for m in self.models]
        edges = (axes.coarse, axes.fine)
        if keep and os.access(self.folder, os.W_OK):
            self._write_cache(rows, edges)
        return self._assemble(rows, edges)

    def _load(self, model: IndexedModel, wave: FloatArray) -> StellarTemplate:
        table = _numbers(self.folder / model.path)
        if table.ndim != 2 or table.shape[0] != wave.size or table.shape[1] < 2:
            raise RecipeError(
                f"{model.path} has {table.shape[0]} rows, the library's wavelengths {wave.size}: "
                "the file is incomplete or of another resolution; delete it and fetch it again "
                "with kspec templates download"
            )
        surface = 4 * np.pi * table[:, -2:]
        flux, continuum = np.ascontiguousarray(surface.T)
        return StellarTemplate(wave, flux, continuum, model.parameters, float(self.resolution))

    def _assemble(
        self, rows: Sequence[TemplateSummary], edges: tuple[FloatArray, FloatArray]
    ) -> TemplateGrid:
        parameters = [model.parameters for model in self.models]
        return assemble_grid(parameters, rows, edges, float(self.resolution))

    def _signature(self) -> list[str]:
        """Tell apart libraries whose cache differs: the files with size and time, and our bands."""
        paths = [_wave_path(self.folder, self.resolution).name, *(m.path for m in self.models)]
        stats = [(path, (self.folder / path).stat()) for path in paths]
        files = [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]
        return [f"version {_CACHE_VERSION}", *BANDS, *files]

    @property
    def _cache_path(self) -> Path:
        return self.folder / f"cache_r{self.resolution}.npz"

    def _write_cache(
        self, rows: Sequence[TemplateSummary], edges: tuple[FloatArray, FloatArray]
    ) -> None:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            signature=np.array(self._signature()),
            coarse=edges[0],
            fine=edges[1],
            magnitude=np.array([row.magnitude for row in rows]),
            sed=np.array([row.sed for row in rows], np.float32),
            flux=np.array([row.flux for row in rows], np.float32),
            continuum=np.array([row.continuum for row in rows], np.float32),
        )
        _replace(self._cache_path, buffer.getvalue())

    def _read_cache(self) -> TemplateGrid | None:
        """Return the parsed models if they belong to the files that are there."""
        try:
            with np.load(self._cache_path, allow_pickle=False) as cache:
                if list(cache["signature"]) != self._signature():
                    return None
                edges = (cache["coarse"], cache["fine"])
                columns = [cache[n] for n in ("magnitude", "sed", "flux", "continuum")]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return self._assemble([TemplateSummary(*row) for row in zip(*columns, strict=True)], edges)


def _scan(folder: Path, resolution: int) -> tuple[IndexedModel, ...]:
    """Find the models of a resolution, by their names only."""
    models = []
    for path in sorted(folder.rglob(f"bosz*_r{resolution}*.txt*")):
        match = _NAME.search(path.name)
        if match and int(match["resolution"]) == resolution:
            name = path.relative_to(folder).as_posix()
            models.append(IndexedModel(name, path.stat().st_size, parse_bosz_filename(path.name)))
    return tuple(models)


def _choose_resolution(folder: Path, resolution: int | None) -> int:
    if not folder.is_dir():
        raise RecipeError(f"no folder {folder.name} of templates; is the path right?")
    there = library_resolutions(folder)
    if not there:
        raise RecipeError(
            f"{folder.name} holds no template library: no file bosz2024_wave_r<resolution>.txt; "
            "fetch one with kspec templates download"
        )
    if resolution is None and len(there) == 1:
        return there[0]
    if resolution is None:
        raise RecipeError(
            f"{folder.name} holds the resolutions {there}; name one with --resolution, where "
            "that is asked for, else keep each in a folder of its own"
        )
    if resolution not in there:
        raise RecipeError(
            f"{folder.name} holds templates of resolution {there}, not {resolution}; ask for one "
            "of these, or download the other"
        )
    return resolution


def _require_complete(folder: Path, report: LibraryReport) -> None:
    if report.indexed == 0:
        raise RecipeError(_empty(folder, report.resolution))
    if report.complete:
        return
    lost = (*report.missing, *report.truncated)
    raise RecipeError(
        f"{folder.name} is incomplete: of {report.indexed} models in its index "
        f"{len(report.missing)} are missing and {len(report.truncated)} have another size (first: "
        f"{Path(lost[0]).name}); finish it with kspec templates download, or accept what is there "
        "with kspec templates index"
    )


def _empty(folder: Path, resolution: int) -> str:
    return (
        f"{folder.name} holds no model of resolution {resolution}, only its wavelengths; fetch "
        "the models with kspec templates download"
    )


def _row_model(row: dict[str, str]) -> IndexedModel:
    path = row["filepath"]
    size = row.get("bytes") or None
    return IndexedModel(path, None if size is None else int(size), parse_bosz_filename(path))


def _wave_path(folder: Path, resolution: int) -> Path:
    matches = ((path, _WAVE.search(path.name)) for path in sorted(folder.glob("*.txt*")))
    return next(path for path, m in matches if m and int(m["resolution"]) == resolution)


def _numbers(path: Path) -> FloatArray:
    """Read columns of numbers from a text file, compressed or not."""
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return np.loadtxt(io.BytesIO(text), ndmin=1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RecipeError(
            f"{path.name} is damaged ({error}); delete it and fetch it again with kspec templates "
            "download"
        ) from None


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    Path(name).replace(path)
