"""The spectrographs as numbers: slit, camera, modes, detector. A new one is a new `Instrument`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Mode:
    """One setting of the disperser.

    Parameters
    ----------
    name : str
        As in file names, for example ``150_620``.
    centre : float
        Central wavelength that the header claims [Angstrom].
    lines : int
        Grating lines per mm; 0: a nearly linear disperser of ``step`` Angstrom per pixel.
    blaze : int
        Blaze wavelength of the grating [nm].
    step : float
        Dispersion if there is no grating [Angstrom/pixel].
    """

    name: str
    centre: float
    lines: int = 0
    blaze: int = 500
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Slit:
    """Rows of the fibres, in normalised pixels at the middle column.

    ``first_row`` is fibre 1; blocks of ``per_block`` fibres are ``gap`` rows further apart than
    neighbours. ``tilt`` rows are lost from the first column to the last; ``curvature`` is the
    sagitta.
    """

    fibres: int = 14
    per_block: int = 1000
    first_row: float = 574.75
    pitch: float = 12.06
    gap: float = 0.0
    irregularity: float = 0.12
    tilt: float = 3.6
    curvature: float = 0.08
    profile_width: float = 1.0


@dataclass(frozen=True, slots=True)
class Camera:
    """Optics behind the slit: Czerny-Turner angles and the errors of the image.

    Parameters
    ----------
    focal_length, pixel : float
        In mm.
    half_angle : float
        Half of the fixed angle between collimator and camera [degree].
    distortion : float
        Largest displacement by the camera [pixel].
    line_shift, line_bow : float
        Shift of a line from the first fibre to the last, and its curvature [pixel].
    jitter : float
        Random displacement of each fibre along the dispersion [pixel].
    bend : float
        Largest departure of a linear disperser from linear [pixel].
    """

    focal_length: float = 320.6
    pixel: float = 0.02
    half_angle: float = 17.4
    distortion: float = 0.45
    line_shift: float = 2.7
    line_bow: float = 0.35
    jitter: float = 0.05
    bend: float = 6.0
    lsf_width: float = 1.0


@dataclass(frozen=True, slots=True)
class Amplifier:
    """One output: sections are ``(y0, y1, x0, x1)`` of the raw frame, half open."""

    data: tuple[int, int, int, int]
    gain: float
    ron: float
    level: float = 612.0
    overscan: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Detector:
    """The chip: ``shape`` is normalised and active; ``raw_shape`` includes overscan.

    ``transposed``: the dispersion runs along y in the raw frame; ``bad_rows`` are raw rows.
    """

    shape: tuple[int, int] = (1300, 1340)
    raw_shape: tuple[int, int] = (1300, 1340)
    origin: tuple[int, int] = (0, 0)
    amplifiers: tuple[Amplifier, ...] = ()
    bad_rows: tuple[int, ...] = ()
    transposed: bool = False
    prnu: float = 0.006
    dark: float = 0.0015
    glow: float = 0.03
    full_well: float = 95_000.0
    ray_rate: float = 0.23


@dataclass(frozen=True, slots=True)
class Instrument:
    """A spectrograph."""

    name: str
    slit: Slit
    camera: Camera
    detector: Detector
    modes: dict[str, Mode] = field(default_factory=dict)
    ghost_fibres: tuple[float, ...] = ()
    ghost_band: tuple[float, float] | None = None
    mirrored: tuple[bool, bool] = (True, True)
    writer: str = "lightfield"


#: Gain [electron/adu] and read noise [electron] of the measured PIXIS 1300BX read-out modes.
READOUT = {
    ("LowNoise", 2.0, "Low"): (4.09, 16.03),
    ("LowNoise", 2.0, "Medium"): (2.10, 15.88),
    ("LowNoise", 2.0, "High"): (1.12, 15.42),
    ("LowNoise", 0.1, "High"): (1.12, 4.48),
    ("HighCapacity", 2.0, "Low"): (15.37, 41.34),
    ("HighCapacity", 2.0, "Medium"): (7.73, 37.57),
    ("HighCapacity", 2.0, "High"): (3.74, 35.08),
}

_ISOPLANE_MODES = {
    name: Mode(name, centre, lines, blaze)
    for name, centre, lines, blaze in (
        ("150_620", 6200.0, 150, 500),
        ("300_490", 4900.0, 300, 500),
        ("600_430", 4300.0, 600, 500),
        ("600_450", 4500.0, 600, 500),
        ("600_680", 6800.0, 600, 750),
    )
}

_KSPEC_MODES = {"VIS": Mode("VIS", 6500.0, step=1.2)}


def isoplane(
    n_fibres: int = 14,
    *,
    overscan: bool = False,
    small: bool = False,
    readout: tuple[str, float, str] = ("LowNoise", 0.1, "High"),
) -> Instrument:
    """Return the IsoPlane SCT-320 with the PIXIS 1300BX; ``small`` is a corner of it for tests."""
    shape = (420, 500) if small else (1300, 1340)
    extra = 30 if overscan else 0
    first = 38.0 if small else 574.75
    gain, ron = READOUT[readout]
    raw_shape = (shape[0] + extra, shape[1])
    amplifier = Amplifier(
        data=(extra, raw_shape[0], 0, shape[1]),
        gain=gain,
        ron=ron,
        overscan=(0, extra, 0, shape[1]) if overscan else None,
    )
    return Instrument(
        name="ISOPLANE",
        slit=Slit(n_fibres, first_row=first - 6.03 * (n_fibres - 14)),
        camera=Camera(),
        detector=Detector(
            shape=shape,
            raw_shape=raw_shape,
            origin=(extra, 0),
            amplifiers=(amplifier,),
            bad_rows=(30,) if overscan else (),
            ray_rate=0.23 * shape[0] * shape[1] / 1_742_000,
        ),
        modes=_ISOPLANE_MODES,
        ghost_fibres=(-12.0, -24.0),
        ghost_band=(154.0, 50.0),
    )


def kspec(n_fibres: int = 150, *, small: bool = False) -> Instrument:
    """Return a plausible K-SPEC: 150 fibres in blocks of 15, two amplifiers, red at low raw y."""
    size = 512 if small else 2048
    half, strip = size // 2, 32
    slit = Slit(
        min(n_fibres, 45) if small else n_fibres,
        per_block=15,
        first_row=30.0 if small else 142.0,
        pitch=8.15,
        gap=24.0 if small else 61.0,
        irregularity=0.06,
        tilt=2.1,
        curvature=1.6 * size / 2048,
        profile_width=0.78,
    )
    raw_x = size + 2 * strip
    amplifiers = (
        Amplifier((0, size, strip, strip + half), 1.87, 3.6, 1013.0, (0, size, 0, strip)),
        Amplifier(
            (0, size, strip + half, strip + size), 1.71, 4.4, 1184.0, (0, size, strip + size, raw_x)
        ),
    )
    return Instrument(
        name="KSPEC",
        slit=slit,
        camera=Camera(pixel=0.015, line_shift=3.2, line_bow=2.0, lsf_width=0.8),
        detector=Detector(
            shape=(size, size),
            raw_shape=(size, raw_x),
            origin=(0, strip),
            amplifiers=amplifiers,
            transposed=True,
            glow=0.01,
            ray_rate=0.3 * (size / 2048) ** 2,
        ),
        modes=_KSPEC_MODES,
        mirrored=(True, False),
        writer="standard",
    )


def mirrored(instrument: Instrument, along_x: bool, along_y: bool) -> Instrument:
    """Return the instrument with its raw frames mirrored along the axes named."""
    return replace(instrument, mirrored=(along_x, along_y))
