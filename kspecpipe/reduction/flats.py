"""From raw flats to one master flat with its traces and profile, for the recipes tlm and mflat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from kspecpipe.beside import beside, spread
from kspecpipe.declare import Declared, metric, parameter, raw, user_file
from kspecpipe.detector.stack import Noise, clip_stack
from kspecpipe.errors import RecipeError
from kspecpipe.extraction.background import BackgroundOptions, has_background
from kspecpipe.extraction.flats import FibreLightOptions, exposure_levels
from kspecpipe.extraction.halo import Halo, measure_halo, subtract_scattered
from kspecpipe.frame import FrameStack
from kspecpipe.reduction.preprocess import DetectorCalibrations, Masters, calibrate_stack
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces
from kspecpipe.trace.profile import extend_wings, measure_profile
from kspecpipe.trace.shift import ShiftOptions, TraceShift, measure_shift
from kspecpipe.trace.table import Profile

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe
    from kspecpipe.spectra import TramlineMap


#: A flat is so bright that few samples tell its shift to a thousandth of a pixel.
_QUICK = ShiftOptions(max_samples=8000, everywhere=True)


def lamp_flats(recommended: int) -> Any:
    """Declare the lamp flats of a recipe."""
    return raw(
        "FLAT",
        at_least=1,
        recommended=recommended,
        match=("shape", "mode", "readmode", "exptime"),
        tolerance={"exptime": 0.01},
        doc="lamp flats of one mode",
    )


class FlatInputs(DetectorCalibrations):
    """Inputs of the recipes that work on lamp flats."""

    flats: FrameStack = lamp_flats(recommended=3)
    flats_off: FrameStack | None = raw(
        "FLATOFF", at_least=0, match=("shape", "readmode"), doc="the same with the lamp off"
    )
    assignment: Table | None = user_file("ASSIGN", default=None, doc="fibre assignment")


class FlatParameters(Declared):
    """Parameters of the recipes that work on lamp flats."""

    stacked_clipping_sigma: float = parameter(
        5.0, unit="sigma", above=0, doc="rejection limit of the average"
    )
    stacked_clipping_iterations: int = parameter(5, at_least=1, at_most=50, doc="rejection passes")
    centre_fibre_window: int = parameter(
        3, unit="pixel", at_least=1, at_most=51, doc="rows that measure the exposure level"
    )
    subtract_background: bool = parameter(True, doc="subtract scattered light")
    bspline_deg: int = parameter(
        3, at_least=0, at_most=5, doc="degree of the background's B-spline along the rows"
    )
    gaussian_blur_sigma: float = parameter(
        40.0, unit="pixel", at_least=0, doc="smoothing of the background along the dispersion"
    )


class TraceMetrics(Declared):
    """Metrics of the recipes that trace fibres."""

    found: int = metric("FIBRES FOUND", doc="fibres with light")
    dead: int = metric("FIBRES DEAD", doc="fibres without light")
    match: float | None = metric(
        "MATCH SCORE",
        doc="identification score; 1: all fibres found, nothing else",
        needs="the traces are found in these flats",
    )
    margin: float | None = metric(
        "MATCH MARGIN",
        doc="1 - score of the next-best identification / score of the best",
        needs="the traces are found in these flats",
    )
    expected: int = metric("FIBRES EXPECTED", doc="fibres that the instrument has")
    rms: float = metric("TRACE RMS", unit="pixel", doc="scatter of centroids about the traces")
    residual_min: float = metric(
        "TRACE RES MIN", unit="pixel", doc="lowest centroid that was used, minus its trace"
    )
    residual_max: float = metric(
        "TRACE RES MAX", unit="pixel", doc="highest centroid that was used, minus its trace"
    )
    residual_sd: float = metric(
        "TRACE RES SD", unit="pixel", doc="standard deviation of centroids minus traces"
    )
    width: float = metric("PROFILE FWHM", unit="pixel", doc="median width of the profile")
    level_spread: float | None = metric(
        "FLAT LEVEL SPREAD",
        doc="rms of the flats' relative levels of fibre light",
        needs="at least two flats",
    )
    shift: list[float] = metric(
        "FLAT SHIFT", unit="pixel", scope="exposure", doc="traces, single flat minus their average"
    )
    rejected: float = metric("REJECTED", doc="largest fraction of a flat that was rejected")
    saturated: float = metric(
        "SATURATED FRACTION", doc="pixels on the live traces that are saturated in the worst flat"
    )


@dataclass(frozen=True)
class FlatOptions:
    """How flats are combined.

    Parameters
    ----------
    sigma, iterations : float, int
        Rejection limit and passes of the average.
    window : int
        Rows about each trace in which the exposure level is measured [pixel].
    prnu : float
        Relative pixel response, part of the expected scatter between flats.
    background : BackgroundOptions or None
        How the background is fitted; None: no scattered light is subtracted.
    cores : int
        Cores that may be used.
    """

    sigma: float = 5.0
    iterations: int = 5
    window: int = 3
    prnu: float = 0.0
    background: BackgroundOptions | None = field(default_factory=BackgroundOptions)
    cores: int = 1


@dataclass(frozen=True)
class LampFlat:
    """The average of the flats of one lamp.

    Parameters
    ----------
    lamp : str
        Its name; empty when there is only one lamp without a name.
    image : Signal, shape (ny, nx)
        Average flat [electron], without scattered light; variance without Poisson noise.
    background : ndarray, shape (ny, nx)
        Scattered light that was subtracted [electron].
    levels : ndarray, shape (n,)
        Exposure level of each flat relative to their mean, measured on fibre light.
    rejected : ndarray, shape (n,)
        Fraction of each flat that was rejected.
    """

    lamp: str
    image: Signal
    background: FloatArray
    levels: FloatArray
    rejected: FloatArray


@dataclass(frozen=True)
class MasterFlat:
    """The average flats of all lamps, and the traces of the fibres on them.

    Parameters
    ----------
    lamps : tuple of LampFlat
        One for each lamp.
    traces : Traces
        Traces.
    profile : Profile
        Profile.
    halo : Halo or None
        Light scattered around every fibre, when it was subtracted.
    shifts : tuple of TraceShift
        Shift of every single flat, in the order of the stack, against the traces.
    saturated : float
        Largest fraction of the pixels on the live traces that is saturated in a single flat.
    """

    lamps: tuple[LampFlat, ...]
    traces: Traces
    profile: Profile
    halo: Halo | None
    shifts: tuple[TraceShift, ...]
    saturated: float

    @property
    def levels(self) -> FloatArray:
        """Exposure levels of all flats, each relative to the others of its lamp."""
        return np.concatenate([lamp.levels for lamp in self.lamps])


def lamp_groups(stack: FrameStack) -> dict[str, list[int]]:
    """Return the indices of the flats of each lamp; "" is the lamp without a name."""
    groups: dict[str, list[int]] = {}
    for number, info in enumerate(stack.infos):
        groups.setdefault(str(info.keywords.get("lamp") or ""), []).append(number)
    return groups


def combine_flats(
    stack: FrameStack,
    images: Sequence[Signal],
    layout: FibreLayout,
    known: tuple[Traces, Profile] | None,
    options: FlatOptions,
) -> MasterFlat:
    """Combine the flats of each lamp, scaled to a common exposure level, and trace them.

    The fibres are traced on the light of all lamps together, so that each is seen wherever one of
    the lamps shines. Known traces are moved to where these flats have them.

    Parameters
    ----------
    stack : FrameStack
        Raw flats.
    images : sequence of Signal, each (ny, nx)
        The same, calibrated [electron].
    layout : FibreLayout
        Nominal rows of the fibres.
    known : (Traces, Profile) or None
        Traces of an earlier flat; none: they are measured here.
    options : FlatOptions
        Limits.

    Raises
    ------
    RecipeError
        If there is no light, or the fibres cannot be identified.
    """
    noise = Noise(ron=stack.readout.ron, per_unit=1.0, relative=max(options.prnu, 0.01))
    groups = list(lamp_groups(stack).values())
    names = [[stack.infos[i].name for i in at] for at in groups]
    rough = [
        _rough_levels([images[i] for i in at], called)
        for at, called in zip(groups, names, strict=True)
    ]
    first = (
        _average([images[i] for i in at], levels, noise, options)[0]
        for at, levels in zip(groups, rough, strict=True)
    )
    traces = known[0] if known else find_traces(_sum(first), layout)
    averages = [_two_stages([images[i] for i in at], traces, noise, options) for at in groups]
    total = _sum([image for image, _, _ in averages])
    # Traces and profile tell scattered light from wings by themselves, column by column, which
    # is better than what a model of the whole frame leaves of its gradient under the fibres.
    traces, profile = _moved(total, *known) if known else _measured(total, traces)
    shift_of = partial(measure_shift, traces=traces, profile=profile, options=_QUICK)
    cleaned = partial(_cleaned, [image for image, _, _ in averages], traces, layout, options)
    with beside(cleaned, options.cores) as clean:
        shifts = tuple(spread(shift_of, images, options.cores - 1))
        saturated = max(_on_traces(image, traces).fraction(DQ.SATURATED) for image in images)
        del images  # a third of all memory, and the averages are all that is needed now
        halo, parts = clean()
    lamps = tuple(
        LampFlat(lamp, *part, levels, rejected)
        for lamp, part, (_, levels, rejected) in zip(
            lamp_groups(stack), parts, averages, strict=True
        )
    )
    if halo is not None and not known:
        profile = extend_wings(_sum(lamp.image for lamp in lamps), traces, profile)
    return MasterFlat(lamps, traces, profile, halo, shifts, saturated)


def _cleaned(
    images: Sequence[Signal], traces: Traces, layout: FibreLayout, options: FlatOptions
) -> tuple[Halo | None, list[tuple[Signal, FloatArray]]]:
    """Measure the light that is scattered around all fibres; images without it, and what it is."""
    total = _sum(images)
    if not (
        options.background and has_background(total, traces, layout, options=options.background)
    ):
        return None, [(image, np.zeros(image.shape, dtype=np.float32)) for image in images]
    halo = measure_halo(total, traces)
    return halo, [
        subtract_scattered(image, traces, layout, halo, options=options.background)
        for image in images
    ]


def _on_traces(image: Signal, traces: Traces) -> Signal:
    """Return the pixels under the live traces, shape (nlive, nx)."""
    rows = np.rint(traces.y[traces.live]).astype(int)
    return image.select((np.clip(rows, 0, image.shape[0] - 1), np.arange(image.shape[1])))


def _sum(images: Iterable[Signal]) -> Signal:
    return reduce(Signal.add, images)


def _measured(image: Signal, traces: Traces) -> tuple[Traces, Profile]:
    profile, refined = measure_profile(image, traces)
    return refined, profile


def _moved(image: Signal, traces: Traces, profile: Profile) -> tuple[Traces, Profile]:
    """Move traces of an earlier flat to where this one has them."""
    shift = measure_shift(image, traces, profile)
    if not shift.measured:
        raise RecipeError(
            "the flat cannot be aligned with the TRAMLINE_MAP: no shift of its traces explains "
            "the light. Was the lamp on, and is the map of this instrument mode?"
        )
    return replace(traces, y=shift.apply(traces.y)), profile


def _rough_levels(images: Sequence[Signal], names: Sequence[str]) -> FloatArray:
    """Light of each flat before its traces are known, relative to the brightest.

    Raises
    ------
    RecipeError
        If a flat has less than a fiftieth of the light of the brightest.
    """
    bright = []
    for image in images:
        value = image.value[image.good][::7]
        low, high = np.percentile(value, (50, 99.5)) if value.size else (0.0, 0.0)
        bright.append(float(high - low))
    levels = np.array(bright)
    noise = 5 * float(np.sqrt(max(np.median(image.variance) for image in images)))
    if levels.max() < 4 * noise:  # no light in any: to be said when no trace is found
        return np.ones(levels.size)
    dark = [name for name, level in zip(names, levels, strict=True) if level < 0.02 * levels.max()]
    if dark:
        raise RecipeError(
            f"{len(dark)} of {len(names)} flats ({', '.join(dark[:3])}) have hardly any light "
            "beside the others. Was the lamp on in all of them? Leave them out of the SOF"
        )
    relative: FloatArray = np.clip(levels, noise, None) / levels.max()
    return relative


def _two_stages(
    images: Sequence[Signal], traces: Traces, noise: Noise, options: FlatOptions
) -> tuple[Signal, FloatArray, FloatArray]:
    """Average flats scaled by the level of their fibre light, as soxspipe's soxs_mflat does it.

    The level is first the mean light in the inner windows, which makes a first-pass master; then
    the mean ratio to this master, from which the illumination has dropped out.
    """
    first, _ = _average(images, _levels(images, traces, options.window, None), noise, options)
    levels = _levels(images, traces, options.window, first)
    image, rejected = _average(images, levels, noise, options)
    return image, levels, rejected


def _levels(
    images: Sequence[Signal], traces: Traces, window: int, master: Signal | None
) -> FloatArray:
    options = FibreLightOptions(centre_fibre_window=window)
    levels = exposure_levels(images, traces, master=master, options=options)
    relative: FloatArray = levels / levels.mean()
    return relative


def _average(
    images: Sequence[Signal], levels: FloatArray, noise: Noise, options: FlatOptions
) -> tuple[Signal, FloatArray]:
    """Average scaled flats; values that are unusable in one of them come from the others."""
    stacked = clip_stack(
        _UsablePlanes(images),
        sigma=options.sigma,
        iterations=options.iterations,
        floor=noise,
        scale=1.0 / levels,
    )
    own = reduce(np.add, (image.variance for image in images)) / np.float32(len(images) ** 2)
    never: BoolArray = stacked.count == 0
    common = np.bitwise_and.reduce([image.dq for image in images])
    anywhere = np.bitwise_or.reduce([image.dq for image in images])
    dq = stacked.signal.dq | np.asarray(np.where(never, anywhere, common), dtype=np.uint16)
    return Signal(stacked.mean, own.astype(np.float32), dq), stacked.rejected_fraction


@dataclass(frozen=True)
class _UsablePlanes:
    """Values of images with NaN where they are not usable, a few rows at a time."""

    images: Sequence[Signal]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        ny, nx = self.images[0].shape
        return len(self.images), ny, nx

    def rows(self, a: int, b: int) -> FloatArray:
        """Rows ``a`` to ``b`` (exclusive) of all images, shape (n, b - a, nx)."""
        parts = (image.select(slice(a, b)) for image in self.images)
        return np.stack(
            [np.where(part.good, part.value, np.float32(np.nan)) for part in parts]
        ).astype(np.float32, copy=False)


def traced_flat(
    recipe: BaseRecipe, inputs: Any, parameters: Any, known: TramlineMap | None
) -> MasterFlat:
    """Average the flats and trace them, or take the traces that are known."""
    info, shape = inputs.flats.infos[0], inputs.flats.shape[1:]
    layout = recipe.setup.fibre_layout(info, shape)
    options = FlatOptions(
        sigma=parameters.stacked_clipping_sigma,
        iterations=parameters.stacked_clipping_iterations,
        window=parameters.centre_fibre_window,
        prnu=inputs.flats.readout.prnu,
        background=BackgroundOptions(
            bspline_deg=parameters.bspline_deg, gaussian_blur_sigma=parameters.gaussian_blur_sigma
        )
        if parameters.subtract_background
        else None,
        cores=recipe.options.cores,
    )
    flat = combine_flats(
        inputs.flats,
        _calibrated(inputs, layout, options.cores),
        layout,
        known.model if known else None,
        options,
    )
    # Most rows have no fibre light, and there a flat of another lamp or setup is no other.
    lit = flat.traces.live.sum() * parameters.centre_fibre_window / shape[0]
    for lamp, at in zip(flat.lamps, lamp_groups(inputs.flats).values(), strict=True):
        names = [inputs.flats.infos[i].name for i in at]
        recipe.drop_contradicted(names, lamp.rejected / min(lit, 1.0))
    if parameters.subtract_background and flat.halo is None:
        recipe.log.warning("no rows are free of fibre light: no scattered light is subtracted")
    recipe.log.info(
        "%d flats, levels %.3f to %.3f; %d of %d fibres have light, trace rms %.4f pixel",
        len(inputs.flats),
        flat.levels.min(),
        flat.levels.max(),
        flat.traces.live.sum(),
        flat.traces.live.size,
        flat.traces.rms,
    )
    return flat


def _calibrated(inputs: Any, layout: FibreLayout, cores: int) -> list[Signal]:
    """Calibrate the flats; the masters are gone from memory before the flats are combined."""
    dark_rows = layout.rows_without_light
    masters = Masters.of(inputs, inputs.flats, dark_rows, inputs.flats_off, cores=cores)
    return calibrate_stack(inputs.flats, masters, cores=cores)


def trace_metrics(flat: MasterFlat) -> dict[str, Any]:
    """Return the values of `TraceMetrics`."""
    traces, found_here = flat.traces, np.isfinite(flat.traces.match_score)
    residual = traces.points["residual"][traces.points["used"]]
    if residual.size == 0:
        residual = np.array([np.nan])
    return {
        "found": int(traces.live.sum()),
        "dead": int((~traces.live).sum()),
        "expected": int(traces.live.size),
        "match": traces.match_score if found_here else None,
        "margin": 1 - traces.runner_up / max(traces.match_score, 1e-9) if found_here else None,
        "rms": traces.rms,
        "residual_min": float(residual.min()),
        "residual_max": float(residual.max()),
        "residual_sd": float(residual.std()),
        "width": float(np.median(traces.width[traces.live])),
        "level_spread": float(np.std(flat.levels)) if len(flat.levels) > len(flat.lamps) else None,
        "shift": [shift.shift for shift in flat.shifts],
        "rejected": float(max(lamp.rejected.max() for lamp in flat.lamps)),
        "saturated": flat.saturated,
    }


def predicted_wavelengths(recipe: BaseRecipe, flats: FrameStack, shape: tuple[int, int]) -> Any:
    """Return the nominal wavelength of every pixel, or None without a prediction."""
    if recipe.setup.facts.wavelength is None:
        return None
    prediction = recipe.setup.prediction(flats.infos[0], shape[1])
    return np.broadcast_to(prediction.wavelength, shape)
