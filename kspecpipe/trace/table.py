"""The cross-dispersion profile as a table, and its values on the pixels of a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are loaded when they are used: it takes long

from kspecpipe.signal import FloatArray, IntArray

#: Samples that are worked out at a time.
_SAMPLES = 40_000


@dataclass(frozen=True, eq=False)
class Profile:
    """Pixel-integrated profile of a fibre, tabulated.

    Parameters
    ----------
    table : ndarray, shape (n_fibre_node, n_x_node, n_offset)
        Fraction of the flux in a pixel whose centre lies ``offset`` rows above the trace.
    fibre_node, x_node : ndarray
        Fibre indices and columns of the table; linear in between, constant beyond.
    first_offset, step : float
        Offset of the first entry and distance of entries [pixel]; ``1 / step`` is an integer.
    """

    table: FloatArray
    fibre_node: FloatArray
    x_node: FloatArray
    first_offset: float
    step: float

    def __post_init__(self) -> None:
        """Refuse tables that do not fit their axes."""
        expected = (self.fibre_node.size, self.x_node.size)
        if self.table.ndim != 3 or self.table.shape[:2] != expected:
            raise ValueError(f"profile table {self.table.shape} does not fit its nodes {expected}")
        if abs(1 / self.step - round(1 / self.step)) > 1e-6:
            raise ValueError(f"offset step {self.step} pixel; one over an integer is needed")

    @property
    def offsets(self) -> FloatArray:
        """Offsets of the table entries [pixel]."""
        return self.first_offset + self.step * np.arange(self.table.shape[2])

    def fwhm(self) -> FloatArray:
        """Full width at half maximum at the nodes [pixel], shape (n_fibre_node, n_x_node)."""
        half = 0.5 * self.table.max(axis=2, keepdims=True)
        above = self.table > half
        low = np.argmax(above, axis=2)
        high = above.shape[2] - 1 - np.argmax(above[:, :, ::-1], axis=2)
        return self.step * (self._cross(low - 1, high + 1, half[:, :, 0]))

    def non_negative(self) -> Profile:
        """Return the profile without its (noisy) negative wings, normalised again."""
        table = np.maximum(self.table, 0)
        return replace(self, table=table / (self.step * table.sum(axis=2, keepdims=True)))

    def derivative(self) -> Profile:
        """Change of the profile per pixel of upward shift, in the same form."""
        return replace(self, table=-np.gradient(self.table, self.step, axis=2))

    def _cross(self, low: IntArray, high: IntArray, half: FloatArray) -> FloatArray:
        """Distance between the half-maximum crossings, in entries."""

        def value(index: IntArray) -> FloatArray:
            clipped = np.clip(index, 0, self.table.shape[2] - 1)
            return np.take_along_axis(self.table, clipped[:, :, None], axis=2)[:, :, 0]

        rise = (half - value(low)) / np.maximum(value(low + 1) - value(low), 1e-30)
        fall = (half - value(high)) / np.maximum(value(high - 1) - value(high), 1e-30)
        distance: FloatArray = (high - fall) - (low + rise)
        return distance


def sample_profile(
    profile: Profile, y: FloatArray, *, shift: float | FloatArray = 0.0
) -> tuple[IntArray, FloatArray]:
    """Sample the profile on the pixels around each trace.

    Parameters
    ----------
    profile : Profile
        The profile.
    y : ndarray, shape (nfib, nx)
        Traces.
    shift : float or ndarray that broadcasts to (nfib, nx)
        Added to the traces: shift of a frame against the flat [pixel].

    Returns
    -------
    window : ndarray of int, shape (nfib, nx)
        First row of each window; may lie outside the frame.
    weights : ndarray of float32, shape (nfib, nwin, nx)
        Fraction of the flux in each pixel; sums to 1 over ``nwin``.
    """
    # Single precision is far finer than any profile is known, and blocks keep the memory small.
    parts = []
    for fibre in np.array_split(np.arange(len(y)), -(-y.size // _SAMPLES)):
        centre = np.broadcast_to(y + shift, y.shape)[fibre]
        window, weights = sample_at(profile, centre, np.arange(y.shape[1]), fibre)
        weights /= weights.sum(axis=1, keepdims=True)
        parts.append((window, weights.astype(np.float32)))
    windows, shares = zip(*parts, strict=True)
    return np.concatenate(windows), np.concatenate(shares)


def sample_at(
    profile: Profile,
    centre: FloatArray,
    x: FloatArray | IntArray,
    fibre: IntArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Sample the table, unnormalised, about ``centre`` (nfib, n) at the columns ``x`` (n,).

    ``fibre`` gives the fibre whose profile each row of ``centre`` takes; by default in order.
    """
    n_fibre, n_x = centre.shape
    fibre = np.arange(n_fibre) if fibre is None else fibre
    per_pixel = round(1 / profile.step)
    phases = _phases(_at_fibres(profile, fibre), per_pixel)
    window = np.ceil(centre + profile.first_offset).astype(int)
    position = (window - centre - profile.first_offset) * per_pixel
    lower, share = between(x, profile.x_node)
    index, value = _interpolation(position, lower, share, phases.shape[2], profile.x_node.size)
    matrix = scipy.sparse.csr_matrix(
        (value.ravel(), index.ravel(), np.arange(0, value.size + 1, 8)),
        shape=(n_fibre * n_x, phases[..., 0].size),
    )
    sampled = (matrix @ phases.reshape(-1, phases.shape[3])).reshape(n_fibre, n_x, -1)
    return window, np.ascontiguousarray(sampled.transpose(0, 2, 1))


