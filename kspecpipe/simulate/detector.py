"""The detector: pattern, dark current, particles, noise, amplifiers and the raw frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from kspecpipe.simulate.arrays import BoolArray, FloatArray, RawArray
from kspecpipe.simulate.instruments import Detector, Instrument
from kspecpipe.simulate.plan import Traps

SATURATION = 65535
_MASKED_RAY = 8.0
_TRACK_STEP = 0.25


@dataclass(frozen=True, slots=True)
class Chip:
    """Fixed pattern of one detector.

    Parameters
    ----------
    sensitivity : ndarray, shape (ny, nx)
        Response of the pixels, about 1, normalised orientation.
    dark : ndarray, shape (ny, nx)
        Dark current with hot pixels [electron/s].
    glow : ndarray, shape (ny, nx)
        Glow of the electronics at its usual strength [electron/s].
    bias : ndarray, shape of the raw frame
        Level [adu].
    hot, dead : ndarray of bool, shape (ny, nx)
        Pixels to be found by a reduction.
    """

    sensitivity: FloatArray
    dark: FloatArray
    glow: FloatArray
    bias: FloatArray
    hot: BoolArray
    dead: BoolArray


@dataclass(frozen=True, slots=True)
class RawImage:
    """One raw plane [adu] and what hides in it (normalised orientation, active pixels)."""

    data: RawArray
    cosmic: BoolArray
    saturated: BoolArray


def draw_chip(detector: Detector, traps: Traps, rng: np.random.Generator) -> Chip:
    """Draw the fixed pattern of a detector."""
    shape = detector.shape
    sensitivity = np.ones(shape)
    if traps.detector_structure:
        sensitivity += detector.prnu * rng.standard_normal(shape)
    dark = np.full(shape, detector.dark if traps.dark_glow else 0.0)
    hot, dead = np.zeros(shape, bool), np.zeros(shape, bool)
    if traps.bad_pixels:
        hot = _scatter_pixels(shape, 1.6e-4, rng)
        dark[hot] += 10 ** rng.uniform(-0.7, 1.3, int(hot.sum()))
        dead = _scatter_pixels(shape, 4e-5, rng)
        column = int(rng.integers(shape[1] // 8, shape[1] // 3))
        dead[int(0.45 * shape[0]) :, column] = True
        sensitivity[dead] *= rng.uniform(0.0, 0.4, int(dead.sum()))
    glow = _glow(shape) * detector.glow * traps.dark_glow
    return Chip(sensitivity, dark, glow, _bias_pattern(detector, traps, rng), hot, dead)


def expose(
    light: FloatArray,
    exptime: float,
    chip: Chip,
    instrument: Instrument,
    traps: Traps,
    rng: np.random.Generator,
) -> RawImage:
    """Take one frame.

    Parameters
    ----------
    light : ndarray, shape (ny, nx)
        Expected electrons of the scene, normalised orientation.
    exptime : float
        Exposure time [s]; it sets dark current, glow and particles.
    chip : Chip
        Fixed pattern.
    instrument : Instrument
        Orientation and amplifiers.
    traps : Traps
        What is switched on.
    rng : Generator
        Source of noise.

    Returns
    -------
    RawImage
        Raw frame and masks.
    """
    strength = rng.uniform(0.6, 1.5)
    electron = light * chip.sensitivity + exptime * (chip.dark + strength * chip.glow)
    if traps.noise:
        electron = rng.poisson(np.clip(electron, 0, None)).astype(float)
    rays = np.zeros(light.shape)
    if traps.cosmic_rays and exptime > 0:
        rays = cosmic_rays(light.shape, instrument.detector.ray_rate * exptime, rng)
    full = instrument.detector.full_well
    raw = orient(electron + rays, instrument)
    if traps.saturation:
        raw = bleed(raw, full)
    data = digitise(raw, chip.bias, instrument.detector, traps, rng)
    over = restore(data >= SATURATION, instrument)
    return RawImage(data, rays > _MASKED_RAY, over)


def orient(image: FloatArray, instrument: Instrument) -> FloatArray:
    """Turn a normalised image into the raw orientation (active pixels)."""
    along_x, along_y = instrument.mirrored
    turned = image[:: -1 if along_y else 1, :: -1 if along_x else 1]
    return turned.T if instrument.detector.transposed else turned


def restore(raw: BoolArray, instrument: Instrument) -> BoolArray:
    """Cut the active pixels out of a raw frame and turn them into the normalised orientation."""
    detector = instrument.detector
    y, x = detector.origin
    ny, nx = detector.shape[::-1] if detector.transposed else detector.shape
    active = raw[y : y + ny, x : x + nx]
    active = active.T if detector.transposed else active
    along_x, along_y = instrument.mirrored
    return active[:: -1 if along_y else 1, :: -1 if along_x else 1]


def bleed(electron: FloatArray, full_well: float) -> FloatArray:
    """Let charge above the full well spill to the neighbours along raw y."""
    excess = np.clip(electron - full_well, 0, None)
    if not excess.any():
        return electron
    spilled = electron - excess
    for distance, share in enumerate((0.26, 0.13, 0.06, 0.03, 0.015), start=1):
        spilled[distance:] += share * excess[:-distance]
        spilled[:-distance] += share * excess[distance:]
    return np.minimum(spilled, full_well)


def digitise(
    electron: FloatArray,
    bias: FloatArray,
    detector: Detector,
    traps: Traps,
    rng: np.random.Generator,
) -> RawArray:
    """Read active pixels (raw orientation) through the amplifiers into a raw frame [adu]."""
    y, x = detector.origin
    charge = np.zeros(detector.raw_shape)
    charge[y : y + electron.shape[0], x : x + electron.shape[1]] = electron
    frame = bias.copy()
    noise = rng.standard_normal(detector.raw_shape, dtype=np.float32) * traps.noise
    for amplifier in detector.amplifiers:
        drift = rng.normal(0, 1.5) * traps.detector_structure
        for section in (amplifier.data, amplifier.overscan):
            if section is not None:
                part = np.s_[section[0] : section[1], section[2] : section[3]]
                frame[part] += (charge[part] + amplifier.ron * noise[part]) / amplifier.gain + drift
    if traps.bad_pixels:
        frame[list(detector.bad_rows)] = 0.6 * bias[list(detector.bad_rows)]
    return np.clip(np.rint(frame), 0, SATURATION).astype(np.uint16)


def cosmic_rays(shape: tuple[int, int], expected: float, rng: np.random.Generator) -> FloatArray:
    """Return the electrons of particle tracks, a few pixels long, at any angle."""
    count = int(rng.poisson(expected))
    length = np.minimum(rng.exponential(4.0, count), 60.0)
    angle = rng.uniform(0, np.pi, count)
    charge = 400.0 * rng.lognormal(0, 0.9, count)
    start = rng.uniform(0, 1, (2, count)) * np.array(shape)[:, None]
    steps = np.ceil((length + 0.5) / _TRACK_STEP).astype(int)
    track = np.repeat(np.arange(count), steps)
    along = (np.arange(track.size) - np.repeat(np.cumsum(steps) - steps, steps)) * _TRACK_STEP
    blur = rng.normal(0, 0.25, (2, track.size))
    row = np.floor(start[0, track] + along * np.sin(angle[track]) + blur[0]).astype(int)
    column = np.floor(start[1, track] + along * np.cos(angle[track]) + blur[1]).astype(int)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    image = np.zeros(shape)
    np.add.at(image, (row[inside], column[inside]), (charge[track] * _TRACK_STEP)[inside])
    return image


def _bias_pattern(detector: Detector, traps: Traps, rng: np.random.Generator) -> FloatArray:
    """Return level, columns and rows of the bias [adu], raw shape."""
    ny, nx = detector.raw_shape
    bias = np.zeros((ny, nx))
    for amplifier in detector.amplifiers:
        for section in (amplifier.data, amplifier.overscan):
            if section is not None:
                bias[section[0] : section[1], section[2] : section[3]] = amplifier.level
    if traps.detector_structure:
        columns = 0.6 * rng.standard_normal(nx) + 25 * gaussian_filter1d(
            rng.standard_normal(nx), 90
        )
        rows = 2.5 * np.exp(-np.arange(ny) / (0.04 * ny)) + 0.3 * rng.standard_normal(ny)
        bias += columns + rows[:, None]
    return bias


def _glow(shape: tuple[int, int]) -> FloatArray:
    """Return the glow's shape: a corner and an edge, 1 at the corner."""
    y = np.arange(shape[0])[:, None] / shape[0]
    x = np.arange(shape[1]) / shape[1]
    corner = np.exp(-np.hypot(1 - x, 0.9 * y) / 0.22)
    edge = np.exp(-(1 - y) / 0.10) * (0.6 + 0.4 * x)
    return 0.85 * corner + 0.35 * edge


def _scatter_pixels(shape: tuple[int, int], share: float, rng: np.random.Generator) -> BoolArray:
    """Return a mask of a random share of the pixels."""
    mask = np.zeros(shape, bool)
    count = max(3, round(share * mask.size))
    mask.ravel()[rng.choice(mask.size, count, replace=False)] = True
    return mask
