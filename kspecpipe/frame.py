"""Raw frames as recipes see them: normalised, overscan-subtracted, read block by block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kspecpipe.configuration.instrument_schema import Amplifier, Layout, Section
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.detector.overscan import OverscanLevel, overscan_level
from kspecpipe.errors import SettingsError
from kspecpipe.signal import DQ, BoolArray, FloatArray

ReadSection = Callable[[Section], FloatArray]


@dataclass(frozen=True)
class FrameInfo:
    """What is known of a raw frame besides its pixels.

    Parameters
    ----------
    name : str
        File name, with the plane for cubes of several.
    tag : str or None
        What the instrument's rules say that it is; None when no rule matches.
    mode, readmode : str
        Instrument mode and read-out mode.
    date_obs : str
        UTC start, ISO.
    mjd : float
        The same as modified Julian date.
    exptime : float
        Exposure time [s].
    keywords : mapping
        All keywords of the instrument's keyword map, and groups of its classification.
    flips : tuple of bool
        Whether x and y are mirrored.
    md5 : str
        Checksum of keywords and data, for provenance.
    layout : str
        Raw shape ``nyxnx``.
    """

    name: str
    tag: str | None = None
    mode: str = ""
    readmode: str = ""
    date_obs: str = ""
    mjd: float = np.nan
    exptime: float = 0.0
    keywords: Mapping[str, Any] = field(default_factory=dict)
    flips: tuple[bool, bool] = (False, False)
    md5: str = ""
    layout: str = ""

    @property
    def mid_mjd(self) -> float:
        """Modified Julian date of mid-exposure."""
        return self.mjd + self.exptime / 2 / 86400.0


@dataclass(frozen=True)
class Orient:
    """The way from trimmed raw pixels to the normalised frame: transpose, then mirror."""

    transpose: bool
    flip_x: bool
    flip_y: bool

    def apply(self, image: FloatArray) -> FloatArray:
        """Turn a trimmed raw image into the normalised one."""
        turned = image.T if self.transpose else image
        return turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def raw_window(self, rows: tuple[int, int], shape: tuple[int, int]) -> Section:
        """Return the trimmed raw section that holds normalised rows of an image of ``shape``."""
        ny, nx = shape
        a, b = (ny - rows[1], ny - rows[0]) if self.flip_y else rows
        return (0, nx, a, b) if self.transpose else (a, b, 0, nx)


@dataclass(frozen=True)
class Geometry:
    """How the data sections of a raw frame tile the normalised frame."""

    amplifiers: tuple[Amplifier, ...]
    tiles: tuple[Section, ...]  # section of each amplifier in the trimmed image
    bad: tuple[Section, ...]
    orient: Orient

    @classmethod
    def of(cls, layout: Layout, orient: Orient, place: str = "detector layout") -> Geometry:
        """Place the data sections beside each other, without the gaps that overscan leaves.

        Raises
        ------
        SettingsError
            If the sections overlap or leave holes.
        """
        sections = [amplifier.data for amplifier in layout.amplifiers]
        y_tiles = _tile({(s[0], s[1]) for s in sections})
        x_tiles = _tile({(s[2], s[3]) for s in sections})
        tiles = tuple((*y_tiles[s[:2]], *x_tiles[s[2:]]) for s in sections)
        area = sum((t[1] - t[0]) * (t[3] - t[2]) for t in tiles)
        whole = max(t[1] for t in tiles) * max(t[3] for t in tiles)
        if area != whole or len(set(tiles)) != len(tiles):
            raise SettingsError(
                f"{place}: the data sections of the amplifiers overlap or leave holes: {sections}"
            )
        return cls(tuple(layout.amplifiers), tiles, tuple(layout.bad), orient)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of the normalised frame."""
        ny, nx = max(t[1] for t in self.tiles), max(t[3] for t in self.tiles)
        return (nx, ny) if self.orient.transpose else (ny, nx)

    @property
    def sections(self) -> tuple[tuple[slice, slice], ...]:
        """Section of each amplifier in the normalised frame; empty if there is only one."""
        if len(self.tiles) == 1:
            return ()
        ny, nx = self.shape
        sections = []
        for y0, y1, x0, x1 in self.tiles:
            rows, columns = ((x0, x1), (y0, y1)) if self.orient.transpose else ((y0, y1), (x0, x1))
            if self.orient.flip_y:
                rows = (ny - rows[1], ny - rows[0])
            if self.orient.flip_x:
                columns = (nx - columns[1], nx - columns[0])
            sections.append((slice(*rows), slice(*columns)))
        return tuple(sections)

    @property
    def bad_pixels(self) -> BoolArray:
        """True in the normalised frame where the layout says that pixels are never usable."""

        def read(section: Section) -> FloatArray:
            y0, y1, x0, x1 = section
            raw = np.zeros((y1 - y0, x1 - x0))
            for b0, b1, c0, c1 in self.bad:
                raw[max(b0 - y0, 0) : max(b1 - y0, 0), max(c0 - x0, 0) : max(c1 - x0, 0)] = 1
            return raw

        return self.assemble(read, (0, self.shape[0])) > 0

    def assemble(
        self,
        read: ReadSection,
        rows: tuple[int, int],
        levels: Sequence[OverscanLevel | None] | None = None,
    ) -> FloatArray:
        """Assemble normalised rows from raw sections.

        Parameters
        ----------
        read : callable
            Returns the pixels of a raw section [adu].
        rows : tuple of int
            First and last-plus-one normalised row.
        levels : sequence of OverscanLevel or None
            Overscan level of each amplifier, subtracted when given.
        """
        y0, y1, x0, x1 = self.orient.raw_window(rows, self.shape)
        trimmed = np.empty((y1 - y0, x1 - x0), dtype=np.float32)
        for i, (amplifier, tile) in enumerate(zip(self.amplifiers, self.tiles, strict=True)):
            a0, a1, b0, b1 = max(y0, tile[0]), min(y1, tile[1]), max(x0, tile[2]), min(x1, tile[3])
            if a0 >= a1 or b0 >= b1:
                continue
            dy, dx = amplifier.data[0] - tile[0], amplifier.data[2] - tile[2]
            section = (a0 + dy, a1 + dy, b0 + dx, b1 + dx)
            pixels = read(section)
            level = levels[i] if levels else None
            if level is not None:
                pixels = pixels - _level_in(level, amplifier, section)
            trimmed[a0 - y0 : a1 - y0, b0 - x0 : b1 - x0] = pixels
        return self.orient.apply(trimmed)

    def overscan(self, read: ReadSection) -> list[OverscanLevel | None]:
        """Measure the overscan level of every amplifier that has one."""
        return [
            overscan_level(read(a.overscan), axis=1 if _beside(a) else 0) if a.overscan else None
            for a in self.amplifiers
        ]

    def paint(self, values: Sequence[float]) -> float | FloatArray:
        """Spread one value per amplifier over the normalised frame; a scalar if all are equal."""
        return float(values[0]) if len(set(values)) == 1 else _painted(self, tuple(values))


