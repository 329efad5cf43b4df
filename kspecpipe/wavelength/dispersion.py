"""Where wavelengths fall in every fibre: grating equation, camera distortion and slit shape.

x = middle + base(wavelength) + distortion(u) + slit terms(u, v) + jitter of the fibre, in which u
is the place along the dispersion and v the place along the slit, both from -1 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre

from kspecpipe.signal import BoolArray, FloatArray
from kspecpipe.wavelength.identify import alignment_columns, predicted_offset
from kspecpipe.wavelength.predict import Prediction

#: Legendre terms of the common distortion.
N_DISTORTION = 7
#: (power of u as Legendre degree, power of v, prior sd [pixel]) of the slit's shape.
_SLIT = (
    (0, 1, 30.0),
    (0, 2, 10.0),
    (0, 3, 0.5),
    (1, 1, 0.5),
    (1, 2, 0.2),
    (2, 1, 0.2),
    (3, 1, 0.03),
)


@dataclass(frozen=True)
class Base:
    """The stiff part: a grating behind an ideal camera, or a stretched prediction.

    Parameters
    ----------
    prediction : Prediction
        What the instrument says.
    shift : float
        Position of the prediction's central wavelength against the middle of the chip [pixel].
    stretch : float
        Focal length [pixel] of a grating, or factor on predicted offsets.
    angle : float
        Diffraction angle of the central wavelength [rad]; 0 without a grating.
    """

    prediction: Prediction
    shift: float
    stretch: float
    angle: float

    def offset(self, wavelength: FloatArray) -> FloatArray:
        """Position against the middle of the chip [pixel]."""
        grating = self.prediction.grating
        if grating is None:
            return self.shift + self.stretch * predicted_offset(self.prediction, wavelength)
        sine = np.sin(self.angle) + (wavelength - self.prediction.centre) / grating.spacing
        return np.asarray(
            self.shift + self.stretch * np.tan(np.arcsin(np.clip(sine, -1, 1)) - self.angle)
        )

    def wavelength(self, offset: FloatArray) -> FloatArray:
        """Wavelength at an offset from the middle of the chip; the inverse of `offset`."""
        grating = self.prediction.grating
        ideal = (offset - self.shift) / self.stretch
        if grating is None:
            return _predicted_wavelength(self.prediction, ideal)
        angle = self.angle + np.arctan(ideal)
        return np.asarray(
            self.prediction.centre + grating.spacing * (np.sin(angle) - np.sin(self.angle))
        )


@dataclass(frozen=True)
class DispersionPrior:
    """How far the instrument may depart from its base.

    Parameters
    ----------
    distortion : ndarray, shape (N_DISTORTION,)
        Standard deviation of each Legendre term of the common distortion [pixel].
    slit : ndarray, shape (n_slit,)
        Standard deviation of the slit terms [pixel].
    jitter : ndarray, shape (2,)
        Standard deviation of each fibre's own shift, and own scale (at the chip's edge) [pixel].
    """

    distortion: FloatArray
    slit: FloatArray
    jitter: FloatArray


@dataclass(frozen=True)
class Dispersion:
    """A fitted model, with its covariance.

    Parameters
    ----------
    base : Base
        The stiff part.
    nfib : int
        Number of fibres.
    shared : ndarray, shape (n_shared,)
        Distortion and slit terms [pixel].
    jitter : ndarray, shape (nfib, 2)
        Own shift and own scale of each fibre [pixel].
    shared_covariance : ndarray, shape (n_shared, n_shared)
    cross_covariance : ndarray, shape (nfib, n_shared, 2)
    jitter_covariance : ndarray, shape (nfib, 2, 2)
        Covariance of all of it [pixel^2].
    """

    base: Base
    nfib: int
    shared: FloatArray
    jitter: FloatArray
    shared_covariance: FloatArray
    cross_covariance: FloatArray
    jitter_covariance: FloatArray

    @property
    def half(self) -> float:
        """Half the length of the chip [pixel]."""
        return (self.base.prediction.nx - 1) / 2

    def position(self, wavelength: FloatArray) -> FloatArray:
        """Position x (nfib, n) [pixel] of wavelengths (n,) in every fibre."""
        u = self.base.offset(wavelength) / self.half
        u = np.broadcast_to(u, (self.nfib, u.size))
        return self.half * (1 + u) + self.departure(u)

    def departure(self, u: FloatArray) -> FloatArray:
        """Departure (nfib, n) [pixel] from the base at places u (nfib, n)."""
        terms = np.tile(self.shared[:N_DISTORTION], (self.nfib, 1))
        terms[:, :2] += self.jitter
        for (degree, power, _), value in zip(_SLIT, self.shared[N_DISTORTION:], strict=True):
            terms[:, degree] += value * slit_place(self.nfib) ** power
        return np.asarray(legendre.legval(u, terms.T[..., None], tensor=False))

    def wavelength(self, x: FloatArray) -> FloatArray:
        """Wavelength (nfib, n) [Angstrom] at pixels x (n,) or (nfib, n)."""
        offset = np.broadcast_to(x, (self.nfib, np.shape(x)[-1])) - self.half
        ideal = offset - self.departure(offset / self.half)
        for _ in range(6):
            ideal = offset - self.departure(ideal / self.half)
        return self.base.wavelength(ideal)

    def position_error(self, x: FloatArray) -> FloatArray:
        """Return the standard deviation (nfib, n) [pixel] of the model at pixels x (n,)."""
        u = np.broadcast_to(x / self.half - 1, (self.nfib, x.size))
        columns = shared_columns(u, slit_place(self.nfib)[:, None])
        own = np.stack([np.ones_like(u), u], axis=-1)
        variance = np.einsum("fxp,fxp->fx", columns @ self.shared_covariance, columns)
        variance += 2 * np.einsum(
            "fxp,fpj,fxj->fx", columns, self.cross_covariance, own, optimize=True
        )
        variance += np.einsum("fxj,fjk,fxk->fx", own, self.jitter_covariance, own, optimize=True)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))


@dataclass(frozen=True)
class GroupError:
    """Errors of the line groups which all fibres share.

    Parameters
    ----------
    sd : ndarray, shape (n_group,)
        Standard deviation (blends, LSF, wavelength) [pixel]; inf leaves the group out.
    correlated : ndarray, shape (n_group, n_group), or None
        Covariance of what groups share with each other besides, through the LSF [pixel^2].
    """

    sd: FloatArray
    correlated: FloatArray | None = None


@dataclass(frozen=True)
class GroupFit:
    """What a fit says of the line groups.

    Parameters
    ----------
    offset, variance : ndarray, shape (n_group,)
        Common displacement of each group, and its posterior variance [pixel].
    held_out, held_out_variance : ndarray, shape (n_group,)
        Displacement when the group itself does not take part in the fit, and its variance.
    """

    offset: FloatArray
    variance: FloatArray
    held_out: FloatArray
    held_out_variance: FloatArray


def slit_place(nfib: int) -> FloatArray:
    """Place of each fibre along the slit, -1 to 1."""
    return np.linspace(-1, 1, nfib) if nfib > 1 else np.zeros(1)


def shared_columns(u: FloatArray, v: FloatArray) -> FloatArray:
    """Columns (..., n_shared) of distortion and slit terms at places u, v."""
    u, v = np.broadcast_arrays(u, v)
    polynomials = legendre.legvander(u, N_DISTORTION - 1)
    slit = [polynomials[..., k] * v**power for k, power, _ in _SLIT]
    return np.concatenate([polynomials, np.stack(slit, axis=-1)], axis=-1)


def default_prior(prediction: Prediction) -> DispersionPrior:
    """Departures that real spectrographs show; a plain linear prediction knows no curvature."""
    if prediction.measured:
        distortion = np.array([1e3, 3.0, 0.5, 0.1, 0.05, 0.03, 0.02])
    elif prediction.grating is None:
        distortion = np.array([1e3, 1e3, 20.0, 3.0, 0.5, 0.2, 0.05])
    else:
        distortion = np.array([1e3, 1e3, 20.0, 0.35, 0.025, 0.012, 0.005])
    return DispersionPrior(distortion, np.array([s for *_, s in _SLIT]), np.array([0.3, 0.03]))


def dispersion_from_alignment(
    prediction: Prediction, coefficients: FloatArray, shift: FloatArray
) -> Dispersion:
    """Start from an alignment of `identify` and the fibres' shifts (nfib,) [pixel]."""
    half = (prediction.nx - 1) / 2
    offset = np.linspace(-half, half, 41)
    wavelength = _predicted_wavelength(prediction, offset)
    target = offset + alignment_columns(offset, half) @ coefficients
    start = 1.0 if prediction.grating is None else prediction.grating.focal_pixels
    base = _fit_base(Base(prediction, float(coefficients[0]), start, 0.0), wavelength, target)
    model = start_dispersion(base, len(shift), shift)
    ideal = base.offset(wavelength)
    terms = legendre.legvander(ideal / half, 3)
    model.shared[:4] = np.linalg.lstsq(terms, target - ideal, rcond=None)[0]
    return model


