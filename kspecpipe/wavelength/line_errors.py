"""What may displace a line or blend in all fibres alike, beyond the photons' noise."""

from __future__ import annotations

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray
from kspecpipe.wavelength.components import Components
from kspecpipe.wavelength.groups import Measurement, followed, local_residual
from kspecpipe.wavelength.scene import (
    Model,
    Rendering,
    Scene,
    blend_groups,
    in_all_rows,
    lost_samples,
    render,
    sample_weights,
    some_rows,
)

#: Lines closer than this are not told apart without their strengths [FWHM].
_OVERLAP = 0.8
#: Samples lost of a line of which only the foot is left [FWHM].
_FOOT = 1.75
#: Scatter of the logarithm of strengths about the listed ones, and about a guess.
_SCATTER, _UNLISTED_SCATTER = 0.5, 1.0
#: S/N of whole single lines which show the LSF, and how much of a split is unsure a chip away from
#: them.
_TELLING_SNR, _LSF_CHANGE = 50.0, 0.25
#: Part of what a continuum can take of the wings that it does take; where wings begin [FWHM].
_LOST_WINGS, _WING = 0.1, 1.5
#: What all lines are displaced by that nothing in the arc tells of [pixel].
_UNSEEN = 0.003
#: Rows, and height of lines over the noise, by which that is judged.
_ROWS, _SEEN = 6, 10.0


def common_errors(
    scene: Scene, parts: Components, model: Model, drawn: Rendering, measured: Measurement
) -> FloatArray:
    """Error (n_group,) of the positions of lines and blends that all fibres share [pixel].

    It is the sum of what four faults may do: light that the model misses, lost cores of lines, and
    the split of blends, as the fit may have it wrong and as the list contradicts it.
    """
    place = drawn.position.mean(axis=0)
    return (
        _coherent_residual(scene, model, drawn, measured)
        + _saturation_error(scene, model, drawn.position)
        + _blend_error(parts, model, place, measured)
        + split_error(parts, model, faint_flux(scene), place)
    )


def shared_errors(scene: Scene, model: Model, position: FloatArray, length: float) -> FloatArray:
    """Covariance (n_group, n_group) of groups by what displaces all lines [pixel^2].

    What of their far wings is lost in the continuum displaces the centroid of the LSF, and with it
    all lines: by about as much everywhere, and evenly more where lines are wider or closer
    together. So do fringes and pixels of unequal response, a little. Lines are at ``position``
    (n_row, n_line), and ``length`` [pixel] is that of the continuum.
    """
    half = (scene.nx - 1) / 2
    u = np.clip(group_place(model, position) / half - 1, -1.0, 1.0)
    pull = np.hypot(_UNSEEN, _LOST_WINGS * _pull_of_wings(scene, model, position, length))
    return np.asarray(pull**2 * (1 + np.outer(u, u)))


def private_variance(
    correlated: FloatArray, place: FloatArray, error: FloatArray, measured: Measurement
) -> FloatArray:
    """Diagonal (n_group,) of a covariance of groups without what they share alike [pixel^2].

    What displaces all lines as a parabola along the chip makes none of them less reliable than
    others: it must not level their weights. Lines at ``place`` (n_group,) [pixel] tell it as well
    as they are known, with their own ``error`` (n_group,) [pixel] and the photons'.
    """
    photon = 1 / np.maximum(np.sum(1 / measured.variance, axis=0), 1e-9)
    u = 2 * (place - place.min()) / max(np.ptp(place), 1.0) - 1
    columns = u[:, None] ** np.arange(3)
    weighted = columns / (photon + error**2 + np.diag(correlated))[:, None]
    normal = columns.T @ weighted
    shared = columns @ np.linalg.solve(normal + 1e-6 * np.trace(normal) * np.eye(3), weighted.T)
    rest = np.eye(place.size) - shared
    left = np.einsum("gh,hk,gk->g", rest, correlated, rest)
    return np.asarray(np.clip(left, 0.0, np.diag(correlated)))


def group_place(model: Model, position: FloatArray) -> FloatArray:
    """Mean position (n_group,) of the lines of each group [pixel]."""
    count = np.maximum(np.bincount(model.group, minlength=model.n_group), 1)
    return np.asarray(np.bincount(model.group, position.mean(axis=0), model.n_group) / count)


