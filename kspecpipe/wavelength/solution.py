"""The solution of an arc on every pixel, with its errors, its lines and its LSF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray, IntArray
from kspecpipe.wavelength.dispersion import Dispersion, slit_place
from kspecpipe.wavelength.identify import Identification
from kspecpipe.wavelength.lsf import Lsf, measure_fwhm, place_terms
from kspecpipe.wavelength.rounds import Progress
from kspecpipe.wavelength.scene import Scene


@dataclass(frozen=True)
class WaveSolution:
    """Wavelengths, their errors, the LSF, and how all that was found.

    Parameters
    ----------
    wavelength, error : ndarray, shape (nfib, nx)
        Air wavelength of pixel centres and its standard deviation [Angstrom]; fibres without
        light have what the other fibres predict for them.
    lsf : ndarray, shape (nfib, nx)
        FWHM of the LSF, pixel integration included [Angstrom].
    lsf_shape : Lsf
        Shape of the LSF against place on the chip.
    lines : dict of str to ndarray
        One row for each fibre and line: fibre (index), species, wavelength, x, x_err [pixel],
        residual [Angstrom], used, exposure (index of the one that says most of the line).
    shifts : ndarray, shape (nfib,)
        Shift of each fibre's lines against the middle of the slit, at the chip's middle [pixel].
    drift : ndarray, shape (n_exposure,)
        Shift of each exposure's lines against their mean, which the wavelengths are of [pixel].
    margin : float
        1 - score of the next-best alignment / score of the best.
    dispersion : Dispersion
        The fitted model.
    diagnostics : dict
        Numbers for QC.
    """

    wavelength: FloatArray
    error: FloatArray
    lsf: FloatArray
    lsf_shape: Lsf
    lines: dict[str, np.ndarray]
    shifts: FloatArray
    drift: FloatArray
    margin: float
    dispersion: Dispersion
    diagnostics: dict[str, object]

    @property
    def flux_ratio(self) -> dict[str, float]:
        """Flux of each species over its listed one; the typical species is 1."""
        ratios: dict[str, float] = self.diagnostics["species_ratio"]  # type: ignore[assignment]
        return ratios


def assemble(
    scene: Scene, state: Progress, found: Identification, diagnostics: dict[str, object]
) -> WaveSolution:
    """Evaluate the solution on every pixel."""
    dispersion = state.dispersion
    x = np.arange(scene.nx, dtype=float)
    wavelength = dispersion.wavelength(x)
    step = np.gradient(wavelength, axis=1)
    half = dispersion.half
    fwhm = _fwhm_map(state.model.lsf, dispersion.nfib, x / half - 1)
    middle = dispersion.base.wavelength(np.zeros(1))
    position = dispersion.position(middle)[:, 0]
    return WaveSolution(
        wavelength,
        dispersion.position_error(x) * step,
        fwhm * step,
        state.model.lsf,
        _line_table(scene, state, step),
        position - np.interp(0.0, slit_place(dispersion.nfib), position),
        state.drift,
        found.margin,
        dispersion,
        diagnostics,
    )


def _fwhm_map(lsf: Lsf, nfib: int, u: FloatArray) -> FloatArray:
    """FWHM (nfib, nx) [pixel] at places u (nx,), between the points of a coarse grid."""
    along, across = np.linspace(-1, 1, 33), np.linspace(-1, 1, min(nfib, 17))
    width = measure_fwhm(lsf, place_terms(along[None, :], across[:, None]))
    rows = np.stack([np.interp(slit_place(nfib), across, column) for column in width.T], axis=1)
    return np.stack([np.interp(u, along, row) for row in rows])


def _line_table(scene: Scene, state: Progress, step: FloatArray) -> dict[str, np.ndarray]:
    """One row for each fibre and listed line with light."""
    groups, parts, model = state.groups, state.parts, state.model
    assert groups is not None
    bright = parts.trusted & (groups.snr[model.group] > 5)
    bright &= model.intensity > 0.05 * np.bincount(model.group, model.intensity)[model.group]
    line = np.flatnonzero(bright)
    group = model.group[line]
    nominal = state.dispersion.position(parts.wavelength[line])
    centre = state.dispersion.position(groups.wavelength)
    x = nominal + (groups.position - centre)[:, group]
    weight = groups.weight[:, group]
    fibre, column = np.nonzero(weight > 0)
    shared = np.zeros_like(groups.common)
    if groups.correlated is not None:
        shared = np.diag(groups.correlated)
    variance = 1 / weight[fibre, column] + (groups.common**2 + shared)[group][column]
    best = _best_exposure(scene, state)
    at = np.clip(x[fibre, column].round().astype(int), 0, scene.nx - 1)
    return {
        "fibre": fibre,
        "species": parts.species[line][column],
        "wavelength": parts.wavelength[line][column],
        "x": x[fibre, column],
        "x_err": np.sqrt(variance),
        "residual": (x - nominal)[fibre, column] * step[fibre, at],
        "used": groups.used[group][column],
        "exposure": best[fibre, group[column]],
    }


def _best_exposure(scene: Scene, state: Progress) -> IntArray:
    """Index (nfib, n_group) of the exposure in which each group is measured best."""
    assert state.measured is not None
    nfib, count = state.dispersion.nfib, state.model.n_group
    weight = np.zeros((state.drift.size, nfib, count))
    weight[scene.exposure, scene.fibre] = 1 / state.measured.variance
    return np.asarray(weight.argmax(axis=0))
