"""What may displace a line or blend in all fibres alike, beyond the photons' noise."""

from __future__ import annotations

import numpy as np

from kspecpipe.signal import FloatArray
from kspecpipe.wavelength.components import Components
from kspecpipe.wavelength.groups import Measurement, local_residual
from kspecpipe.wavelength.scene import (
    Model,
    Rendering,
    Scene,
    blend_groups,
    lost_samples,
    sample_weights,
)

#: Lines closer than this are not told apart without their strengths [FWHM].
_OVERLAP = 0.8
#: Scatter of the logarithm of strengths about the listed ones.
_SCATTER = 0.5


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
        + _blend_error(parts, model, place)
        + split_error(parts, model, faint_flux(scene), place)
    )


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
    return 0.4 * fwhm * np.sqrt(np.minimum(ratio, 1.0))


def _saturation_error(scene: Scene, model: Model, position: FloatArray) -> FloatArray:
    """Error (n_group,) of lines seen by their flanks only, as well as their shape is known [pixel].

    A flank falls by e in about a pixel: a relative error of the shape is one of place in pixels.
    """
    lost = np.median(lost_samples(scene, position, 1.5 * model.lsf.basis.fwhm), axis=0)
    error = np.where(lost >= 2, 0.01 + model.floor, 0.0)
    worst = np.zeros(model.n_group)
    np.maximum.at(worst, model.group, error * (model.intensity > 0))
    return worst


def _blend_error(parts: Components, model: Model, place: FloatArray) -> FloatArray:
    """Displacement (n_group,) by errors of the split between lines that overlap [pixel]."""
    count, fwhm = model.n_group, model.lsf.basis.fwhm
    total = np.bincount(model.group, model.intensity, count)[model.group]
    share = model.intensity / np.maximum(total, 1e-9)
    mean = np.bincount(model.group, share * place, count)[model.group]
    spread = np.sqrt(np.bincount(model.group, share * (place - mean) ** 2, count))
    order = np.flatnonzero(share > 0.1)
    order = order[np.lexsort((place[order], model.group[order]))]
    step = np.diff(place[order])
    step = np.where(np.diff(model.group[order]) == 0, step, np.inf)
    closest = np.full(count, np.inf)
    np.minimum.at(closest, model.group[order[1:]], step)
    # Of lines whose strength is not listed, the split is less sure.
    unknown = np.bincount(model.group, share * ~np.isfinite(parts.intensity), count) > 0.1
    return np.where(unknown, 0.25, 0.1) * spread * np.exp(-((closest / (0.7 * fwhm)) ** 2))


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
    moved = weight * (near * excess)[cluster]
    return np.asarray(np.bincount(model.group, moved, model.n_group), float)


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