def _pull_of_wings(scene: Scene, model: Model, position: FloatArray, length: float) -> float:
    """Pull on the centroid of a typical line by what a continuum can take of its wings [pixel].

    Of the wings of lines far brighter than the noise it is little.
    """
    chosen = some_rows(scene, _ROWS)
    scene, model, position = scene.rows(chosen), model.rows(chosen), position[chosen]
    drawn = render(scene, model, position)
    distance = drawn.pixel - position[..., None]
    far = np.abs(distance) > _WING * model.lsf.basis.fwhm
    wing = np.where(far, np.maximum(drawn.value, 0.0), 0.0)
    flat = in_all_rows(drawn.pixel, scene.nx)
    wings = np.asarray(np.bincount(flat.ravel(), wing.ravel(), scene.value.size), float)
    wings = wings.reshape(scene.value.shape)
    taken = followed(scene, model, drawn, wings, length) / np.maximum(wings, 1e-9)
    lost = np.clip(taken, 0.0, 1.0).ravel()[flat] * wing
    flux = np.maximum(drawn.value.sum(axis=-1), 1e-9)
    sides = [np.sum(lost * np.maximum(side * distance, 0.0), axis=-1) / flux for side in (-1, 1)]
    weight = drawn.value.max(axis=-1) > _SEEN * np.sqrt(np.median(scene.variance))
    weight &= ~drawn.lost
    return float(np.average(np.hypot(*sides), weights=weight)) if weight.any() else 0.0


def faint_flux(scene: Scene) -> float:
    """Return the error of a faint line's flux in a typical row when all rows are added."""
    variance = float(np.median(scene.variance[scene.good])) if scene.good.any() else 1.0
    return float(np.sqrt(5 * variance / max(len(scene.value), 1)))


def _coherent_residual(
    scene: Scene, model: Model, drawn: Rendering, measured: Measurement
) -> FloatArray:
    """Displacement (n_group,) that what the model misses in all rows alike may cause [pixel]."""
    weight = sample_weights(scene, model, drawn)
    residual = local_residual(scene, model, drawn, measured)
    fwhm = model.lsf.basis.fwhm
    drawn = drawn.within(1.2 * fwhm)
    at = drawn.pixel
    rows = np.arange(len(at))[:, None, None]
    window = np.abs(at - drawn.position[..., None]) < 1.2 * fwhm
    w = weight[rows, at] * window
    missed = np.sum(w * drawn.unit * residual[rows, at], axis=0)
    power = np.sum(w * drawn.unit**2, axis=0)
    noise = np.sum(w**2 * drawn.unit**2 * scene.variance[rows, at], axis=0)
    excess = np.sum(np.maximum(missed**2 - noise, 0.0), axis=-1)
    # Relative to the line itself: rms of the missed shape over the shape.
    shape = np.sum((power * model.intensity[:, None]) ** 2, axis=-1)
    count = model.n_group
    ratio = np.bincount(model.group, excess, count) / np.maximum(
        np.bincount(model.group, shape, count), 1e-30
    )
    return 0.33 * fwhm * np.sqrt(np.minimum(ratio, 1.0))


def _saturation_error(scene: Scene, model: Model, position: FloatArray) -> FloatArray:
    """Error (n_group,) of lines seen by their flanks only, as well as their shape is known [pixel].

    A flank falls by e in about a pixel: a relative error of the shape is one of place in pixels.
    The farther out what is left of a line lies, the less other lines say of its shape; the foot of
    a line that is lost but for it says nothing.
    """
    fwhm = model.lsf.basis.fwhm
    lost = np.median(lost_samples(scene, position, 1.5 * fwhm), axis=0)
    farther = np.maximum(lost / fwhm, 1.0) ** 3
    error = np.where(lost >= 2, (0.008 + model.floor) * farther, 0.0)
    error = np.where(lost > _FOOT * fwhm, np.maximum(error, 1.0), error)
    worst = np.zeros(model.n_group)
    np.maximum.at(worst, model.group, error * (model.intensity > 0))
    return worst