def absorb(model: Dispersion) -> Dispersion:
    """Move the fitted shift, scale and curvature into the base, which bends as a grating does."""
    half = model.half
    offset = np.linspace(-half, half, 41)
    kept = model.shared.copy()
    kept[3:] = 0
    target = offset + shared_columns(offset / half, np.zeros(1)) @ kept
    base = _fit_base(model.base, model.base.wavelength(offset), target)
    shared = model.shared.copy()
    shared[:3] = 0
    residual = target - base.offset(model.base.wavelength(offset))
    terms = legendre.legvander(offset / half, N_DISTORTION - 1)
    shared[:N_DISTORTION] += np.linalg.lstsq(terms, residual, rcond=None)[0]
    return replace(model, base=base, shared=shared)


def fit_dispersion(
    start: Dispersion,
    wavelength: FloatArray,
    measured: FloatArray,
    weight: FloatArray,
    error: GroupError,
    prior: DispersionPrior,
) -> tuple[Dispersion, GroupFit]:
    """Fit all fibres and line groups at once.

    Parameters
    ----------
    start : Dispersion
        Its base is kept; its terms are replaced.
    wavelength : ndarray, shape (n_group,)
        Wavelength that stands for each group [Angstrom].
    measured : ndarray, shape (nfib, n_group)
        Measured position [pixel].
    weight : ndarray, shape (nfib, n_group)
        1 / variance; 0 leaves a measurement out.
    error : GroupError
        What the groups have in common to all fibres.
    prior : DispersionPrior
        Expected departures.

    Returns
    -------
    Dispersion, GroupFit
        The fitted model with covariance, and the groups' displacements.
    """
    half, nfib = start.half, start.nfib
    u = start.base.offset(wavelength) / half
    columns = shared_columns(u[None, :], slit_place(nfib)[:, None])
    value = np.where(weight > 0, measured - half * (1 + u), 0.0)
    out = ~np.isfinite(error.sd)
    weight = np.where(out, 0.0, weight)
    group_weight = 1 / np.where(out, 1.0, error.sd) ** 2
    normal, right = _normal_equations(columns, u, value, weight)
    shared, n_jitter = columns.shape[-1], 2 * nfib
    diagonal = np.concatenate(
        [
            1 / prior.distortion**2,
            1 / prior.slit**2,
            np.tile(1 / prior.jitter**2, nfib),
            group_weight,
        ]
    )
    response = normal[:, shared + n_jitter :].copy()
    normal[np.diag_indices(diagonal.size)] += diagonal
    covariance = np.linalg.inv(normal)
    solution = covariance @ right
    jitter = slice(shared, shared + n_jitter)
    groups = slice(shared + n_jitter, None)
    held_out = _held_out(solution[groups], np.diag(covariance)[groups], group_weight)
    if error.correlated is not None:
        # The weights ignore what the groups' errors share; the error of the result must not.
        response = covariance @ response
        covariance = covariance + response @ error.correlated @ response.T
    blocks = covariance[jitter, jitter].reshape(nfib, 2, nfib, 2)
    model = replace(
        start,
        shared=solution[:shared],
        jitter=solution[jitter].reshape(nfib, 2),
        shared_covariance=covariance[:shared, :shared],
        cross_covariance=covariance[:shared, jitter].reshape(shared, nfib, 2).transpose(1, 0, 2),
        jitter_covariance=blocks[np.arange(nfib), :, np.arange(nfib), :],
    )
    return model, held_out