@functools.lru_cache(maxsize=4)
def _painted(geometry: Geometry, values: tuple[float, ...]) -> FloatArray:
    """Paint the amplifiers once: the frames of a stack share what is as large as themselves."""
    ny, nx = geometry.shape
    shape = (nx, ny) if geometry.orient.transpose else (ny, nx)
    trimmed = np.empty(shape, dtype=np.float32)
    for value, (y0, y1, x0, x1) in zip(values, geometry.tiles, strict=True):
        trimmed[y0:y1, x0:x1] = value
    if np.all(trimmed == trimmed[0]):  # amplifiers side by side: one row holds all
        trimmed = np.broadcast_to(trimmed[0].copy(), shape)
    trimmed.flags.writeable = False
    return geometry.orient.apply(trimmed)


@dataclass(frozen=True)
class RawFrame:
    """One exposure whose pixels are read on demand.

    Parameters
    ----------
    info : FrameInfo
        What is known of it.
    geometry : Geometry
        The way to the normalised frame.
    readout : ReadOut
        Gain, noise, saturation.
    read : callable
        Returns the pixels of a raw section [adu].
    """

    info: FrameInfo
    geometry: Geometry
    readout: ReadOut
    read: ReadSection
    levels: tuple[OverscanLevel | None, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of the normalised frame."""
        return self.geometry.shape

    def rows(self, a: int, b: int) -> FloatArray:
        """Return normalised rows ``a`` to ``b`` [adu], overscan-subtracted."""
        return self.geometry.assemble(self.read, (a, b), self.levels)

    def unsaturated_rows(self, a: int, b: int) -> FloatArray:
        """Return the same rows with NaN where the raw value is saturated or no number."""
        block = self.rows(a, b)
        subtracted = any(level is not None for level in self.levels or ())
        raw = self.geometry.assemble(self.read, (a, b)) if subtracted else block
        usable = np.isfinite(raw) & (raw < np.float32(self.readout.saturation))
        return np.where(usable, block, np.float32(np.nan))

    @property
    def adu(self) -> FloatArray:
        """The whole normalised frame [adu], overscan-subtracted."""
        return self.rows(0, self.shape[0])

    @property
    def raw_adu(self) -> FloatArray:
        """The whole normalised frame [adu] with its overscan level, for the saturation test."""
        return self.geometry.assemble(self.read, (0, self.shape[0]))

    def with_overscan(self) -> RawFrame:
        """Return the frame with its overscan levels measured."""
        return replace(self, levels=tuple(self.geometry.overscan(self.read)))


@dataclass(frozen=True)
class UnsaturatedPlanes:
    """Frames [adu] with NaN where they are saturated, read block by block."""

    stack: FrameStack

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        return self.stack.shape

    def rows(self, a: int, b: int) -> FloatArray:
        """Return rows ``a`` to ``b`` of all frames [adu]."""
        return np.stack([frame.unsaturated_rows(a, b) for frame in self.stack.frames])


@dataclass(frozen=True)
class ElectronPlanes:
    """Frames in electrons, read block by block: (adu - bias) x gain; NaN where saturated.

    Parameters
    ----------
    stack : FrameStack
        Raw frames [adu].
    bias : ndarray of shape (ny, nx), optional
        Zero level [adu].
    """

    stack: FrameStack
    bias: FloatArray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        return self.stack.shape

    def rows(self, a: int, b: int) -> FloatArray:
        """Return rows ``a`` to ``b`` of all frames [electron]."""
        block = UnsaturatedPlanes(self.stack).rows(a, b)
        if self.bias is not None:
            block = block - self.bias[a:b].astype(np.float32)
        gain = np.asarray(self.stack.readout.gain, dtype=np.float32)
        return block * (gain[a:b] if gain.ndim else gain)


@dataclass(frozen=True)
class FrameStack:
    """Raw frames of one kind, in the order of the set-of-files list."""

    frames: tuple[RawFrame, ...]

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[FloatArray],
        readout: ReadOut,
        infos: Sequence[FrameInfo] | None = None,
    ) -> FrameStack:
        """Build a stack from normalised images in memory, for notebooks and tests."""
        infos = infos or [FrameInfo(name=f"array {i}") for i in range(len(images))]
        frames = []
        for image, info in zip(images, infos, strict=True):
            layout = Layout(amplifiers=[Amplifier(data=(0, image.shape[0], 0, image.shape[1]))])
            geometry = Geometry.of(layout, Orient(False, False, False))
            frames.append(RawFrame(info, geometry, readout, _section_reader(image)))
        return cls(tuple(frames))

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __iter__(self) -> Any:
        """Iterate over the frames."""
        return iter(self.frames)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, ny, nx."""
        return (len(self.frames), *self.frames[0].shape)

    @property
    def infos(self) -> list[FrameInfo]:
        """What is known of each frame."""
        return [frame.info for frame in self.frames]

    @property
    def keywords(self) -> list[Mapping[str, Any]]:
        """Keywords of each frame."""
        return [frame.info.keywords for frame in self.frames]

    @property
    def exptimes(self) -> FloatArray:
        """Exposure times [s]."""
        return np.array([frame.info.exptime for frame in self.frames])

    @property
    def readout(self) -> ReadOut:
        """Gain and noise, the same for all frames of a stack."""
        return self.frames[0].readout

    def rows(self, a: int, b: int) -> FloatArray:
        """Return rows ``a`` to ``b`` of all frames, shape (n, b - a, nx) [adu]."""
        return np.stack([frame.rows(a, b) for frame in self.frames])

    def select(self, keep: Sequence[int] | BoolArray) -> FrameStack:
        """Return the stack of some of the frames."""
        indices = np.arange(len(self.frames))[np.asarray(keep)]
        return FrameStack(tuple(self.frames[i] for i in indices))

    @property
    def amplifier_sections(self) -> tuple[tuple[slice, slice], ...]:
        """Sections of the normalised frame read by each amplifier; empty if there is only one."""
        return self.frames[0].geometry.sections

    @property
    def bad_pixels(self) -> Any:
        """DQ image of the pixels that the layout calls unusable."""
        bad = self.frames[0].geometry.bad_pixels
        return np.where(bad, np.uint16(DQ.BAD), np.uint16(0))


def _tile(intervals: set[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Lay intervals side by side in their order."""
    placed, start = {}, 0
    for a, b in sorted(intervals):
        placed[a, b] = (start, start + b - a)
        start += b - a
    return placed


def _beside(amplifier: Amplifier) -> bool:
    """Return whether the overscan spans the same columns as the data, above or below them."""
    data, overscan = amplifier.data, amplifier.overscan
    return overscan is not None and data[2:] == overscan[2:]


def _level_in(level: OverscanLevel, amplifier: Amplifier, section: Section) -> FloatArray:
    """Overscan level of the pixels of a section, along the axis on which it was measured."""
    overscan = amplifier.overscan or amplifier.data
    if _beside(amplifier):
        return level.at(np.arange(section[2], section[3], dtype=float) - overscan[2])[None, :]
    return level.at(np.arange(section[0], section[1], dtype=float) - overscan[0])[:, None]


def _section_reader(image: FloatArray) -> ReadSection:
    def read(section: Section) -> FloatArray:
        y0, y1, x0, x1 = section
        return np.asarray(image[y0:y1, x0:x1], dtype=np.float32)

    return read
