"""Scans of folders: what is found, what is remembered, what is said of the rest."""

import os

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.night import index
from kspecpipe.night.frames import Problem
from kspecpipe.night.index import Memory, Rules, scan, scan_file
from kspecpipe.simulate import FrameCounts, NightPlan, simulate_night


@pytest.fixture
def look(camera, tmp_path):
    def run(**options):
        rules = Rules.of(str(camera.instrument))
        return scan(camera.folder, rules, Memory(tmp_path / "h.sqlite"), **options)

    return run


def test_frames_are_described_as_recipes_describe_them(camera, look):
    camera.biases(2)
    listing = look()
    assert [frame.tag for frame in listing.frames] == ["BIAS", "BIAS"]
    rules = Rules.of(str(camera.instrument))
    (instrument,) = rules.instruments.values()
    for frame in listing.frames:
        (whole,) = io.load_frames(io.open_raw(frame.path), instrument)
        assert frame.info.keywords == whole.info.keywords
        assert (frame.info.mjd, frame.info.layout) == (whole.info.mjd, whole.info.layout)
        assert frame.shape == "x".join(map(str, whole.shape))


def test_real_headers_with_broken_cards_give_the_same_values(tmp_path):
    counts = FrameCounts(bias=1, dark=0, flat=1, arc=0, object=1)
    night = simulate_night(tmp_path / "raw", NightPlan(counts=counts, size="small"), seed=1)
    rules = Rules.of(str(night.instrument))
    (instrument,) = rules.instruments.values()
    for file in night.files:
        values, planes, shape = io.scan_file(file.path, rules.wanted)
        raw = io.open_raw(file.path)
        assert instrument.describe(values, file.path) == instrument.describe(raw.header, file.path)
        assert (planes, shape) == (raw.planes, raw.shape)


def test_nothing_is_read_twice_until_it_changes(camera, look, monkeypatch):
    path, *_ = camera.biases(3)
    assert look().read == 3
    monkeypatch.setattr(index, "_look", lambda *_: pytest.fail("a known file was read"))
    again = look()
    assert (again.read, len(again.frames)) == (0, 3)
    monkeypatch.undo()
    os.utime(path, ns=(1, 1))
    assert look().read == 1


def test_what_is_remembered_is_what_was_read(camera, look):
    camera.biases(2)
    (camera.folder / "other.fits").write_bytes(fits_bytes({"INSTRUME": "HARPS"}))
    camera.master_bias()
    first = look()
    again = look()
    assert again.frames == first.frames
    assert again.products == first.products
    assert [one.catg for one in first.products] == ["MASTER_BIAS"]
    assert again.unknown == first.unknown


def fits_bytes(cards):
    from io import BytesIO

    stream = BytesIO()
    header = fits.Header(list(cards.items()))
    fits.PrimaryHDU(np.zeros((48, 64), "u2"), header).writeto(stream)
    return stream.getvalue()


def test_other_peoples_fits_are_listed_and_not_fatal(camera, look):
    camera.biases(1)
    (camera.folder / "other.fits").write_bytes(fits_bytes({"INSTRUME": "HARPS"}))
    fits.HDUList([fits.PrimaryHDU()]).writeto(camera.folder / "empty.fits")
    listing = look()
    assert len(listing.frames) == 1
    assert {one.path.name for one in listing.unknown} == {"other.fits", "empty.fits"}
    assert all("TINY" in one.reason for one in listing.unknown)


def test_one_corrupt_file_among_many_is_named_and_the_rest_goes_on(camera, look):
    paths = camera.biases(5)
    paths[2].write_bytes(paths[2].read_bytes()[:4000])
    listing = look()
    assert len(listing.frames) == 4
    (problem,) = listing.broken
    assert problem.path == paths[2]
    assert "truncated" in problem.reason


def test_a_half_written_file_is_seen_when_it_is_whole(camera, look):
    (path,) = camera.biases(1)
    content = path.read_bytes()
    path.write_bytes(content[:5000])
    assert look().frames == ()
    path.write_bytes(content)
    assert len(look().frames) == 1


@pytest.mark.parametrize("date", ["1970-01-01T00:00:12", "2150-01-01T00:00:00"])
def test_a_clock_that_was_not_set_is_said(camera, look, date):
    camera.frame("late.fits", DATE_OBS=date)
    (problem,) = look().broken
    assert "clock" in problem.reason
    assert date[:4] in problem.reason


def test_a_date_that_is_none_is_said(camera, look):
    camera.frame("odd.fits", DATE_OBS="yesterday")
    (problem,) = look().broken
    assert "yesterday" in problem.reason


def test_compressed_frames_are_found(camera, look):
    import gzip

    (path,) = camera.biases(1)
    path.with_suffix(".fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert [frame.tag for frame in look().frames] == ["BIAS"]


def test_hidden_files_products_and_libraries_are_left_alone(camera, look):
    (path,) = camera.biases(1)
    for folder in ("out", ".trash", "templates"):
        (camera.folder / folder).mkdir()
        (camera.folder / folder / "x.fits").write_bytes(path.read_bytes())
    listing = look(skip=[camera.folder / "out"])
    assert [frame.path for frame in listing.frames] == [path]
    assert listing.texts["templates"] == (camera.folder / "templates",)


def test_a_cache_that_cannot_be_used_costs_time_only(camera, tmp_path):
    camera.biases(2)
    rules = Rules.of(str(camera.instrument))
    (tmp_path / "file").touch()
    bad = tmp_path / "bad.sqlite"
    bad.write_bytes(b"no database" * 100)
    for memory in (Memory(None), Memory(tmp_path / "file" / "h.sqlite"), Memory(bad)):
        assert len(scan(camera.folder, rules, memory).frames) == 2


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "nowhere", Rules.of(None), Memory(None))


def test_a_dangling_link_is_a_problem_and_no_crash(camera, look):
    (camera.folder / "gone.fits").symlink_to(camera.folder / "nowhere.fits")
    (problem,) = look().broken
    assert "no such file" in problem.reason
    assert isinstance(scan_file(problem.path, Rules.of(str(camera.instrument))), Problem)
