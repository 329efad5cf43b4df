"""Headers and names of LightField, the program that reads the ISOPLANE camera."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kspecpipe.simulate.fits_cards import CardValue, format_card
from kspecpipe.simulate.instruments import Instrument, Mode

#: Cards that no FITS reader can parse, as found in real files.
BROKEN_CARDS = (
    "HIERARCH PI CAMERA EXPERIMENT DEVICES NAME 'PIXIS: 1300BX",
    "CONTINUE  D:\\Data\\2026 January 29\\",
    "HIERARCH PI CAMERA EXPERIMENT READOUTCONTROL REGIONSOFINTEREST RESULT = '<Region x=",
    'CONTINUE  \'"0" width="1340" height="1300"',
    "HIERARCH = PI = '=",
    "HIERARCH PI SPECTROMETER FILTERWHEEL INSTALLED = [None]['",
    "CONTINUE",
)
_WORDS = ("FlippedHorizontally", "FlippedVertically")


@dataclass(frozen=True, slots=True)
class Shot:
    """What the camera's program knows of a frame.

    Parameters
    ----------
    start : datetime
        UTC.
    exptime : float
        In seconds.
    readout : tuple
        Port, speed [MHz], gain.
    number : int
        Running number in the night.
    """

    start: datetime
    exptime: float
    readout: tuple[str, float, str]
    number: int


def lightfield_cards(instrument: Instrument, mode: Mode, shot: Shot, *, broken: bool) -> list[str]:
    """Return the cards of a LightField header, about 150; none tells what the frame is."""
    facts = (
        _camera_facts(instrument, shot) | _grating_facts(mode) | _orientation(instrument.mirrored)
    )
    cards = [card for key, value in facts.items() for card in format_card(key, value)]
    if broken:
        cards[6:6] = [text[:80].ljust(80) for text in BROKEN_CARDS[:4]]
        cards += [text[:80].ljust(80) for text in BROKEN_CARDS[4:]]
    for number in range(1, 111):
        group = ("SENSOR TIMING", "EXPERIMENT ANALYSIS", "HARDWAREIO OUTPUT")[number % 3]
        cards += format_card(f"PI CAMERA {group} SETTING{number:03d}", (number * 7919) % 1000 / 10)
    return cards


def class_word(tag: str, lamps: tuple[str, ...]) -> str:
    """Return the first word of a file's name; a lamp that burns alone is named."""
    word = {"SKYFLAT": "SkyFlat", "LFLAT": "LFlat", "FLATOFF": "FlatOff"}.get(tag, tag.capitalize())
    return f"{''.join(lamps)}_{tag.lower()}" if lamps else word


def new_name(word: str, mode: Mode | None, shot: Shot, index: int) -> str:
    """Return a name with blanks, such as ``Flat_150_620_20s 2026 January 29 1.fits``."""
    day = f"{shot.start:%Y %B} {shot.start.day}"
    setting = f"_{mode.name}" if mode else ""
    if word.startswith("tile"):
        return f"{word}{setting} {day} {shot.start:%H_%M_%S} {index}.fits"
    seconds = f"_{shot.exptime:g}s" if shot.exptime else ""
    return f"{word}{setting}{seconds} {day} {index}.fits"


def old_name(word: str, mode: Mode | None, shot: Shot, index: int) -> str:
    """Return a name of the first nights, such as ``bias_00001.fits``."""
    if word.startswith("tile") and mode:
        return f"{word}_{mode.name}_{shot.start:%H%M%S}.fits"
    return f"{word.lower()}_{shot.number if mode else index:05d}.fits"


def _camera_facts(instrument: Instrument, shot: Shot) -> dict[str, CardValue]:
    port, speed, gain = shot.readout
    ny, nx = instrument.detector.raw_shape
    milliseconds = (
        f"{shot.exptime * 1000:g}" if shot.exptime < 1000 else f"{shot.exptime * 1000:.0f}"
    )
    return {
        "DATE-OBS": shot.start.isoformat(timespec="milliseconds"),
        "DATE": shot.start.isoformat(timespec="seconds"),
        "EXPTIME": milliseconds,
        "ORIGIN": "Princeton Instruments",
        "CREATOR": "LightField 6.17",
        "PI CAMERA SHUTTERTIMING EXPOSURETIME": milliseconds,
        "PI CAMERA SHUTTERTIMING MODE": "AlwaysClosed" if shot.exptime == 0 else "Normal",
        "PI CAMERA ADC SPEED": f"{speed:g}",
        "PI CAMERA ADC ANALOGGAIN": gain,
        "PI CAMERA ADC QUALITY": port,
        "PI CAMERA ADC BITDEPTH": 16,
        "PI CAMERA SENSOR INFORMATION SENSORNAME": "E2V 36-10 (CCD 36)(BX)(DD)",
        "PI CAMERA SENSOR INFORMATION PIXEL WIDTH": 20,
        "PI CAMERA SENSOR INFORMATION PIXEL HEIGHT": 20,
        "PI CAMERA SENSOR TEMPERATURE READING": -70.0,
        "PI CAMERA SENSOR TEMPERATURE SETPOINT": -70.0,
        "PI CAMERA SENSOR CLEANING CYCLECOUNT": 3,
        "PI CAMERA SENSOR CLEANING CYCLEHEIGHT": 1,
        "PI CAMERA SENSOR ACTIVEAREA WIDTH": nx,
        "PI CAMERA SENSOR ACTIVEAREA HEIGHT": ny,
        "PI CAMERA READOUT MODE": "FullFrame",
        "PI CAMERA EXPERIMENT FRAMESTOSTORE": 1,
        "PI CAMERA EXPERIMENT FILENAMEGENERATION ATTACHDATE": True,
        "PI CAMERA EXPERIMENT FILENAMEGENERATION DIRECTORY": "C:\\Users\\K-SPEC\\LightField",
        "PI CAMERA EXPERIMENT FRAMENUMBER": shot.number,
    }


def _grating_facts(mode: Mode) -> dict[str, CardValue]:
    centre = "619.988" if mode.name == "150_620" else f"{mode.centre / 10:.3f}"
    return {
        "PI SPECTROMETER GRATING SELECTED": f"[{mode.blaze}nm,{mode.lines}][2][0]",
        "PI SPECTROMETER GRATING CENTERWAVELENGTH": centre,
        "PI SPECTROMETER GRATING TYPE": "Ruled",
        "PI SPECTROMETER MODEL": "IsoPlane SCT-320",
        "PI SPECTROMETER SERIALNUMBER": "32012345",
        "PI SPECTROMETER OPTICALPORT ENTRANCE SIDE WIDTH": 100,
        "PI SPECTROMETER FOCALLENGTH NOMINAL": 320,
    }


def _orientation(mirrored: tuple[bool, bool]) -> dict[str, CardValue]:
    """Say it by two cards: a flip in both or in neither means that the frame is mirrored."""
    result = ", ".join(_WORDS)
    uncorrected = ", ".join(w for w, flip in zip(_WORDS, mirrored, strict=True) if flip) or "Normal"
    return {
        "PI ACQUISITION ORIENTATION LIGHTPATHORIENTATIONUNCORRECTED": uncorrected,
        "PI CAMERA EXPERIMENT ACQUISITION ORIENTATION RESULT": result,
    }
