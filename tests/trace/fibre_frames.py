"""Little fibre frames for tests: skewed, winged, pixel-integrated profiles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf, expit

from kspecpipe.signal import Signal

WING = 0.05


def cumulative(distance, fwhm, skew):
    """Cumulative profile: two Gaussians side by side and exponential wings, centroid at 0."""
    s = fwhm / 2.45
    apart = 0.9 * skew * s
    near, far = -0.3 * apart, 0.7 * apart
    core = 0.7 * (1 + erf((distance - near) / (np.sqrt(2) * 0.95 * s))) / 2
    core += 0.3 * (1 + erf((distance - far) / (np.sqrt(2) * 1.15 * s))) / 2
    return (1 - WING) * core + WING * expit(distance / (1.1 * s))


def pixel_profile(distance, fwhm, skew):
    """Fraction of the flux in a pixel centred ``distance`` above the trace."""
    return cumulative(distance + 0.5, fwhm, skew) - cumulative(distance - 0.5, fwhm, skew)


@dataclass
class Bench:
    """A detector with fibres of known traces; everything about it is known."""

    n_row: int = 150
    n_x: int = 400
    rows: np.ndarray = field(default_factory=lambda: 30.3 + 12.06 * np.arange(8))
    tilt: float = -1.5
    curvature: float = 0.3
    fwhm: float = 3.7
    skew: float = 0.6
    ron: float = 4.5

    def __post_init__(self):
        """Lay out traces, widths and skewnesses."""
        self.n_fibre = len(self.rows)
        self.unit = np.linspace(-1, 1, self.n_x)
        across = np.linspace(-1, 1, self.n_fibre)[:, None] if self.n_fibre > 1 else np.zeros((1, 1))
        jitter = 0.12 * np.sin(7.0 * np.arange(self.n_fibre))[:, None]
        self.y = np.asarray(self.rows, float)[:, None] + jitter + 0.5 * self.tilt * self.unit
        self.y = self.y + self.curvature * self.unit**2 * (1 + 0.3 * across)
        self.widths = self.fwhm * (1 + 0.04 * self.unit + 0.03 * across)
        self.skews = self.skew * (1 + 0.2 * self.unit + 0.2 * across)

    def image(self, flux, y=None):
        """Noiseless image of spectra (nfib, nx)."""
        y = self.y if y is None else y
        flux = np.broadcast_to(np.asarray(flux, float), y.shape)
        frame = np.zeros((self.n_row, self.n_x))
        reach = int(6 * self.fwhm)
        for f in range(y.shape[0]):
            width, skew = self.widths[f % self.n_fibre], self.skews[f % self.n_fibre]
            for k in range(-reach, reach + 1):
                row = np.round(y[f]).astype(int) + k
                inside = np.flatnonzero((row >= 0) & (row < self.n_row))
                value = flux[f] * pixel_profile(row - y[f], width, skew)
                frame[row[inside], inside] += value[inside]
        return frame

    def profile(self, window, number):
        """Give the true profile in windows, shape (nfib, number, nx)."""
        rows = window[:, None, :] + np.arange(number)[:, None]
        return pixel_profile(rows - self.y[:, None, :], self.widths[:, None], self.skews[:, None])

    def windows(self, half):
        """Window of ``2 half + 1`` rows about each trace, and the true profile in it."""
        window = np.round(self.y).astype(int) - half
        return window, self.profile(window, 2 * half + 1)

    def expose(self, flux, rng, y=None, background=0.0):
        """Frame with photon and read noise; its variance holds the read noise."""
        electrons = self.image(flux, y) + background
        noisy = rng.poisson(electrons) + self.ron * rng.standard_normal(electrons.shape)
        return Signal.of(noisy.astype(float), self.ron**2)

    def exact(self, flux, y=None, background=0.0):
        """Frame without noise."""
        return Signal.of(self.image(flux, y) + background, self.ron**2)


def lamp(bench, level=20000.0, throughput=None):
    """Smooth lamp spectra (nfib, nx), a little different in every fibre."""
    throughput = np.ones(bench.n_fibre) if throughput is None else np.asarray(throughput)
    colour = 1 + 0.1 * np.linspace(-1, 1, bench.n_fibre)[:, None] * bench.unit
    return level * throughput[:, None] * (0.6 + 0.4 * np.cos(1.2 * bench.unit)) * colour
