import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from kspecpipe.extraction.halo import fibre_light_image, measure_halo, subtract_scattered
from kspecpipe.signal import DQ, Signal
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces

_NX, _NY, _PITCH = 200, 500, 12.0
_CENTRE = 190 + _PITCH * np.arange(10)


def _traces(tilt: float = 0.0, dead: int | None = None) -> Traces:
    y = _CENTRE[:, None] + tilt * np.linspace(-1, 1, _NX)
    status = np.where(np.arange(10) == dead, "DEAD", "OK")
    return Traces(y, np.full(y.shape, 3.7), status, 1.0, 0.0, np.zeros(0))


def _light(traces: Traces, level: np.ndarray | float = 3e4) -> np.ndarray:
    """Light of the fibres with Gaussian profiles, (ny, nx); none of dead ones."""
    row = np.arange(_NY)[:, None, None]
    shape = np.exp(-0.5 * ((row - traces.y) / 1.57) ** 2) / (1.57 * np.sqrt(2 * np.pi))
    return (shape * (level * (traces.status == "OK"))[:, None]).sum(axis=1)


def _halo(traces: Traces, level: float = 3e4, core: float = 0.05) -> np.ndarray:
    """Scatter light around the mean row of each fibre: tilted images scatter otherwise."""
    distance = np.arange(_NY)[:, None] - traces.y.mean(axis=1)
    shape = np.exp(-0.5 * (distance / 12) ** 2) / (12 * np.sqrt(2 * np.pi))
    total = (core * shape).sum(axis=1) * level
    return np.broadcast_to(total[:, None], (_NY, _NX)).astype(float)


def _exposed(image: np.ndarray, seed: int = 1) -> Signal:
    rng = np.random.default_rng(seed)
    return Signal.of(image + np.sqrt(image + 20) * rng.standard_normal(image.shape), 20.0)


@pytest.mark.parametrize("tilt", [0.0, 1.5])
def test_halo_is_measured_even_if_the_image_of_the_slit_is_tilted(tilt: float) -> None:
    traces = _traces(tilt)
    truth = _halo(traces)
    frame = _exposed(_light(traces) + truth)
    halo = measure_halo(frame, traces)
    left = (truth - halo.image(fibre_light_image(frame, traces)))[180:310, 30:-30]
    # 3e4 electrons in 12 rows: 0.2 % of the fibres' own light, where 5 % were scattered.
    assert np.abs(left.mean()) < 0.002 * 3e4 / _PITCH


def test_halos_of_the_neighbours_are_not_scattered_again() -> None:
    traces = _traces()
    halo = measure_halo(_exposed(_light(traces) + _halo(traces)), traces)
    assert halo.fraction.sum() == pytest.approx(0.05, rel=0.015)


def test_ghost_fibres_beside_the_first_one_are_not_taken_for_halo() -> None:
    traces = _traces(1.0)
    truth = _halo(traces)
    row = np.arange(_NY)[:, None]
    ghost = sum(750 / 4 * np.exp(-0.5 * ((row - _CENTRE[0] + d) / 1.6) ** 2) for d in (12, 24))
    band = 300.0 * ((row > 420) & (row < 460))
    clean, seen = (_exposed(_light(traces) + truth + more) for more in (0.0, ghost + band))
    without, found = (measure_halo(frame, traces).fraction.sum() for frame in (clean, seen))
    assert found == pytest.approx(without, abs=0.004)


def test_ghosts_opposite_a_dead_fibre_are_not_taken_for_halo() -> None:
    traces = _traces(dead=0)
    row = np.arange(_NY)[:, None]
    ghost = sum(
        level * np.exp(-0.5 * ((row - _CENTRE[-1] - d) / 1.7) ** 2)
        for level, d in ((60.0, 12), (30.0, 24))
    )
    halo = measure_halo(_exposed(_light(traces) + ghost + 10.0), traces)
    assert halo.fraction.sum() < 0.004


def test_without_halo_none_is_found() -> None:
    traces = _traces()
    halo = measure_halo(_exposed(_light(traces)), traces)
    # The wings of the profiles, beyond 2.5 FWHM, are the most that could be mistaken for one.
    assert halo.fraction.sum() < 0.001


def test_dead_fibres_scatter_nothing() -> None:
    traces = _traces(dead=4)
    light = fibre_light_image(_exposed(_light(traces)), traces)
    assert light[234:243].sum() == 0
    assert light[222:231].sum() > 0


def test_fibres_that_fill_the_frame_leave_no_row_to_measure_in() -> None:
    traces = _traces()
    cut = slice(182, 306)
    inside = Traces(traces.y - 182, traces.width, traces.status, 1.0, 0.0, np.zeros(0))
    frame = _exposed(_light(traces) + _halo(traces)).select(cut)
    assert not measure_halo(frame, inside).fraction.any()


def test_saturated_light_is_scattered_too_but_no_other_bad_pixel() -> None:
    traces = _traces()
    frame = _exposed(_light(traces))
    mask = np.zeros(frame.shape, bool)
    mask[190, 100:110] = True
    kept = fibre_light_image(frame.flag(mask, DQ.SATURATED), traces)[190, 100:110]
    assert (kept == frame.value[190, 100:110]).all()
    assert not fibre_light_image(frame.flag(mask, DQ.BAD), traces)[190, 100:110].any()


def test_scattered_light_is_subtracted_and_its_shot_noise_stays() -> None:
    traces = _traces()
    truth = _halo(traces) + gaussian_filter1d(np.full((_NY, _NX), 30.0), 5)
    frame = _exposed(_light(traces) + truth)
    halo = measure_halo(frame, traces)
    layout = FibreLayout(_CENTRE, _PITCH)
    clean, scattered = subtract_scattered(frame, traces, layout, halo)
    off = (scattered - truth)[185:305, 30:-30]
    assert np.abs(off.mean()) < 0.001 * 3e4 / _PITCH
    np.testing.assert_allclose(clean.value + scattered, frame.value, rtol=1e-6)
    np.testing.assert_allclose(clean.variance, frame.variance + np.maximum(scattered, 0))
