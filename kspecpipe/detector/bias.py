"""The zero level of the detector: noise, structure, drift and light in bias frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kspecpipe.detector.planes import Planes, row_blocks
from kspecpipe.detector.robust import Moments, clipped_moments
from kspecpipe.detector.structure import Section, SmoothOptions, smooth_structure
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, Signal

#: Of a normal distribution, 98 % lie below this many standard deviations above the centre.
PERCENTILE_98 = 2.0537489106318225

EVERYWHERE: Section = (slice(None), slice(None))


@dataclass(frozen=True)
class ReadNoise:
    """Read noise of one frame, in the unit of the frames.

    Parameters
    ----------
    ron, error : float
        Typical noise of one pixel of one frame and its standard error.
    pairs : ndarray, shape (n - 1,)
        The same from each pair of successive frames.
    """

    ron: float
    error: float
    pairs: FloatArray


@dataclass(frozen=True)
class Structure:
    """Pattern of a master frame, in its unit.

    Parameters
    ----------
    level : float
        Typical value.
    rows, columns : ndarray, shapes (ny,) and (nx,)
        Level of each row and column minus the typical value.
    row_rms, column_rms : float
        Standard deviation of these levels beyond what noise explains.
    """

    level: float
    rows: FloatArray
    columns: FloatArray
    row_rms: float
    column_rms: float


@dataclass(frozen=True)
class Drift:
    """Level of each frame of a set.

    Parameters
    ----------
    levels, errors : ndarray, shape (n,)
        Typical value of each frame and its standard error.
    """

    levels: FloatArray
    errors: FloatArray

    @property
    def peak_to_peak(self) -> float:
        """Largest minus smallest level."""
        return float(np.ptp(self.levels))

    @property
    def slope(self) -> float:
        """Change of the level per frame, by least squares; 0 for a single frame."""
        if len(self.levels) < 2:
            return 0.0
        return float(np.polyfit(np.arange(len(self.levels)), self.levels, 1)[0])


@dataclass(frozen=True)
class LightLeak:
    """Bright side of a master frame's distribution.

    Parameters
    ----------
    percentile : float
        98th percentile minus median.
    expected : float
        The same of noise alone.
    """

    percentile: float
    expected: float

    @property
    def excess(self) -> float:
        """What noise does not explain; near 0 in the dark."""
        return self.percentile - self.expected


def read_noise(planes: Planes, *, section: Section = EVERYWHERE) -> ReadNoise:
    """Measure the read noise from the differences of successive frames.

    Structure common to the frames and their levels drop out; outliers (cosmic rays) are clipped.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Two or more frames of one readout mode.
    section : (slice, slice)
        Rows and columns to use, for example those of one amplifier.

    Returns
    -------
    ReadNoise
        In the unit of the frames.

    Raises
    ------
    RecipeError
        If there are fewer than two frames, or two of them are equal.
    """
    if planes.shape[0] < 2:
        raise RecipeError(
            f"{planes.shape[0]} frame found; read noise needs the difference of at least 2"
        )
    blocks = [clipped_moments(np.diff(block, axis=0)) for block in _section_blocks(planes, section)]
    count = np.stack([block.count for block in blocks]).sum(axis=0)
    squares = np.stack([(block.count - 1) * block.std**2 for block in blocks]).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = np.sqrt(squares / np.maximum(count - len(blocks), 1) / 2)
    equal = ~(pairs > 0)
    if equal.any():
        first = int(np.argmax(equal)) + 1
        raise RecipeError(
            f"frames {first} and {first + 1} have no noise between them (they are equal, saturated "
            "or empty); noise was expected. Is one a copy of the other?"
        )
    # Successive differences share frames: their mean is known less well than that of as many
    # independent ones.
    ron = float(np.sqrt(np.mean(pairs**2)))
    error = ron / np.sqrt(2 * count.sum()) * np.sqrt(1.5)
    return ReadNoise(ron, float(error), pairs)


def structure(master: Signal) -> Structure:
    """Measure the pattern of rows and columns of a master frame.

    Parameters
    ----------
    master : Signal, shape (ny, nx)
        Average of several frames; its variance tells how much of the pattern is noise.

    Returns
    -------
    Structure
        In the unit of the master.

    Raises
    ------
    RecipeError
        If no pixel is usable.
    """
    good = _usable(master)
    image = np.where(good, master.value, np.nan)
    level = float(clipped_moments(image.ravel()).mean)
    rows, columns = clipped_moments(image, axis=1), clipped_moments(image, axis=0)
    noise = float(clipped_moments(master.variance[good]).mean)
    return Structure(
        level,
        rows.mean - level,
        columns.mean - level,
        _rms_beyond_noise(rows, noise),
        _rms_beyond_noise(columns, noise),
    )


def level_drift(planes: Planes, *, section: Section = EVERYWHERE) -> Drift:
    """Measure the level of every frame of a set.

    Parameters
    ----------
    planes : Planes, shape (n, ny, nx)
        Frames in the order of their exposure.
    section : (slice, slice)
        Rows and columns to use.

    Returns
    -------
    Drift
        Levels in the unit of the frames; NaN for a frame without finite pixels.
    """
    n = planes.shape[0]
    total, count, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    for block in _section_blocks(planes, section):
        part = clipped_moments(block)
        total += np.where(part.count > 0, part.mean, 0) * part.count
        squares += np.where(part.count > 0, part.std, 0) ** 2 * part.count
        count += part.count
    with np.errstate(invalid="ignore", divide="ignore"):
        return Drift(total / count, np.sqrt(squares) / count)


def light_leak(master: Signal) -> LightLeak:
    """Compare the 98th percentile of a master frame with what its noise explains.

    Light adds a bright side to the distribution. So does structure, which is why the limit on the
    excess belongs to the instrument.

    Parameters
    ----------
    master : Signal, shape (ny, nx)
        Average of several bias frames, or of darks.

    Returns
    -------
    LightLeak
        In the unit of the master.

    Raises
    ------
    RecipeError
        If no pixel is usable.
    """
    good = _usable(master)
    median, bright = np.percentile(master.value[good], [50, 98])
    noise = np.sqrt(float(clipped_moments(master.variance[good]).mean))
    return LightLeak(float(bright - median), float(PERCENTILE_98 * noise))


def smooth_bias(master: Signal, options: SmoothOptions | None = None) -> Signal:
    """Smooth structure of a master bias plus the pixels that differ: see `smooth_structure`.

    Parameters
    ----------
    master : Signal, shape (ny, nx)
        Average of several bias frames [adu].
    options : SmoothOptions, optional
        Box size, significance, amplifiers.

    Returns
    -------
    Signal, shape (ny, nx)
        What to subtract from science [adu] with the variance that is left [adu²]; DQ as before.

    Raises
    ------
    RecipeError
        If no pixel is usable.
    """
    return smooth_structure(master, options)


def _section_blocks(planes: Planes, section: Section) -> Iterator[FloatArray]:
    """Yield the pixels of a section as arrays (n, m) of limited size."""
    wanted = np.zeros(planes.shape[1], bool)
    wanted[section[0]] = True
    if not wanted.any():
        raise ValueError(f"section {section} has none of the {planes.shape[1]} rows")
    for a, b in row_blocks(planes, copies=4):
        if wanted[a:b].any():
            block = planes.rows(a, b)[:, wanted[a:b], section[1]]
            yield block.reshape(len(block), -1)


def _rms_beyond_noise(levels: Moments, variance: float) -> float:
    """Scatter of row or column levels without that of the noise of a pixel's variance."""
    known = levels.count > 0
    spread = float(clipped_moments(levels.mean[known]).std) ** 2
    noise = variance * float(np.mean(1 / levels.count[known]))
    return float(np.sqrt(max(spread - noise, 0.0)))


def _usable(master: Signal) -> BoolArray:
    """Return where a master frame has a value, shape (ny, nx)."""
    if not master.good.any():
        raise RecipeError(f"none of the {master.value.size} pixels of the master frame is usable")
    return master.good
