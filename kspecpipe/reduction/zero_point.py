"""The zero point of an exposure's wavelengths, from its own sky lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.spectra import WaveSolution
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.refine import refine_zero_point, shift_wavelengths


@dataclass(frozen=True)
class ZeroPoint:
    """What the sky lines say of an exposure's wavelengths [pixel]; None: not measured.

    Parameters
    ----------
    applied : (float, float)
        Shift and slope that are applied.
    error : float or None
        Error of the shift.
    slope : float or None
        The slope, where the lines span enough of the chip to show one.
    chi2 : float or None
        Disagreement of the lines with the shifted solution, also where it is too large to shift.
    tried : bool
        Whether the zero point was sought at all.
    """

    applied: tuple[float, float] = (0.0, 0.0)
    error: float | None = None
    slope: float | None = None
    chi2: float | None = None
    tried: bool = False

    @property
    def unknown(self) -> bool:
        """Whether it was sought and not found."""
        return self.tried and self.error is None

    def apply(self, solution: WaveSolution) -> FloatArray:
        """Return the wavelengths of the exposure, shape (nfib, nx) [Angstrom]."""
        return shift_wavelengths(solution.wavelength.value, *self.applied)

    @property
    def reason(self) -> str:
        """Why the zero point could not be measured."""
        chi2 = "unknown" if self.chi2 is None else f"{self.chi2:.1f}"
        return f"the sky lines are too weak, or disagree too much (chi-squared {chi2})"


def measure_zero_point(
    spectra: Signal, solution: WaveSolution, lines: LineList, live: BoolArray
) -> ZeroPoint:
    """Measure how far the sky lines lie from where the arc puts them.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Extracted spectra of the exposure [electron].
    solution : WaveSolution
        Wavelengths and line shape of the arc.
    lines : LineList
        Night-sky lines.
    live : ndarray of bool, shape (nfib,)
        Fibres that pass light.
    """
    found = refine_zero_point(spectra, solution.wavelength.value, solution.line_shape, lines, live)
    chi2 = found.chi2 if np.isfinite(found.chi2) else None
    if not np.isfinite(found.shift):
        return ZeroPoint(chi2=chi2, tried=True)
    slope = found.slope if np.isfinite(found.slope_error) else None
    return ZeroPoint((found.shift, found.slope), found.shift_error, slope, chi2, tried=True)
