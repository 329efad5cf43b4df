"""Spread functions: images of a fibre across and along the dispersion, skewed and with wings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from kspecpipe.simulate.arrays import FloatArray

_STEP = 0.02
_REACH = 15.0


@dataclass(frozen=True, eq=False, slots=True)
class Kernel:
    """Two shapes of unit integral, zero centroid and finite support; the chip mixes them.

    Parameters
    ----------
    reach : float
        Half of the support [pixel].
    cumulative : ndarray, shape (2, n)
        Cumulative distribution at ``-reach ... reach`` of each shape.
    """

    reach: float
    cumulative: FloatArray

    def integral(self, offset: FloatArray, scale: FloatArray, mix: FloatArray) -> FloatArray:
        """Return the light in pixels whose centres lie at ``offset`` from the centroid.

        Parameters
        ----------
        offset : ndarray
            Pixel centre minus centroid [pixel].
        scale : ndarray
            Factor on the width.
        mix : ndarray
            Share of the second shape.

        Returns
        -------
        ndarray
            Fraction of the light, all arguments broadcast together.
        """
        low, high = self._below((offset - 0.5) / scale), self._below((offset + 0.5) / scale)
        share: FloatArray = high[0] - low[0] + mix * (high[1] - low[1] - high[0] + low[0])
        return share

    def shares(self, offset: FloatArray, scale: FloatArray, mix: FloatArray) -> FloatArray:
        """Return the same as `integral` for ``offset`` that grows by 1 along its first axis."""
        edges = np.concatenate([offset - 0.5, offset[-1:] + 0.5]) / scale
        below = self._below(edges)
        share: FloatArray = np.diff(below[0] + mix * (below[1] - below[0]), axis=0)
        return share

    def width(self, mix: FloatArray) -> FloatArray:
        """Return the FWHM [pixel] at unit scale, before pixels integrate it."""
        node = np.linspace(0, 1, 11)
        first, second = np.diff(self.cumulative, axis=1)
        density = first + node[:, None] * (second - first)
        above = density > 0.5 * density.max(axis=1, keepdims=True)
        return np.asarray(np.interp(mix, node, above.sum(axis=1) * _STEP), dtype=float)

    def _below(self, position: FloatArray) -> FloatArray:
        """Return the cumulative distribution of both shapes, shape (2, ...)."""
        at = np.clip((position + self.reach) / _STEP, 0, self.cumulative.shape[1] - 1.001)
        index = at.astype(np.intp)
        left = self.cumulative[:, index]
        right = self.cumulative[:, index + 1]
        below: FloatArray = left + (right - left) * (at - index)
        return below


@cache
def slit_kernel() -> Kernel:
    """Return the cross-dispersion profile: image of a fibre core, lopsided, with wings."""
    return _kernel(
        _fibre_image(1.97, 0.85, 0.35, wing=0.04, lean=0.15),
        _fibre_image(2.05, 0.88, 0.60, wing=0.06, lean=-0.10),
    )


@cache
def line_kernel() -> Kernel:
    """Return the line spread function: a fibre core drawn out to the blue by coma."""
    return _kernel(
        _fibre_image(1.95, 1.1, -1.1, wing=0.05, lean=-0.35),
        _fibre_image(1.95, 1.05, -1.7, wing=0.07, lean=-0.45),
    )


def _grid() -> FloatArray:
    count = round(2 * _REACH / _STEP)
    return np.asarray(-_REACH + (np.arange(count) + 0.5) * _STEP, dtype=float)


def _fibre_image(
    radius: float, blur: float, tail: float, *, wing: float, lean: float
) -> FloatArray:
    """Return a disc seen edge-on, blurred, with a one-sided tail of length ``|tail|`` and wings."""
    u = _grid()
    disc = np.sqrt(np.clip(radius**2 - u**2, 0, None))
    gauss = np.exp(-0.5 * (u / blur) ** 2)
    decay = np.exp(-np.abs(u / tail)) * (u * tail >= 0)
    core = np.convolve(
        np.convolve(disc, gauss, "same"), 0.6 * _delta(u) + 0.4 * _unit(decay), "same"
    )
    moffat = (1 + (u / (3.0 * (1 + lean * np.sign(u)))) ** 2) ** -2.2
    taper = np.clip((_REACH - np.abs(u)) / 4.0, 0, 1)
    return (_unit(core) * (1 - wing) + _unit(moffat) * wing) * taper


def _kernel(*shapes: FloatArray) -> Kernel:
    """Centre each density on its centroid and integrate it."""
    u = _grid()
    centred = [np.interp(u + np.average(u, weights=s), u, s, left=0, right=0) for s in shapes]
    for _ in range(3):
        centred = [np.interp(u + np.average(u, weights=s), u, s, left=0, right=0) for s in centred]
    density = np.array([_unit(s) for s in centred])
    edge = np.zeros((len(shapes), 1))
    return Kernel(_REACH, np.concatenate([edge, np.cumsum(density, axis=1)], axis=1))


def _unit(density: FloatArray) -> FloatArray:
    scaled: FloatArray = density / density.sum()
    return scaled


def _delta(u: FloatArray) -> FloatArray:
    return np.asarray(np.abs(u) == np.abs(u).min(), dtype=float) / 2
