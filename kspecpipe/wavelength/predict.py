"""What the instrument says about its wavelengths before an arc has been looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray

#: Angstrom in a millimetre.
_ANGSTROM_PER_MM = 1e7


@dataclass(frozen=True)
class GratingGeometry:
    """What fixes the curvature of a grating's dispersion.

    Parameters
    ----------
    lines : float
        Grooves [1/mm].
    focal_length : float
        Camera focal length [mm].
    pixel : float
        Pixel size [mm].
    """

    lines: float
    focal_length: float
    pixel: float

    def __post_init__(self) -> None:
        """Refuse what is not a spectrograph."""
        if min(self.lines, self.focal_length, self.pixel) <= 0:
            raise ValueError(f"lines, focal_length and pixel must be positive: {self}")

    @property
    def spacing(self) -> float:
        """Groove distance [Angstrom]."""
        return _ANGSTROM_PER_MM / self.lines

    @property
    def focal_pixels(self) -> float:
        """Focal length [pixel]."""
        return self.focal_length / self.pixel


@dataclass(frozen=True)
class Prediction:
    """Nominal wavelengths, and how far the truth may be from them.

    Parameters
    ----------
    wavelength : ndarray, shape (nx,)
        Predicted wavelength of pixel centres [Angstrom], rising with x.
    scale_range : tuple of float
        Smallest and largest ratio of true to predicted dispersion.
    shift_range : float
        Largest shift along x, either way [pixel].
    grating : GratingGeometry or None
        Known geometry, which fixes the curvature; None for a plain linear prediction.
    measured : bool
        True when the wavelengths come from an arc that has been solved: departures are small.

    Raises
    ------
    ValueError
        If the wavelengths do not rise, or a range is empty.
    """

    wavelength: FloatArray
    scale_range: tuple[float, float] = (0.9, 1.1)
    shift_range: float = 80.0
    grating: GratingGeometry | None = None
    measured: bool = False

    def __post_init__(self) -> None:
        """Check what the search relies on."""
        if self.wavelength.ndim != 1 or self.wavelength.size < 16:
            raise ValueError(f"a prediction needs shape (nx,), not {self.wavelength.shape}")
        if not np.all(np.diff(self.wavelength) > 0):
            raise ValueError("predicted wavelengths must rise with x")
        low, high = self.scale_range
        if not 0 < low <= high or self.shift_range < 0:
            raise ValueError(f"empty search range: scale {self.scale_range}, {self.shift_range}")

    @property
    def nx(self) -> int:
        """Pixels along the dispersion."""
        return int(self.wavelength.size)

    @property
    def centre(self) -> float:
        """Predicted wavelength at the middle of the chip [Angstrom]."""
        return float(np.interp((self.nx - 1) / 2, np.arange(self.nx), self.wavelength))

    @property
    def step(self) -> float:
        """Predicted dispersion at the middle of the chip [Angstrom/pixel]."""
        middle = self.nx // 2
        return float(self.wavelength[middle + 2] - self.wavelength[middle - 2]) / 4


def predict_grating(  # noqa: PLR0913 - the keys of the wavelength section of an instrument
    *,
    lines: float,
    centre: float,
    nx: int,
    focal_length: float,
    pixel: float,
    dispersion: float,
    dispersion_lines: float = 1200.0,
    scale_range: tuple[float, float] = (0.9, 1.1),
    shift_range: float = 80.0,
) -> Prediction:
    """Predict wavelengths from the header and the data sheet of a grating spectrograph.

    The data sheet's dispersion scales as 1/lines. Where the diffraction angle is zero is not on the
    sheet, so the prediction is linear; the search finds the curvature that the geometry allows.

    Parameters
    ----------
    lines : float
        Grooves of the grating in use [1/mm].
    centre : float
        Wavelength at the middle of the chip [Angstrom].
    nx : int
        Pixels along the dispersion.
    focal_length, pixel : float
        Camera focal length and pixel size [mm].
    dispersion : float
        Nominal dispersion [Angstrom/mm] with a grating of ``dispersion_lines``.
    dispersion_lines : float
        Grooves of the grating of the data sheet [1/mm].
    scale_range, shift_range
        See `Prediction`.

    Returns
    -------
    Prediction
        With its geometry.
    """
    geometry = GratingGeometry(lines, focal_length, pixel)
    step = dispersion * dispersion_lines / lines * pixel
    wavelength = centre + step * (np.arange(nx) - (nx - 1) / 2)
    return Prediction(wavelength, scale_range, shift_range, geometry)


def predict_linear(
    *,
    centre: float,
    step: float,
    nx: int,
    scale_range: tuple[float, float] = (0.9, 1.1),
    shift_range: float = 80.0,
) -> Prediction:
    """Predict wavelengths linear in x: ``centre`` [Angstrom], ``step`` [Angstrom/pixel]."""
    wavelength = centre + step * (np.arange(nx) - (nx - 1) / 2)
    return Prediction(wavelength, scale_range, shift_range)
