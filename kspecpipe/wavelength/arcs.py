"""Arc exposures: which lamps burn, whether fibres agree, and the peaks of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.wavelength.align import Stack
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.peaks import (
    Peaks,
    compress,
    find_peaks,
    line_noise,
    subtract_continuum,
)
from kspecpipe.wavelength.predict import Prediction
from kspecpipe.wavelength.trust import WavelengthError

#: Correlation with the stack below which a fibre shows no arc.
MIN_QUALITY = 0.3


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


def check_arcs(arcs: Sequence[ArcSpectra], prediction: Prediction, live: BoolArray) -> None:
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


def burning(arcs: Sequence[ArcSpectra], lines: LineList) -> LineList:
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


def check_fibres(stacks: Sequence[Stack]) -> None:
    """Refuse exposures whose fibres have nothing in common."""
    live = np.any([np.isfinite(stack.quality) for stack in stacks], axis=0)
    quality = np.max([np.nan_to_num(stack.quality) for stack in stacks], axis=0)
    agreeing = int(np.sum(quality > MIN_QUALITY))
    if agreeing < 0.3 * live.sum():
        raise WavelengthError(
            f"{agreeing} of {live.sum()} fibres show the emission lines of the others; at least "
            "30 % are needed. Is this an arc, and were the lamps on?",
            {"quality": quality},
        )


def observe(stacks: Sequence[Stack]) -> tuple[FloatArray, Peaks]:
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
