"""Subtract the sky: modelled on native pixels, rebinned in step with the spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.sky.components import add_components
from kspecpipe.sky.matching import Matching
from kspecpipe.sky.model import SkyModel, SkyOptions, fit_sky
from kspecpipe.sky.rebin import Grid, plan_rebin
from kspecpipe.sky.resample import Rebinned, Resampling
from kspecpipe.sky.residuals import add_line_error, measure_line_error


@dataclass(frozen=True, slots=True)
class SkySubtracted:
    """Spectra on the grid with and without sky, and what was subtracted.

    Parameters
    ----------
    rwss : Signal, shape (nfib, nw)
        Spectra with sky [electron per grid pixel].
    sky : Signal, shape (nfib, nw)
        Sky that is subtracted; its variance is SKYVAR.
    reduced : Signal, shape (nfib, nw)
        ``rwss - sky``; NaN with NO_DATA where there is no sky to subtract.
    native_sky : Signal, shape (nfib, nx)
        The same sky on native pixels [electron per native pixel], divided by flat and throughput as
        the spectra are.
    lsf : ndarray, shape (nfib, nw)
        FWHM of the LSF on the grid [Angstrom].
    correlation : ndarray, shape (nfib, nlag)
        Mean correlation of samples of ``reduced`` 1, 2, ... pixels apart.
    dropped : ndarray of bool, shape (nfib,)
        Contaminated sky fibres that were left out.
    matching : Matching
        Scale, shift, width and skewness of each fibre's sky lines, with errors.
    model : SkyModel
        The sky model.
    """

    rwss: Signal
    sky: Signal
    reduced: Signal
    native_sky: Signal
    lsf: FloatArray
    correlation: FloatArray
    dropped: BoolArray
    matching: Matching
    model: SkyModel


def subtract_sky(
    spectra: Signal,
    wavelength: FloatArray,
    lsf: FloatArray,
    sky_fibres: BoolArray,
    grid: Grid,
    options: SkyOptions | None = None,
) -> SkySubtracted:
    """Model the sky on native pixels, rebin spectra and sky alike, and subtract.

    Sky fibres are subtracted with a sky made without them, so that what is left of them shows what
    is left of the sky in every other fibre. What of their lines no variance explains is an error of
    every fibre's lines.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Spectra divided by flat and throughput [electron per native pixel].
    wavelength, lsf : ndarray, shape (nfib, nx)
        Wavelength of pixel centres, rising, and FWHM of the LSF [Angstrom]; NaN for dead fibres.
    sky_fibres : ndarray of bool, shape (nfib,)
        Fibres on blank sky.
    grid : Grid
        Wavelength grid of the products.
    options : SkyOptions, optional
        How the sky is modelled.

    Returns
    -------
    SkySubtracted
        Samples without sky are NaN with NO_DATA in ``sky`` and ``reduced`` only.

    Raises
    ------
    ValueError
        If there is no sky fibre or shapes disagree.
    RecipeError
        If no sky fibre has usable samples.
    """
    model = fit_sky(spectra, wavelength, lsf, sky_fibres, options=options)
    matching = model.match(spectra, wavelength, lsf)
    native = model.predict(wavelength, lsf, matching, leave_one_out=True)
    native = add_components(model, spectra, wavelength, native)
    native = add_line_error(native, measure_line_error(spectra, native, model.used))
    # One map for both: what rebinning does to lines and around bad samples cancels.
    plan = plan_rebin(wavelength, grid, spectra.good)
    rwss = plan.apply(spectra)
    sky = _rebin_sky(plan, native, model.correlation(wavelength, lsf, leave_one_out=True))
    reduced = rwss.signal.subtract(sky.signal)
    return SkySubtracted(
        rwss.signal,
        sky.signal,
        reduced,
        native,
        _on_grid(lsf, wavelength, grid),
        _joint_correlation(rwss, sky),
        model.dropped,
        matching,
        model,
    )


def _rebin_sky(plan: Resampling, native: Signal, correlation: FloatArray) -> Rebinned:
    """Rebin the sky; NaN with NO_DATA where one of its samples is missing."""
    missing = plan.touches(~native.good)
    rebinned = plan.apply(native, correlation)
    signal = rebinned.signal
    sky = Signal(
        np.where(missing, np.nan, signal.value),
        np.where(missing, np.nan, signal.variance),
        signal.dq,
    )
    return Rebinned(sky.flag(missing, DQ.NO_DATA), rebinned.correlation)


def _joint_correlation(first: Rebinned, second: Rebinned) -> FloatArray:
    """Correlation of a difference, from those of its terms and their typical variances."""
    weights = [_typical(part.signal) for part in (first, second)]
    parts = zip((first, second), weights, strict=True)
    shared = sum(
        (np.nan_to_num(part.correlation) * weight[:, None] for part, weight in parts),
        start=np.zeros(first.correlation.shape),
    )
    total = weights[0] + weights[1]
    joint = np.divide(shared, total[:, None], out=np.zeros_like(shared), where=total[:, None] > 0)
    return np.where(np.isfinite(first.correlation), joint, np.nan)


def _typical(signal: Signal) -> FloatArray:
    """Median variance of each fibre; 0 without data."""
    ordered = np.sort(np.where(signal.good, signal.variance, np.nan), axis=1)
    number = signal.good.sum(axis=1)
    middle = ordered[np.arange(len(ordered)), np.maximum(number - 1, 0) // 2]
    return np.where(number > 0, middle, 0.0)


def _on_grid(lsf: FloatArray, wavelength: FloatArray, grid: Grid) -> FloatArray:
    """LSF at the grid's wavelengths; NaN outside the coverage of a fibre."""
    rows = zip(wavelength, lsf, strict=True)
    return np.stack(
        [np.interp(grid.wavelength, at, fwhm, left=np.nan, right=np.nan) for at, fwhm in rows]
    )
