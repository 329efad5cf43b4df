"""Sets of equally large frames that are read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from kspecpipe.signal import FloatArray

#: Bytes of all planes together that are in memory at once.
BLOCK_BYTES = 16_000_000


class Planes(Protocol):
    """Frames of one shape that arrive a block of rows at a time, so that 50 of them fit."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""

    def rows(self, a: int, b: int) -> FloatArray:
        """Rows ``a`` to ``b`` (exclusive) of all planes: float32, shape (n, b - a, nx)."""


class ArrayPlanes:
    """Planes that are in memory already (or in a memory map): an array of shape (n, ny, nx)."""

    def __init__(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
        """Keep the array; it is not copied."""
        if array.ndim != 3:
            raise ValueError(f"planes need an array of shape (n, ny, nx), not {array.shape}")
        self._array = array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        n, ny, nx = self._array.shape
        return n, ny, nx

    def rows(self, a: int, b: int) -> FloatArray:
        """Rows ``a`` to ``b`` (exclusive) of all planes as float32."""
        return self._array[:, a:b].astype(np.float32)


class ScaledPlanes:
    """A view of planes with a level taken off and a factor applied: (plane - offset) * scale."""

    def __init__(
        self,
        planes: Planes,
        *,
        scale: FloatArray | None = None,
        offset: FloatArray | None = None,
    ) -> None:
        """Check that there is one factor and one level for every plane."""
        n = planes.shape[0]
        self._planes = planes
        self._scale = _one_per_plane(scale, n, "scale", 1.0)
        self._offset = _one_per_plane(offset, n, "offset", 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        return self._planes.shape

    def rows(self, a: int, b: int) -> FloatArray:
        """Rows ``a`` to ``b`` (exclusive) of all planes, levelled and scaled, as float32."""
        block = self._planes.rows(a, b) - self._offset
        block *= self._scale
        return block


def row_blocks(planes: Planes, *, copies: int = 1) -> Iterator[tuple[int, int]]:
    """Row ranges that cover the planes, lower where the caller holds several copies of them."""
    n, ny, nx = planes.shape
    height = max(BLOCK_BYTES // (4 * n * nx * copies), 1)
    for start in range(0, ny, height):
        yield start, min(start + height, ny)


def _one_per_plane(values: FloatArray | None, n: int, name: str, neutral: float) -> FloatArray:
    """Bring one number per plane into the shape that broadcasts against a block."""
    numbers = np.full(n, neutral) if values is None else np.asarray(values)
    if numbers.shape != (n,):
        raise ValueError(f"{name} needs one value for each of {n} planes, not {numbers.shape}")
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name} is not finite for plane {int(np.argmin(np.isfinite(numbers)))}")
    return numbers.astype(np.float32)[:, None, None]
