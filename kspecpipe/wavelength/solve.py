"""From extracted arcs to the wavelength of every pixel of every fibre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import maximum_filter1d

from kspecpipe.signal import DQ, BoolArray, FloatArray, IntArray, Signal
from kspecpipe.wavelength.align import Stack, fill_gaps, stack_fibres
from kspecpipe.wavelength.components import Components, components
from kspecpipe.wavelength.dispersion import (
    Dispersion,
    default_prior,
    dispersion_from_alignment,
    slit_place,
)
from kspecpipe.wavelength.identify import Identification, SearchOptions, identify
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.lsf import Lsf, lsf_basis, measure_fwhm, place_terms, winged_lsf
from kspecpipe.wavelength.peaks import (
    Peaks,
    compress,
    find_peaks,
    line_noise,
    subtract_continuum,
)
from kspecpipe.wavelength.predict import Prediction
from kspecpipe.wavelength.rounds import (
    Progress,
    RoundOptions,
    add_unknown,
    advance,
    first_strengths,
)
from kspecpipe.wavelength.scene import Model, Scene
from kspecpipe.wavelength.span import keep_trusted
from kspecpipe.wavelength.trust import (
    TrustLimits,
    WavelengthError,
    check_identification,
    check_solution,
    judge_solution,
)

#: Rounds before which unexplained peaks become components of their own.
_UNKNOWN_ROUNDS = (3, 5)
#: Correlation with the stack below which a fibre shows no arc.
_MIN_QUALITY = 0.3


@dataclass(frozen=True)
class ArcSpectra:
    """Extracted spectra of one arc exposure.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Flux [electron]; samples with an unusable DQ bit take no part.
    lamps : tuple of str
        Species which burn; empty when unknown.
    exptime : float
        Exposure time [s].
    """

    spectra: Signal
    lamps: tuple[str, ...] = ()
    exptime: float = 1.0


@dataclass(frozen=True)
class SolveOptions:
    """How arcs are solved, and when a solution is trusted.

    Parameters
    ----------
    search : SearchOptions
        How alignments are searched.
    limits : TrustLimits
        What a trustworthy solution shows.
    rounds : int
        Rounds of the global fit; the errors are those of the last two.
    shape_rows : int
        Fibres that the common line shape is fitted to.
    slit_reach : int
        Largest shift of a fibre's lines against the middle fibre [pixel].
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    limits: TrustLimits = field(default_factory=TrustLimits)
    rounds: int = 7
    shape_rows: int = 24
    slit_reach: int = 15


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


def solve_arcs(
    arcs: Sequence[ArcSpectra],
    lines: LineList,
    prediction: Prediction,
    live: BoolArray,
    *,
    options: SolveOptions | None = None,
) -> WaveSolution:
    """Find the wavelength of every pixel from one or more arc exposures.

    The stacked arc is identified against the line list within the ranges of the prediction. Then a
    forward model of all lines in all fibres, with the LSF that the arc itself shows, gives line
    positions, and these the dispersion: grating equation, camera distortion and slit shape, with
    their covariance.

    Parameters
    ----------
    arcs : sequence of ArcSpectra
        Exposures of one setup: of all lamps together, of one lamp each, short and long.
    lines : LineList
        Lines which may be there; those of lamps that do not burn are left out.
    prediction : Prediction
        What the instrument says, and how wrong it may be.
    live : ndarray of bool, shape (nfib,)
        Fibres with light.
    options : SolveOptions, optional
        How to solve, and when to trust.

    Returns
    -------
    WaveSolution
        For all fibres.

    Raises
    ------
    ValueError
        If shapes disagree, or there is no exposure.
    RecipeError
        If there is no trustworthy solution; it is a `WavelengthError` with diagnostics.
    """
    chosen = options or SolveOptions()
    _check_inputs(arcs, prediction, live)
    lit = _burning(arcs, lines)
    stacks = [stack_fibres(arc.spectra, live, chosen.slit_reach) for arc in arcs]
    _check_fibres(stacks)
    spectrum, peaks = _observe(stacks)
    found = identify(spectrum, peaks, lit, prediction, chosen.search)
    found = check_identification(found, peaks, spectrum, lit, prediction, chosen.limits)
    sharpest = max(stacks, key=lambda stack: float(np.nansum(stack.quality)))
    scene, state, fwhm = _start(arcs, sharpest, peaks, lit, (prediction, found), live)
    state = first_strengths(scene, state)
    for number in range(chosen.rounds):
        step = RoundOptions(fwhm, number, number >= chosen.rounds - 2, chosen.shape_rows)
        if number in _UNKNOWN_ROUNDS:
            scene, state = add_unknown(scene, state, step)
        state = advance(scene, state, step)
    state = keep_trusted(scene, state, step, chosen.limits.span_error)
    diagnostics = judge_solution(scene, state, found, peaks)
    check_solution(diagnostics, state, chosen.limits)
    return _assemble(scene, state, found, diagnostics)


def _check_inputs(arcs: Sequence[ArcSpectra], prediction: Prediction, live: BoolArray) -> None:
    """Refuse arrays that do not belong together."""
    if not arcs:
        raise ValueError("no arc exposure was given")
    shapes = {arc.spectra.shape for arc in arcs}
    expected = (len(live), prediction.nx)
    if shapes != {expected}:
        raise ValueError(f"arc spectra have shapes {sorted(shapes)}; expected {expected}")
    if not any(arc.spectra.good[live].any() for arc in arcs):
        raise WavelengthError(
            "No live fibre has a usable sample in any arc. Is the arc saturated or masked "
            "throughout, and does TRAMLINE_MAP belong to it?",
            {},
        )


