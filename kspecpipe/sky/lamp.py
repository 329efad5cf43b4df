"""Take the spectrum of the lamp out of a fibre flat: fibres see it at different columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, uniform_filter1d

from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.sky.spline import PixelAxis

#: Smoothing of the lamp's spectrum [pixel]: fringes are shorter, its edges are not.
_SMOOTH = 8.0
#: Columns whose mean is held where the lamp gave too little light.
_WINDOW = 129


def without_lamp(flat: Signal, blaze: FloatArray, wavelength: FloatArray) -> Signal:
    """Turn a flat relative to the lamp's light in a column into one relative to its wavelength.

    A fibre flat is divided by the spectrum of the median fibre column by column, but the slit is
    not straight along the columns: a fibre that sees a wavelength one pixel further has the slope
    of the lamp's spectrum in its flat, and the sky, which has another slope, gets it into its own.
    What is left afterwards is the fibre's response to light of a wavelength, in flux per pixel of
    the mean fibre.

    Parameters
    ----------
    flat : Signal, shape (nfib, nx)
        Extracted flat / (blaze x throughput); EXTRAPOLATED where the lamp gave too little light.
    blaze : ndarray, shape (nx,)
        Smooth spectrum of the lamp through the median fibre [electron per pixel].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom]; NaN for dead fibres, whose flat stays.

    Returns
    -------
    Signal, shape (nfib, nx)
        The response, with the same noise relative to its value.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    if flat.shape != wavelength.shape or blaze.shape != wavelength.shape[1:]:
        raise ValueError(
            f"flat {flat.shape}, blaze {blaze.shape} and wavelength {wavelength.shape} "
            "do not belong together"
        )
    live = np.isfinite(wavelength).all(axis=1)
    if not live.any() or not blaze.max() > 0:
        return flat
    position, width = PixelAxis.of(wavelength).sample(wavelength[live])
    measured = flat.good & ((flat.dq & np.uint16(DQ.EXTRAPOLATED)) == 0)
    light = np.where(measured, flat.value * blaze, np.nan)[live] / width
    lamp = _lamp_spectrum(position, light)
    factor = np.ones(flat.shape)
    spectrum = np.exp(_extended(lamp, position))
    factor[live] = np.where(measured[live], blaze / (spectrum * width), 1.0)
    own = flat.scale(factor)
    rows = zip(own.value, own.variance, measured, strict=True)
    return replace(own, value=np.stack([_held(*row) for row in rows]), dq=flat.dq)


def _lamp_spectrum(position: FloatArray, light: FloatArray) -> FloatArray:
    """Logarithm of the lamp at whole pixels of the mean fibre, median of the fibres, smoothed."""
    whole = np.arange(light.shape[1], dtype=float)
    logarithm = np.log(np.maximum(light, 1e-30))
    table = np.array(
        [
            np.interp(whole, at, row, left=np.nan, right=np.nan)
            for at, row in zip(position, logarithm, strict=True)
        ]
    )
    known = np.isfinite(table).any(axis=0)
    middle = np.nanmedian(table[:, known], axis=0)
    return _local_lines(whole, known, np.interp(whole, whole[known], middle))


def _local_lines(x: FloatArray, known: BoolArray, values: FloatArray) -> FloatArray:
    """Smooth by a straight line around each point: slopes are kept to the ends."""
    weight = gaussian_filter1d(known.astype(float), _SMOOTH, mode="constant") + 1e-12
    centre, mean = (
        gaussian_filter1d(known * part, _SMOOTH, mode="constant") / weight for part in (x, values)
    )
    spread = gaussian_filter1d(known * x**2, _SMOOTH, mode="constant") / weight - centre**2
    shared = gaussian_filter1d(known * x * values, _SMOOTH, mode="constant") / weight
    slope = (shared - centre * mean) / np.maximum(spread, 1.0)
    return np.asarray(mean + slope * (x - centre))


def _extended(values: FloatArray, position: FloatArray) -> FloatArray:
    """Interpolate between columns, and continue straight beyond the first and the last."""
    last = len(values) - 1.0
    inside = np.clip(position, 0, last)
    slope = np.where(position < 0, values[1] - values[0], values[-1] - values[-2])
    found: FloatArray = np.interp(inside, np.arange(len(values)), values)
    return np.asarray(found + (position - inside) * slope)


def _held(value: FloatArray, variance: FloatArray, measured: BoolArray) -> FloatArray:
    """Hold the mean of the nearest measured samples where the lamp gave no light, shape (nx,)."""
    if measured.all() or not measured.any():
        return value
    weight = np.where(measured, 1 / np.where(measured, variance, 1.0), 0.0)
    total = uniform_filter1d(np.where(measured, value, 0.0) * weight, _WINDOW, mode="constant")
    share = uniform_filter1d(weight, _WINDOW, mode="constant")
    nearest = distance_transform_edt(~measured, return_distances=False, return_indices=True)[0]
    return np.where(measured, value, total[nearest] / share[nearest])