def start_dispersion(base: Base, nfib: int, shift: FloatArray) -> Dispersion:
    """Model without distortion in which each fibre has a known shift [pixel]."""
    count = N_DISTORTION + len(_SLIT)
    jitter = np.stack([np.nan_to_num(shift), np.zeros(nfib)], axis=1)
    return Dispersion(
        base,
        nfib,
        np.zeros(count),
        jitter,
        np.zeros((count, count)),
        np.zeros((nfib, count, 2)),
        np.zeros((nfib, 2, 2)),
    )


def learn_jitter(model: Dispersion, live: BoolArray, prior: DispersionPrior) -> DispersionPrior:
    """Update the expected jitter from what the live fibres show (one step of EM)."""
    second = model.jitter**2 + np.diagonal(model.jitter_covariance, axis1=1, axis2=2)
    if live.sum() < 4:
        return prior
    sd = np.sqrt(np.mean(second[live], axis=0))
    return replace(prior, jitter=np.clip(sd, [0.002, 0.001], [1.0, 0.1]))


def _held_out(offset: FloatArray, variance: FloatArray, group_weight: FloatArray) -> GroupFit:
    """Take each group's own prior out of its posterior: what the others say of it."""
    share = np.clip(1 / variance - group_weight, 1e-12, None)
    return GroupFit(offset, variance, offset / variance / share, 1 / share)


