"""How the samples of each fibre read the sky: where, how widely, and with which LSF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kspecpipe.signal import BoolArray, FloatArray, IntArray
from kspecpipe.sky.matching import Matching, Priors, match_lines, regressors
from kspecpipe.sky.spline import DEGREE, PixelAxis, Rows, SplineFit, SplineSpace

_FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))

Match = Literal["full", "scale", "none"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Where the samples of some fibres read the sky, all of shape (nfib, nx).

    Parameters
    ----------
    position : ndarray
        Position on the axis of the mean fibre [pixel]; 0 for fibres without wavelengths.
    width : ndarray
        Factor from density to a sample: pixel width [pixel of the mean fibre] times blaze.
    lsf_variance : ndarray
        Variance of the LSF [pixel²].
    known : ndarray of bool, shape (nfib,)
        Fibres with wavelength and LSF.
    """

    position: FloatArray
    width: FloatArray
    lsf_variance: FloatArray
    known: BoolArray

    @classmethod
    def of(
        cls, axis: PixelAxis, wavelength: FloatArray, lsf: FloatArray, blaze: FloatArray | None
    ) -> Sampling:
        """Refer the fibres to an axis; wavelengths and LSF (FWHM) in Angstrom."""
        position, width = axis.sample(wavelength)
        variance = (lsf * _FWHM_TO_SIGMA / axis.dispersion(np.nan_to_num(position))) ** 2
        factor = width * (1.0 if blaze is None else blaze)
        finite = np.isfinite(position) & np.isfinite(variance) & np.isfinite(factor)
        known = np.asarray(finite.all(axis=1))
        clean = (np.where(known[:, None], array, 0.0) for array in (position, factor, variance))
        return cls(next(clean), next(clean), next(clean), known)

    def select(self, index: IntArray) -> Sampling:
        """Take some of the fibres."""
        return Sampling(
            self.position[index],
            self.width[index],
            self.lsf_variance[index],
            self.known[index],
        )


@dataclass(frozen=True, slots=True)
class SkySpline:
    """Spline models of the sky's density and the LSF to which they refer.

    Parameters
    ----------
    space : SplineSpace
        B-splines on the axis of the mean fibre.
    fit : SplineFit
        Coefficients of one or more models [electron per pixel of the mean fibre].
    lsf_variance : ndarray, shape (nx,)
        Variance of the LSF of the models [pixel²].
    """

    space: SplineSpace
    fit: SplineFit
    lsf_variance: FloatArray

    def rows(self, sampling: Sampling, matching: Matching) -> Rows:
        """Weights of the coefficients in the density at each sample, seen through its fibre."""
        return rows_through_lsf(self.space, self.lsf_variance, sampling, matching)

    def derivatives(self, sampling: Sampling, model: IntArray | int) -> FloatArray:
        """Evaluate the sky and its first four derivatives, shape (5, nfib, nx)."""
        position = inside(self.space, sampling.position)
        return self.space.derivatives(position, self.fit.coefficients, model, 5)

    def operators(self, sampling: Sampling, matching: Matching) -> tuple[FloatArray, ...]:
        """Factors of the sky and its derivatives with which a fibre sees it, each (nfib, nx)."""
        extra = _extra_width(self.space, self.lsf_variance, sampling)
        return matching.operators(extra)


@dataclass(frozen=True, slots=True)
class LineComparison:
    """Which differences of the sky lines are fitted, and how large they are expected to be."""

    match: Match
    priors: Priors

    def run(
        self,
        spline: SkySpline,
        samples: tuple[FloatArray, FloatArray, BoolArray],
        sampling: Sampling,
        model: IntArray | int,
        current: Matching,
        *,
        passes: int = 1,
    ) -> Matching:
        """Fit each fibre's differences from its model, starting from the current ones.

        ``samples`` are value, variance and usability, each of shape (nfib, nx).
        """
        if self.match == "none":
            return current
        value, variance, good = samples
        use = good & sampling.known[:, None]
        derivatives = spline.derivatives(sampling, model)
        terms = regressors(derivatives[:4], sampling.width)
        prior = self.priors.sigma(np.sqrt(np.median(sampling.lsf_variance, axis=1)))
        if self.match == "scale":
            prior[:, 1:] = 1e-9
        for _ in range(passes):
            seen = np.zeros_like(value)
            for factor, derivative in zip(
                spline.operators(sampling, current), derivatives, strict=True
            ):
                seen += factor * derivative
            residual = value - seen * sampling.width
            # The terms themselves are fitted, not corrections to them: priors are centred on none.
            for share, term in zip(current.terms.T, terms, strict=True):
                residual += share[:, None] * term
            current = match_lines(residual, terms, variance, use, prior)
        return current


def rows_through_lsf(
    space: SplineSpace, reference: FloatArray, sampling: Sampling, matching: Matching
) -> Rows:
    """Design rows of fibres whose LSF differs from the reference (nx,) [pixel²]."""
    position = inside(space, sampling.position)
    return space.rows(position, *matching.operators(_extra_width(space, reference, sampling)))


def _extra_width(space: SplineSpace, reference: FloatArray, sampling: Sampling) -> FloatArray:
    """Variance of each fibre's LSF above the reference (nx,) at the same place [pixel²]."""
    position = inside(space, sampling.position)
    known = np.interp(position, np.arange(len(reference)), reference)
    extra: FloatArray = sampling.lsf_variance - known
    return extra


def inside(space: SplineSpace, position: FloatArray) -> FloatArray:
    """Positions, moved to the nearest end where they lie outside the space."""
    high = space.start + space.step * (space.n - DEGREE) - 1e-9
    return np.clip(position, space.start, high)
