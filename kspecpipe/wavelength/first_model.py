"""The data of arcs laid out for the forward model, and the model that the fit starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.wavelength.align import fill_gaps
from kspecpipe.wavelength.arcs import ArcSpectra
from kspecpipe.wavelength.components import Components
from kspecpipe.wavelength.dispersion import slit_place
from kspecpipe.wavelength.lsf import lsf_basis, winged_lsf
from kspecpipe.wavelength.peaks import subtract_continuum
from kspecpipe.wavelength.scene import Model, Scene

#: Lost samples that are more than a core, and how much of the foot beside them is lost too [FWHM].
_BLINDING, _FOOT = 2.0, 1.5


def lay_scene(arcs: Sequence[ArcSpectra], live: BoolArray, parts: Components, fwhm: float) -> Scene:
    """Lay the live fibres of all exposures under each other; lines are ``fwhm`` [pixel] wide."""
    use = np.flatnonzero(live)
    good = np.concatenate(
        [(arc.spectra.good & ~beside_saturation(arc.spectra, fwhm))[use] for arc in arcs]
    )
    value = np.concatenate([arc.spectra.value[use] for arc in arcs])
    variance = np.concatenate([arc.spectra.variance[use] for arc in arcs])
    kept = np.flatnonzero(good.sum(axis=1) > 0.2 * good.shape[1])
    seen = np.stack([_shines(arc.lamps, parts.species) for arc in arcs])
    scene = Scene(
        np.where(good, value, 0.0).astype(float),
        np.where(good, variance, 1.0).astype(float),
        good,
        np.tile(use, len(arcs)),
        np.repeat(np.arange(len(arcs)), use.size),
        np.tile(slit_place(len(live))[use], len(arcs)),
        seen,
    )
    return scene.rows(kept)


def beside_saturation(spectra: Signal, fwhm: float) -> BoolArray:
    """Return the samples next to saturated or bled ones which are lost with them.

    Charge spills along the columns of the detector, across the dispersion: the columns beside a
    lost core are sound, and the flanks of a saturated line say where it is. When more than the core
    is lost, its foot is all that is left of a line, on scattered light that is as bright.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted arc.
    fwhm : float
        Typical FWHM of lines [pixel].

    Returns
    -------
    ndarray of bool, shape (nfib, nx)
        The lost samples and those beside them.
    """
    full = (spectra.dq & np.uint16(DQ.SATURATED | DQ.BLEED)) > 0
    near: BoolArray = maximum_filter1d(full, 3, axis=1, mode="constant")
    core, reach = int(_BLINDING * fwhm) | 1, int(_FOOT * fwhm)
    wide = minimum_filter1d(near, core, axis=1, mode="constant")
    foot: BoolArray = maximum_filter1d(wide, core + 2 * reach, axis=1, mode="constant")
    return near | foot


def _shines(lamps: tuple[str, ...], species: np.ndarray) -> BoolArray:
    """Which components the lamps of an exposure shine."""
    if not lamps:
        return np.ones(species.size, bool)
    mine: BoolArray = np.isin(np.char.lower(species), [name.lower() for name in lamps])
    return mine


def first_model(scene: Scene, arcs: Sequence[ArcSpectra], parts: Components, fwhm: float) -> Model:
    """Gaussian lines of unit strength on the running continuum."""
    filled = fill_gaps(scene.value, scene.good)
    bare = subtract_continuum(filled)
    flux = np.maximum(bare, 0).sum(axis=1)
    level = np.ones(len(flux))
    times = np.array([max(arc.exptime, 1e-3) for arc in arcs])
    for exposure in np.unique(scene.exposure):
        mine = scene.exposure == exposure
        typical = np.median(flux[mine])
        level[mine] = flux[mine] / max(typical, 1e-12) * times[exposure] / times[0]
    count = parts.wavelength.size
    response = np.repeat(np.maximum(level, 1e-3)[:, None], count, axis=1)
    lsf = winged_lsf(lsf_basis(fwhm))
    return Model(lsf, np.ones(count), np.arange(count), response, filled - bare, 0.05)


def smooth_shifts(shift: FloatArray, lit: BoolArray) -> FloatArray:
    """Shift (nfib,) of all fibres from a parabola through those with light [pixel]."""
    place = slit_place(len(shift))
    degree = min(2, int(lit.sum()) - 1)
    if degree < 0:
        return np.zeros(len(shift))
    fit = np.polynomial.Polynomial.fit(place[lit], shift[lit], degree, domain=[-1, 1])
    return np.asarray(fit(place))
