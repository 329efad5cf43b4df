"""The instrument YAML that fits simulated frames: the nominal numbers of an observatory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kspecpipe.simulate.exposure import Dome
from kspecpipe.simulate.instruments import Amplifier, Instrument
from kspecpipe.simulate.sky_position import SITE

Facts = dict[str, Any]
_LIGHTFIELD_FLIPS = {
    "cards": [
        "PI ACQUISITION ORIENTATION LIGHTPATHORIENTATIONUNCORRECTED",
        "PI CAMERA EXPERIMENT ACQUISITION ORIENTATION RESULT",
    ],
    "rule": "even",
    "x": "FlippedHorizontally",
    "y": "FlippedVertically",
}
_TARGETS = {"0": "U", "1": "P", "2": "P", "3": "P", "8": "C", "9": "S", "default": "N"}


def write_description(folder: Path, dome: Dome) -> Path:
    """Write ``instrument.yaml`` for the frames of a dome."""
    path = folder / "instrument.yaml"
    text = yaml.safe_dump({"instrument": describe(dome.instrument)}, sort_keys=False, width=110)
    path.write_text(text)
    return path


def describe(instrument: Instrument) -> Facts:
    """Return the nominal facts of an instrument in the form of an instrument file."""
    own = _lightfield_facts() if instrument.writer == "lightfield" else _standard_facts()
    along_x, along_y = instrument.mirrored
    plain = {"x": along_x, "y": along_y}
    return own | {
        "name": instrument.name,
        "site": {"name": "Cerro Tololo", "longitude": SITE[0], "latitude": SITE[1], "height": 2207},
        "orientation": {
            "dispersion_axis": "y" if instrument.detector.transposed else "x",
            "flip": _LIGHTFIELD_FLIPS if instrument.writer == "lightfield" else plain,
        },
        "detector": _detector_facts(instrument),
        "fibres": _fibre_facts(instrument),
        "lamps": {
            "default": ["Hg", "Ar", "Ne", "Kr", "Cd"],
            "by_name": {"hgar": ["Hg", "Ar"], "ne": ["Ne"], "kr": ["Kr"], "cd": ["Cd"]},
            "line_list": "arc_lines.ecsv",
        },
        "assignment": {
            "file": "{target}.assign.txt",
            "columns": ["FIBRE_ID", "TARGET_X", "TARGET_Y", "RA", "DEC", "RANK", "CLASS"],
            "type": _TARGETS,
        },
    }


def _detector_facts(instrument: Instrument) -> Facts:
    detector = instrument.detector
    ny, nx = detector.raw_shape
    layout: Facts = {"amplifiers": [_amplifier_facts(a) for a in detector.amplifiers]}
    if detector.bad_rows:
        layout["bad"] = [[row, row + 1, 0, nx] for row in detector.bad_rows]
    return {
        "layouts": {f"{ny}x{nx}": layout},
        "saturation": 65535,
        "charge_transfer": "y",
        "prnu": detector.prnu,
    }


def _amplifier_facts(amplifier: Amplifier) -> Facts:
    facts: Facts = {"data": list(amplifier.data), "gain": amplifier.gain, "noise": amplifier.ron}
    if amplifier.overscan:
        facts["overscan"] = list(amplifier.overscan)
    return facts


def _fibre_facts(instrument: Instrument) -> Facts:
    """Return nominal rows, off by a few pixels as published numbers are."""
    slit = instrument.slit
    per_block = min(slit.per_block, slit.fibres)
    step = per_block * slit.pitch + slit.gap
    blocks = [
        {
            "first_row": round(slit.first_row + step * (first // per_block)),
            "pitch": slit.pitch,
            "count": min(per_block, slit.fibres - first),
        }
        for first in range(0, slit.fibres, per_block)
    ]
    last = blocks[-1]["first_row"] + blocks[-1]["count"] * slit.pitch
    facts: Facts = {"number": slit.fibres, "blocks": blocks, "id_order": "rising_y"}
    facts["tolerance"] = 12 if instrument.writer == "lightfield" else 6
    if instrument.ghost_band:
        facts["rows_without_light"] = [[round(last + 30), round(last + 130)]]
    return facts


def _lightfield_facts() -> Facts:
    camera = "PI CAMERA "
    grating = "PI SPECTROMETER GRATING "
    return {
        "recognise": {
            f"{camera}SENSOR INFORMATION SENSORNAME": "CCD ?36",
            f"{grating}SELECTED": ".+",
        },
        "keywords": {
            "date_obs": {"from": "DATE-OBS"},
            "exptime": {
                "from": [f"{camera}SHUTTERTIMING EXPOSURETIME", "EXPTIME"],
                "scale": 0.001,
                "unit": "s",
            },
            "adc_speed": {"from": f"{camera}ADC SPEED", "type": "float", "unit": "MHz"},
            "adc_gain": {"from": f"{camera}ADC ANALOGGAIN", "type": "str"},
            "adc_port": {"from": f"{camera}ADC QUALITY", "type": "str"},
            "lines": {"from": f"{grating}SELECTED", "match": r"\[\d+nm,(\d+)\]", "type": "int"},
            "centre": {"from": f"{grating}CENTERWAVELENGTH", "type": "float", "unit": "nm"},
        },
        "mode": "{lines:d}_{centre:.0f}",
        "readmode": "{adc_port}_{adc_speed}mhz_{adc_gain}",
        "classify": [
            {"tag": "BIAS", "file": "bias[ _].*"},
            {"tag": "DARK", "file": "dark[ _].*"},
            {"tag": "FLAT", "file": "(?:(?P<lamp>qth|d2)_)?flat[ _].*"},
            {"tag": "FLATOFF", "file": "flatoff[ _].*"},
            {"tag": "LFLAT", "file": "lflat[ _].*"},
            {"tag": "ARC", "file": "(?:(?P<lamp>hgar|ne|kr|cd)_)?arc[ _].*"},
            {"tag": "SKYFLAT", "file": "(?:sky|twilight)_?flat[ _].*"},
            {"tag": "OBJECT", "file": r"(?P<target>tile_\d+).*"},
        ],
        "wavelength": {
            "model": "grating",
            "focal_length": 320,
            "pixel": 0.02,
            "dispersion": 23.0,
            "dispersion_lines": 1200,
            "scale_range": [0.9, 1.1],
            "shift_range": 80,
        },
    }


def _standard_facts() -> Facts:
    kinds = ("BIAS", "DARK", "FLAT", "FLATOFF", "LFLAT", "SKYFLAT", "ARC", "OBJECT")
    return {
        "recognise": {"INSTRUME": "KSPEC"},
        "keywords": {
            "date_obs": {"from": "DATE-OBS"},
            "exptime": {"from": "EXPTIME", "unit": "s"},
            "target": {"from": "OBJECT", "optional": True},
            "grating": {"from": "GRATING", "type": "str"},
            "lambdac": {"from": "LAMBDAC", "type": "float", "unit": "Angstrom"},
            "lambdap": {"from": "LAMBDAP", "type": "float", "unit": "Angstrom/pixel"},
        },
        "mode": "{grating}",
        "readmode": "two_amplifiers",
        "classify": [{"tag": kind, "keywords": {"OBSTYPE": kind}} for kind in kinds],
        "wavelength": {
            "model": "linear",
            "centre": "lambdac",
            "step": "lambdap",
            "scale_range": [0.95, 1.05],
            "shift_range": 60,
        },
    }
