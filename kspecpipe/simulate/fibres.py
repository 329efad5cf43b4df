"""The fibres of one night: what they pass, what they look at, whether they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kspecpipe.simulate.arrays import FloatArray, IntArray, TextArray
from kspecpipe.simulate.optics import Optics, Shift
from kspecpipe.simulate.plan import NightPlan
from kspecpipe.simulate.standards import StandardStar, draw_stars

UNALLOCATED, STAR, GALAXY, STANDARD, SKY, PARKED = 0, 1, 2, 8, 9, 5
_DEAD_THROUGHPUT = 0.002
_DARK_THROUGHPUT = 0.02
_FRINGE_PERIOD = 14.0


@dataclass(frozen=True, slots=True)
class Fibres:
    """Properties of the fibres, FIBRE_ID 1 first, shape (nfib,).

    Parameters
    ----------
    throughput : ndarray
        Grey transmission, about 1.
    colour : ndarray
        Relative change of the transmission from the chip's blue end to the red.
    fringe_phase, fringe_depth : ndarray
        Of the etalon fringes [radian, relative].
    status : ndarray of str
        OK, LOW or DEAD.
    target_class : ndarray of int
        As in the assignment file.
    flux : ndarray
        Of the target near 6000 Angstrom [erg/s/cm2/Angstrom].
    redshift, emission, temperature : ndarray
        Of galaxies and stars.
    position : ndarray, shape (nfib, 2)
        On the focal plate [mm].
    stars : mapping of int to StandardStar
        Standard stars by index of their fibre.
    """

    throughput: FloatArray
    colour: FloatArray
    fringe_phase: FloatArray
    fringe_depth: FloatArray
    status: TextArray
    target_class: IntArray
    flux: FloatArray
    redshift: FloatArray
    emission: FloatArray
    temperature: FloatArray
    position: FloatArray
    stars: Mapping[int, StandardStar] = field(default_factory=dict)

    def relative_throughput(self) -> FloatArray:
        """Return the throughput with the median live fibre at 1."""
        live = self.status == "OK"
        relative: FloatArray = self.throughput / np.median(self.throughput[live])
        return relative


def draw_fibres(plan: NightPlan, n_fibres: int, rng: np.random.Generator) -> Fibres:
    """Draw the fibres of a night."""
    throughput = np.ones(n_fibres)
    if plan.traps.throughput:
        even = np.linspace(0.7, 1.3, n_fibres)
        throughput = rng.permutation(even) * rng.normal(1, 0.01, n_fibres)
    status = np.full(n_fibres, "OK", dtype="U4")
    for index in _lost(plan, n_fibres):
        dark = plan.instrument == "isoplane" and n_fibres == 16 and plan.dead is None
        throughput[index] = _DARK_THROUGHPUT if dark else _DEAD_THROUGHPUT
        status[index] = "LOW" if dark else "DEAD"
    target_class = draw_classes(n_fibres, rng, len(plan.standards))
    return Fibres(
        throughput=throughput,
        colour=rng.normal(0, 0.03, n_fibres) * plan.traps.throughput,
        fringe_phase=rng.uniform(0, 2 * np.pi, n_fibres),
        fringe_depth=rng.uniform(0.04, 0.05, n_fibres) * plan.traps.fringes,
        status=status,
        target_class=target_class,
        flux=_draw_flux(target_class, rng),
        redshift=rng.uniform(0.01, 0.15, n_fibres),
        emission=rng.uniform(0.0, 2.0, n_fibres),
        temperature=np.where(target_class == STANDARD, 6500.0, 5000.0)
        + rng.normal(0, 250, n_fibres),
        position=rng.uniform(-190, 190, (n_fibres, 2)),
    )


def draw_classes(n_fibres: int, rng: np.random.Generator, n_standard: int = 0) -> IntArray:
    """Return target classes: sky, standards, one parked, one unallocated, else galaxies."""
    n_sky = max(3, round(0.14 * n_fibres) + 2)
    n_standard = n_standard or (2 if n_fibres < 100 else 6)
    target_class = np.full(n_fibres, GALAXY)
    free = rng.permutation(n_fibres)
    inner = np.linspace(1, n_fibres - 2, n_sky).round().astype(int)
    sky = np.unique(np.clip(inner, 0, n_fibres - 1))
    free = free[~np.isin(free, sky)]
    if free.size < n_standard + 3:
        raise ValueError(
            f"{n_fibres} fibres are too few for 3 on sky, {n_standard} on standard stars, and one "
            f"star, one parked and one unallocated: take {n_standard + 6} or more"
        )
    target_class[sky] = SKY
    target_class[free[:n_standard]] = STANDARD
    target_class[free[n_standard]] = UNALLOCATED
    target_class[free[n_standard + 1]] = PARKED
    target_class[free[n_standard + 2]] = STAR
    return target_class


def place_standards(
    fibres: Fibres, plan: NightPlan, places: FloatArray, rng: np.random.Generator
) -> Fibres:
    """Return the fibres with the stars that those of class 8 look at.

    Parameters
    ----------
    fibres : Fibres
        As drawn.
    plan : NightPlan
        Its stars, if it names any.
    places : ndarray, shape (nfib, 2)
        Right ascension and declination of the fibres [degree].
    rng : Generator
        Draws the stars otherwise.
    """
    rows = np.flatnonzero(fibres.target_class == STANDARD)
    if plan.standards:
        stars = tuple(
            _at(star, place) for star, place in zip(plan.standards, places[rows], strict=False)
        )
    else:
        stars = draw_stars(fibres.temperature[rows], fibres.flux[rows], places[rows], rng)
    return replace(fibres, stars={int(row): star for row, star in zip(rows, stars, strict=False)})


def _at(star: StandardStar, place: FloatArray) -> StandardStar:
    """Move a star, and what it is listed as, to the place of its fibre."""
    ra, dec = map(float, place)
    listed = None if star.listed_as is None else _at(star.listed_as, place)
    return replace(star, ra=ra, dec=dec, listed_as=listed)


def transmission(optics: Optics, fibres: Fibres) -> FloatArray:
    """Return throughput, colour and fringes, the same in every frame, shape (nfib, nx)."""
    x = np.arange(optics.n_columns, dtype=float)
    wavelength = optics.wavelength(x, Shift())
    ramp = np.clip((wavelength - 6700.0) / 300.0, 0, 1)
    phase = 2 * np.pi * x / _FRINGE_PERIOD * (1 + 0.04 * optics.place(x))
    fringes = fibres.fringe_depth[:, None] * np.cos(phase + fibres.fringe_phase[:, None])
    colour = 1 + 0.5 * fibres.colour[:, None] * optics.place(x)
    light: FloatArray = fibres.throughput[:, None] * colour * (1 + ramp * fringes)
    return light


def _lost(plan: NightPlan, n_fibres: int) -> tuple[int, ...]:
    """Return the indices of fibres that pass almost nothing."""
    if plan.dead is not None:
        return tuple(identity - 1 for identity in plan.dead)
    if not plan.traps.dead_fibre:
        return ()
    if plan.instrument == "isoplane" and n_fibres == 16:
        return (4, 11)
    usual = (4,) if n_fibres < 100 else (41, 42, 117)
    return tuple(index for index in usual if index < n_fibres)


def _draw_flux(target_class: IntArray, rng: np.random.Generator) -> FloatArray:
    """Return fluxes that give signal-to-noise ratios of about 3 to 50."""
    faint = 10 ** rng.uniform(-17.4, -15.9, target_class.size)
    bright = 10 ** rng.uniform(-15.4, -14.9, target_class.size)
    flux = np.where(target_class == STANDARD, bright, faint)
    return np.where(np.isin(target_class, (GALAXY, STAR, STANDARD)), flux, 0.0)
