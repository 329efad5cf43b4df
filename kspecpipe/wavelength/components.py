"""Which lines the forward model has, and how strong they are expected to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.wavelength.dispersion import Dispersion
from kspecpipe.wavelength.linelist import LineList, StrArray
from kspecpipe.wavelength.scene import Model, blend_groups


@dataclass(frozen=True)
class Components:
    """Lines of the forward model: listed ones, their second orders, and unknown ones.

    Parameters
    ----------
    wavelength : ndarray, shape (n_line,)
        Apparent wavelength in first order [Angstrom].
    species : ndarray of str, shape (n_line,)
        Lamp that shines it; empty for unknown lines.
    intensity : ndarray, shape (n_line,)
        Listed strength; NaN when unknown.
    trusted : ndarray of bool, shape (n_line,)
        True for listed lines in first order.
    """

    wavelength: FloatArray
    species: StrArray
    intensity: FloatArray
    trusted: BoolArray

    def add(self, wavelength: FloatArray) -> Components:
        """Append unknown lines."""
        count = len(wavelength)
        return Components(
            np.append(self.wavelength, wavelength),
            np.append(self.species, np.full(count, "")),
            np.append(self.intensity, np.full(count, np.nan)),
            np.append(self.trusted, np.zeros(count, bool)),
        )


def components(lines: LineList, dispersion: Dispersion) -> Components:
    """Lines that fall on the chip or just beside it, with second orders at twice the wavelength."""
    wavelength = np.append(lines.wavelength, 2 * lines.wavelength)
    listed = np.arange(wavelength.size) < len(lines)
    half = dispersion.half
    x = half + dispersion.base.offset(wavelength)
    near = np.flatnonzero((x > -10) & (x < 2 * half + 10))
    near = near[np.argsort(wavelength[near], kind="stable")]
    strength = np.append(lines.intensity, np.full(len(lines), np.nan))
    return Components(
        wavelength[near], np.tile(lines.species, 2)[near], strength[near], listed[near]
    )


def movers(parts: Components, model: Model) -> IntArray:
    """Give numbers to what moves together: each group, then each unknown line for itself."""
    unknown = parts.species == ""
    mover = model.group.copy()
    mover[unknown] = model.n_group + np.arange(unknown.sum())
    return mover


def expected_intensity(
    parts: Components, model: Model, quiet: float, place: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Strength of each line from its listed one and its lamp's brightness, and how sure that is.

    Lines too close to be told apart share what is measured of them as the list says.
    """
    known = np.isfinite(parts.intensity)
    listed = np.where(known, parts.intensity, 1.0)
    ratio = np.where(known & (model.intensity > 5 * quiet), model.intensity / listed, np.nan)
    factor = np.zeros(listed.size)
    for name in np.unique(parts.species):
        seen = ratio[(parts.species == name) & np.isfinite(ratio)]
        if seen.size:
            factor[parts.species == name] = np.median(seen)
    expected = np.where(known, listed * factor, 0.0)
    brightest = float(np.max(model.intensity, initial=0.0))
    sd = np.where(known, 0.7 * expected + 20 * quiet, 100 * quiet + 0.05 * brightest)
    cluster = blend_groups(place, known, 0.4 * model.lsf.basis.fwhm)
    shared = np.bincount(cluster)[cluster] > 1
    measured, wanted = (np.bincount(cluster, f)[cluster] for f in (model.intensity, expected))
    shared &= wanted > 0
    first = np.array([np.flatnonzero(cluster == c)[0] for c in range(cluster.max() + 1)])
    mixed = parts.species != parts.species[first][cluster]
    mixed = np.bincount(cluster, mixed)[cluster] > 0
    tied = expected * measured / np.where(wanted > 0, wanted, 1.0)
    expected = np.where(shared, tied, expected)
    return expected, np.where(shared, np.where(mixed, 0.6, 0.25) * tied + quiet, sd)
