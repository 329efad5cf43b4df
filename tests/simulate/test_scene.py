"""Ghosts, scattered light and the detector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.simulate import NightPlan, Traps, take_frame
from kspecpipe.simulate.detector import bleed, cosmic_rays, orient, restore
from kspecpipe.simulate.instruments import READOUT, isoplane, kspec, mirrored
from kspecpipe.simulate.kernels import line_kernel, slit_kernel

QUIET = Traps.none()


@pytest.mark.parametrize("kernel", [slit_kernel(), line_kernel()])
@given(
    place=st.floats(-0.5, 0.5),
    scale=st.floats(0.6, 1.4),
    mix=st.floats(0, 1),
)
def test_kernel_gives_all_its_light_at_its_centroid(kernel, place, scale, mix):
    offset = np.arange(-25.0, 26.0) - place
    share = kernel.integral(offset, np.array(scale), np.array(mix))
    assert share.sum() == pytest.approx(1, abs=1e-9)
    assert (share * offset).sum() == pytest.approx(0, abs=5e-4)
    assert share.min() > -1e-12
    np.testing.assert_allclose(kernel.shares(offset[:, None], scale, mix)[:, 0], share, atol=1e-12)


def test_profile_is_about_four_pixels_wide():
    for kernel in (slit_kernel(), line_kernel()):
        width = kernel.width(np.array([0.0, 0.5, 1.0]))
        assert np.all((width > 3.3) & (width < 4.4))


def test_ghost_band_and_ghost_fibres_lie_where_the_real_ones_do():
    ghosts = take_frame(NightPlan(traps=QUIET.but(ghosts=True)), "FLAT").expected
    clean = take_frame(NightPlan(traps=QUIET), "FLAT").expected
    extra = (ghosts - clean)[:, 900:1100].mean(axis=1)
    band = np.flatnonzero(extra > 0.02 * extra.max())
    peak = clean[:, 900:1100].mean(axis=1)[560:740].max()
    high = band[band > 800]
    assert 880 <= high.min() <= 892
    assert 40 <= np.ptp(high) <= 60
    assert extra[high].max() / peak == pytest.approx(0.2, abs=0.05)
    faint = extra[540:570]
    assert faint[[10, 22]].min() > 0.01 * peak, "12 and 24 rows below fibre 1 at row 574"
    assert extra[600:860].max() < 1e-3 * peak


def test_scattered_light_lies_between_the_fibres():
    scattered = take_frame(NightPlan(traps=QUIET.but(scattered_light=True)), "FLAT").expected
    clean = take_frame(NightPlan(traps=QUIET), "FLAT").expected
    extra = (scattered - clean)[:, 1000]
    assert 0.01 < extra[650] / clean[560:740, 1000].max() < 0.06
    assert extra[1250] < 0.2 * extra[650]


@pytest.mark.parametrize("along_x", [False, True])
@pytest.mark.parametrize("along_y", [False, True])
@pytest.mark.parametrize("instrument", [isoplane(overscan=True, small=True), kspec(small=True)])
def test_orientation_round_trip(instrument, along_x, along_y):
    turned = mirrored(instrument, along_x, along_y)
    detector = turned.detector
    image = np.random.default_rng(0).uniform(size=detector.shape)
    raw = np.zeros(detector.raw_shape)
    active = orient(image, turned)
    y, x = detector.origin
    raw[y : y + active.shape[0], x : x + active.shape[1]] = active
    np.testing.assert_array_equal(restore(raw, turned), image)


def test_raw_frame_is_mirrored_on_both_axes_unless_asked_otherwise():
    frames = {
        flips: take_frame(NightPlan(size="small", traps=QUIET, mirrored=flips), "FLAT")
        for flips in ((True, True), (False, False), (True, False))
    }
    plain = frames[False, False].planes[0].data
    np.testing.assert_array_equal(frames[True, True].planes[0].data[::-1, ::-1], plain)
    np.testing.assert_array_equal(frames[True, False].planes[0].data[:, ::-1], plain)
    default = take_frame(NightPlan(size="small", traps=QUIET), "FLAT").planes[0].data
    np.testing.assert_array_equal(default, frames[True, True].planes[0].data)
    red, blue = plain[:, -50:].astype(float), plain[:, :50].astype(float)
    assert red.sum() > blue.sum(), "wavelength rises with x"


def test_noise_free_raw_frame_is_bias_plus_light_over_gain():
    frame = take_frame(NightPlan(size="small", traps=QUIET), "FLAT")
    raw = frame.planes[0].data[::-1, ::-1].astype(float)
    np.testing.assert_allclose(raw, 612 + frame.expected / 1.12, atol=0.5 + 1e-9)


@pytest.mark.parametrize(("mode", "facts"), READOUT.items())
def test_bias_scatter_is_the_read_noise_of_the_readout_mode(mode, facts):
    plan = NightPlan(size="small", traps=QUIET.but(noise=True), readout=mode)
    data = take_frame(plan, "BIAS").planes[0].data.astype(float)
    gain, ron = facts
    expected = np.sqrt((ron / gain) ** 2 + 1 / 12)
    assert data.mean() == pytest.approx(612, abs=4 * expected / np.sqrt(data.size))
    assert data.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * data.size))


def test_photon_transfer_gives_the_gain():
    plan = NightPlan(size="small", traps=QUIET.but(noise=True))
    first, second = (take_frame(plan, "LFLAT", s).planes[0].data.astype(float) for s in (1, 2))
    signal = (first + second) / 2 - 612
    variance = (first - second) ** 2 / 2 - (4.48 / 1.12) ** 2
    gain = signal.sum() / variance.sum()
    assert gain == pytest.approx(1.12, rel=4 * np.sqrt(2 / signal.size))


def test_pixel_response_scatters_by_the_prnu():
    flat = take_frame(NightPlan(size="small", traps=QUIET), "LFLAT").planes[0].data - 612.0
    rough = take_frame(NightPlan(size="small", traps=QUIET.but(detector_structure=True)), "LFLAT")
    ratio = (rough.planes[0].data - 612.0) / flat
    assert ratio.std() == pytest.approx(0.006, rel=0.03)


def test_bias_level_drifts_between_frames_and_has_structure():
    plan = NightPlan(size="small", traps=QUIET.but(detector_structure=True))
    levels = [take_frame(plan, "BIAS", seed).planes[0].data for seed in range(5)]
    assert 0.2 < np.std([np.median(level) for level in levels]) < 5
    assert 0.3 < levels[0].mean(axis=0).std() < 6
    assert 0.2 < levels[0].mean(axis=1).std() < 3


def test_long_exposures_have_tracks_that_the_mask_knows():
    traps = QUIET.but(cosmic_rays=True)
    frame = take_frame(NightPlan(size="small", traps=traps), "DARK")
    raw = frame.planes[0].data[::-1, ::-1].astype(float) - 612
    mask = frame.planes[0].cosmic
    assert mask.sum() > 100
    assert raw[mask].min() > 6
    assert raw[~mask].max() < 8.5
    assert not take_frame(NightPlan(size="small", traps=traps), "BIAS").planes[0].cosmic.any()


def test_particles_are_proportional_to_exposure_and_several_pixels_long():
    rng = np.random.default_rng(1)
    image = cosmic_rays((2000, 2000), 1500, rng)
    assert 3 < (image > 8).sum() / 1500 < 12
    assert image.max() > 2000


def test_glow_differs_in_strength_between_darks():
    plan = NightPlan(size="small", traps=QUIET.but(dark_glow=True))
    corner = [
        take_frame(plan, "DARK", seed).planes[0].data[::-1, ::-1][:20, -20:].mean() - 612
        for seed in range(5)
    ]
    assert min(corner) > 20
    assert max(corner) / min(corner) > 1.15


def test_saturation_clips_at_sixteen_bits_and_bleeds_along_columns():
    frame = take_frame(NightPlan(), "ARC", seed=2)
    plane = frame.planes[0]
    assert plane.data.max() == 65535
    assert plane.saturated.sum() >= 3
    charge = np.zeros((21, 5))
    charge[10, 2] = 3e5
    spilled = bleed(charge, 1e5)
    assert spilled[10, 2] == 1e5
    assert spilled[7:14, 2].min() > 0
    assert spilled[:, [1, 3]].max() == 0
    assert spilled.sum() < charge.sum()


def test_bad_pixels_are_hot_dead_and_a_row():
    plan = NightPlan(layout="1330x1340", traps=QUIET.but(bad_pixels=True))
    frame = take_frame(plan, "LFLAT").planes[0].data.astype(float)
    assert frame.shape == (1330, 1340)
    assert np.median(frame[:30]) == 612
    assert frame[30].max() < 0.7 * 612
    assert (frame[31:] < 0.5 * np.median(frame[31:])).sum() > 300
    hot = take_frame(plan, "DARK").planes[0].data[31:].astype(float) - 612
    assert 100 < (hot > 300).sum() < 1000


def test_overscan_of_each_amplifier_follows_its_level_and_noise():
    traps = QUIET.but(noise=True, detector_structure=True)
    frame = take_frame(NightPlan("kspec", size="small", traps=traps), "LFLAT").planes[0].data
    left, right = frame[:, :32].astype(float), frame[:, -32:].astype(float)
    assert np.median(left) == pytest.approx(1013, abs=12)
    assert np.median(right) == pytest.approx(1184, abs=12)
    for strip, noise in ((left, 3.6 / 1.87), (right, 4.4 / 1.71)):
        inner = strip - strip.mean(axis=0) - strip.mean(axis=1, keepdims=True) + strip.mean()
        assert inner.std() == pytest.approx(np.hypot(noise, np.sqrt(1 / 12)), rel=0.05)
    inside = frame[:, 32:-32].astype(float)
    assert abs(inside[:, 250:256].mean() - 1013) * 1.87 == pytest.approx(
        abs(inside[:, 256:262].mean() - 1184) * 1.71, rel=0.01
    )
