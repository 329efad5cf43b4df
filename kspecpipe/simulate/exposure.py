"""Take a frame: from what is observed to raw pixels and their truth, without writing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.bench import Bench, draw_bench, draw_shift
from kspecpipe.simulate.detector import Chip, RawImage, draw_chip, expose
from kspecpipe.simulate.fibres import STANDARD, draw_fibres, place_standards
from kspecpipe.simulate.instruments import Instrument, Mode, isoplane, kspec
from kspecpipe.simulate.light import arc_light, flat_light, object_light, twilight_light
from kspecpipe.simulate.optics import Shift
from kspecpipe.simulate.plan import LAMPS, NightPlan
from kspecpipe.simulate.scene import expected_image
from kspecpipe.simulate.sky_position import SITE, airmass, sidereal_time, sky_places

_EVENING = datetime(2026, 1, 29, 20, 0, 0)  # noqa: DTZ001 (headers carry UTC without a zone)
#: Exposure time [s] and hours after the evening of each class.
_SCHEDULE = {
    "BIAS": (0.0, 0.0),
    "LFLAT": (10.0, 0.6),
    "FLAT": (20.0, 1.0),
    "FLATOFF": (20.0, 1.5),
    "ARC": (240.0, 2.0),
    "SKYFLAT": (60.0, 3.2),
    "OBJECT": (2400.0, 5.0),
    "DARK": (2400.0, 13.0),
}
_READOUT_TIME = 25.0
_LAMP_DRIFT = 0.015


@dataclass(frozen=True, slots=True)
class Observation:
    """One raw file to be taken; ``index`` counts the files of its kind from 1.

    Parameters
    ----------
    tag : str
        Class of the frame, as in a SOF.
    mode : Mode or None
        None for biases and darks.
    index : int
        Running number within the class and mode.
    lamps : tuple of str
        Arc or flat lamps that are on.
    planes : int
        Frames in the file.
    hours : float
        Delay of this mode against the first.
    """

    tag: str
    mode: Mode | None
    index: int = 1
    lamps: tuple[str, ...] = ()
    planes: int = 1
    hours: float = 0.0

    @property
    def exptime(self) -> float:
        """Exposure time [s]."""
        return _SCHEDULE[self.tag][0]

    @property
    def start(self) -> datetime:
        """UTC at the start."""
        seconds = (self.index - 1) * (self.exptime + _READOUT_TIME)
        return _EVENING + timedelta(hours=_SCHEDULE[self.tag][1] + self.hours, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Dome:
    """The instrument of one night, with its accidents drawn."""

    plan: NightPlan
    instrument: Instrument
    chip: Chip
    benches: dict[str, Bench]
    pointing: tuple[float, float]

    def airmass(self, seen: Observation) -> float:
        """Return the airmass at mid-exposure; 1 under the dome."""
        if seen.tag != "OBJECT":
            return 1.0
        return airmass(seen.start + timedelta(seconds=seen.exptime / 2), *self.pointing)


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """Truth of one frame, normalised orientation.

    Parameters
    ----------
    trace : ndarray, shape (nfib, nx)
        Row of the profile's flux centroid [pixel].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength whose line centroid falls on the pixel's centre [Angstrom].
    electron : ndarray, shape (nfib, nx)
        Expected light of each fibre, without scattered light or pixel response [electron].
    sky, target : ndarray, shape (nfib, nx), or None
        The two parts of ``electron`` in a science exposure.
    """

    trace: FloatArray
    wavelength: FloatArray
    electron: FloatArray
    sky: FloatArray | None = None
    target: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Exposure:
    """A frame that was taken.

    Parameters
    ----------
    seen : Observation
        What it is.
    shift : Shift
        How far the image has moved.
    truth : FrameTruth or None
        None without fibre light (bias, dark, lamp off, long-slit flat).
    expected : ndarray, shape (ny, nx)
        Light before the detector [electron], normalised orientation.
    planes : tuple of RawImage
        Raw frames.
    """

    seen: Observation
    shift: Shift
    truth: FrameTruth | None
    expected: FloatArray
    planes: tuple[RawImage, ...]


def open_dome(plan: NightPlan, seed: int) -> Dome:
    """Draw instrument, fibres, detector and pointing of a night.

    Raises
    ------
    ValueError
        If the instrument has no such mode, or not these fibres.
    """
    rng = np.random.default_rng(seed)
    instrument = build_instrument(plan)
    _refuse_fibres(plan, instrument)
    modes = [find_mode(instrument, name) for name in plan.modes or tuple(instrument.modes)[:1]]
    fibres = draw_fibres(plan, instrument.slit.fibres, rng)
    benches = {mode.name: draw_bench(instrument, mode, fibres, plan.traps, rng) for mode in modes}
    middle = _EVENING + timedelta(hours=_SCHEDULE["OBJECT"][1] + 1.0)
    ra = (sidereal_time(middle) + rng.uniform(-10, 10)) % 360.0
    pointing = (ra, SITE[1] + rng.uniform(-25, 25))
    # The stars have a generator of their own: nights with other stars are the same otherwise.
    places = sky_places(pointing, fibres.position)
    fibres = place_standards(fibres, plan, places, np.random.default_rng([seed, STANDARD]))
    benches = {name: replace(bench, fibres=fibres) for name, bench in benches.items()}
    return Dome(
        plan, instrument, draw_chip(instrument.detector, plan.traps, rng), benches, pointing
    )


def build_instrument(plan: NightPlan) -> Instrument:
    """Return the instrument that a plan asks for."""
    small = plan.size == "small"
    if plan.instrument == "kspec":
        chosen = kspec(plan.n_fibres or 150, small=small)
    else:
        overscan = plan.layout == "1330x1340"
        chosen = isoplane(plan.n_fibres or 14, overscan=overscan, small=small, readout=plan.readout)
    return chosen if plan.mirrored is None else replace(chosen, mirrored=plan.mirrored)


def _refuse_fibres(plan: NightPlan, instrument: Instrument) -> None:
    """Refuse fibres beyond the chip, dead ones that do not exist, and a night without live ones."""
    slit, rows = instrument.slit, instrument.detector.shape[0]
    last = slit.first_row + slit.pitch * (slit.fibres - 1)
    last += slit.gap * ((slit.fibres - 1) // slit.per_block)
    if slit.first_row < slit.pitch or last > rows - slit.pitch:
        raise ValueError(
            f"{slit.fibres} fibres of {instrument.name} would reach from row {slit.first_row:.0f} "
            f"to row {last:.0f} of a chip of {rows}: take fewer fibres"
        )
    wrong = sorted(set(plan.dead or ()) - set(range(1, slit.fibres + 1)))
    if wrong:
        raise ValueError(
            f"there is no fibre {', '.join(map(str, wrong))} to be dead: FIBRE_IDs are 1 to "
            f"{slit.fibres}"
        )
    if len(set(plan.dead or ())) == slit.fibres:
        raise ValueError(f"all {slit.fibres} fibres would be dead: leave one alive")


def find_mode(instrument: Instrument, name: str) -> Mode:
    """Return a mode by name; ``ValueError`` names the known ones."""
    if name not in instrument.modes:
        known = ", ".join(instrument.modes)
        raise ValueError(f"{instrument.name} has no mode {name}; it has {known}")
    return instrument.modes[name]


def take_frame(plan: NightPlan, tag: str, seed: int = 1) -> Exposure:
    """Take a single frame of a night's first mode in memory.

    Parameters
    ----------
    plan : NightPlan
        Instrument and traps.
    tag : str
        Class of the frame.
    seed : int
        Equal seeds and plans give equal frames.

    Returns
    -------
    Exposure
        Raw frame, expected image and truth.
    """
    dome = open_dome(plan, seed)
    mode = None if tag in ("BIAS", "DARK") else next(iter(dome.benches.values())).optics.mode
    lamps = LAMPS if tag == "ARC" else ()
    return expose_observation(
        dome, Observation(tag, mode, lamps=lamps), np.random.default_rng(seed)
    )


def expose_observation(dome: Dome, seen: Observation, rng: np.random.Generator) -> Exposure:
    """Let light fall, expose and read out."""
    traps = dome.plan.traps
    shift, truth = Shift(), None
    light = np.zeros(dome.instrument.detector.shape)
    if seen.tag == "LFLAT":
        light = _long_slit(light.shape)
    elif seen.mode is not None and seen.tag != "FLATOFF":
        bench = dome.benches[seen.mode.name]
        shift = draw_shift(seen.tag, traps, rng)
        truth = _frame_truth(bench, seen, shift, dome.airmass(seen), rng)
        light = expected_image(bench.optics, truth.trace, truth.electron, traps)
    planes = [
        expose(light, seen.exptime, dome.chip, dome.instrument, traps, rng)
        for _ in range(seen.planes)
    ]
    return Exposure(seen, shift, truth, light, tuple(planes))


def _frame_truth(
    bench: Bench, seen: Observation, shift: Shift, air: float, rng: np.random.Generator
) -> FrameTruth:
    """Return traces, wavelengths and light of the fibres."""
    level = 1 + _LAMP_DRIFT * float(rng.uniform(-1, 1)) * bench.traps.lamp_drift
    optics = bench.optics
    trace = optics.trace(shift)
    wavelength = optics.wavelength(np.arange(optics.n_columns, dtype=float), shift)
    if seen.tag == "OBJECT":
        light = object_light(bench, shift, seen.exptime, air)
        return FrameTruth(trace, wavelength, light.electron, light.sky, light.target)
    if seen.tag == "ARC":
        return FrameTruth(trace, wavelength, arc_light(bench, shift, seen.lamps, level))
    if seen.tag == "SKYFLAT":
        return FrameTruth(trace, wavelength, twilight_light(bench, shift, seen.exptime))
    return FrameTruth(trace, wavelength, flat_light(bench, shift, level, seen.lamps))


def _long_slit(shape: tuple[int, int]) -> FloatArray:
    """Return an even illumination of the whole chip [electron]."""
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    return 32000.0 * (1 - 0.15 * x**2 - 0.10 * y**2)
