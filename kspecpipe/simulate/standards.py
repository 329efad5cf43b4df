"""Standard stars with known truth: model atmospheres, a template library, a catalogue.

The atmospheres are grey in temperature and crude in opacity, but they have what flux calibration
lives on: continua with Balmer and Paschen jumps, hydrogen lines that grow with temperature, blends
of metal lines that grow towards the blue, with metallicity and towards cool stars.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import speclite.filters

from kspecpipe.simulate.arrays import FloatArray

_LIGHT = 299792.458
_AB = {"BP": 0.0585, "RP": 0.3767, "Gaia": 0.1219, "J": 0.9081, "H": 1.3879, "K": 1.8602}
#: Column of Refcat2, filter of speclite, error [mag].
_BANDS = (
    ("Gaia", "gaiadr2-G", 0.004),
    ("BP", "gaiadr2-BP", 0.004),
    ("RP", "gaiadr2-RP", 0.004),
    ("g", "panstarrs-g", 0.01),
    ("r", "panstarrs-r", 0.01),
    ("i", "panstarrs-i", 0.01),
    ("z", "panstarrs-z", 0.01),
    ("J", "twomass-J", 0.022),
    ("H", "twomass-H", 0.022),
    ("K", "twomass-Ks", 0.022),
)
_HEADER = (
    "dstDegrees,objid,RA,Dec,plx,dplx,pmra,dpmra,pmdec,dpmdec,Gaia,dGaia,BP,dBP,RP,dRP,Teff,AGaia,"
    "dupvar,Ag,rp1,r1,r10,g,dg,gchi,gcontrib,r,dr,rchi,rcontrib,i,di,ichi,icontrib,z,dz,zchi,"
    "zcontrib,nstat,J,dJ,H,dH,K,dK"
)
#: Metal lines: air wavelength [Angstrom], strength at solar composition and 5800 K, width [A].
_METALS = (
    (3933.7, 9.0, 7.0),
    (3968.5, 8.0, 6.5),
    (4226.7, 1.6, 1.5),
    (4300.0, 0.55, 9.0),
    (4310.0, 0.55, 7.0),
    (5167.3, 1.4, 1.2),
    (5172.7, 1.8, 1.6),
    (5183.6, 2.0, 1.8),
    (5890.0, 1.5, 1.0),
    (5895.9, 1.3, 1.0),
    (8498.0, 1.0, 1.8),
    (8542.1, 2.2, 3.0),
    (8662.1, 1.8, 2.6),
)
_BLENDS = 2600


@dataclass(frozen=True, slots=True)
class StandardStar:
    """A simulated star.

    Parameters
    ----------
    teff, logg, feh : float
        Atmosphere [K, cgs, dex].
    gaia : float
        Gaia G magnitude (Vega).
    ra, dec : float
        At epoch 2015.5 [degree].
    ebv : float
        Reddening [mag], after Cardelli, Clayton & Mathis 1989.
    velocity : float
        Radial velocity [km/s].
    pmra, pmdec : float
        Proper motion [mas/yr].
    parallax : float
        [mas].
    variable : bool
        Whether the catalogue calls it so.
    missing : tuple of str
        Columns of magnitudes without a measurement.
    """

    teff: float
    logg: float
    feh: float
    gaia: float
    ra: float = 0.0
    dec: float = 0.0
    ebv: float = 0.0
    velocity: float = 0.0
    pmra: float = 0.0
    pmdec: float = 0.0
    parallax: float = 1.0
    variable: bool = False
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LibraryPlan:
    """Models of a library: grid of parameters, resolving power and range [Angstrom]."""

    teff: tuple[float, ...] = (5000.0, 5500.0, 6000.0, 6500.0, 7000.0, 7500.0)
    logg: tuple[float, ...] = (3.5, 4.5)
    feh: tuple[float, ...] = (-1.0, -0.5, 0.0)
    resolution: int = 2000
    wave_range: tuple[float, float] = (1500.0, 32000.0)


def write_template_library(folder: Path, plan: LibraryPlan | None = None) -> tuple[Path, ...]:
    """Write a library in the layout and the file format of BOSZ 2024.

    Parameters
    ----------
    folder : Path
        Folder of the library.
    plan : LibraryPlan, optional
        Which models.

    Returns
    -------
    tuple of Path
        Files of the models.
    """
    chosen = plan or LibraryPlan()
    tag = f"r{chosen.resolution}"
    span = np.log(chosen.wave_range[1] / chosen.wave_range[0])
    count = int(span * 2 * chosen.resolution) + 1
    wavelength = chosen.wave_range[0] * np.exp(np.arange(count) / (2.0 * chosen.resolution))
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{w:.6f}" for w in wavelength)
    (folder / f"bosz2024_wave_{tag}.txt").write_text(lines + "\n")
    paths = []
    for feh in chosen.feh:
        metals = folder / tag / f"m{feh:+.2f}"
        metals.mkdir(parents=True, exist_ok=True)
        for teff in chosen.teff:
            for logg in chosen.logg:
                code = "mp" if teff < 7500 else "ap"
                name = (
                    f"bosz2024_{code}_t{teff:.0f}_g{logg:+.1f}_m{feh:+.2f}_a+0.00_c+0.00_v1_{tag}"
                    "_resam.txt.gz"
                )
                model = eddington_flux(wavelength, (teff, logg, feh), chosen.resolution)
                _write_model(metals / name, *model)
                paths.append(metals / name)
    return tuple(paths)


def eddington_flux(
    vacuum: FloatArray, atmosphere: tuple[float, float, float], resolution: float = 2000.0
) -> tuple[FloatArray, FloatArray]:
    """Return Eddington flux H and continuum of an atmosphere (teff, logg, feh).

    Parameters
    ----------
    vacuum : ndarray
        Vacuum wavelength [Angstrom].
    atmosphere : tuple of float
        Effective temperature [K], log gravity [cgs], metallicity [dex].
    resolution : float
        Resolving power to which lines are broadened.

    Returns
    -------
    flux, continuum : ndarray
        [erg/s/cm2/Angstrom/sr].
    """
    teff, logg, _ = atmosphere
    depth = (2.0 / 3.0) / _opacity(vacuum, teff, logg)
    temperature = teff * (0.75 * (depth + 2.0 / 3.0)) ** 0.25
    continuum = 0.25 * _planck(vacuum, temperature)
    optical = _line_depth(vacuum, atmosphere, resolution)
    # Lines form where the atmosphere is coolest; the floor is that of its surface.
    surface = 0.25 * _planck(vacuum, np.full(vacuum.shape, 0.8 * teff))
    dark = np.minimum(0.9, surface / continuum * 0.55)
    flux = continuum * (dark + (1 - dark) * np.exp(-optical))
    return flux, continuum


def standard_star(teff: float, flux: float, place: tuple[float, float]) -> StandardStar:
    """Return a metal-poor dwarf at a place (ra, dec) with this flux near 6000 Angstrom."""
    star = StandardStar(teff, 4.3, -0.5, 15.0, *place)
    level = float(star_flux(np.linspace(5950.0, 6050.0, 400), star).mean())
    return replace(star, gaia=15.0 - 2.5 * float(np.log10(flux / level)))


def star_flux(air: FloatArray, star: StandardStar, resolution: float = 2000.0) -> FloatArray:
    """Return a star's spectrum above the air [erg/s/cm2/Angstrom] at air wavelengths [Angstrom]."""
    return _apparent(_to_vacuum(air), star, resolution) * _brightness(star)