def _check_fibres(stacks: Sequence[Stack]) -> None:
    """Refuse exposures whose fibres have nothing in common."""
    live = np.any([np.isfinite(stack.quality) for stack in stacks], axis=0)
    quality = np.max([np.nan_to_num(stack.quality) for stack in stacks], axis=0)
    agreeing = int(np.sum(quality > _MIN_QUALITY))
    if agreeing < 0.3 * live.sum():
        raise WavelengthError(
            f"{agreeing} of {live.sum()} fibres show the emission lines of the others; at least "
            "30 % are needed. Is this an arc, and were the lamps on?",
            {"quality": quality},
        )


def _burning(arcs: Sequence[ArcSpectra], lines: LineList) -> LineList:
    """Lines of the lamps that burn in some exposure."""
    if any(not arc.lamps for arc in arcs):
        return lines
    chosen = lines.of_species({name for arc in arcs for name in arc.lamps})
    if not len(chosen):
        names = sorted({name for arc in arcs for name in arc.lamps})
        raise WavelengthError(
            f"The line list has no line of the lamps {', '.join(names)}; it has "
            f"{', '.join(np.unique(lines.species))}. Give ARC_LINES for these lamps.",
            {},
        )
    return chosen


def _observe(stacks: Sequence[Stack]) -> tuple[FloatArray, Peaks]:
    """Compressed spectrum and peaks of all exposures together."""
    spectra, peaks = [], []
    for stack in stacks:
        bare = subtract_continuum(stack.value)
        spectra.append(compress(bare / line_noise(bare, stack.variance)))
        peaks.append(find_peaks(stack.value, stack.variance, stack.saturated))
    joined = peaks[0]
    for other in peaks[1:]:
        joined = joined.join(other)
    return np.max(spectra, axis=0), joined


def typical_fwhm(peaks: Peaks) -> float:
    """FWHM of the brightest unsaturated peaks, without that of the detection filter [pixel]."""
    sharp = peaks.select(peaks.blur == 0)
    if not len(sharp):
        return 3.0
    brightest = np.argsort(-sharp.snr, kind="stable")[:12]
    return float(np.sqrt(np.clip(np.median(sharp.fwhm[brightest]) ** 2 - 2.8**2, 4.0, 100.0)))


def _start(
    arcs: Sequence[ArcSpectra],
    sharpest: Stack,
    peaks: Peaks,
    lines: LineList,
    start: tuple[Prediction, Identification],
    live: BoolArray,
) -> tuple[Scene, Progress, float]:
    """Set up the forward model from the identification."""
    prediction, found = start
    lit = live & (np.nan_to_num(sharpest.quality) > _MIN_QUALITY)
    shift = np.where(lit, sharpest.shift, _smooth_shift(sharpest.shift, lit))
    dispersion = dispersion_from_alignment(prediction, found.best.coefficients, shift)
    parts = components(lines, dispersion)
    scene = _scene(arcs, lit, parts)
    model, fwhm = _first_model(scene, arcs, parts, peaks)
    drift = np.zeros(len(arcs))
    prior = default_prior(prediction)
    state = Progress(model, dispersion, prior, parts, None, None, 0.5, 1.0, drift)
    return scene, state, fwhm


def _smooth_shift(shift: FloatArray, lit: BoolArray) -> FloatArray:
    """Shift (nfib,) of all fibres from a parabola through those with light [pixel]."""
    place = slit_place(len(shift))
    degree = min(2, int(lit.sum()) - 1)
    if degree < 0:
        return np.zeros(len(shift))
    fit = np.polynomial.Polynomial.fit(place[lit], shift[lit], degree, domain=[-1, 1])
    return np.asarray(fit(place))


def _scene(arcs: Sequence[ArcSpectra], live: BoolArray, parts: Components) -> Scene:
    """Lay the live fibres of all exposures under each other."""
    use = np.flatnonzero(live)
    good = np.concatenate(
        [(arc.spectra.good & ~beside_saturation(arc.spectra))[use] for arc in arcs]
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


def beside_saturation(spectra: Signal, reach: int = 1) -> BoolArray:
    """Return the samples within ``reach`` columns of a saturated or bled one.

    Charge spills along the columns of the detector, across the dispersion: the columns beside a
    lost core are sound, and the flanks of a saturated line say where it is.
    """
    full = (spectra.dq & np.uint16(DQ.SATURATED | DQ.BLEED)) > 0
    near: BoolArray = maximum_filter1d(full, 2 * reach + 1, axis=1, mode="constant")
    return near


def _shines(lamps: tuple[str, ...], species: np.ndarray) -> BoolArray:
    """Which components the lamps of an exposure shine."""
    if not lamps:
        return np.ones(species.size, bool)
    mine: BoolArray = np.isin(np.char.lower(species), [name.lower() for name in lamps])
    return mine


def _first_model(
    scene: Scene, arcs: Sequence[ArcSpectra], parts: Components, peaks: Peaks
) -> tuple[Model, float]:
    """Gaussian lines of unit strength on the running continuum."""
    fwhm = typical_fwhm(peaks)
    basis = lsf_basis(fwhm)
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
    model = Model(
        winged_lsf(basis), np.ones(count), np.arange(count), response, filled - bare, 0.05
    )
    return model, fwhm


def _assemble(
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
    variance = 1 / weight[fibre, column] + groups.common[group][column] ** 2
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


def restrict(prediction: Prediction, scale: float, shift: float) -> Prediction:
    """Narrow the search around a prediction: relative scale and shift [pixel], either way."""
    return replace(prediction, scale_range=(1 - scale, 1 + scale), shift_range=shift)
