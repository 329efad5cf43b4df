import numpy as np
import pytest

from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.residuals import add_line_error, measure_line_error

_SHAPE = (12, 600)


def _sky(peak: float = 2000.0) -> np.ndarray:
    x = np.arange(_SHAPE[1])
    lines = sum(np.exp(-0.5 * ((x - at) / 2) ** 2) for at in range(40, 600, 60))
    return np.broadcast_to(100 + peak * lines, _SHAPE)


def _observed(error: float, seed: int = 1) -> tuple[Signal, Signal, np.ndarray]:
    """Sky fibres whose lines are off by a part of their height, and the sky that is known."""
    rng = np.random.default_rng(seed)
    truth, fibres = _sky(), np.ones(_SHAPE[0], bool)
    off = error * (truth - 100) * rng.standard_normal(_SHAPE)
    spectra = truth + off + np.sqrt(truth) * rng.standard_normal(_SHAPE)
    return Signal.of(spectra, truth), Signal.of(truth, np.zeros(_SHAPE)), fibres


@pytest.mark.parametrize("error", [0.02, 0.05])
def test_error_of_lines_comes_back_and_makes_the_pulls_standard_normal(error: float) -> None:
    spectra, sky, fibres = _observed(error)
    found = measure_line_error(spectra, sky, fibres)
    assert found == pytest.approx(error, rel=0.15)
    honest = add_line_error(sky, found)
    on_line = _sky() > 300
    pulls = ((spectra.value - sky.value) / np.sqrt(spectra.variance + honest.variance))[on_line]
    assert abs(np.mean(pulls**2) - 1) < 4 * np.sqrt(2 / pulls.size)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_is_no_error_of_lines(seed: int) -> None:
    assert measure_line_error(*_observed(0.0, seed)) < 0.01


def test_a_continuum_has_no_lines_to_be_wrong() -> None:
    spectra, sky, fibres = _observed(0.05)
    honest = add_line_error(sky, 0.05)
    between = np.broadcast_to((np.arange(600) - 40) % 60 == 30, _SHAPE)[:, 40:580]
    ratio = honest.variance[:, 40:580][between] / (0.05 * 2000) ** 2
    assert ratio.max() < 1e-3
    assert measure_line_error(spectra, sky, ~fibres) == 0


def test_cosmic_rays_and_bad_samples_tell_nothing() -> None:
    spectra, sky, fibres = _observed(0.02)
    hit = np.random.default_rng(2).random(_SHAPE) < 0.01
    struck = Signal.of(spectra.value + 1e5 * hit, spectra.variance)
    bad = np.random.default_rng(3).random(_SHAPE) < 0.1
    masked = struck.flag(bad, DQ.BAD)
    assert measure_line_error(masked, sky, fibres) == pytest.approx(0.02, rel=0.3)
    nothing = spectra.flag(np.ones(_SHAPE, bool), DQ.BAD)
    assert measure_line_error(nothing, sky, fibres) == 0


def test_without_error_the_sky_stays_as_it_is() -> None:
    _, sky, _ = _observed(0.0)
    assert add_line_error(sky, 0.0) is sky
