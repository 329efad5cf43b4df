"""Where the fibres of an instrument are expected on its detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kspecpipe.signal import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class FibreLayout:
    """Nominal geometry of the fibres at the middle column.

    Parameters
    ----------
    rows : ndarray, shape (nfib,)
        Nominal row of each fibre at the middle column [pixel], increasing.
    tolerance : float
        Largest distance between a nominal and a real row [pixel].
    rows_without_light : tuple of (int, int)
        Half-open row ranges which no fibre, ghost or stray light reaches; empty = unknown.

    Raises
    ------
    ValueError
        If the rows do not increase or the tolerance is not positive.
    """

    rows: FloatArray
    tolerance: float
    rows_without_light: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse layouts in which fibres cannot be told apart."""
        object.__setattr__(self, "rows", np.asarray(self.rows, dtype=float))
        if self.rows.ndim != 1 or self.rows.size == 0:
            raise ValueError(f"rows has shape {self.rows.shape}; one row per fibre is needed")
        if np.any(np.diff(self.rows) <= 0):
            raise ValueError("nominal rows must increase from fibre to fibre")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance} pixel; it must be positive")

    @property
    def number(self) -> int:
        """Number of fibres."""
        return int(self.rows.size)

    @property
    def pitch(self) -> float:
        """Typical distance of neighbouring fibres [pixel]."""
        if self.number == 1:
            return 2.0 * self.tolerance
        return float(np.median(np.diff(self.rows)))

    @property
    def local_pitch(self) -> FloatArray:
        """Distance of each fibre to its nearer neighbour [pixel], shape (nfib,)."""
        if self.number == 1:
            return np.array([self.pitch])
        steps = np.diff(self.rows)
        nearer: FloatArray = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
        return nearer

    @property
    def block_of_fibre(self) -> IntArray:
        """Index of the block of each fibre; a gap of more than 1.5 pitches starts a block."""
        return np.insert(np.cumsum(np.diff(self.rows) > 1.5 * self.pitch), 0, 0)
