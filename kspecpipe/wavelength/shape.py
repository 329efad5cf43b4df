"""What all rows of an arc share: line strengths, the LSF, and where blends lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from kspecpipe.bsplines import spline_basis
from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.wavelength.design import Design, LsfColumns
from kspecpipe.wavelength.lsf import (
    ACROSS,
    ALONG,
    N_TERM,
    first_shape,
    free_changes,
    place_powers,
    positive_wings,
    spline_windows,
    stretches,
    window_row,
    without_negative_wings,
)
from kspecpipe.wavelength.scene import (
    Model,
    Rendering,
    Scene,
    sample_weights,
)

#: Flux of lines that say what the LSF is like, against the brightest that has its core: beside a
#: saturated line, whose flux is a guess, all others are faint.
_TELLING = 0.003
#: Change of the LSF beyond that of the width of its sides, against that.
_OTHER_CHANGE = 0.5


@dataclass(frozen=True)
class Freedom:
    """Which shared parts of the model are free, and what is known of them.

    Parameters
    ----------
    expected, expected_sd : ndarray, shape (n_line,)
        Expected intensity [electron].
    shape : bool
        Free the LSF's mean shape and the groups' displacements.
    variation : float
        Expected relative change over the chip of the width of the LSF's sides; 0 keeps it constant.
    displacement : float
        Expected displacement of groups [pixel].
    mover : ndarray of int, shape (n_line,)
        Which lines are displaced together: those of a group, unknown lines each alone.
    """

    expected: FloatArray
    expected_sd: FloatArray
    shape: bool
    variation: float
    displacement: float
    mover: IntArray

    @property
    def terms(self) -> int:
        """Number of terms of the LSF's place on the chip which are free."""
        return 0 if not self.shape else N_TERM if self.variation > 0 else 1


def strengths_only(count: int) -> Freedom:
    """Free the strengths of ``count`` lines and nothing else."""
    return Freedom(np.zeros(count), np.full(count, 1e9), False, 0.0, 0.5, np.arange(count))


def fit_shared(
    scene: Scene,
    model: Model,
    drawn: Rendering,
    freedom: Freedom,
    weight: FloatArray | None = None,
) -> tuple[Model, FloatArray, FloatArray]:
    """One Gauss-Newton step of what all rows share.

    Free are the intensities, a correction of the continuum, and as ``freedom`` says the LSF with
    its variation and the displacements.

    Parameters
    ----------
    scene, model : Scene, Model
        Data and start.
    drawn : Rendering
        The lines of the start.
    freedom : Freedom
        What is free.
    weight : ndarray, shape (n_row, nx), optional
        Weights of the samples in place of `sample_weights`.

    Returns
    -------
    Model
        With new intensities, LSF and continuum.
    displacement : ndarray, shape (n_mover,)
        Displacement of what moves together [pixel].
    covariance : ndarray, shape (n_mover, n_mover)
        Their covariance [pixel^2], which includes that of blends and LSF.
    """
    if weight is None:
        weight = sample_weights(scene, model, drawn)
    residual = scene.value - model.continuum - drawn.lines
    design = Design(
        drawn,
        _continuum_splines(scene.nx, model.lsf.basis.reach),
        np.median(model.response, axis=1),
        freedom.mover,
        _count(freedom) if freedom.shape else 0,
        lsf_columns(scene, model, drawn, freedom),
    )
    strengths, continuum, moves, lsf = design.parts
    prior = _prior(model, freedom, design.smooth.shape[1])
    normal, pull = design.normal_equations(weight, residual)
    solution, covariance = _solve(
        normal + prior.precision, pull + prior.pull, model.intensity, moves
    )
    correction = np.outer(design.level, design.smooth @ solution[continuum])
    free = free_changes(model.lsf.basis)
    change = solution[lsf].reshape(-1, len(free)) @ free
    coefficients = model.lsf.coefficients.copy()
    coefficients[: len(change)] += change
    if len(change):
        coefficients[0] = without_negative_wings(model.lsf.basis, coefficients[0])
    fitted = replace(
        model,
        intensity=np.maximum(model.intensity + solution[strengths], 0.0),
        lsf=replace(model.lsf, coefficients=coefficients),
        continuum=model.continuum + correction,
    )
    return fitted, solution[moves], covariance


def _count(freedom: Freedom) -> int:
    """Count the displacements."""
    return int(np.max(freedom.mover, initial=-1)) + 1


def _continuum_splines(nx: int, reach: int) -> FloatArray:
    """Cubic splines (nx, n_spline) along x, longer than lines are."""
    count = max(2, round(nx / (5.0 * reach)))
    inner = np.linspace(0, nx - 1, count + 1)
    knots = np.concatenate([np.repeat(inner[0], 3), inner, np.repeat(inner[-1], 3)])
    return spline_basis(np.arange(nx), knots, 3)


