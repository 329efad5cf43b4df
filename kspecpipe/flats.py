"""From raw flats to one master flat with its traces and profile, for the recipes tlm and mflat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from kspecpipe.declare import Declared, metric, parameter, raw, user_file
from kspecpipe.detector.planes import ArrayPlanes
from kspecpipe.detector.stack import Noise, clip_stack
from kspecpipe.extraction.background import has_background
from kspecpipe.extraction.flats import FibreLightOptions, exposure_levels
from kspecpipe.extraction.halo import Halo, measure_halo, subtract_scattered
from kspecpipe.frame import FrameStack
from kspecpipe.preprocess import DetectorCalibrations, Masters, calibrate_stack
from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces
from kspecpipe.trace.profile import measure_profile
from kspecpipe.trace.table import Profile

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe
    from kspecpipe.spectra import TramlineMap


class FlatInputs(DetectorCalibrations):
    """Inputs of the recipes that work on lamp flats."""

    flats: FrameStack = raw(
        "FLAT",
        at_least=1,
        recommended=3,
        match=("shape", "mode", "readmode", "exptime"),
        tolerance={"exptime": 0.01},
        doc="lamp flats of one mode",
    )
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
    rms: float = metric("TRACE RMS", unit="pixel", doc="scatter of centroids about the traces")
    width: float = metric("PROFILE FWHM", unit="pixel", doc="median width of the profile")
    level_spread: float | None = metric(
        "FLAT LEVEL SPREAD",
        doc="rms of the flats' relative levels of fibre light",
        needs="at least two flats",
    )
    rejected: float = metric("REJECTED", doc="largest fraction of a flat that was rejected")


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
    subtract_background : bool
        Whether scattered light is subtracted.
    """

    sigma: float = 5.0
    iterations: int = 5
    window: int = 3
    prnu: float = 0.0
    subtract_background: bool = True


@dataclass(frozen=True)
class MasterFlat:
    """The average of several flats.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Average flat [electron], without scattered light; variance of one average without Poisson
        noise.
    background : ndarray, shape (ny, nx)
        Scattered light that was subtracted [electron].
    levels : ndarray, shape (n,)
        Exposure level of each flat relative to their mean, measured on fibre light.
    rejected : ndarray, shape (n,)
        Fraction of each flat that was rejected.
    traces : Traces
        Traces.
    profile : Profile or None
        Profile, when the flats were traced here.
    halo : Halo or None
        Light scattered around every fibre, when it was subtracted.
    """

    image: Signal
    background: FloatArray
    levels: FloatArray
    rejected: FloatArray
    traces: Traces
    profile: Profile
    halo: Halo | None


def combine_flats(
    stack: FrameStack,
    masters: Masters,
    layout: FibreLayout,
    known: tuple[Traces, Profile] | None,
    options: FlatOptions,
) -> MasterFlat:
    """Combine flats, scaled to a common exposure level, and trace them.

    The level is measured on fibre light alone, in two passes as soxspipe's soxs_mflat does it:
    first from the mean light in the inner windows, then from the ratio to the first master.

    Parameters
    ----------
    stack : FrameStack
        Raw flats.
    masters : Masters
        Calibrations.
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
    images = calibrate_stack(stack, masters)
    rough = _average(images, np.ones(len(images)), stack, options)[0]
    traces = known[0] if known else find_traces(rough, layout)
    levels = _levels(images, traces, options.window, None)
    first, _ = _average(images, levels, stack, options)
    levels = _levels(images, traces, options.window, first)
    image, rejected = _average(images, levels, stack, options)
    # Traces and profile tell scattered light from wings by themselves, column by column, which
    # is better than what a model of the whole frame leaves of its gradient under the fibres.
    traces, profile = known or _profile(image, traces)
    background: FloatArray = np.zeros(image.shape, dtype=np.float32)
    halo = None
    if options.subtract_background and has_background(image, traces, layout):
        halo = measure_halo(image, traces)
        image, background = subtract_scattered(image, traces, layout, halo)
    return MasterFlat(image, background, levels, rejected, traces, profile, halo)


def _profile(image: Signal, traces: Traces) -> tuple[Traces, Profile]:
    profile, refined = measure_profile(image, traces)
    return refined, profile


def _levels(
    images: Sequence[Signal], traces: Traces, window: int, master: Signal | None
) -> FloatArray:
    options = FibreLightOptions(centre_fibre_window=window)
    levels = exposure_levels(images, traces, master=master, options=options)
    relative: FloatArray = levels / levels.mean()
    return relative


def _average(
    images: Sequence[Signal], levels: FloatArray, stack: FrameStack, options: FlatOptions
) -> tuple[Signal, FloatArray]:
    """Average scaled flats; values that are unusable in one of them come from the others."""
    values = np.stack([np.where(image.good, image.value, np.nan) for image in images])
    noise = Noise(ron=stack.readout.ron, per_unit=1.0, relative=max(options.prnu, 0.01))
    stacked = clip_stack(
        ArrayPlanes(values),
        sigma=options.sigma,
        iterations=options.iterations,
        floor=noise,
        scale=1.0 / levels,
    )
    own = np.mean([image.variance for image in images], axis=0) / len(images)
    never: BoolArray = stacked.count == 0
    common = np.bitwise_and.reduce([image.dq for image in images])
    anywhere = np.bitwise_or.reduce([image.dq for image in images])
    dq = stacked.signal.dq | np.asarray(np.where(never, anywhere, common), dtype=np.uint16)
    return Signal(stacked.mean, own.astype(np.float32), dq), stacked.rejected_fraction


def traced_flat(
    recipe: BaseRecipe, inputs: Any, parameters: Any, known: TramlineMap | None
) -> MasterFlat:
    """Average the flats and trace them, or take the traces that are known."""
    info, shape = inputs.flats.infos[0], inputs.flats.shape[1:]
    layout = recipe.setup.fibre_layout(info, shape)
    masters = Masters.of(inputs, inputs.flats, layout.rows_without_light, inputs.flats_off)
    options = FlatOptions(
        sigma=parameters.stacked_clipping_sigma,
        iterations=parameters.stacked_clipping_iterations,
        window=parameters.centre_fibre_window,
        prnu=inputs.flats.readout.prnu,
        subtract_background=parameters.subtract_background,
    )
    flat = combine_flats(inputs.flats, masters, layout, known.model if known else None, options)
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


def trace_metrics(flat: MasterFlat) -> dict[str, Any]:
    """Return the values of `TraceMetrics`."""
    traces, found_here = flat.traces, np.isfinite(flat.traces.match_score)
    return {
        "found": int(traces.live.sum()),
        "dead": int((~traces.live).sum()),
        "match": traces.match_score if found_here else None,
        "margin": 1 - traces.runner_up / max(traces.match_score, 1e-9) if found_here else None,
        "rms": traces.rms,
        "width": float(np.median(traces.width[traces.live])),
        "level_spread": float(np.std(flat.levels)) if len(flat.levels) > 1 else None,
        "rejected": float(flat.rejected.max()),
    }


def predicted_wavelengths(recipe: BaseRecipe, flats: FrameStack, shape: tuple[int, int]) -> Any:
    """Return the nominal wavelength of every pixel, or None without a prediction."""
    if recipe.setup.facts.wavelength is None:
        return None
    prediction = recipe.setup.prediction(flats.infos[0], shape[1])
    return np.broadcast_to(prediction.wavelength, shape)