def _normal_equations(
    columns: FloatArray, u: FloatArray, value: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Build normal matrix and right side of shared terms, fibre terms and displacements."""
    nfib, n_group, shared = columns.shape
    weighted = weight[..., None] * columns
    own = np.stack([np.ones(n_group), u], axis=-1)
    n_jitter = 2 * nfib
    size = shared + n_jitter + n_group
    normal = np.zeros((size, size))
    jitter, group = slice(shared, shared + n_jitter), slice(shared + n_jitter, size)
    normal[:shared, :shared] = np.tensordot(weighted, columns, axes=([0, 1], [0, 1]))
    normal[:shared, jitter] = np.einsum("fgp,gj->pfj", weighted, own).reshape(shared, n_jitter)
    normal[:shared, group] = weighted.sum(axis=0).T
    blocks = np.einsum("fg,gj,gk->fjk", weight, own, own, optimize=True)
    for f in range(nfib):
        at = slice(shared + 2 * f, shared + 2 * f + 2)
        normal[at, at] = blocks[f]
    normal[jitter, group] = np.einsum("fg,gj->fjg", weight, own).reshape(n_jitter, n_group)
    normal[group, group] = np.diag(weight.sum(axis=0))
    lower = np.tril_indices(size, -1)
    normal[lower] = normal.T[lower]
    pull = weight * value
    right = np.concatenate(
        [
            np.tensordot(columns, pull, axes=([0, 1], [0, 1])),
            (pull @ own).ravel(),
            pull.sum(axis=0),
        ]
    )
    return normal, right


def _predicted_wavelength(prediction: Prediction, offset: FloatArray) -> FloatArray:
    """Wavelength that is predicted at an offset from the middle; linear outside the chip."""
    table = prediction.wavelength
    half = (prediction.nx - 1) / 2
    inside = np.interp(offset, np.arange(table.size) - half, table)
    below = np.minimum(offset + half, 0) * (table[1] - table[0])
    return np.asarray(inside + below + np.maximum(offset - half, 0) * (table[-1] - table[-2]))


def _fit_base(start: Base, wavelength: FloatArray, target: FloatArray) -> Base:
    """Least-squares shift, stretch and (for a grating) angle that give the target offsets."""
    base = start
    for _ in range(8):
        trials = [
            replace(base, shift=base.shift + 1.0),
            replace(base, stretch=base.stretch * 1.001),
        ]
        if base.prediction.grating is not None:
            trials.append(replace(base, angle=base.angle + 1e-3))
        now = base.offset(wavelength)
        slopes = np.stack([trial.offset(wavelength) - now for trial in trials], axis=1)
        step = np.linalg.lstsq(slopes, target - now, rcond=None)[0]
        angle = base.angle + 1e-3 * step[2] if len(step) > 2 else 0.0
        base = replace(
            base,
            shift=base.shift + float(step[0]),
            stretch=base.stretch * float(1 + 1e-3 * step[1]),
            angle=float(np.clip(angle, -0.9, 0.9)),
        )
    return base