def between(at: FloatArray | IntArray, node: FloatArray) -> tuple[IntArray, FloatArray]:
    """Index of the node below and the share of the one above, held constant beyond the ends."""
    if node.size == 1:
        return np.zeros(at.size, dtype=int), np.zeros(at.size)
    lower = np.clip(np.searchsorted(node, at, side="right") - 1, 0, node.size - 2)
    share = np.clip((at - node[lower]) / (node[lower + 1] - node[lower]), 0, 1)
    return lower, share


def _at_fibres(profile: Profile, fibre: IntArray) -> FloatArray:
    """Table of each given fibre (n, n_x_node, n_offset)."""
    lower, share = between(fibre, profile.fibre_node)
    upper = np.minimum(lower + 1, profile.fibre_node.size - 1)
    weight = share[:, None, None]
    table: FloatArray = (1 - weight) * profile.table[lower] + weight * profile.table[upper]
    return table


def _phases(table: FloatArray, per_pixel: int) -> FloatArray:
    """Rearrange (..., n_offset) to (..., per_pixel + 3, nwin): pixels of equal phase in a row.

    Row ``p`` starts one entry before phase ``p``, for interpolation with four entries.
    """
    n_window = int(np.ceil(table.shape[2] / per_pixel)) + 1
    width = [(0, 0), (0, 0), (1, (n_window + 2) * per_pixel - table.shape[2])]
    padded = np.pad(table, width)
    starts = np.arange(per_pixel + 3)[:, None] + per_pixel * np.arange(n_window)
    phases: FloatArray = padded[:, :, starts]
    return phases


def _interpolation(
    position: FloatArray, lower: IntArray, share: FloatArray, n_phase: int, n_node: int
) -> tuple[IntArray, FloatArray]:
    """Find indices and weights of 4 phases (cubic) times 2 nodes (linear) for every sample."""
    whole = np.floor(position).astype(int)
    t = position - whole
    cubic = np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=-1,
    )
    fibre = np.arange(position.shape[0])[:, None]
    nodes = np.stack([lower, np.minimum(lower + 1, n_node - 1)])
    start = (fibre * n_node + nodes[:, None, :]) * n_phase + whole
    index = start.transpose(1, 2, 0)[..., None] + np.arange(4)
    along = np.stack([1 - share, share], axis=-1)
    return index.reshape(position.size, 8), (
        along[None, :, :, None] * cubic[:, :, None, :]
    ).reshape(position.size, 8)
