"""Geometry: raw frames are built from a known normalised image by hand, and must give it back."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.configuration.instrument_schema import Amplifier, Layout
from kspecpipe.detector.calibrate import ReadOut
from kspecpipe.errors import SettingsError
from kspecpipe.frame import ElectronPlanes, FrameInfo, FrameStack, Geometry, Orient, RawFrame
from kspecpipe.signal import DQ

LEVELS = (300.0, 500.0, 700.0, 900.0)
READOUT = ReadOut(gain=2.0, ron=4.0, saturation=60000.0)


@dataclass(frozen=True)
class Scene:
    """A raw frame of several amplifiers, and the image that it shows."""

    image: np.ndarray  # normalised, without zero levels
    raw: np.ndarray
    layout: Layout
    orient: Orient
    parts: np.ndarray  # number of the amplifier of each normalised pixel

    def frame(self) -> RawFrame:
        geometry = Geometry.of(self.layout, self.orient)
        return RawFrame(FrameInfo("a.fits"), geometry, READOUT, self.read)

    def read(self, section):
        y0, y1, x0, x1 = section
        assert 0 <= y0 < y1 <= self.raw.shape[0]
        assert 0 <= x0 < x1 <= self.raw.shape[1]
        return self.raw[y0:y1, x0:x1].astype(np.float32)


def lay_out(trimmed, columns, overscan):
    """Put amplifiers side by side with their overscan between them; return raw and layout."""
    cuts = np.linspace(0, trimmed.shape[1], columns + 1).astype(int)
    strips, amplifiers, x = [], [], 0
    for i, (a, b) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        data = trimmed[:, a:b] + LEVELS[i]
        level = np.full((trimmed.shape[0], overscan), LEVELS[i])
        first = i % 2 == 0  # data and overscan lie in turns on the left
        strips += [data, level] if first else [level, data]
        start = x if first else x + overscan
        over = x + (b - a) if first else x
        ny = trimmed.shape[0]
        amplifiers.append(
            Amplifier(
                data=(0, ny, start, start + b - a),
                overscan=(0, ny, over, over + overscan) if overscan else None,
                gain=1.0 + i,
                noise=4.0,
            )
        )
        x += b - a + overscan
    parts = np.repeat(np.arange(columns), np.diff(cuts))
    return np.concatenate(strips, axis=1), amplifiers, np.tile(parts, (trimmed.shape[0], 1))


def draw_scene(ny, nx, columns, overscan, transpose, flip_x, flip_y, bad=()):
    image = np.random.default_rng(3).integers(0, 50, (ny, nx)).astype(float)
    step = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
    trimmed = image[step].T if transpose else image[step]
    raw, amplifiers, parts = lay_out(trimmed, columns, overscan)
    parts = parts.T[step] if transpose else parts[step]
    layout = Layout(amplifiers=amplifiers, bad=list(bad))
    return Scene(image, raw, layout, Orient(transpose, flip_x, flip_y), parts)


SCENES = st.builds(
    draw_scene,
    ny=st.integers(6, 20),
    nx=st.integers(6, 20),
    columns=st.integers(1, 4),
    overscan=st.integers(2, 4),
    transpose=st.booleans(),
    flip_x=st.booleans(),
    flip_y=st.booleans(),
)


@settings(max_examples=60)
@given(SCENES, st.data())
def test_any_rows_of_any_geometry_come_back_without_their_zero_levels(scene, data):
    frame = scene.frame().with_overscan()
    ny = scene.image.shape[0]
    a = data.draw(st.integers(0, ny - 1))
    b = data.draw(st.integers(a + 1, ny))
    assert frame.shape == scene.image.shape
    np.testing.assert_allclose(frame.rows(a, b), scene.image[a:b], atol=1e-3)


@settings(max_examples=40)
@given(SCENES)
def test_each_amplifier_has_its_section_and_its_gain(scene):
    geometry = scene.frame().geometry
    count = len(scene.layout.amplifiers)
    painted = np.broadcast_to(geometry.paint([float(i) for i in range(count)]), geometry.shape)
    np.testing.assert_array_equal(painted, scene.parts)
    assert len(geometry.sections) == (count if count > 1 else 0)
    for i, section in enumerate(geometry.sections):
        assert np.all(scene.parts[section] == i)
        assert scene.parts[section].size == np.sum(scene.parts == i)
    # The frames of a stack share what is as large as themselves, and none can spoil it.
    again = np.asarray(scene.frame().geometry.paint([float(i) for i in range(count)]))
    assert count == 1 or (np.shares_memory(again, painted) and not again.flags.writeable)


@settings(max_examples=40)
@given(SCENES, st.tuples(*[st.integers(0, 30)] * 4))
def test_bad_sections_are_found_where_their_pixels_went(scene, corners):
    raw_ny, raw_nx = scene.raw.shape
    y0, y1 = sorted((corners[0] % raw_ny, corners[1] % raw_ny))
    x0, x1 = sorted((corners[2] % raw_nx, corners[3] % raw_nx))
    section = (y0, y1 + 1, x0, x1 + 1)
    marked = np.zeros_like(scene.raw)
    marked[y0 : y1 + 1, x0 : x1 + 1] = 1
    layout = Layout(amplifiers=scene.layout.amplifiers, bad=[section])
    geometry = Geometry.of(layout, scene.orient)
    truth = RawFrame(
        FrameInfo("bad"), geometry, READOUT, lambda s: marked[s[0] : s[1], s[2] : s[3]]
    ).adu
    np.testing.assert_array_equal(geometry.bad_pixels, truth > 0)


def test_the_raw_level_is_kept_for_the_saturation_test():
    scene = draw_scene(8, 10, 2, 2, transpose=False, flip_x=False, flip_y=False)
    frame = scene.frame().with_overscan()
    np.testing.assert_allclose(
        frame.raw_adu, scene.image + np.where(scene.parts == 0, LEVELS[0], LEVELS[1])
    )


def test_overscan_rows_follow_levels_that_change_along_the_row():
    """Rows 0 to 9 are overscan with a slope along x; the image lies above them."""
    raw = np.tile(600 + 0.5 * np.arange(40.0), (30, 1))
    raw[10:] += 25.0
    layout = Layout(amplifiers=[Amplifier(data=(10, 30, 0, 40), overscan=(0, 10, 0, 40))])
    frame = RawFrame(
        FrameInfo("a"),
        Geometry.of(layout, Orient(False, False, False)),
        READOUT,
        lambda s: raw[s[0] : s[1], s[2] : s[3]],
    )
    np.testing.assert_allclose(frame.with_overscan().adu, np.full((20, 40), 25.0), atol=1e-3)


def test_amplifiers_may_lie_in_two_rows():
    amplifiers = [
        Amplifier(data=(y, y + 5, x, x + 6), overscan=(y, y + 5, over, over + 2))
        for y in (0, 5)
        for x, over in ((0, 6), (10, 8))
    ]
    geometry = Geometry.of(Layout(amplifiers=amplifiers), Orient(True, False, True))
    assert geometry.shape == (12, 10)
    assert len(geometry.sections) == 4


@pytest.mark.parametrize(
    "sections",
    [
        [(0, 10, 0, 5), (0, 10, 0, 5)],
        [(0, 10, 0, 5), (10, 20, 5, 10)],
        [(0, 10, 0, 5), (0, 9, 5, 10)],
        [(0, 4, 0, 4), (4, 8, 0, 4), (0, 4, 4, 8)],
    ],
)
def test_sections_that_overlap_or_leave_holes_are_refused(sections):
    layout = Layout(amplifiers=[Amplifier(data=section) for section in sections])
    with pytest.raises(SettingsError, match="overlap or leave holes"):
        Geometry.of(layout, Orient(False, False, False))


def test_a_stack_reads_all_frames_alike():
    images = [np.full((6, 8), float(i)) for i in range(3)]
    infos = [FrameInfo(f"{i}.fits", exptime=10.0 * i, keywords={"i": i}) for i in range(3)]
    stack = FrameStack.from_arrays(images, READOUT, infos)
    assert (len(stack), stack.shape) == (3, (3, 6, 8))
    np.testing.assert_array_equal(stack.rows(2, 4)[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(stack.exptimes, [0, 10, 20])
    assert [keywords["i"] for keywords in stack.keywords] == [0, 1, 2]
    assert [info.name for info in stack.select([0, 2]).infos] == ["0.fits", "2.fits"]
    assert [info.name for info in stack.select(np.array([False, True, False])).infos] == ["1.fits"]
    assert stack.amplifier_sections == ()
    assert not stack.bad_pixels.any()
    assert [frame.info.name for frame in stack] == ["0.fits", "1.fits", "2.fits"]


def test_bad_pixels_of_a_stack_are_dq_bits():
    layout = Layout(amplifiers=[Amplifier(data=(0, 6, 0, 8))], bad=[(0, 1, 0, 8)])
    geometry = Geometry.of(layout, Orient(False, False, True))
    frame = RawFrame(FrameInfo("a"), geometry, READOUT, lambda _: np.zeros((6, 8)))
    dq = FrameStack((frame,)).bad_pixels
    assert dq.dtype == np.uint16
    assert np.all(dq[5] == DQ.BAD)
    assert not dq[:5].any()


def test_electrons_are_adu_without_bias_times_the_gain_of_their_amplifier():
    gain = np.where(np.arange(8) < 4, 2.0, 3.0) * np.ones((6, 1))
    stack = FrameStack.from_arrays([np.full((6, 8), 110.0)], ReadOut(gain=gain, ron=4.0))
    planes = ElectronPlanes(stack, np.full((6, 8), 100.0))
    np.testing.assert_allclose(planes.rows(1, 3)[0], 10 * gain[1:3])
    np.testing.assert_allclose(ElectronPlanes(stack).rows(0, 6)[0], 110 * gain)


def test_mid_exposure_is_half_an_exposure_later():
    info = FrameInfo("a", mjd=61000.0, exptime=86400.0)
    assert info.mid_mjd == 61000.5
