"""Which lines the forward model has, and how strong they are expected to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.wavelength.dispersion import Dispersion
from kspecpipe.wavelength.linelist import LineList, StrArray
from kspecpipe.wavelength.scene import Model, blend_groups

#: Lines closer than this are not told apart without their strengths [FWHM].
_OVERLAP = 0.8
#: Scatter of the logarithm of strengths about the listed ones.
_SCATTER = 0.5


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


def split_error(parts: Components, model: Model, quiet: float, place: FloatArray) -> FloatArray:
    """Displacement (n_group,) of blends that are split otherwise than the list says [pixel].

    Where lines overlap, a split that is far from the listed one is as likely a displacement that
    the fit has taken for flux: what exceeds the scatter of listed strengths counts as error.
    """
    listed = _listed_strength(parts, model, quiet)
    cluster = blend_groups(place, listed > 0, _OVERLAP * model.lsf.basis.fwhm)
    cluster = np.where(listed > 0, cluster, cluster.max() + 1 + np.arange(cluster.size))
    count = int(cluster.max()) + 1

    def share(flux: FloatArray) -> FloatArray:
        total = np.bincount(cluster, flux, count)
        return flux / np.maximum(total, 1e-12)[cluster]

    expected, fitted = share(listed), share(model.intensity)
    centre = np.bincount(cluster, expected * place, count)
    apart = np.where(listed > 0, place - centre[cluster], 0.0)
    moved = np.bincount(cluster, fitted * apart, count)
    scatter = _SCATTER**2 * np.bincount(cluster, (expected * apart) ** 2, count)
    excess = np.sqrt(np.maximum(moved**2 - scatter, 0.0))
    near = np.sqrt(np.bincount(cluster, expected * apart**2, count))
    near = np.exp(-((2 * near / (0.7 * model.lsf.basis.fwhm)) ** 2))
    # The position of a group is that of its clusters, weighted with their flux.
    total = np.bincount(model.group, model.intensity, model.n_group)
    weight = model.intensity / np.maximum(total, 1e-9)[model.group]
    return np.bincount(model.group, weight * (near * excess)[cluster], model.n_group)


def _listed_strength(parts: Components, model: Model, quiet: float) -> FloatArray:
    """Strength of each line from its listed one and those of its lamp's other lines, else 0."""
    known = np.isfinite(parts.intensity) & parts.trusted
    ratio = np.where(known, model.intensity / np.where(known, parts.intensity, 1.0), np.nan)
    seen = known & (model.intensity > 5 * quiet)
    strength = np.zeros(parts.intensity.size)
    for line in np.flatnonzero(known):
        others = seen & (parts.species == parts.species[line]) & (model.group != model.group[line])
        if others.any():
            strength[line] = parts.intensity[line] * np.median(ratio[others])
    return strength


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
