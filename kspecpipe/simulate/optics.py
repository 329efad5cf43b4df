"""Where light falls: traces, wavelengths and spread functions, in normalised pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from kspecpipe.simulate.arrays import FloatArray
from kspecpipe.simulate.instruments import Camera, Instrument, Mode
from kspecpipe.simulate.kernels import Kernel, line_kernel, slit_kernel

#: Columns beyond each edge that still send light onto the chip.
MARGIN = 40
_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Shift:
    """Displacement of a frame [pixel]; ``rotation`` is in rows at the ends of the chip."""

    rows: float = 0.0
    columns: float = 0.0
    rotation: float = 0.0


@dataclass(frozen=True, slots=True)
class Optics:
    """One night's instrument in one mode: nominal image plus the accidents drawn from a seed.

    Parameters
    ----------
    instrument : Instrument
        The numbers.
    mode : Mode
        Setting of the disperser.
    row_offset, column_offset : ndarray, shape (nfib,)
        Irregularity of the slit [pixel].
    centre_error : float
        How far the true centre is from the header's [pixel].
    distorted, varying : bool
        Camera distortion and line tilt; spread functions that change over the chip.
    """

    instrument: Instrument
    mode: Mode
    row_offset: FloatArray
    column_offset: FloatArray
    centre_error: float
    distorted: bool = True
    varying: bool = True
    profile: Kernel = slit_kernel()
    lsf: Kernel = line_kernel()

    @property
    def n_fibres(self) -> int:
        """Number of fibres."""
        return self.row_offset.size

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.instrument.detector.shape[1]

    def height(self) -> FloatArray:
        """Return the position of each fibre in the slit, -0.5 to 0.5."""
        return np.linspace(-0.5, 0.5, self.n_fibres) if self.n_fibres > 1 else np.zeros(1)

    def place(self, x: FloatArray) -> FloatArray:
        """Return the position of columns on the chip, -1 to 1."""
        half = 0.5 * (self.n_columns - 1)
        return (x - half) / half

    def trace(self, shift: Shift) -> FloatArray:
        """Return the rows of the profiles' flux centroids, shape (nfib, nx)."""
        slit = self.instrument.slit
        number = np.arange(self.n_fibres)
        row = slit.first_row + slit.pitch * number + slit.gap * (number // slit.per_block)
        t = self.place(np.arange(self.n_columns, dtype=float))
        scale = 1 + 0.1 * self.height()[:, None]
        bent = -0.5 * slit.tilt * t * scale + slit.curvature * scale * (t**2 - 1 / 3)
        return (row + self.row_offset)[:, None] + bent + shift.rows + shift.rotation * t

    def wavelength(self, x: FloatArray, shift: Shift) -> FloatArray:
        """Return the wavelength [Angstrom] whose line centroid is on ``x``, shape (nfib, nx)."""
        moved = self._undistorted(x) - shift.columns
        offset = moved - 0.5 * (self.n_columns - 1) + self.centre_error
        return ideal_wavelength(self.mode, self.instrument.camera, offset, self.n_columns)

    def column(self, wavelength: FloatArray, shift: Shift) -> FloatArray:
        """Return the columns of line centroids, shape (nfib, wavelength.size); NaN off the chip."""
        x = np.arange(-MARGIN, self.n_columns + MARGIN, 4.0)
        at = self.wavelength(x, shift)
        return np.array([CubicSpline(w, x, extrapolate=False)(wavelength) for w in at])

    def profile_scale(self) -> FloatArray:
        """Return the width of the cross-dispersion profile against its kernel, shape (nfib, nx)."""
        t = self.place(np.arange(self.n_columns, dtype=float))
        change = 0.07 * t**2 - 0.03 * t + 0.06 * self.height()[:, None] ** 2
        return self.instrument.slit.profile_width * (1 + self.varying * change)

    def lsf_scale(self, x: FloatArray, height: FloatArray) -> FloatArray:
        """Return the width of the LSF against its kernel at columns and heights in the slit."""
        t = self.place(x)
        change = 0.06 * t**2 + 0.04 * t + 0.10 * height**2
        return self.instrument.camera.lsf_width * (1 + self.varying * change)

    def mix(self, x: FloatArray) -> FloatArray:
        """Return the share of the second kernel shape at columns."""
        return np.clip(0.5 + 0.45 * self.place(x) * self.varying, 0.0, 1.0)

    def _undistorted(self, x: FloatArray) -> FloatArray:
        """Return the column without camera distortion and slit image, shape (nfib, x.size)."""
        camera = self.instrument.camera
        t = self.place(x)[None, :]
        h = self.height()[:, None]
        tilt = (camera.line_shift * h + camera.line_bow * (4 * h**2 - 1 / 3)) * (1 + 0.06 * t)
        barrel = camera.distortion * (2.5 * t**3 - 1.5 * t) * (1 + 0.2 * h)
        return x[None, :] - self.column_offset[:, None] - self.distorted * (tilt + barrel)


def ideal_wavelength(mode: Mode, camera: Camera, offset: FloatArray, n_columns: int) -> FloatArray:
    """Return the wavelength at columns from the optical axis, for perfect optics.

    Parameters
    ----------
    mode : Mode
        A grating of a Czerny-Turner mount, or a nearly linear disperser.
    camera : Camera
        Focal length, pixel and fixed angle.
    offset : ndarray
        Columns from the middle of the chip [pixel].
    n_columns : int
        Width of the chip [pixel].

    Returns
    -------
    ndarray
        Wavelength [Angstrom], rising with ``offset``.

    References
    ----------
    .. [1] Schroeder 2000, Astronomical Optics, 2nd ed., chapter 13 (grating equation).
    """
    if mode.lines == 0:
        t = offset / (0.5 * n_columns)
        return mode.centre + mode.step * (offset + camera.bend * (t**2 - 0.4 * t**3))
    groove = 1e7 / mode.lines
    half = np.deg2rad(camera.half_angle)
    turn = np.arcsin(mode.centre / (2 * groove * np.cos(half)))
    diffracted = turn + half + np.arctan(offset * camera.pixel / camera.focal_length)
    wavelength: FloatArray = groove * (np.sin(turn - half) + np.sin(diffracted))
    return wavelength


def fine_columns(n_columns: int) -> FloatArray:
    """Return the centres of the sub-pixels that spectra are computed on."""
    count = (n_columns + 2 * MARGIN) * _OVERSAMPLING
    return -MARGIN - 0.5 + (np.arange(count) + 0.5) / _OVERSAMPLING


def blur_continuum(optics: Optics, fine: FloatArray) -> FloatArray:
    """Spread a spectrum on sub-pixels by the LSF and sum it in pixels.

    Parameters
    ----------
    optics : Optics
        LSF, changing along the dispersion (its mean over the fibres).
    fine : ndarray, shape (nfib, nfine)
        Electrons per sub-pixel at `fine_columns`.

    Returns
    -------
    ndarray, shape (nfib, nx)
        Electrons per pixel.
    """
    x = np.arange(optics.n_columns, dtype=float)
    width = (2 * MARGIN) * _OVERSAMPLING
    trim = width // 4
    offset = fine_columns(optics.n_columns)[trim : width + _OVERSAMPLING - trim]
    source = x[:, None] + offset
    scale = optics.lsf_scale(source, np.sqrt(np.mean(optics.height() ** 2)))
    # Light of the sub-pixel at ``offset`` lands on pixel 0, whose centre is ``-offset`` away.
    weight = optics.lsf.integral(-offset, scale, optics.mix(source))
    window = np.lib.stride_tricks.sliding_window_view(fine[:, trim:], offset.size, axis=1)
    blurred: FloatArray = np.einsum("fxk,xk->fx", window[:, ::_OVERSAMPLING][:, : x.size], weight)
    return blurred


def blur_lines(
    optics: Optics, wavelength: FloatArray, strength: FloatArray, shift: Shift
) -> FloatArray:
    """Draw emission lines that are narrower than the LSF.

    Parameters
    ----------
    optics : Optics
        Wavelengths and LSF.
    wavelength : ndarray, shape (nline,)
        In Angstrom.
    strength : ndarray, shape (nfib, nline)
        Electrons of each line in each fibre.
    shift : Shift
        Displacement of this frame.

    Returns
    -------
    ndarray, shape (nfib, nx)
        Electrons per pixel.
    """
    centre = optics.column(wavelength, shift)
    fibre, line = np.nonzero(np.isfinite(centre))
    at = centre[fibre, line]
    reach = int(np.ceil(optics.lsf.reach * 1.3 * optics.instrument.camera.lsf_width)) + 1
    column = np.floor(at).astype(int)[:, None] + np.arange(-reach, reach + 1)
    scale = optics.lsf_scale(at, optics.height()[fibre])[:, None]
    share = optics.lsf.integral(column - at[:, None], scale, optics.mix(at)[:, None])
    spectrum = np.zeros((optics.n_fibres, optics.n_columns))
    on_chip = (column >= 0) & (column < optics.n_columns)
    row = np.broadcast_to(fibre[:, None], column.shape)
    light = strength[fibre, line][:, None] * share
    np.add.at(spectrum, (row[on_chip], column[on_chip]), light[on_chip])
    return spectrum
