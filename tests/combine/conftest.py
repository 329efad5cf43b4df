"""Exposures with known truth: what every test of the combination starts from."""

from __future__ import annotations

import numpy as np
import pytest

from kspecpipe.signal import Signal

NFIB, NW = 6, 600


def spectrum(nfib: int = NFIB, nw: int = NW) -> np.ndarray:
    """Return smooth continua with a few lines [electron], the first fibre without light."""
    x = np.arange(nw)
    lines = sum(300 * np.exp(-0.5 * ((x - at) / 2.5) ** 2) for at in range(60, nw, 97))
    level = np.linspace(0, 1, nfib)[:, None]
    return level * (400 + 150 * np.sin(x / 70) + lines)


@pytest.fixture
def exposures():
    """Return a function that makes a stack of noisy exposures of one truth."""

    def make(count, *, seed=1, ron=10.0, factors=None, truth=None):
        rng = np.random.default_rng(seed)
        light = spectrum() if truth is None else truth
        factor = np.ones((count, len(light))) if factors is None else np.asarray(factors)
        seen = factor[:, :, None] * light
        variance = seen + ron**2
        value = seen + np.sqrt(variance) * rng.standard_normal(seen.shape)
        # As in a product, the claimed variance follows the counts that were seen.
        claimed = np.maximum(value, 0) + ron**2
        return Signal(value, claimed, np.zeros(value.shape, np.uint16))

    return make


@pytest.fixture
def truth():
    return spectrum()
