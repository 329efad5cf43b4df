"""From extracted arcs to the wavelength of every pixel of every fibre.

The fibres of each exposure are aligned and stacked, and the peaks of all stacks are identified with
the lines of the lamps that burn, within the ranges of the instrument's prediction. The alignment
found says where every line falls in every fibre, and a forward model is laid on the data: lines of
one line-spread function (LSF) on a smooth continuum. Each round of its fit learns the LSF and the
strengths from the arc itself, measures the displacement of each line or blend in each fibre, and
fits to these the dispersion of all fibres together: grating equation, camera distortion, slit shape
and a little of each fibre's own. Peaks that no line explains become lines of unknown wavelength.
Lines beyond which the dispersion is not known are left out in the end, and the solution is refused
if its own lines contradict it or leave it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kspecpipe.signal import BoolArray
from kspecpipe.wavelength.align import Stack, stack_fibres
from kspecpipe.wavelength.arcs import (
    MIN_QUALITY,
    ArcSpectra,
    burning,
    check_arcs,
    check_fibres,
    observe,
    typical_fwhm,
)
from kspecpipe.wavelength.components import components
from kspecpipe.wavelength.dispersion import default_prior, dispersion_from_alignment
from kspecpipe.wavelength.first_model import first_model, lay_scene, smooth_shifts
from kspecpipe.wavelength.identify import SearchOptions, identify
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.predict import Prediction
from kspecpipe.wavelength.rounds import (
    Progress,
    RoundOptions,
    add_unknown,
    advance,
    first_strengths,
)
from kspecpipe.wavelength.scene import Scene
from kspecpipe.wavelength.solution import WaveSolution, assemble
from kspecpipe.wavelength.span import keep_trusted
from kspecpipe.wavelength.trust import (
    TrustLimits,
    check_identification,
    check_solution,
    judge_solution,
)

#: Rounds before which unexplained peaks become components of their own.
_UNKNOWN_ROUNDS = (3, 5)


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


def solve_arcs(
    arcs: Sequence[ArcSpectra],
    lines: LineList,
    prediction: Prediction,
    live: BoolArray,
    *,
    options: SolveOptions | None = None,
) -> WaveSolution:
    """Find the wavelength of every pixel from one or more arc exposures.

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
    check_arcs(arcs, prediction, live)
    shining = burning(arcs, lines)
    stacks = [stack_fibres(arc.spectra, live, chosen.slit_reach) for arc in arcs]
    check_fibres(stacks)
    spectrum, peaks = observe(stacks)
    found = check_identification(
        identify(spectrum, peaks, shining, prediction, chosen.search),
        peaks,
        spectrum,
        shining,
        prediction,
        chosen.limits,
    )
    shift, lit = _fibre_shifts(stacks, live)
    dispersion = dispersion_from_alignment(prediction, found.best.coefficients, shift)
    parts = components(shining, dispersion)
    scene = lay_scene(arcs, lit, parts, typical_fwhm(peaks))
    model = first_model(scene, arcs, parts, typical_fwhm(peaks))
    start = Progress.start(model, dispersion, default_prior(prediction), parts, len(arcs))
    scene, state = _fit(scene, start, typical_fwhm(peaks), chosen)
    diagnostics = judge_solution(scene, state, found, peaks)
    check_solution(diagnostics, state, spectrum, chosen.limits)
    return assemble(scene, state, found, diagnostics)


def _fibre_shifts(stacks: Sequence[Stack], live: BoolArray) -> tuple[np.ndarray, BoolArray]:
    """Shift (nfib,) of each fibre [pixel], smooth where there is no light; and who has light."""
    sharpest = max(stacks, key=lambda stack: float(np.nansum(stack.quality)))
    lit: BoolArray = live & (np.nan_to_num(sharpest.quality) > MIN_QUALITY)
    return np.where(lit, sharpest.shift, smooth_shifts(sharpest.shift, lit)), lit


def _fit(
    scene: Scene, state: Progress, fwhm: float, options: SolveOptions
) -> tuple[Scene, Progress]:
    """Fit lines, LSF and dispersion in rounds; then leave out lines that nothing supports."""
    state = first_strengths(scene, state)
    for number in range(options.rounds):
        step = RoundOptions(fwhm, number, number >= options.rounds - 2, options.shape_rows)
        if number in _UNKNOWN_ROUNDS:
            scene, state = add_unknown(scene, state, step)
        state = advance(scene, state, step)
    return scene, keep_trusted(scene, state, step, options.limits.span_error)
