"""Wavelength zero points of exposures against each other, and spectra moved onto one grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.combine.smooth import median_of, running_mean
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.sky.rebin import Grid
from kspecpipe.sky.resample import Resampling, plan_resampling

#: Samples over which the continuum of the sky is averaged and taken off.
_CONTINUUM = 51
#: Error of a zero point [pixel] beyond which it counts as unmeasured.
_VAGUE = 0.05
#: Speed of light [km/s] (CODATA 2018).
LIGHT = 299792.458


@dataclass(frozen=True)
class ZeroPoints:
    """Shifts of the exposures' night-sky lines against the mean of all exposures.

    Parameters
    ----------
    shift, error : ndarray, shape (nexp,)
        Shift [pixel of the grid], positive to the red, and its error; NaN where the sky has no
        lines that would tell.
    """

    shift: FloatArray
    error: FloatArray


def sky_zero_points(sky: FloatArray, variance: FloatArray) -> ZeroPoints:
    """Measure how far the sky lines of each exposure lie from those of the others.

    The sky without its continuum is compared with that of all exposures: a shift shows as a share
    of the derivative, all fibres together.

    Parameters
    ----------
    sky : ndarray, shape (nexp, nfib, nw)
        Sky that was subtracted; NaN where there is none.
    variance : ndarray, shape (nexp, nfib, nw)
        Variance of the spectra, which sets the weights of the samples.
    """
    lines = sky - running_mean(sky, _CONTINUUM)
    mean = median_of(lines)
    slope = np.gradient(mean, axis=-1)
    weight = 1.0 / median_of(np.where(variance > 0, variance, np.nan))
    found = [_shift(row, mean, slope, weight) for row in lines]
    shift, error = (np.array(part) for part in zip(*found, strict=True))
    return ZeroPoints(shift, error)


def _shift(
    lines: FloatArray, mean: FloatArray, slope: FloatArray, weight: FloatArray
) -> tuple[float, float]:
    """Solve lines = strength x mean - shift x strength x slope by weighted least squares."""
    used = np.isfinite(lines) & np.isfinite(mean) & np.isfinite(slope) & np.isfinite(weight)
    if used.sum() < 20:
        return np.nan, np.nan
    w, y = weight[used], lines[used]
    basis = np.stack([mean[used], -slope[used]])
    normal = (basis * w) @ basis.T
    if not np.linalg.det(normal) > 0:
        return np.nan, np.nan
    strength, moved = np.linalg.solve(normal, (basis * w) @ y)
    if strength <= 0:
        return np.nan, np.nan
    chi2 = float(np.mean(w * (y - strength * basis[0] - moved * basis[1]) ** 2))
    # The photons of the lines set the error, and what the fit leaves if that is more.
    sigma = np.sqrt(np.linalg.inv(normal)[1, 1] * max(chi2, 1.0)) / strength
    if sigma > _VAGUE:
        return np.nan, np.nan
    return float(moved / strength), float(sigma)


def regridding(
    grid: Grid, shift: float, velocity: FloatArray, good: np.typing.NDArray[np.bool_]
) -> Resampling:
    """Plan the map of an exposure onto its own grid after its zero point and velocity are undone.

    Parameters
    ----------
    grid : Grid
        Grid of the spectra, before and after.
    shift : float
        Pixels by which the lines of the exposure lie too far to the red.
    velocity : ndarray, shape (nfib,)
        Velocity that is added to the spectra [km/s]: the barycentric correction, or 0.
    good : ndarray of bool, shape (nfib, nw)
        Samples that may be used.
    """
    edges = (grid.edges - shift * grid.step) * (1.0 + np.nan_to_num(velocity)[:, None] / LIGHT)
    return plan_resampling(edges, np.broadcast_to(grid.edges, edges.shape), good, "cubic")


def move(spectra: Signal, plan: Resampling, correlation: FloatArray) -> tuple[Signal, FloatArray]:
    """Apply a plan to spectra whose neighbouring samples correlate.

    Returns
    -------
    spectra : Signal, shape (nfib, nw)
        Moved spectra.
    correlation : ndarray, shape (nfib, nlag)
        Correlation of their neighbouring samples.
    """
    moved = plan.apply(spectra, correlation)
    return moved.signal, moved.correlation
