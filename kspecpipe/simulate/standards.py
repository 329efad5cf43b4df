"""Standard stars with known truth: model atmospheres, a template library, a catalogue.

Everything is derived from the atmospheres of `atmospheres`, or from a spectrum that the user gives.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.atmospheres import eddington_flux, to_vacuum

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
    light : float
        Part of its light that enters the fibre.
    listed_as : StandardStar or None
        What the catalogue says stands there, if it is another star.
    spectrum : callable or None
        Flux in any unit at vacuum wavelengths at rest [Angstrom], in place of the atmosphere.
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
    light: float = 1.0
    listed_as: StandardStar | None = None
    spectrum: Callable[[FloatArray], FloatArray] | None = None


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
    _write_index(folder / f"index_{tag}.csv", paths)
    return tuple(paths)


def draw_stars(
    teff: FloatArray, flux: FloatArray, place: FloatArray, rng: np.random.Generator
) -> tuple[StandardStar, ...]:
    """Return metal-poor dwarfs with slight reddening, velocities and proper motions.

    Parameters
    ----------
    teff, flux : ndarray, shape (n,)
        Temperature [K] and flux near 6000 Angstrom [erg/s/cm2/Angstrom].
    place : ndarray, shape (n, 2)
        Right ascension and declination [degree].
    rng : Generator
        Draws the rest.
    """
    stars = []
    for kelvin, level, (ra, dec) in zip(teff, flux, place, strict=True):
        star = standard_star(float(kelvin), float(level), (float(ra), float(dec)))
        stars.append(
            replace(
                star,
                logg=float(rng.uniform(3.9, 4.5)),
                feh=float(rng.uniform(-1.0, -0.1)),
                ebv=float(rng.exponential(0.02)),
                velocity=float(rng.normal(0, 60.0)),
                pmra=float(rng.normal(0, 10.0)),
                pmdec=float(rng.normal(0, 10.0)),
            )
        )
    return tuple(stars)


def neighbours(
    stars: Sequence[StandardStar], rng: np.random.Generator, each: int = 4
) -> tuple[StandardStar, ...]:
    """Return further stars of the field, arcminutes from the standards, for the catalogue."""
    found = []
    for star in stars:
        for east, north in rng.uniform(-0.1, 0.1, (each, 2)):
            ra = (star.ra + east / np.cos(np.deg2rad(star.dec))) % 360.0
            magnitude = float(star.gaia + rng.uniform(-1, 3))
            found.append(replace(star, ra=float(ra), dec=float(star.dec + north), gaia=magnitude))
    return tuple(found)


def standard_star(teff: float, flux: float, place: tuple[float, float]) -> StandardStar:
    """Return a metal-poor dwarf at a place (ra, dec) with this flux near 6000 Angstrom."""
    star = StandardStar(teff, 4.3, -0.5, 15.0, *place)
    level = float(star_flux(np.linspace(5950.0, 6050.0, 400), star).mean())
    return replace(star, gaia=15.0 - 2.5 * float(np.log10(flux / level)))


def star_flux(air: FloatArray, star: StandardStar, resolution: float = 2000.0) -> FloatArray:
    """Return a star's spectrum above the air [erg/s/cm2/Angstrom] at air wavelengths [Angstrom]."""
    return _apparent(to_vacuum(air), star, resolution) * _brightness(star)


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
        row = _catalogue_row(number, star.listed_as or star, rng)
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
    pairs = np.column_stack([flux, continuum]).ravel().tolist()
    lines = ("%.5E %.5E\n" * flux.size) % tuple(pairs)
    # No time stamp: equal plans give equal files.
    path.write_bytes(gzip.compress(lines.encode(), compresslevel=4, mtime=0))


def _write_index(path: Path, models: Sequence[Path]) -> None:
    """List the models, so that a library which has lost some of them knows it.

    Sizes stay open: whoever changes a model to try something need not make the index anew.
    """
    lines = ["filepath,teff,logg,feh,alpha_m,carbon_m,vmicro,atmos,bytes"]
    for model in models:
        _, code, teff, logg, feh = model.name.split("_")[:5]
        numbers = [f"{float(text[1:]):g}" for text in (teff, logg, feh)]
        name = model.relative_to(path.parent).as_posix()
        lines.append(",".join([name, *numbers, "0", "0", "1", code, ""]))
    path.write_text("\n".join(lines) + "\n")


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
    if star.spectrum is not None:
        surface = star.spectrum(rest)
    else:
        surface = 4 * np.pi * eddington_flux(rest, (star.teff, star.logg, star.feh), resolution)[0]
    dimmed: FloatArray = surface * 10 ** (-0.4 * star.ebv * _cardelli(vacuum))
    return dimmed


def _surface_magnitudes(star: StandardStar) -> dict[str, float]:
    """Return the AB magnitudes of a star at its surface, by column of the catalogue."""
    twin = StandardStar(
        star.teff,
        star.logg,
        star.feh,
        0.0,
        ebv=star.ebv,
        velocity=star.velocity,
        spectrum=star.spectrum,
    )
    return _magnitudes_of(twin)


@lru_cache(maxsize=512)
def _magnitudes_of(star: StandardStar) -> dict[str, float]:
    """Integrate the bands."""
    import speclite.filters

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
