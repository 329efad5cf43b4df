"""Electrons that each fibre sends to each column, for every class of frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.simulate import sources
from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.bench import Bench
from kspecpipe.simulate.fibres import GALAXY, PARKED, STANDARD, STAR, Fibres
from kspecpipe.simulate.lamps import UNLISTED, lamp_lines
from kspecpipe.simulate.optics import Optics, Shift, blur_continuum, blur_lines, fine_columns
from kspecpipe.simulate.plan import LAMPS
from kspecpipe.simulate.standards import star_flux

#: Light-collecting area times peak efficiency [cm2].
_AREA = 4000.0
_FLAT_PEAK = 9.5e4
_ARC_LINE = 1.3e6
_SECOND_ORDER = 0.04


@dataclass(frozen=True, slots=True)
class Light:
    """Detected electrons, shape (nfib, nx), parted in sky and target (objects only)."""

    electron: FloatArray
    sky: FloatArray
    target: FloatArray


def flat_light(bench: Bench, shift: Shift, level: float, lamps: tuple[str, ...] = ()) -> FloatArray:
    """Return the electrons of a lamp flat: about 95 000 times ``level`` at its brightest."""
    optics = bench.optics
    lamp = sources.deuterium_lamp if lamps == ("D2",) else sources.flat_lamp
    spectrum = _continuum(optics, shift, lamp)
    peak = _continuum(optics, Shift(), lamp).max()
    return bench.through_fibres(spectrum * (_FLAT_PEAK * level / peak))


def arc_light(bench: Bench, shift: Shift, lamps: tuple[str, ...], level: float) -> FloatArray:
    """Return the electrons of an arc; the third brightest line of all lamps is just saturated."""
    optics, traps = bench.optics, bench.traps
    scale = level * _ARC_LINE / _third_brightest(bench)
    lines = np.array(
        [(w, s * bench.lamp_ratio[lamp]) for lamp in lamps for w, s in lamp_lines(lamp)]
    )
    if traps.second_order:
        blue = lines[lines[:, 0] < 4500.0]
        lines = np.concatenate([lines, blue * (2.0, _SECOND_ORDER)])
    if traps.unlisted_lines:
        lines = np.concatenate([lines, np.array(UNLISTED)])
    strength = np.broadcast_to(scale * lines[:, 1], (optics.n_fibres, len(lines)))
    spectrum = blur_lines(optics, lines[:, 0], strength, shift)
    if traps.arc_continuum:
        spectrum = spectrum + 0.12 * scale * _continuum(optics, shift, sources.arc_continuum)
    return bench.through_fibres(spectrum)


def object_light(bench: Bench, shift: Shift, exptime: float, airmass: float) -> Light:
    """Return the electrons of a science exposure."""
    optics, fibres = bench.optics, bench.fibres
    seconds = np.where(fibres.target_class == PARKED, 0.0, exptime)[:, None]
    wavelength, flux = sources.sky_line_flux(1.0)
    caught = sources.photons(wavelength, flux) * sources.response(wavelength) * _AREA
    lines = blur_lines(optics, wavelength, seconds * caught, shift)
    sky = lines + seconds * _continuum(optics, shift, sources.sky_continuum, _detected)
    target = _blur_targets(bench, shift, airmass) * seconds
    passed = bench.through_fibres(np.ones_like(sky))
    return Light(passed * (sky + target), passed * sky, passed * target)


def twilight_light(bench: Bench, shift: Shift, exptime: float) -> FloatArray:
    """Return the electrons of a twilight sky flat: every fibre sees the same sunlight."""
    spectrum = _continuum(bench.optics, shift, sources.daylight, _detected)
    return bench.through_fibres(spectrum * exptime)


def target_flux(fibres: Fibres, index: int, wavelength: FloatArray) -> FloatArray:
    """Return the true spectrum of one target above the air [erg/s/cm2/Angstrom]."""
    kind, flux = fibres.target_class[index], float(fibres.flux[index])
    if kind == GALAXY:
        redshift, emission = float(fibres.redshift[index]), float(fibres.emission[index])
        return sources.galaxy(wavelength, redshift, emission, flux)
    if index in fibres.stars:
        return star_flux(wavelength, fibres.stars[index])
    if kind in (STAR, STANDARD):
        return sources.star(wavelength, float(fibres.temperature[index]), flux)
    return np.zeros_like(wavelength)


def efficiency(wavelength: FloatArray) -> FloatArray:
    """Return electrons/s/Angstrom per erg/s/cm2/Angstrom above the air's extinction."""
    return _detected(wavelength, np.ones_like(wavelength))


def _detected(wavelength: FloatArray, flux: FloatArray) -> FloatArray:
    return sources.photons(wavelength, flux) * sources.response(wavelength) * _AREA


def _blur_targets(bench: Bench, shift: Shift, airmass: float) -> FloatArray:
    """Return electrons/s of all targets on the pixels, through the air."""
    optics = bench.optics
    fine = fine_columns(optics.n_columns)
    wavelength = optics.wavelength(fine, shift)
    spectrum = np.array([target_flux(bench.fibres, f, w) for f, w in enumerate(wavelength)])
    for index, star in bench.fibres.stars.items():
        spectrum[index] *= star.light
    spectrum = _detected(wavelength, spectrum) * sources.extinction(wavelength, airmass)
    if bench.traps.telluric:
        spectrum = spectrum * sources.telluric(wavelength, airmass)
    return blur_continuum(optics, spectrum * _sub_pixel_width(wavelength))


def _continuum(
    optics: Optics,
    shift: Shift,
    source: sources.Spectrum,
    detect: sources.Detection | None = None,
) -> FloatArray:
    """Return a source that all fibres see alike, on the pixels, shape (nfib, nx)."""
    wavelength = optics.wavelength(fine_columns(optics.n_columns), shift)
    spectrum = source(wavelength)
    if detect is not None:
        spectrum = detect(wavelength, spectrum)
    return blur_continuum(optics, spectrum * _sub_pixel_width(wavelength))


def _sub_pixel_width(wavelength: FloatArray) -> FloatArray:
    """Return the width of the sub-pixels [Angstrom]."""
    return np.asarray(np.gradient(wavelength, axis=1), dtype=float)


def _third_brightest(bench: Bench) -> float:
    """Return the strength of the third brightest line on the chip, of all lamps together."""
    optics = bench.optics
    ends = optics.wavelength(np.array([0.0, optics.n_columns - 1.0]), Shift())
    low, high = ends[:, 0].max(), ends[:, 1].min()
    seen = [s for lamp in LAMPS for w, s in lamp_lines(lamp) if low < w < high]
    return sorted(seen)[-3] if len(seen) > 2 else 100.0
