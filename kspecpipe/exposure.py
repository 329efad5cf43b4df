"""From an image to the spectra of all fibres: shift, cosmic rays, background, extraction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kspecpipe.detector.cosmic import CosmicOptions, find_cosmics
from kspecpipe.extraction.background import has_background
from kspecpipe.extraction.halo import subtract_scattered
from kspecpipe.extraction.solve import (
    Extraction,
    ExtractionOptions,
    extract_fibres,
    model_image,
)
from kspecpipe.frame import FrameStack
from kspecpipe.images import Background, ModelImage, Preprocessed
from kspecpipe.preprocess import Masters, calibrate_frame
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
    """Spectra of one exposure and what was measured on the way.

    Parameters
    ----------
    extraction : Extraction
        Spectra, chi-squared, cosmic rays.
    shift : TraceShift
        Shift of the traces, frame minus flat; NaN when it could not be measured.
    image : Signal, shape (ny, nx)
        What was extracted: without background [electron].
    background : ndarray, shape (ny, nx)
        Scattered light [electron].
    cosmics : float
        Fraction of the pixels of the fibre block hit by cosmic rays.
    profiles : (ndarray, ndarray)
        First row of each window, shape (nfib, nx), and profiles, shape (nfib, nwin, nx).
    """

    extraction: Extraction
    shift: TraceShift
    image: Signal
    background: FloatArray
    cosmics: float
    profiles: tuple[IntArray, FloatArray]


def extract_exposure(
    image: Signal,
    tramlines: TramlineMap,
    layout: FibreLayout,
    options: ExposureOptions,
) -> ExtractedExposure:
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
    return ExtractedExposure(
        extraction, shift, image, background, float(np.mean(hit)), (window, weights)
    )


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
    masters = Masters.of(inputs, stack, layout.rows_without_light)
    options = ExposureOptions(
        ExtractionOptions(prnu=prnu_left(inputs, stack), reject_sigma=parameters.reject_sigma),
        search_cosmics=parameters.search_cosmics,
        subtract_background=parameters.subtract_background,
    )
    exposures = []
    for number, frame in enumerate(stack):
        image = calibrate_frame(frame, masters)
        exposures.append(extract_exposure(image, inputs.traces, layout, options))
        if stack is inputs.exposures:
            keep_images(recipe, number, image, exposures[-1])
    return exposures


def prnu_left(inputs: Any, stack: FrameStack) -> float:
    """Return the pixel-response scatter that is left in the images of a stack."""
    return 0.0 if inputs.pixel_flat else float(stack.readout.prnu)


def keep_images(
    recipe: BaseRecipe, number: int, image: Signal, exposure: ExtractedExposure
) -> None:
    """Keep the images of an exposure for a user who wants to see every step."""
    if recipe.options.save_intermediate:
        recipe.keep(Preprocessed(image=image), number)
        recipe.keep(Background(image=exposure.background), number)
        model = model_image(exposure.extraction.spectra, *exposure.profiles, image.shape[0])
        recipe.keep(ModelImage(image=model), number)