def _blend_error(
    parts: Components, model: Model, place: FloatArray, measured: Measurement
) -> FloatArray:
    """Displacement (n_group,) by errors of the split between lines that overlap [pixel].

    Of lines whose strength is not listed, the split is less sure; and so is it far from single
    lines, where nothing else says what the LSF is like.
    """
    count, fwhm = model.n_group, model.lsf.basis.fwhm
    total = np.bincount(model.group, model.intensity, count)[model.group]
    share = model.intensity / np.maximum(total, 1e-9)
    mean: FloatArray = np.asarray(np.bincount(model.group, share * place, count), float)
    spread = np.sqrt(np.bincount(model.group, share * (place - mean[model.group]) ** 2, count))
    order = np.flatnonzero(share > 0.1)
    order = order[np.lexsort((place[order], model.group[order]))]
    step = np.diff(place[order])
    step = np.where(np.diff(model.group[order]) == 0, step, np.inf)
    closest = np.full(count, np.inf)
    np.minimum.at(closest, model.group[order[1:]], step)
    unlisted = np.bincount(model.group, share * ~np.isfinite(parts.intensity), count) > 0.1
    telling = np.isinf(closest) & (np.bincount(model.group, share * parts.trusted, count) > 0.9)
    telling &= np.sum(measured.snr**2, axis=0) > _TELLING_SNR**2
    telling &= np.median(measured.core, axis=0) < 0.2
    remote = _distance(mean, mean[telling])
    wrong = np.where(unlisted, 0.15, 0.05) + _LSF_CHANGE * remote / np.ptp(place)
    return wrong * spread * np.exp(-((closest / (0.7 * fwhm)) ** 2))


def _distance(place: FloatArray, others: FloatArray) -> FloatArray:
    """Distance (n,) of places (n,) to the nearest of the others; 0 without any."""
    if not others.size:
        return np.zeros(place.size)
    return np.asarray(np.min(np.abs(place[:, None] - others), axis=1))


def split_error(parts: Components, model: Model, quiet: float, place: FloatArray) -> FloatArray:
    """Displacement (n_group,) of blends that the list splits otherwise, or not at all [pixel].

    Where lines overlap, a split that is far from the listed one is as likely a displacement that
    the fit has taken for flux: what exceeds the scatter of listed strengths counts as error. Where
    the list gives no strengths, half of what they may be wrong by does.
    """
    strength, listed = _expected_strength(parts, model, quiet)
    expects = strength > 0
    fwhm = model.lsf.basis.fwhm
    cluster = blend_groups(place, expects, _OVERLAP * fwhm)
    cluster = np.where(expects, cluster, cluster.max() + 1 + np.arange(cluster.size))

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(cluster, values), float)

    def share(flux: FloatArray) -> FloatArray:
        return np.asarray(flux / np.maximum(total(flux), 1e-12)[cluster])

    expected, fitted = share(strength), share(model.intensity)
    apart = np.where(expects, place - total(expected * place)[cluster], 0.0)
    moves = (expected * apart) ** 2
    open_split = total(np.where(listed, 0.0, _UNLISTED_SCATTER**2 * moves))
    scatter = total(np.where(listed, _SCATTER**2 * moves, 0.0)) + open_split
    excess = np.sqrt(np.maximum(total(fitted * apart) ** 2 - scatter, 0.0))
    overlap = np.exp(-4 * total(expected * apart**2) / (0.7 * fwhm) ** 2)
    error = overlap * (excess + 0.5 * np.sqrt(open_split))
    # The position of a group is that of its clusters, weighted with their flux.
    flux = np.bincount(model.group, model.intensity, model.n_group)
    weight = model.intensity / np.maximum(flux, 1e-9)[model.group]
    return np.asarray(np.bincount(model.group, weight * error[cluster], model.n_group), float)


def _expected_strength(
    parts: Components, model: Model, quiet: float
) -> tuple[FloatArray, BoolArray]:
    """Strength (n_line,) as lines of the same lamp elsewhere say, else 0; and who is listed.

    Lines without a listed strength are taken for faint ones of their lamp.
    """
    listed = np.isfinite(parts.intensity) & parts.trusted
    strength = np.zeros(parts.intensity.size)
    for name in np.unique(parts.species[listed]):
        mine = parts.trusted & (parts.species == name)
        known = mine & listed
        relative = np.where(listed, parts.intensity, np.quantile(parts.intensity[known], 0.25))
        seen = np.flatnonzero(known & (model.intensity > 5 * quiet))
        ratio = model.intensity[seen] / parts.intensity[seen]
        for line in np.flatnonzero(mine):
            others = ratio[model.group[seen] != model.group[line]]
            if others.size:
                strength[line] = relative[line] * np.median(others)
    return strength, listed
