"""Exposures of one tile, from REDUCED or CALIBRATED to COADDED: the steps of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.table import Table

from kspecpipe.combine.align import ZeroPoints, move, regridding, sky_zero_points
from kspecpipe.combine.coadd import Coaddition
from kspecpipe.combine.scale import Scales
from kspecpipe.combine.stack import stack_of
from kspecpipe.errors import InputError
from kspecpipe.products.combined import correlation_of, grid_of
from kspecpipe.products.flux import Calibrated
from kspecpipe.signal import FloatArray, Signal
from kspecpipe.spectra import Reduced

Exposure = Reduced | Calibrated


@dataclass(frozen=True)
class Aligned:
    """Exposures on one grid, without the error that they share.

    Parameters
    ----------
    stack : Signal, shape (nexp, nfib, nw)
        Spectra; the variance is that of each exposure alone.
    sky, lsf : ndarray, shape (nexp, nfib, nw)
        Sky that was subtracted, and FWHM of the line-spread function [Angstrom].
    shared : ndarray, shape (nexp, nfib, nw)
        Relative error that does not average down: that of the flux calibration.
    zero_points : ZeroPoints
        What the sky lines showed.
    moved : ndarray, shape (nexp,)
        Shift that was undone [pixel].
    correlation : ndarray, shape (nfib, nlag)
        Correlation of neighbouring samples, mean of the exposures.
    """

    stack: Signal
    sky: FloatArray
    lsf: FloatArray
    shared: FloatArray
    zero_points: ZeroPoints
    moved: FloatArray
    correlation: FloatArray


def align(exposures: Sequence[Exposure], *, least: float, barycentric: bool) -> Aligned:
    """Bring exposures onto one wavelength scale by their sky lines.

    Parameters
    ----------
    exposures : sequence of Reduced or Calibrated
        On one grid.
    least : float
        Shift [pixel] from which an exposure is resampled; a smaller one does less harm than that.
    barycentric : bool
        Undo the motion of the observer too, exposure by exposure and fibre by fibre.

    Raises
    ------
    InputError
        If grids differ, or velocities are asked for and unknown.
    """
    _require_one_grid(exposures)
    own = [_own_noise(one) for one in exposures]
    sky = np.stack([one.sky.astype(float) for one in exposures])
    zero_points = sky_zero_points(sky, np.stack([signal.variance for signal, _ in own]))
    shift = np.nan_to_num(zero_points.shift)
    moved = np.where(np.abs(shift) >= least, shift, 0.0)
    signals, correlations = [], []
    for i, one in enumerate(exposures):
        velocity = _velocity(one) if barycentric else np.zeros(len(one.fibres))
        signal, correlation = own[i][0], correlation_of(one)
        if moved[i] != 0 or velocity.any():
            plan = regridding(grid_of(one), float(moved[i]), velocity, signal.good)
            signal, correlation = move(signal, plan, correlation)
            sky[i] = plan.values(sky[i])
        signals.append(signal)
        correlations.append(correlation)
    return Aligned(
        stack_of(signals),
        sky,
        np.stack([one.lsf.astype(float) for one in exposures]),
        np.stack([shared for _, shared in own]),
        zero_points,
        moved,
        np.mean(correlations, axis=0),
    )


def with_shared_error(mean: Coaddition, shared: FloatArray) -> Signal:
    """Add the error that all exposures share to their mean, once."""
    relative = np.sum(mean.weight * np.nan_to_num(shared), axis=0)
    spectra = mean.spectra
    return replace(spectra, variance=spectra.variance + (spectra.value * relative) ** 2)


def scale_table(
    names: Sequence[str], fibres: Table, scales: Scales, aligned: Aligned, mean: Coaddition
) -> Table:
    """Return one row per exposure and fibre: factor, zero point, rejected samples."""
    count, each = scales.value.shape
    table = Table()
    table["EXPOSURE"] = np.repeat(np.array(names, dtype="U80"), each)
    table["FIBRE_ID"] = np.tile(np.asarray(fibres["FIBRE_ID"], dtype=np.int32), count)
    table["SCALE"] = scales.value.ravel()
    table["ZEROPT"] = np.repeat(aligned.zero_points.shift, each)
    table["ZEROPT"].unit = "pixel"
    table["MOVED"] = np.repeat(aligned.moved, each)
    table["MOVED"].unit = "pixel"
    table["REJECTED"] = mean.rejected.sum(axis=2).ravel().astype(np.int32)
    return table


def time_cards(exposures: Sequence[Exposure], frame: str) -> dict[str, Any]:
    """Return number and times of the exposures, and the rest frame of the wavelengths."""
    cards: dict[str, Any] = {
        "NCOMBINE": len(exposures),
        "SPECSYS": "BARYCENT" if frame == "barycentric" else "TOPOCENT",
    }
    headers = [one.header for one in exposures]
    if all("EXPTIME" in header and "MJD-OBS" in header for header in headers):
        cards["TEXPTIME"] = sum(float(header["EXPTIME"]) for header in headers)
        ends = [float(h["MJD-OBS"]) + float(h["EXPTIME"]) / 86400.0 for h in headers]
        cards["MJD-END"] = max(ends)
    return cards


def none_if_nan(value: float) -> float | None:
    """Return a number, or None where nothing was measured."""
    return None if np.isnan(value) else float(value)


def snr_gain(stack: Signal, mean: Signal, fibres: np.typing.NDArray[np.bool_]) -> float:
    """Return the signal-to-noise ratio of the mean over what all exposures together allow.

    1 is the ideal: the root of the summed squares of the exposures' ratios. Median over the samples
    that every exposure has, of some fibres.
    """
    every = stack.good.all(axis=0) & mean.good & fibres[:, None]
    if not every.any():
        return float("nan")
    inverse = (1.0 / stack.variance[:, every]).sum(axis=0)
    return float(np.median(1.0 / np.sqrt(inverse * mean.variance[every])))


def _own_noise(one: Exposure) -> tuple[Signal, FloatArray]:
    """Split the variance into that of the exposure and the relative error that others share."""
    spectra = Signal(
        one.spectra.value.astype(float), one.spectra.variance.astype(float), one.spectra.dq
    )
    if not isinstance(one, Calibrated):
        return spectra, np.zeros(spectra.shape)
    shared = np.broadcast_to(np.abs(one.factor_error), spectra.shape).astype(float)
    own = spectra.variance - (spectra.value * np.nan_to_num(shared)) ** 2
    return replace(spectra, variance=np.where(own > 0, own, spectra.variance)), shared


def _velocity(one: Exposure) -> FloatArray:
    names = one.fibres.colnames
    velocity = np.asarray(one.fibres["VBARY"], float) if "VBARY" in names else np.array([np.nan])
    if not np.isfinite(velocity).any():
        raise InputError(f"{one.name}: no barycentric velocities (VBARY) in its FIBRES")
    mean = float(np.nanmean(velocity))
    return np.where(np.isfinite(velocity), velocity, mean)


def _require_one_grid(exposures: Sequence[Exposure]) -> None:
    first = grid_of(exposures[0])
    for one in exposures[1:]:
        grid = grid_of(one)
        if grid != first:
            raise InputError(
                f"{one.name}: its grid (start {grid.start:g}, step {grid.step:g}, {grid.n} pixels) "
                f"is not that of {exposures[0].name} ({first.start:g}, {first.step:g}, {first.n}); "
                "kspec rebin puts both onto one"
            )
