"""Headers and names of an ordinary spectrograph that says what its frames are (K-SPEC)."""

from __future__ import annotations

from datetime import datetime

from kspecpipe.simulate.exposure import Observation
from kspecpipe.simulate.fits_cards import format_card
from kspecpipe.simulate.instruments import Mode


def standard_cards(seen: Observation, mode: Mode, target: str) -> list[str]:
    """Return the cards of a plain header."""
    facts = (
        ("DATE-OBS", seen.start.isoformat(timespec="milliseconds"), "UTC at start"),
        ("EXPTIME", float(seen.exptime), "[s]"),
        ("OBSTYPE", seen.tag, ""),
        ("OBJECT", target, ""),
        ("LAMPS", " ".join(seen.lamps) or "none", ""),
        ("INSTRUME", "KSPEC", ""),
        ("GRATING", mode.name, ""),
        ("LAMBDAC", mode.centre, "[Angstrom] nominal"),
        ("LAMBDAP", mode.step, "[Angstrom/pixel] nominal"),
        ("CCDTEMP", -110.0, "[deg C]"),
    )
    return [card for key, value, comment in facts for card in format_card(key, value, comment)]


def standard_name(start: datetime, number: int) -> str:
    """Return a running name, such as ``kspec_20260129_0007.fits``."""
    return f"kspec_{start:%Y%m%d}_{number:04d}.fits"
