"""The zero point of an object exposure from its own night-sky lines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.wavelength.dispersion import slit_place
from kspecpipe.wavelength.groups import measure_groups, update_continuum, update_response
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.lsf import Lsf, gaussian_lsf, lsf_basis
from kspecpipe.wavelength.peaks import subtract_continuum
from kspecpipe.wavelength.scene import Model, Scene, blend_groups, render
from kspecpipe.wavelength.shape import fit_shared, strengths_only

#: Typical distances at which a blend is no line of the list, and blends of which one is typical.
_ODD, _MIN_TYPICAL = 6.0, 8
#: Errors by which such a blend is counted as wrong: how far off another line lies tells nothing.
_FOREIGN = 10.0


@dataclass(frozen=True)
class RefineOptions:
    """When sky lines are strong enough to move the wavelengths.

    Parameters
    ----------
    max_error : float
        Largest error of the shift that is of use [pixel].
    min_snr : float
        Smallest S/N of a line, all fibres together.
    slope_span : float
        Fraction of the chip which the lines must span for a first order.
    expected_slope : float
        Typical first order between an arc and an exposure [pixel at the edge]; sky lines are
        blends, and must show more than that clearly.
    blend_error : float
        Uncertainty of a blend's centre in units of the rms distance of its components, because
        night-sky lines vary in strength against each other.
    least_error : float
        No line is trusted better than this: the arc's own wavelengths are not [pixel].
    worst_error : float
        Of fewer than five lines that disagree, one whose error is larger than that of the best by
        this factor is left out: it adds nothing, but its disagreement would cost all of them.
    rounds : int
        Gauss-Newton rounds.
    """

    max_error: float = 0.1
    min_snr: float = 8.0
    slope_span: float = 0.3
    expected_slope: float = 0.03
    blend_error: float = 0.4
    least_error: float = 0.02
    worst_error: float = 8.0
    rounds: int = 5


@dataclass(frozen=True)
class Refinement:
    """How the sky lines of an exposure lie against its wavelengths.

    Parameters
    ----------
    shift, shift_error : float
        Displacement at the middle of the chip, positive when the lines lie at larger x than the
        wavelengths say [pixel]; NaN when the lines are too weak.
    slope, slope_error : float
        Further displacement at the right edge [pixel]; 0 with NaN error when the lines span too
        little of the chip.
    lines : dict of str to ndarray
        One row for each line or blend: wavelength, x, offset, offset_error (before the correction),
        residual (after it) [pixel], snr, used.
    rms : float
        Scatter of the residuals of the lines used [pixel].
    chi2 : float
        Reduced chi-squared of all strong lines, also of those not used: 1 when they agree with the
        wavelengths within their errors; NaN with fewer than three lines.
    """

    shift: float
    shift_error: float
    slope: float
    slope_error: float
    lines: dict[str, np.ndarray]
    rms: float
    chi2: float


def refine_zero_point(
    spectra: Signal,
    wavelength: FloatArray,
    lsf: Lsf | FloatArray,
    sky_lines: LineList,
    live: BoolArray,
    *,
    options: RefineOptions | None = None,
) -> Refinement:
    """Measure zero point and first order of an exposure from its night-sky lines.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted object exposure before sky subtraction [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelengths from the arc [Angstrom].
    lsf : Lsf or ndarray, shape (nfib, nx)
        LSF of the arc's solution; or its FWHM [Angstrom], which is taken as Gaussian and leaves the
        skewness (0.1 pixel) in the shift.
    sky_lines : LineList
        Lines to look for.
    live : ndarray of bool, shape (nfib,)
        Fibres to use: all that have light see the sky.
    options : RefineOptions, optional
        When the lines are strong enough.

    Returns
    -------
    Refinement
        With NaN shift when the lines are too weak.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    chosen = options or RefineOptions()
    if spectra.shape != wavelength.shape or len(live) != len(wavelength):
        raise ValueError(
            f"spectra {spectra.shape}, wavelength {wavelength.shape}, {len(live)} fibres"
        )
    use = np.flatnonzero(live & (spectra.good.mean(axis=1) > 0.2))
    position, chip_lines = _line_positions(wavelength, sky_lines, use)
    if not use.size or not len(chip_lines):
        return _nothing()
    scene = _sky_scene(spectra, use, len(live), len(chip_lines))
    model = _sky_model(scene, _as_lsf(lsf, wavelength), position)
    shift, slope = 0.0, 0.0
    half = (scene.nx - 1) / 2
    for _ in range(chosen.rounds):
        at = position + shift + slope * (position / half - 1)
        model, measured = _measure(scene, model, at)
        table = _combine(model, measured, at, chip_lines.wavelength, half, chosen)
        change = _fit_shift(table, slope, chosen)
        if not np.isfinite(change.shift):
            return replace(change, lines=table)
        shift, slope = shift + change.shift, slope + change.slope
    residual = table["offset"] - change.shift - change.slope * table["u"]
    table["offset"] = table["offset"] + (shift - change.shift) + (slope - change.slope) * table["u"]
    table["residual"] = residual
    if change.shift_error > chosen.max_error:
        nan = float("nan")
        return replace(change, shift=nan, slope=nan, slope_error=nan, lines=table)
    return replace(change, shift=shift, slope=slope, lines=table)


def shift_wavelengths(wavelength: FloatArray, shift: float, slope: float = 0.0) -> FloatArray:
    """Wavelengths (nfib, nx) after lines were found ``shift + slope * u`` pixels further right."""
    x = np.arange(wavelength.shape[1], dtype=float)
    moved = x - shift - slope * (2 * x / (x.size - 1) - 1)
    step = np.gradient(wavelength, axis=1)
    curvature = np.gradient(step, axis=1)
    return wavelength + (moved - x) * step + 0.5 * (moved - x) ** 2 * curvature


def _nothing() -> Refinement:
    """No line could be measured."""
    nan = float("nan")
    empty = {name: np.zeros(0) for name in ("wavelength", "x", "u", "offset", "offset_error")}
    return Refinement(nan, nan, nan, nan, empty, nan, nan)


def _line_positions(
    wavelength: FloatArray, lines: LineList, use: np.ndarray
) -> tuple[FloatArray, LineList]:
    """Position (n_use, n_line) of the lines that are on the chip in all fibres."""
    x = np.arange(wavelength.shape[1], dtype=float)
    if not use.size:
        return np.zeros((0, 0)), lines.select(np.zeros(len(lines), bool))
    margin = 8
    low, high = wavelength[use, margin].max(), wavelength[use, -1 - margin].min()
    chosen = lines.between(float(low), float(high))
    return np.stack([np.interp(chosen.wavelength, wavelength[f], x) for f in use]), chosen


def _as_lsf(lsf: Lsf | FloatArray, wavelength: FloatArray) -> Lsf:
    """Return the LSF, or a Gaussian with the median FWHM in pixels."""
    if isinstance(lsf, Lsf):
        return lsf
    fwhm = float(np.nanmedian(lsf / np.gradient(wavelength, axis=1)))
    return gaussian_lsf(lsf_basis(fwhm), fwhm)


def _sky_scene(spectra: Signal, use: np.ndarray, nfib: int, n_line: int) -> Scene:
    """Lay the fibres under each other."""
    good = spectra.good[use]
    return Scene(
        np.where(good, spectra.value[use], 0.0).astype(float),
        np.where(good, spectra.variance[use], 1.0).astype(float),
        good,
        use,
        np.zeros(use.size, int),
        slit_place(nfib)[use],
        np.ones((1, n_line), bool),
    )


def _sky_model(scene: Scene, lsf: Lsf, position: FloatArray) -> Model:
    """Lines of unit strength on each fibre's running continuum."""
    count = position.shape[1]
    group = blend_groups(position.mean(axis=0), np.ones(count, bool), 1.5 * lsf.basis.fwhm)
    continuum = scene.value - subtract_continuum(scene.value)
    return Model(lsf, np.ones(count), group, np.ones(position.shape), continuum, 0.02)


def _measure(
    scene: Scene, model: Model, position: FloatArray
) -> tuple[Model, dict[str, FloatArray]]:
    """Strength of the lines, then displacement of each blend in each fibre."""
    free = strengths_only(model.intensity.size)
    model, *_ = fit_shared(scene, model, render(scene, model, position), free)
    drawn = render(scene, model, position)
    measured = measure_groups(scene, model, drawn, 1.6 * model.lsf.basis.fwhm)
    model, drawn = update_response(model, drawn, measured, (scene.nx - 1) / 2)
    model = update_continuum(scene, model, drawn, 2.5 * model.lsf.basis.fwhm)
    good = np.isfinite(measured.variance) & (measured.snr > 1) & (np.abs(measured.offset) < 3)
    weight = np.where(good, 1 / np.where(good, measured.variance, 1.0), 0.0)
    return model, {"offset": measured.offset, "weight": weight, "snr": measured.snr}


def _combine(
    model: Model,
    measured: dict[str, FloatArray],
    position: FloatArray,
    wavelength: FloatArray,
    half: float,
    options: RefineOptions,
) -> dict[str, np.ndarray]:
    """Average each blend over the fibres, outliers clipped."""
    weight, offset = measured["weight"], measured["offset"]
    for _ in range(3):
        total = np.maximum(weight.sum(axis=0), 1e-12)
        mean = np.sum(weight * offset, axis=0) / total
        pull = (offset - mean) * np.sqrt(weight)
        weight = np.where(np.abs(pull) > 4.5, 0.0, weight)
    count = np.count_nonzero(weight, axis=0)
    chi2 = np.sum(weight * (offset - mean) ** 2, axis=0) / np.maximum(count - 1, 1)
    flux = model.intensity + 1e-9
    share = np.bincount(model.group, flux)
    place = position.mean(axis=0)
    x = np.bincount(model.group, flux * place) / share
    spread = np.sqrt(np.bincount(model.group, flux * (place - x[model.group]) ** 2) / share)
    snr = np.sqrt(np.sum(measured["snr"] ** 2, axis=0))
    return {
        "wavelength": np.bincount(model.group, flux * wavelength) / share,
        "x": x,
        "u": x / half - 1,
        "offset": mean,
        # Strengths within a blend are those of another night: its centre is as uncertain.
        "offset_error": np.sqrt(
            np.maximum(chi2, 1.0) / total
            + (options.blend_error * spread) ** 2
            + options.least_error**2
        ),
        "snr": snr,
        "used": (snr > options.min_snr) & (count > 0),
    }


def _oddity(residual: FloatArray, error: FloatArray, used: BoolArray) -> FloatArray:
    """Distance from the typical residual of the blends used, in units of the typical distance.

    Two lines far off widen the scatter of all so much that they hide in it. 0 for fewer than
    eight, of which the typical one is not known.
    """
    if used.sum() < _MIN_TYPICAL:
        return np.zeros(residual.size)
    away = np.abs(residual - np.median(residual[used]))
    size = np.hypot(1.4826 * np.median(away[used]), error)
    return np.where(used, away / size, 0.0)


def _reduced_chi2(pull: FloatArray, parameters: int) -> float:
    """Disagreement of the lines beyond their errors; NaN with fewer than three."""
    return float(np.sum(pull**2) / (pull.size - parameters)) if pull.size >= 3 else float("nan")


def _fit_shift(table: dict[str, np.ndarray], applied: float, options: RefineOptions) -> Refinement:
    """Shift and slope from all strong blends, or where few of them disagree from the best."""
    strong, error = table["used"], table["offset_error"]
    found, used = _fit_blends(table, strong, applied, options)
    if strong.sum() < 5 and found.shift_error > options.max_error:
        best = strong & (error < options.worst_error * np.min(error[strong]))
        found, used = _fit_blends(table, best, applied, options)
    table["used"] = used
    return found


def _fit_blends(
    table: dict[str, np.ndarray], chosen: BoolArray, applied: float, options: RefineOptions
) -> tuple[Refinement, BoolArray]:
    """Shift and slope beside the slope applied, with the scatter that the blends show, and these.

    Returns
    -------
    Refinement
        Without a table; NaN where no blend is strong.
    ndarray of bool, shape (n,)
        Blends that agree.
    """
    nan = float("nan")
    u, used, foreign = table["u"], chosen.copy(), np.zeros_like(chosen)
    for _ in range(used.size):
        extra, columns = 0.0, np.stack([np.ones_like(u), u], axis=1)
        wide = used.sum() >= 3 and np.ptp(u[used]) > 2 * options.slope_span
        columns = columns[:, : 2 if wide else 1]
        for _ in range(8):
            weight = np.where(used, 1 / (table["offset_error"] ** 2 + extra**2 + 1e-12), 0.0)
            normal = columns.T @ (weight[:, None] * columns)
            normal[1:, 1:] += 1 / options.expected_slope**2
            if not used.any():
                return Refinement(nan, nan, nan, nan, {}, nan, nan), used
            covariance = np.linalg.inv(normal)
            target = columns.T @ (weight * table["offset"])
            target[1:] -= applied / options.expected_slope**2
            solution = covariance @ target
            residual = table["offset"] - columns @ solution
            freedom = int(used.sum()) - columns.shape[1]
            excess = np.sum(residual[used] ** 2 - table["offset_error"][used] ** 2)
            extra = float(np.sqrt(max(excess / freedom, 0.0))) if freedom > 0 else 0.03
        pull = np.where(used, np.abs(residual) * np.sqrt(weight), 0.0)
        odd = _oddity(residual, table["offset_error"], used)
        if odd.max() > _ODD:
            foreign[int(odd.argmax())] = True
            used &= ~foreign
        elif pull.max() < 3.5 or used.sum() < 5:
            break
        else:
            used[int(pull.argmax())] = False
    error = np.sqrt(np.diag(covariance))
    rms = float(np.sqrt(np.mean(residual[used] ** 2)))
    strong = table["used"]
    pull = np.abs(residual) / table["offset_error"]
    pull = np.where(foreign, np.minimum(pull, _FOREIGN), pull)
    chi2 = _reduced_chi2(pull[strong], columns.shape[1])
    slope, slope_error = (solution[1], error[1]) if wide else (0.0, nan)
    found = Refinement(
        float(solution[0]), float(error[0]), float(slope), float(slope_error), {}, rms, chi2
    )
    return found, used
