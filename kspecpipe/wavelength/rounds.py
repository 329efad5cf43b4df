"""The rounds of the global fit: shape of lines, their positions, the dispersion, and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from kspecpipe.signal import BoolArray, FloatArray
from kspecpipe.wavelength.components import Components, expected_intensity, movers
from kspecpipe.wavelength.dispersion import (
    Dispersion,
    DispersionPrior,
    GroupError,
    GroupFit,
    absorb,
    fit_dispersion,
    learn_jitter,
)
from kspecpipe.wavelength.groups import (
    Measurement,
    doubting_weights,
    explained_scatter,
    measure_groups,
    update_continuum,
    update_response,
)
from kspecpipe.wavelength.line_errors import (
    common_errors,
    faint_flux,
    group_place,
    private_variance,
    shared_errors,
)
from kspecpipe.wavelength.scene import (
    Model,
    Scene,
    blend_groups,
    render,
    some_rows,
)
from kspecpipe.wavelength.shape import Freedom, fit_shared, strengths_only

#: Common error that is expected of the groups in each round [pixel]; the last is a floor.
_SCHEDULE = (0.5, 0.5, 0.15, 0.05, 0.02, 0.01, 0.005, 0.005)
#: Structure of the continuum shorter than 2 pi times this is not followed [FWHM]: a stiffer one
#: leaves scattered light to the wings of lines, one that yields more takes their wings away.
_CONTINUUM = 1.2
#: Expected shift between exposures of one night [pixel].
_DRIFT = 0.5


@dataclass(frozen=True)
class Groups:
    """The blends as the dispersion model sees them.

    Parameters
    ----------
    wavelength : ndarray, shape (n_group,)
        Wavelength that stands for each [Angstrom].
    position, weight : ndarray, shape (nfib, n_group)
        Measured position [pixel] and 1 / variance; weight 0 where not measured.
    common : ndarray, shape (n_group,)
        Error in common to all fibres, but of this group alone [pixel].
    snr : ndarray, shape (n_group,)
        Flux over error, all rows together.
    used : ndarray of bool, shape (n_group,)
        True where the group takes part.
    fit : GroupFit or None
        What the last fit says of them.
    correlated : ndarray, shape (n_group, n_group), or None
        Covariance of what groups have in common with each other, through the LSF [pixel^2].
    """

    wavelength: FloatArray
    position: FloatArray
    weight: FloatArray
    common: FloatArray
    snr: FloatArray
    used: BoolArray
    fit: GroupFit | None = None
    correlated: FloatArray | None = None

    @property
    def held_out_sigma(self) -> FloatArray:
        """Distance of each group from where the others put it, in its standard deviations."""
        if self.fit is None:
            return np.zeros(self.wavelength.size)
        variance = self.fit.held_out_variance + self.common**2
        return np.where(self.used, self.fit.held_out / np.sqrt(variance), 0.0)


@dataclass(frozen=True)
class Progress:
    """State of the global fit after a round.

    ``drift`` (n_exposure,) is the shift of each exposure's lines against their mean [pixel].
    """

    model: Model
    dispersion: Dispersion
    prior: DispersionPrior
    parts: Components
    groups: Groups | None
    measured: Measurement | None
    common_floor: float
    chi2: float
    drift: FloatArray

    @classmethod
    def start(
        cls,
        model: Model,
        dispersion: Dispersion,
        prior: DispersionPrior,
        parts: Components,
        exposures: int,
    ) -> Progress:
        """Return the state before the first round."""
        return cls(model, dispersion, prior, parts, None, None, 0.5, 1.0, np.zeros(exposures))

    def row_positions(self, scene: Scene, wavelength: FloatArray) -> FloatArray:
        """Positions (n_row, n) [pixel] of wavelengths (n,) in every fibre of every exposure."""
        position = self.dispersion.position(wavelength)[scene.fibre]
        return np.asarray(position + self.drift[scene.exposure, None])


@dataclass(frozen=True)
class RoundOptions:
    """How a round is made.

    Parameters
    ----------
    fwhm : float
        Typical FWHM of lines [pixel].
    number : int
        Which round, from 0.
    last : bool
        True in the rounds whose errors are reported.
    rows : int
        Rows that the common shape is fitted to.
    min_snr : float
        S/N of groups that take part.
    """

    fwhm: float
    number: int
    last: bool = False
    rows: int = 24
    min_snr: float = 8.0


def first_strengths(scene: Scene, state: Progress) -> Progress:
    """Fit the strengths of the lines and the continuum, all else as it is."""
    position = state.row_positions(scene, state.parts.wavelength)
    free = strengths_only(state.parts.wavelength.size)
    fitted, *_ = fit_shared(scene, state.model, render(scene, state.model, position), free)
    return replace(state, model=fitted)


def advance(scene: Scene, state: Progress, options: RoundOptions) -> Progress:
    """One round: lines' shape and strength, positions, dispersion.

    Parameters
    ----------
    scene : Scene
        Data.
    state : Progress
        Where the last round ended.
    options : RoundOptions
        Which round this is.

    Returns
    -------
    Progress
        The new state.
    """
    position = state.row_positions(scene, state.parts.wavelength)
    quiet = faint_flux(scene)
    active = state.model.intensity > 8 * quiet
    group = blend_groups(position.mean(axis=0), active, 1.3 * options.fwhm)
    model = replace(state.model, group=group)
    freedom = _freedom(state, model, quiet, position.mean(axis=0), options)
    model, moved, correlated = _fit_shape(scene, model, position, freedom, options)
    drawn = render(scene, model, position)
    measured = measure_groups(scene, model, drawn, 1.6 * options.fwhm)
    error = common_errors(scene, state.parts, model, drawn, measured)
    chi2, floor = explained_scatter(scene, model, drawn, measured)
    model, drawn = update_response(model, drawn, measured, state.dispersion.half)
    model = update_continuum(scene, model, drawn, _CONTINUUM * options.fwhm)
    model = replace(model, floor=floor if options.number > 1 else 0.02)
    correlated = np.nan_to_num(correlated) + shared_errors(
        scene, model, position, _CONTINUUM * options.fwhm
    )
    private = private_variance(correlated, group_place(model, position), error, measured)
    correlated = correlated - np.diag(private)
    error = np.hypot(error, np.sqrt(private))
    groups = replace(_gather(scene, state, model, measured, error, options), correlated=correlated)
    parts = _move_unknown(state, moved)
    state = replace(state, model=model, measured=measured, chi2=chi2, parts=parts)
    return _follow_drift(scene, state, fit_positions(state, groups, scene, options), measured)


def _follow_drift(
    scene: Scene, before: Progress, after: Progress, measured: Measurement
) -> Progress:
    """Let each exposure have its own zero point: what its lines miss the new dispersion by."""
    groups, count = after.groups, after.drift.size
    if count < 2 or groups is None:
        return after
    moved = after.dispersion.position(groups.wavelength) - before.dispersion.position(
        groups.wavelength
    )
    residual = measured.offset - moved[scene.fibre]
    use = _taken(measured) & groups.used & (np.abs(residual) < 1.5)
    weight = np.where(use, 1 / (measured.variance + groups.common**2), 0.0)
    pull = np.bincount(scene.exposure, np.sum(weight * np.where(use, residual, 0.0), axis=1), count)
    total = np.bincount(scene.exposure, weight.sum(axis=1), count)
    drift = before.drift + pull / (total + 1 / _DRIFT**2)
    return replace(after, drift=drift - drift.mean())


def _taken(measured: Measurement) -> BoolArray:
    """Displacements that are measured well enough to take part."""
    return np.asarray((np.abs(measured.offset) < 2.5) & (measured.snr > 4) & (measured.core < 0.98))


def fit_positions(state: Progress, groups: Groups, scene: Scene, options: RoundOptions) -> Progress:
    """Fit the dispersion, leaving out groups that the others contradict, one after the other."""
    floor = _SCHEDULE[min(options.number, len(_SCHEDULE) - 1)]
    systematic = groups.common
    most = groups.used.sum() // 2
    crowding, weight = _crowding(state), groups.weight
    for _ in range(int(most) + 4):
        groups = replace(groups, common=np.hypot(systematic, floor))
        error = GroupError(np.where(groups.used, groups.common, np.inf), groups.correlated)
        dispersion, fit = fit_dispersion(
            state.dispersion, groups.wavelength, groups.position, weight, error, state.prior
        )
        weight = _scattered(groups, dispersion, fit)
        groups = replace(groups, fit=fit)
        z = np.maximum(np.abs(groups.held_out_sigma), _doubt(groups, fit, crowding, options))
        worst = int(np.argmax(z)) if z.size else 0
        if z.size and z[worst] > (3.5 if options.last else 4.5) and groups.used.sum() > 4:
            groups = replace(groups, used=groups.used & (np.arange(z.size) != worst))
            continue
        if not options.last or groups.used.sum() < 3:
            break
        # The median: one contaminated faint line must not blunt the bright ones.
        scatter = np.median(z[groups.used]) / 0.6745
        new = float(np.clip(floor * scatter, 0.0015, 0.1))
        if abs(new / floor - 1) < 0.1:
            break
        floor = new
    if groups.used.sum() < 3:
        return replace(state, groups=groups, common_floor=floor)
    live = np.isin(np.arange(dispersion.nfib), scene.fibre)
    prior = learn_jitter(dispersion, live, state.prior)
    return replace(
        state, dispersion=absorb(dispersion), prior=prior, groups=groups, common_floor=floor
    )


def _scattered(groups: Groups, dispersion: Dispersion, fit: GroupFit) -> FloatArray:
    """Weights (nfib, n_group) that know how much each line scatters from fibre to fibre.

    Fringes, ghosts and neighbours that the model does not know displace a line in every fibre
    differently, by more than the photons' noise; and in single fibres by much more.
    """
    residual = groups.position - dispersion.position(groups.wavelength) - fit.offset
    variance = 1 / np.maximum(groups.weight, 1e-30)
    measured = groups.weight > 0
    count = measured.sum(axis=0)

    def median(values: FloatArray) -> FloatArray:
        ordered = np.sort(np.where(measured, values, np.inf), axis=0)
        at = np.maximum(count - 1, 0) // 2
        return np.asarray(np.where(count > 0, np.take_along_axis(ordered, at[None], 0)[0], 0.0))

    # The smaller samples are, the more the dispersion has followed them.
    spread = median(np.abs(residual)) / 0.6745 * np.sqrt(count / np.maximum(count - 1.5, 1.0))
    excess = np.where(count > 3, np.maximum(spread**2 - median(variance), 0.0), 0.0)
    weight = np.where(measured, 1 / (variance + excess), 0.0)
    return np.where(np.abs(residual) * np.sqrt(weight) > 5.0, 0.0, weight)


def _doubt(
    groups: Groups, fit: GroupFit, crowding: FloatArray, options: RoundOptions
) -> FloatArray:
    """Above 4.5 for groups that might be other lines: nobody predicts them well enough to tell."""
    if options.number < 2:
        return np.zeros(crowding.size)
    doubt = 4.5 * 3 * np.sqrt(fit.held_out_variance) / np.maximum(crowding, 0.1)
    return np.where(groups.used, doubt, 0.0)


def _crowding(state: Progress) -> FloatArray:
    """Distance (n_group,) from each group's main line to the next that it could be [pixel]."""
    model, parts = state.model, state.parts
    x = state.dispersion.position(parts.wavelength)[state.dispersion.nfib // 2]
    distance = np.abs(x[:, None] - x)
    main = np.array(
        [np.argmax(np.where(model.group == g, model.intensity, -1.0)) for g in range(model.n_group)]
    )
    # Lines of known strength have been told apart by the identification.
    unsure = ~np.isfinite(parts.intensity[main])
    rival = parts.trusted[None, :] & (distance[main] > 0.6) & unsure[:, None]
    rival &= ~np.isfinite(parts.intensity) | (model.intensity > 0.2 * model.intensity[main, None])
    return np.asarray(np.min(np.where(rival, distance[main], 1e3), axis=1))


def _freedom(
    state: Progress, model: Model, quiet: float, place: FloatArray, options: RoundOptions
) -> Freedom:
    """Say what the round may change: the shape first, then its variation."""
    expected, sd = expected_intensity(state.parts, model, quiet, place)
    return Freedom(
        expected,
        sd,
        True,
        0.1 if options.number >= 3 else 0.0,
        0.5,
        movers(state.parts, model),
    )


def _move_unknown(state: Progress, moved: FloatArray) -> Components:
    """Put the unknown lines where the fit wants them, at most a pixel away."""
    parts = state.parts
    unknown = parts.species == ""
    wavelength = parts.wavelength.copy()
    base = state.dispersion.base
    offset = base.offset(wavelength[unknown])
    wavelength[unknown] = base.wavelength(offset + np.clip(moved, -1.0, 1.0))
    return replace(parts, wavelength=wavelength)


def _fit_shape(
    scene: Scene, model: Model, position: FloatArray, freedom: Freedom, options: RoundOptions
) -> tuple[Model, FloatArray, FloatArray]:
    """Fit what rows share on some of them; return moves of unknown lines and common errors."""
    # The first rounds are far from the end: half of the rows do.
    chosen = some_rows(scene, options.rows if options.number >= 3 else options.rows // 2)
    part, local, position = scene.rows(chosen), model.rows(chosen), position[chosen]
    drawn = render(part, local, position)
    measured = measure_groups(part, local, drawn, 1.6 * options.fwhm)
    # Before the lines have a shape, all of them miss it.
    weight = doubting_weights(part, local, drawn, measured) if options.number > 1 else None
    fitted, moved, covariance = fit_shared(part, local, drawn, freedom, weight)
    if options.number < 3:
        again = render(part, fitted, position)
        fitted, moved, covariance = fit_shared(part, fitted, again, freedom, weight)
    together = covariance[: model.n_group, : model.n_group]
    # Not more than all of it: beside the error of a line without light others would be lost.
    photon = 1 / np.maximum(np.sum(1 / measured.variance, axis=0), 1e-12)
    own = np.minimum(photon, np.diag(together))
    fitted = replace(fitted, response=model.response, continuum=model.continuum)
    value, vector = np.linalg.eigh(together - np.diag(own))
    common = (vector * np.maximum(value, 0.0)) @ vector.T
    return fitted, moved[own.size :], common


def _gather(
    scene: Scene,
    state: Progress,
    model: Model,
    measured: Measurement,
    common: FloatArray,
    options: RoundOptions,
) -> Groups:
    """Turn the rows' displacements into positions per fibre, exposures joined."""
    parts, count, nfib = state.parts, model.n_group, state.dispersion.nfib
    flux = model.intensity + 1e-9
    total = np.bincount(model.group, flux, count)
    wavelength = np.bincount(model.group, flux * parts.wavelength, count) / total
    foreign = np.bincount(model.group, flux * ~parts.trusted, count) / total
    nominal = state.dispersion.position(wavelength)
    taken = _taken(measured)
    per_row = np.where(taken, 1 / measured.variance, 0.0)
    weight, pull = np.zeros((nfib, count)), np.zeros((nfib, count))
    np.add.at(weight, scene.fibre, per_row)
    np.add.at(pull, scene.fibre, per_row * np.where(taken, measured.offset, 0.0))
    position = nominal + pull / np.maximum(weight, 1e-30)
    middle = nominal[nfib // 2]
    inside = (middle > 0.6 * options.fwhm) & (middle < scene.nx - 1 - 0.6 * options.fwhm)
    snr = np.sqrt(np.sum(measured.snr**2, axis=0))
    used = inside & (snr > options.min_snr) & (foreign < 0.2) & (weight > 0).any(axis=0)
    if options.last:
        used &= common < _sharpness(common[used])
    inflate = max(state.chi2, 1.0) if np.isfinite(state.chi2) else 1.0
    return Groups(wavelength, position, weight / inflate, common, snr, used)


def add_unknown(scene: Scene, state: Progress, options: RoundOptions) -> tuple[Scene, Progress]:
    """Give the peaks that no line explains a component of their own."""
    position = state.row_positions(scene, state.parts.wavelength)
    drawn = render(scene, state.model, position)
    x = np.arange(scene.nx, dtype=float)
    middle = state.dispersion.nfib // 2
    reference = state.dispersion.wavelength(x)[middle]
    there = state.row_positions(scene, reference)

    def stack(rows: FloatArray) -> FloatArray:
        return np.asarray(
            np.sum([np.interp(at, x, row) for at, row in zip(there, rows, strict=True)], axis=0)
        )

    residual = np.where(scene.good, scene.value - state.model.continuum - drawn.lines, 0.0)
    smooth = gaussian_filter1d(stack(residual), 1.2)
    noise = np.sqrt(gaussian_filter1d(stack(scene.variance), 1.2) / 4.3)
    model = stack(drawn.lines)
    # A real line is a maximum of the data too, unless it is a good part of what is there.
    data = gaussian_filter1d(model, 1.2) + smooth
    alone = maximum_filter1d((maximum_filter1d(data, 5) == data).astype(float), 3) > 0
    peak = (maximum_filter1d(smooth, 5) == smooth) & (smooth > 8 * noise)
    peak &= (alone & (smooth > 0.05 * model)) | (smooth > 0.25 * model)
    own = state.dispersion.position(state.parts.wavelength)[middle]
    bright = state.model.intensity > 0.3 * faint_flux(scene)
    if bright.any():
        peak &= np.min(np.abs(x[:, None] - own[bright]), axis=1) > 0.35 * options.fwhm
    peak[:3] = peak[-3:] = False
    lost = maximum_filter1d(stack((~scene.good).astype(float)), int(6 * options.fwhm) | 1)
    peak &= lost < 1.5
    found = reference[peak]
    if not found.size:
        return scene, state
    flux = smooth[peak] * 1.2 * options.fwhm / len(scene.value)
    model_state = replace(
        state.model,
        intensity=np.append(state.model.intensity, flux),
        response=np.append(state.model.response, _row_response(state.model, found.size), axis=1),
        group=np.append(state.model.group, np.full(found.size, state.model.n_group - 1)),
    )
    seen = np.append(scene.seen, np.ones((len(scene.seen), found.size), bool), axis=1)
    return replace(scene, seen=seen), replace(
        state, parts=state.parts.add(found), model=model_state
    )


def _row_response(model: Model, count: int) -> FloatArray:
    """Typical response of each row, for lines that are new."""
    return np.repeat(np.median(model.response, axis=1)[:, None], count, axis=1)


def _sharpness(common: FloatArray) -> float:
    """Largest common error of groups that are used: small, if enough of them remain."""
    enough = [limit for limit in (0.2, 0.4, 0.8) if np.sum(common < limit) >= 7]
    return enough[0] if enough else np.inf
