"""A measurement: value, variance and data quality, kept together through every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
DQArray = npt.NDArray[np.uint16]


class DQ(IntFlag):
    """Data-quality bits of every product (uint16)."""

    BAD = 1
    HOT = 2
    UNSTABLE = 4
    SATURATED = 8
    BLEED = 16
    COSMIC = 32
    NO_DATA = 64
    EXTRAPOLATED = 128
    LOW_THROUGHPUT = 256
    TELLURIC = 512


#: Samples with one of these bits carry no information; the other bits inform.
UNUSABLE = DQ.BAD | DQ.SATURATED | DQ.COSMIC | DQ.NO_DATA


@dataclass(frozen=True, slots=True)
class Signal:
    """Values with their variance and data quality.

    Parameters
    ----------
    value : ndarray of float
        The measured values.
    variance : ndarray of float, same shape
        Their variance, in the square of the unit of ``value``.
    dq : ndarray of uint16, same shape
        Data-quality bits, see `DQ`; 0 is good.

    Raises
    ------
    ValueError
        If the three shapes differ.
    """

    value: FloatArray
    variance: FloatArray
    dq: DQArray

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shapes = {self.value.shape, self.variance.shape, self.dq.shape}
        if len(shapes) > 1:
            raise ValueError(
                f"value {self.value.shape}, variance {self.variance.shape} and dq {self.dq.shape} "
                "differ in shape"
            )

    @classmethod
    def of(
        cls, value: npt.ArrayLike, variance: npt.ArrayLike = 0.0, dq: npt.ArrayLike = 0
    ) -> Signal:
        """Build a signal from anything that broadcasts to the shape of ``value``."""
        values = np.asarray(value, dtype=np.result_type(np.asarray(value), np.float32))
        return cls(
            values,
            np.broadcast_to(np.asarray(variance, values.dtype), values.shape).copy(),
            np.broadcast_to(np.asarray(dq, np.uint16), values.shape).copy(),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.value.shape

    @property
    def good(self) -> BoolArray:
        """True where the sample can be used: no `UNUSABLE` bit and finite."""
        usable: BoolArray = (self.dq & np.uint16(UNUSABLE)) == 0
        usable &= np.isfinite(self.value) & np.isfinite(self.variance)
        return usable

    @property
    def error(self) -> FloatArray:
        """Standard deviation."""
        return np.sqrt(self.variance)

    def flag(self, where: BoolArray, bit: DQ) -> Signal:
        """Return a copy with ``bit`` set where ``where`` is True."""
        return replace(self, dq=self.dq | np.where(where, np.uint16(bit), np.uint16(0)))

    def fraction(self, bit: DQ) -> float:
        """Return the fraction of samples that carry ``bit``; NaN without samples."""
        return float(np.mean((self.dq & np.uint16(bit)) > 0)) if self.dq.size else float("nan")

    def select(self, index: Any) -> Signal:
        """Index all three arrays alike."""
        return Signal(self.value[index], self.variance[index], self.dq[index])

    def scale(self, factor: float | FloatArray) -> Signal:
        """Multiply by a factor without error."""
        return Signal(self.value * factor, self.variance * factor**2, self._dq_like(factor))

    def add(self, other: Signal) -> Signal:
        """Sum with an independent signal; DQ bits join."""
        return self._combine(other, np.add)

    def subtract(self, other: Signal) -> Signal:
        """Difference with an independent signal; DQ bits join."""
        return self._combine(other, np.subtract)

    def divide(self, other: Signal) -> Signal:
        """Quotient with an independent signal; NaN and ``NO_DATA`` where the divisor is 0."""
        zero = other.value == 0
        divisor = np.where(zero, np.nan, other.value)
        value = self.value / divisor
        variance = (self.variance + value**2 * other.variance) / divisor**2
        return Signal(value, variance, self.dq | other.dq).flag(
            np.broadcast_to(zero, value.shape), DQ.NO_DATA
        )

    def _combine(self, other: Signal, operation: Callable[..., FloatArray]) -> Signal:
        return Signal(
            operation(self.value, other.value),
            self.variance + other.variance,
            self.dq | other.dq,
        )

    def _dq_like(self, factor: float | FloatArray) -> DQArray:
        return np.broadcast_to(self.dq, np.broadcast_shapes(self.shape, np.shape(factor))).copy()