@lru_cache(maxsize=512)
def catalogue_magnitudes(star: StandardStar) -> dict[str, float]:
    """Return the true magnitudes of a star as Refcat2 gives them: Vega for Gaia and 2MASS, AB."""
    dimming = -2.5 * float(np.log10(_brightness(star)))
    return {
        column: magnitude + dimming - _AB.get(column, 0.0)
        for column, magnitude in _surface_magnitudes(star).items()
    }


def write_catalogue(
    path: Path, stars: Sequence[StandardStar], rng: np.random.Generator | None = None
) -> Path:
    """Write the stars as ATLAS Refcat2 CSV; with a generator, magnitudes have their errors."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    text.write(_HEADER + "\n")
    for number, star in enumerate(stars):
        row = _catalogue_row(number, star, rng)
        writer.writerow([row.get(name, 0) for name in _HEADER.split(",")])
    path.write_text(text.getvalue())
    return path


def _catalogue_row(
    number: int, star: StandardStar, rng: np.random.Generator | None
) -> dict[str, str]:
    row = {
        "objid": f"{4000000000 + number}",
        "RA": f"{star.ra:.8f}",
        "Dec": f"{star.dec:.8f}",
        "plx": f"{star.parallax:.3f}",
        "dplx": "0.03",
        "pmra": f"{star.pmra:.2f}",
        "pmdec": f"{star.pmdec:.2f}",
        "Teff": f"{star.teff:.0f}",
        "dupvar": "1" if star.variable else "0",
        "rp1": "99.9",
        "r1": "99.9",
        "r10": "99.9",
    }
    true = catalogue_magnitudes(star)
    for column, _, error in _BANDS:
        noise = 0.0 if rng is None else float(rng.normal(0, error))
        lost = column in star.missing
        row[column] = "99.999" if lost else f"{true[column] + noise:.4f}"
        row[f"d{column}"] = "9.999" if lost else f"{error:.4f}"
    return row


def _write_model(path: Path, flux: FloatArray, continuum: FloatArray) -> None:
    lines = "\n".join(f"{f:.5E} {c:.5E}" for f, c in zip(flux, continuum, strict=True))
    # No time stamp: equal plans give equal files.
    path.write_bytes(gzip.compress((lines + "\n").encode(), compresslevel=4, mtime=0))


def _planck(wavelength: FloatArray, temperature: FloatArray) -> FloatArray:
    """Return B of a black body per Angstrom [erg/s/cm2/A/sr]."""
    radiation: FloatArray = 1.191043e27 / wavelength**5
    return radiation / np.expm1(1.438777e8 / (wavelength * temperature))


def _opacity(wavelength: FloatArray, teff: float, logg: float) -> FloatArray:
    """Return the continuous opacity relative to its mean: negative ion and hydrogen."""
    u = np.log(wavelength / 8500.0)
    bound = np.where(wavelength < 16400.0, np.exp(-0.5 * (u / np.where(u < 0, 0.75, 0.42)) ** 2), 0)
    ion = (bound + 0.35 * (wavelength / 16400.0) ** 2) / 0.8
    hydrogen = 0.25 * np.exp((teff - 7500.0) / 650.0) * 10 ** (-0.3 * (logg - 4.0))
    edges = np.zeros_like(wavelength)
    for edge, weight in ((3646.0, 6.0), (8204.0, 1.0), (14580.0, 0.35)):
        below = 1 / (1 + np.exp(np.clip((wavelength - edge) / 8.0, -50, 50)))
        edges += weight * (wavelength / edge) ** 3 * below
    opacity: FloatArray = 0.15 + ion + hydrogen * edges
    return opacity


def _line_depth(
    vacuum: FloatArray, atmosphere: tuple[float, float, float], resolution: float
) -> FloatArray:
    """Return the optical depth of hydrogen and metal lines."""
    teff, logg, feh = atmosphere
    depth = np.zeros_like(vacuum)
    power = 1.9 * np.exp((teff - 6000.0) / 1900.0)
    for series, edge, weight in ((2, 3645.07, 1.0), (3, 8201.4, 0.12)):
        for upper in range(series + 1, series + 17):
            centre = edge / (1 - (series / upper) ** 2) * 1.00028
            strength = weight * power * (3.0 / (upper - series + 2)) ** 0.7
            wing = 2.2 * 10 ** (0.12 * (logg - 4)) * centre / 4861.0
            _add(depth, vacuum, (centre, strength, wing, 2.4), resolution)
    metals = 10 ** (0.55 * feh) * (5800.0 / teff) ** 5
    wave, strength, width = _metal_lines().T
    for line in zip(_to_vacuum(wave), strength * metals, width, strict=True):
        _add(depth, vacuum, (*line, 3.0), resolution)
    return depth


def _add(
    depth: FloatArray, vacuum: FloatArray, line: tuple[float, float, float, float], r: float
) -> None:
    """Add one line (centre, strength, width, slope of the wings) in place."""
    centre, strength, width, slope = line
    broad = np.hypot(width, centre / r / 2.0)
    reach = 40 * broad
    part = slice(*np.searchsorted(vacuum, [centre - reach, centre + reach]))
    u = np.abs(vacuum[part] - centre) / broad
    depth[part] += strength * width / broad / (1 + u**slope)


@lru_cache(maxsize=1)
def _metal_lines() -> FloatArray:
    """Return strong lines and random blends, denser and stronger towards the blue."""
    rng = np.random.default_rng(20240229)
    wave = 3000.0 * (1 - rng.uniform(0, 1, _BLENDS) * (1 - (3000.0 / 9500.0) ** 2.2)) ** (-1 / 2.2)
    strength = rng.exponential(0.22, _BLENDS) * (4300.0 / wave) ** 3
    blends = np.stack([wave, strength, rng.uniform(0.4, 1.2, _BLENDS)], axis=1)
    return np.concatenate([np.array(_METALS), blends])


def _to_vacuum(air: FloatArray) -> FloatArray:
    """Turn air into vacuum wavelengths (Morton 1991, inverse by one iteration)."""
    vacuum = np.array(air, float)
    for _ in range(2):
        s = (1e4 / vacuum) ** 2
        vacuum = air * (1 + 2.735182e-4 + 131.4182e-8 * s + 2.76249e-12 * s**2)
    return vacuum


def _cardelli(wavelength: FloatArray) -> FloatArray:
    """Return A / E(B-V) for R_V = 3.1, 3030 Angstrom and redward."""
    x = 1e4 / wavelength
    y = np.clip(x, 1.1, 3.3) - 1.82
    a = np.polyval([0.32999, -0.77530, 0.01979, 0.72085, -0.02427, -0.50447, 0.17699, 1], y)
    b = np.polyval([-2.09002, 5.30260, -0.62251, -5.38434, 1.07233, 2.28305, 1.41338, 0], y)
    infrared = (0.574 - 0.527 / 3.1) * np.clip(x, None, 1.1) ** 1.61
    law: FloatArray = 3.1 * np.where(x < 1.1, infrared, a + b / 3.1)
    return law


def _apparent(vacuum: FloatArray, star: StandardStar, resolution: float) -> FloatArray:
    """Return the reddened, moved spectrum of a star, without its distance."""
    rest = vacuum / (1 + star.velocity / _LIGHT)
    surface = 4 * np.pi * eddington_flux(rest, (star.teff, star.logg, star.feh), resolution)[0]
    dimmed: FloatArray = surface * 10 ** (-0.4 * star.ebv * _cardelli(vacuum))
    return dimmed


@lru_cache(maxsize=512)
def _surface_magnitudes(star: StandardStar) -> dict[str, float]:
    """Return the AB magnitudes of a star at its surface, by column of the catalogue."""
    wave = 3000.0 * np.exp(np.arange(16600) / 8000.0)
    light = _apparent(wave, star, 2000.0)
    magnitudes = {}
    for column, name, _ in _BANDS:
        curve = speclite.filters.load_filter(name)
        seen = np.interp(wave, curve.wavelength, curve.response, left=0, right=0)
        # The samples are even in the logarithm: the step is proportional to the wavelength.
        mean = np.sum(light * seen * wave**2) / np.sum(seen) / 2.99792458e18
        magnitudes[column] = float(-2.5 * np.log10(mean) - 48.60)
    return magnitudes


def _brightness(star: StandardStar) -> float:
    """Return the factor that gives the star its Gaia magnitude."""
    surface = _surface_magnitudes(star)["Gaia"] - _AB["Gaia"]
    return float(10 ** (-0.4 * (star.gaia - surface)))
