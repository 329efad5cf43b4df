"""All options of flux calibration in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kspecpipe.fluxcal.colour import ColourOptions
from kspecpipe.fluxcal.combine import CombineOptions
from kspecpipe.fluxcal.lines import MatchOptions
from kspecpipe.fluxcal.response import ResponseOptions
from kspecpipe.regions import WavelengthRegion


@dataclass(frozen=True, slots=True)
class Limits:
    """When a star is no standard.

    Parameters
    ----------
    radius : float
        Largest distance of fibre and catalogue position [arcsec].
    snr : float
        Least median signal-to-noise ratio per pixel.
    bluer, redder : float
        How far beyond the library's colours a star may be [mag].
    temperatures : tuple of float
        Coolest and hottest star that serves, however far the library reaches [K].
    residual : float
        Largest relative rms of star against model beyond the noise.
    teff : float
        Largest difference of the temperatures from lines and from colours [K].
    line_strength : tuple of float
        Believable strength of the lines in units of the best model's, at four sigma.
    ebv : tuple of float
        Believable E(B-V) [mag]; more is believed if the catalogue's total extinction allows it.
    crowding : float
        Distance within which neighbours together may not reach the star's brightness [arcsec].
    """

    radius: float = 2.0
    snr: float = 2.0
    bluer: float = 0.05
    redder: float = 0.1
    temperatures: tuple[float, float] = (4900.0, 8600.0)
    residual: float = 0.06
    teff: float = 1200.0
    line_strength: tuple[float, float] = (0.4, 2.0)
    ebv: tuple[float, float] = (-0.15, 0.5)
    crowding: float = 2.0


@dataclass(frozen=True, slots=True)
class FluxcalOptions:
    """All options of `calibrate_fluxes`; the regions come from data files."""

    telluric: Sequence[WavelengthRegion] = ()
    stellar: Sequence[WavelengthRegion] = ()
    limits: Limits = field(default_factory=Limits)
    match: MatchOptions = field(default_factory=MatchOptions)
    colour: ColourOptions = field(default_factory=ColourOptions)
    response: ResponseOptions = field(default_factory=ResponseOptions)
    combine: CombineOptions = field(default_factory=CombineOptions)