def lsf_columns(scene: Scene, model: Model, drawn: Rendering, freedom: Freedom) -> LsfColumns:
    """Return the derivatives of all samples by the coefficients of the LSF.

    Parameters
    ----------
    scene, model : Scene, Model
        Data and start.
    drawn : Rendering
        The lines of the start.
    freedom : Freedom
        How many terms are free.
    """
    basis, position = model.lsf.basis, drawn.position
    free, size = free_changes(basis), 2 * basis.reach + 1
    part = (0, *(1 + power for power in ALONG[1:]))[: freedom.terms]
    n_part = max(part, default=-1) + 1
    cored = np.any(~drawn.lost, axis=0)
    along = _line_weights(scene, model, position, cored)[..., :n_part]
    # All pixels of a line lie at the same place in a pixel: they are one row of a table.
    nearest = np.clip(np.rint(position).astype(int), -size, scene.nx + size)
    row, fraction = window_row(nearest - position)
    weights = along[..., None] * np.stack([np.ones_like(fraction), fraction], axis=-1)[..., None, :]
    windows = spline_windows(basis, free).reshape(-1, 2, size * len(free))
    # Room beside the chip for the windows of the lines at its edges.
    pad = 2 * size
    start = nearest - basis.reach + pad
    parts = np.zeros((len(position), n_part, scene.nx + 2 * pad, len(free)))
    brightest = np.max(model.intensity, where=cored, initial=0.0)
    bright = np.flatnonzero(model.intensity > _TELLING * brightest)
    for i, line in product(range(len(parts)), bright if n_part else ()):
        place = parts[i, :, start[i, line] : start[i, line] + size]
        place += (weights[i, line] @ windows[row[i, line]]).reshape(place.shape)
    across = place_powers(scene.place)[:, ACROSS[: freedom.terms]]
    return LsfColumns(parts[:, :, pad:-pad], part, across)


def _line_weights(scene: Scene, model: Model, position: FloatArray, cored: BoolArray) -> FloatArray:
    """Flux of lines times what the terms of the LSF are along the dispersion (n_row, n_line, 4).

    The first is of all lines, the others of those that say how the LSF changes. A line without its
    core has a width as uncertain as its strength: it says nothing, unless another row has the core.
    """
    powers = place_powers(position / ((scene.nx - 1) / 2) - 1)
    flux = model.response * scene.seen[scene.exposure] * model.intensity
    changing = np.where(cored[:, None], powers, 0.0)
    columns = np.concatenate([powers[..., :1], changing], axis=-1)
    return np.asarray(flux[..., None] * columns)


@dataclass(frozen=True)
class _Prior:
    """Prior of the shared parameters as extra rows: precision matrix and right side."""

    precision: FloatArray
    pull: FloatArray


def _prior(model: Model, freedom: Freedom, n_smooth: int) -> _Prior:
    """State what is known of intensities, continuum, displacements and LSF before the fit."""
    n_line = model.intensity.size
    n_group = _count(freedom) if freedom.shape else 0
    n_term = freedom.terms
    basis = model.lsf.basis
    free = free_changes(basis)
    n_spline = len(free)
    size = n_line + n_smooth + n_group + n_term * n_spline
    precision, pull = np.zeros((size, size)), np.zeros(size)
    precise = 1 / np.maximum(freedom.expected_sd, 1e-6) ** 2
    at = np.arange(n_line)
    precision[at, at] = precise
    pull[:n_line] = precise * (freedom.expected - model.intensity)
    at = np.arange(n_line, n_line + n_smooth)
    precision[at, at] = 1e-6
    at = np.arange(n_line + n_smooth, n_line + n_smooth + n_group)
    precision[at, at] = 1 / freedom.displacement**2
    for term in range(n_term):
        first = n_line + n_smooth + n_group + term * n_spline
        block = slice(first, first + n_spline)
        now = model.lsf.coefficients[term]
        centre, inner = _shape_prior(model, term, freedom.variation)
        precision[block, block] = free @ inner @ free.T
        pull[block] = free @ inner @ (centre - now)
    return _Prior(precision, pull)


def _shape_prior(model: Model, term: int, variation: float) -> tuple[FloatArray, FloatArray]:
    """Expect of a term of the LSF: a Gaussian core, wings that fall; value and precision.

    What changes over the chip is mostly how wide each side is, so that few lines show it.
    """
    basis, shape = model.lsf.basis, model.lsf.coefficients[0]
    distance = np.abs(basis.moment / basis.flux) / basis.fwhm
    if term > 0:
        # Wings beyond the measurable may change, too, but hardly.
        faint = 0.02 * np.max(shape) * np.exp(-2 * np.maximum(distance, 1))
        # Optics change mostly from end to end; a bend is as often unknown lines in the middle.
        change = variation if term <= 2 else 0.4 * variation
        covariance = np.diag((_OTHER_CHANGE * change * (np.abs(shape) + faint)) ** 2)
        sides = change * stretches(model.lsf)
        return np.zeros(shape.size), np.linalg.inv(covariance + sides.T @ sides)
    core, tail = first_shape(basis)
    wing = positive_wings(shape, distance)
    centre = np.where(distance > 1, wing, core)
    spread = np.where(distance > 1, 0.7 * wing, 0.35 * np.max(core) * np.exp(-0.5 * distance**2))
    return centre, np.diag(1 / (spread + 0.3 * tail) ** 2)


def _solve(
    normal: FloatArray, pull: FloatArray, intensity: FloatArray, moves: slice
) -> tuple[FloatArray, FloatArray]:
    """Solve normal equations of which the first are intensities, which stay positive.

    Returns the solution, and the covariance of the displacements in it.
    """
    scale = 1 / np.sqrt(np.diag(normal))
    normal = normal * np.outer(scale, scale)
    pull = pull * scale
    dark = np.zeros(scale.size, bool)
    for _ in range(5):
        # A line that would become negative is held at 0, and the others are solved again.
        held = np.where(dark, 1e8, 1e-12)
        wanted = np.zeros(scale.size)
        wanted[: intensity.size] = -intensity / scale[: intensity.size]
        factor = cho_factor(normal + np.diag(held))
        solution = cho_solve(factor, pull + np.where(dark, 1e8 * wanted, 0.0)) * scale
        negative = solution[: intensity.size] < -intensity - 1e-6 * np.max(intensity)
        if not np.any(negative & ~dark[: intensity.size]):
            break
        dark[: intensity.size] |= negative
    own = np.diag(scale)[:, moves]
    return solution, own.T @ cho_solve(factor, own)
