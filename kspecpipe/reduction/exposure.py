"""From an image to the spectra of all fibres: shift, cosmic rays, background, extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kspecpipe.beside import spread
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.detector.cosmic import CosmicOptions, find_cosmics
from kspecpipe.extraction.background import has_background
from kspecpipe.extraction.halo import subtract_scattered
from kspecpipe.extraction.slabs import lay_slabs
from kspecpipe.extraction.solve import (
    ExtractionOptions,
    extract_fibres,
    model_image,
)
from kspecpipe.frame import FrameStack, RawFrame
from kspecpipe.products.images import Background, ModelImage, Preprocessed
from kspecpipe.reduction.preprocess import Masters, calibrate_frame
from kspecpipe.signal import DQ, FloatArray, IntArray, Signal
from kspecpipe.spectra import TramlineMap
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.shift import TraceShift, measure_shift
from kspecpipe.trace.table import sample_profile

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe


@dataclass(frozen=True)
class ExposureOptions:
    """How an exposure is extracted.

    Parameters
    ----------
    extraction : ExtractionOptions
        Noise terms, passes, rejection.
    search_cosmics : bool
        Whether L.A.Cosmic looks for cosmic rays before the extraction does.
    subtract_background : bool
        Whether scattered light is subtracted.
    """

    extraction: ExtractionOptions
    search_cosmics: bool = True
    subtract_background: bool = True


@dataclass(frozen=True)
class ExtractedExposure:
    """Spectra of one exposure and what was measured on the way: nothing as large as an image.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Flux [electron].
    chi2 : ndarray, shape (nfib, nx)
        Reduced chi-squared of the pixels in each sample's window.
    shift : TraceShift
        Shift of the traces, frame minus flat; NaN when it could not be measured.
    cosmics : float
        Fraction of the pixels of the fibre block hit by cosmic rays.
    noise : mapping of str to ndarray, each (nfib, nx)
        What `pixel_noise` says of it.
    """

    spectra: Signal
    chi2: FloatArray
    shift: TraceShift
    cosmics: float
    noise: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True)
class ExposureImages:
    """What one exposure was extracted from; too large to keep that of every exposure.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        What was extracted: without background [electron].
    background : ndarray, shape (ny, nx)
        Scattered light [electron].
    profiles : (ndarray, ndarray)
        First row of each window, shape (nfib, nx), and profiles, shape (nfib, nwin, nx).
    """

    image: Signal
    background: FloatArray
    profiles: tuple[IntArray, FloatArray]


def extract_exposure(
    image: Signal,
    tramlines: TramlineMap,
    layout: FibreLayout,
    options: ExposureOptions,
) -> tuple[ExtractedExposure, ExposureImages]:
    """Extract all fibres of one exposure with the traces and profile of a flat.

    Parameters
    ----------
    image : Signal, shape (ny, nx)
        Calibrated image [electron].
    tramlines : TramlineMap
        Traces, profile and halo of a flat.
    layout : FibreLayout
        Rows without light.
    options : ExposureOptions
        What is done.
    """
    traces, profile = tramlines.model
    ny = image.shape[0]
    rows = (max(int(traces.y.min()) - 12, 0), min(int(traces.y.max()) + 13, ny))
    if options.search_cosmics:
        ron = float(np.sqrt(np.median(image.variance[rows[0] : rows[1]])))
        # One pass: the edges of large events are found against the profile afterwards.
        once = CosmicOptions(iterations=1)
        hit = find_cosmics(image.value, max(ron, 1e-3), good=image.good, rows=rows, options=once)
        image = image.flag(hit, DQ.COSMIC)
    shift = measure_shift(image, traces, profile)
    # An unmeasured shift is reported as such; the flat's own traces are the best that is known.
    moved = replace(traces, y=shift.apply(traces.y)) if shift.measured else traces
    background: FloatArray = np.zeros(image.shape, dtype=np.float32)
    if options.subtract_background and has_background(image, moved, layout):
        image, background = subtract_scattered(image, moved, layout, tramlines.halo)
    window, weights = sample_profile(profile, moved.y)
    extraction = extract_fibres(image, window, weights, options=options.extraction)
    inside = slice(*rows)
    hit = (image.dq[inside] & np.uint16(DQ.COSMIC) > 0) | extraction.cosmic[inside]
    exposure = ExtractedExposure(extraction.spectra, extraction.chi2, shift, float(np.mean(hit)))
    return exposure, ExposureImages(image, background, (window, weights))


def extract_stack(
    recipe: BaseRecipe, inputs: Any, stack: FrameStack, parameters: Any
) -> list[ExtractedExposure]:
    """Calibrate and extract each frame of a stack with the traces among a recipe's inputs.

    Parameters
    ----------
    recipe : BaseRecipe
        Knows the instrument, and keeps the images of its main stack for who wants them.
    inputs : DetectorCalibrations
        With ``traces``.
    stack : FrameStack
        Raw frames with fibre light.
    parameters : Declared
        ``search_cosmics``, ``reject_sigma`` and ``subtract_background``.
    """
    layout = recipe.setup.fibre_layout(stack.infos[0], stack.shape[1:])
    # What a copy of the process keeps is lost.
    kept = recipe.options.save_intermediate and stack is inputs.exposures
    cores = 1 if kept else recipe.options.cores
    masters = Masters.of(inputs, stack, layout.rows_without_light, cores=cores)
    options = ExposureOptions(
        ExtractionOptions(prnu=prnu_left(inputs, stack), reject_sigma=parameters.reject_sigma),
        search_cosmics=parameters.search_cosmics,
        subtract_background=parameters.subtract_background,
    )

    def calibrate(number: int, frame: RawFrame) -> Signal:
        image = calibrate_frame(frame, masters)
        if kept:
            recipe.keep(Preprocessed(image=image), number)
        return image

    def extract(number: int) -> ExtractedExposure:
        frame = stack.frames[number]
        exposure, images = extract_exposure(
            calibrate(number, frame), inputs.traces, layout, options
        )
        if kept:
            keep_images(recipe, number, exposure.spectra, images)
        return replace(exposure, noise=pixel_noise(frame.readout, images))

    # The images of one frame are gone before those of the next are made.
    return spread(extract, range(len(stack)), cores)


def pixel_noise(readout: ReadOut, images: ExposureImages) -> dict[str, FloatArray]:
    """Return what an audit needs to predict the variance of an extraction.

    Returns
    -------
    dict
        ``ron``: read noise [electron], and ``pixel_variance``: all variance of a pixel that is not
        of the fibres' light [electron2]; both shape (nfib, nx), averaged over the profile squared.
    """
    window, weights = images.profiles
    image = images.image
    good = image.good
    ron2 = np.broadcast_to(np.asarray(readout.ron, dtype=float) ** 2, image.shape)
    variances = ron2, np.where(good, image.variance, 0.0)
    means = np.full((2, *window.shape), np.nan)
    slabs = lay_slabs(window, weights, image.shape[0])
    for f, profile in enumerate(slabs.profile):
        rows = slabs.rows(f)
        share = np.where(good[rows], profile**2, 0.0)
        total = share.sum(axis=0)
        for mean, variance in zip(means, variances, strict=True):
            found = np.einsum("yx,yx->x", share, variance[rows])
            np.divide(found, total, out=mean[f], where=total > 0)
    return {"ron": np.sqrt(means[0]), "pixel_variance": means[1]}


def prnu_left(inputs: Any, stack: FrameStack) -> float:
    """Return the pixel-response scatter that is left in the images of a stack."""
    return 0.0 if inputs.pixel_flat else float(stack.readout.prnu)


def keep_images(recipe: BaseRecipe, number: int, spectra: Signal, images: ExposureImages) -> None:
    """Keep what was subtracted from an exposure, and its model, for who wants to see every step."""
    recipe.keep(Background(image=images.background), number)
    model = model_image(spectra, *images.profiles, images.image.shape[0])
    recipe.keep(ModelImage(image=model), number)
