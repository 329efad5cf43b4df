"""Files: written wholly or not at all, and raw frames of every kind read."""

import bz2
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe import atomic, io
from kspecpipe.errors import InputError, ProductError
from kspecpipe.instrument import load_instrument
from kspecpipe.products import images
from kspecpipe.products.hdus import build_hdus
from kspecpipe.signal import Signal

RNG = np.random.default_rng(5)


# -- writing ---------------------------------------------------------------------------------


def hdus_of():
    bias = images.MasterBias(image=Signal.of(RNG.normal(300, 3, (4, 6)), np.full((4, 6), 9.0)))
    return build_hdus(bias, {"ESO PRO CATG": ("MASTER_BIAS", "")}, {})


def test_all_files_appear_or_none(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "b.fits").mkdir()
    files = [(tmp_path / "a.fits", hdus_of()), (tmp_path / "taken" / "b.fits", hdus_of())]
    with pytest.raises(ProductError, match="cannot write"):
        io.write_products(files)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_two_products_of_one_name_are_refused(tmp_path):
    with pytest.raises(ProductError, match=r"a\.fits.*twice"):
        io.write_products([(tmp_path / "a.fits", hdus_of()), (tmp_path / "a.fits", hdus_of())])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_mid_write_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(descriptor):
        del descriptor
        raise error

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises((ProductError, KeyboardInterrupt)):
        io.write_products([(tmp_path / "a.fits", hdus_of())])
    assert list(tmp_path.iterdir()) == []


def test_an_older_product_survives_a_failure(tmp_path, monkeypatch):
    path = tmp_path / "a.fits"
    path.write_text("older")
    monkeypatch.setattr(atomic.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(ProductError, match="disk"):
        io.write_products([(path, hdus_of())])
    assert path.read_text() == "older"


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f".kspec_{os.uname().nodename}_{gone.pid}_x.part"
    living = tmp_path / f".kspec_{os.uname().nodename}_{os.getpid()}_x.part"
    elsewhere = tmp_path / f".kspec_otherhost_{gone.pid}_x.part"
    foreign = tmp_path / "notes.part"
    for path in (dead, living, elsewhere, foreign):
        path.write_text("half")
    io.write_products([(tmp_path / "a.fits", hdus_of())])
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.fits",
        living.name,
        elsewhere.name,
        foreign.name,
    }


def test_folders_are_made_and_files_can_be_read_by_all(tmp_path):
    path = tmp_path / "new" / "deep" / "a.fits"
    io.write_products([(path, hdus_of())])
    assert path.stat().st_mode & 0o777 == 0o644


# -- raw files -------------------------------------------------------------------------------

FRAME = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
FLOATS = FRAME.astype(np.float32) / 7


def frames_of(path: Path, camera):
    return io.load_frames(io.open_raw(path), load_instrument(str(camera.instrument)))


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.astype(np.int16),
        FRAME.astype(np.int32) - 70000,
        FRAME.astype(np.int64),
        (FRAME % 250).astype(np.uint8),
        FLOATS,
        FLOATS.astype(np.float64),
    ],
)
@pytest.mark.parametrize("suffix", ["fits", "FIT", "fits.gz", "fits.bz2"])
def test_pixels_of_all_types_are_read(camera, data, suffix):
    path = camera.frame(f"b.{suffix}", data=data, rounded=False)
    (frame,) = frames_of(path, camera)
    np.testing.assert_allclose(frame.rows(5, 9), data[5:9].astype(np.float32))
    np.testing.assert_allclose(frame.adu, data.astype(np.float32))
    assert frame.adu.dtype == np.float32


def test_each_plane_of_a_cube_is_a_frame(camera):
    cube = np.stack([FRAME, FRAME + 1, FRAME + 2])
    frames = frames_of(camera.frame("c.fits", data=cube, rounded=False), camera)
    assert [frame.info.name for frame in frames] == ["c.fits[1]", "c.fits[2]", "c.fits[3]"]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.adu, cube[i])
    assert len({frame.info.md5 for frame in frames}) == 3


def test_a_cube_of_one_plane_is_a_plain_frame(camera):
    (frame,) = frames_of(camera.frame("c.fits", data=FRAME[None], rounded=False), camera)
    assert frame.info.name == "c.fits"


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_may_stand_in_an_extension(camera, compressed):
    header = camera.header("BIAS", 0.0, {})
    header["BZERO"] = 5.0  # of no image: the primary HDU has none
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    path = camera.folder / "x.fits"
    hdus = fits.HDUList([fits.PrimaryHDU(header=header), kind(FRAME, name="SCI")])
    hdus[0].header["BZERO"] = 5.0
    hdus.writeto(path)
    (frame,) = frames_of(path, camera)
    np.testing.assert_array_equal(frame.adu, FRAME)


def test_a_gzipped_file_under_a_plain_name_is_read(camera):
    path = camera.frame("b.fits", data=FRAME, rounded=False)
    path.write_bytes(gzip.compress(path.read_bytes()))
    (frame,) = frames_of(path, camera)
    np.testing.assert_array_equal(frame.adu, FRAME)


def test_blank_pixels_are_nan(camera):
    data = FRAME.astype(np.int32)
    data[3, 4] = -99
    path = camera.frame("b.fits", data=data, rounded=False, BLANK=-99)
    (frame,) = frames_of(path, camera)
    assert np.isnan(frame.adu[3, 4])
    assert np.isnan(frame.adu).sum() == 1


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf, -np.inf, np.nan, 1e13])
def test_values_of_no_detector_are_nan(camera, value):
    data = FLOATS.copy()
    data[3, 4] = value
    (frame,) = frames_of(camera.frame("b.fits", data=data, rounded=False), camera)
    assert np.isnan(frame.adu[3, 4])
    assert np.isnan(frame.adu).sum() == 1
    assert frame.adu.dtype == np.float32


@pytest.mark.parametrize("cards", [{"BSCALE": 1e300}, {"BZERO": -1e300}, {"BSCALE": 1e38}])
def test_scales_of_no_detector_give_nan(camera, cards):
    path = camera.frame("b.fits", data=FRAME.astype(np.int16) + 1, rounded=False)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header.update(cards)
    (frame,) = frames_of(path, camera)
    assert np.isnan(frame.adu).all()


def test_broken_cards_stop_nothing(camera):
    path = camera.frame("b.fits", data=FRAME, rounded=False, GARBAGE="xxxxxxxxxx", MORE="yyyy")
    raw = path.read_bytes()
    at = raw.index(b"GARBAGE =")
    cards = [
        b"HIERARCH PI CAMERA NAME 'PIXIS: 1300BX",
        b"CONTINUE  D:\\Data\\2026",
        b"HIERARCH = PI = '=",
        b"=\x01\xff\xfe broken",
    ]
    for i, card in enumerate(cards[:2]):
        start = at + 80 * i
        raw = raw[:start] + card.ljust(80) + raw[start + 80 :]
    path.write_bytes(raw)
    (frame,) = frames_of(path, camera)
    assert frame.info.readmode == "slow"
    raw = raw[:at] + cards[2].ljust(80) + cards[3].ljust(80) + raw[at + 160 :]
    path.write_bytes(raw)
    (frame,) = frames_of(path, camera)
    np.testing.assert_array_equal(frame.adu, FRAME)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.unlink(), ["no such file"]),
        (lambda p: p.write_bytes(b""), ["empty"]),
        (lambda p: p.write_bytes(b"hello, this is text\n" * 300), ["not a readable FITS file"]),
        (lambda p: p.write_bytes(RNG.bytes(8000)), ["not a readable FITS file"]),
        (lambda p: cut(p, 100), ["not a readable FITS file"]),
        (lambda p: cut(p, 2880), ["truncated", "2880 bytes"]),
        (lambda p: cut(p, 5000), ["truncated", "5000 bytes"]),
        (lambda p: (p.unlink(), p.mkdir()), ["is a folder"]),
        (lambda p: fits.PrimaryHDU().writeto(p, overwrite=True), ["holds no image"]),
        (lambda p: fits.PrimaryHDU(np.zeros(9)).writeto(p, overwrite=True), ["holds no image"]),
        (lambda p: p.write_bytes(gzip.compress(p.read_bytes())[:900]), ["b.fits"]),
        (lambda p: p.write_bytes(bz2.compress(p.read_bytes())[:900]), ["b.fits"]),
        (lambda p: p.write_bytes(gzip.compress(b"text")), ["b.fits"]),
    ],
)
def test_unreadable_files_are_input_errors(camera, spoil, words):
    path = camera.frame("b.fits", data=FRAME, rounded=False)
    spoil(path)
    with pytest.raises(InputError) as caught:
        frames_of(path, camera)
    for word in ["b.fits", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("BITPIX", 12),
        ("BITPIX", "wide"),
        ("NAXIS", 9),
        ("NAXIS", -1),
        ("NAXIS1", 0),
        ("NAXIS1", -5),
        ("NAXIS1", 10**9),
        ("NAXIS1", 4000000000000000000),
        ("NAXIS1", "many"),
        ("NAXIS1", 2.5),
        ("BZERO", "zero"),
        ("BSCALE", "one"),
    ],
)
def test_wrong_structural_cards_are_input_errors(camera, card, value):
    path = camera.frame("b.fits", data=FRAME, rounded=False)
    text = f"'{value}'" if isinstance(value, str) else str(value)
    raw = path.read_bytes()
    new = f"{card:<8}= {text:>20}".encode().ljust(80)
    at = raw.find(f"{card:<8}=".encode())
    at = at if at > 0 else raw.index(b"SPEED   =")
    path.write_bytes(raw[:at] + new + raw[at + 80 :])
    with pytest.raises(InputError, match=r"b\.fits"):
        frames_of(path, camera)


def test_an_overscan_without_finite_values_names_its_frame(camera):
    path = camera.frame("o.fits", data=np.full((48, 72), np.nan, np.float32), rounded=False)
    with pytest.raises(InputError, match=r"o\.fits.*overscan"):
        frames_of(path, camera)


def test_a_keyword_that_is_missing_names_its_frame(camera):
    with pytest.raises(InputError, match=r"b\.fits: the header lacks DATE-OBS"):
        frames_of(camera.frame("b.fits", DATE_OBS=None), camera)


def test_the_checksum_of_a_frame_follows_pixels_and_keywords(camera):
    def md5(name, **options):
        camera.written = 0
        path = camera.frame(name, rounded=False, **({"data": FRAME} | options))
        return frames_of(path, camera)[0].info.md5

    first = md5("a.fits")
    assert md5("b.fits") == first
    assert md5("c.fits.gz") == first
    assert md5("d.fits", REMARK="more") == first
    assert md5("e.fits", exptime=3.0) != first
    assert md5("f.fits", SPEED="fast") != first
    changed = FRAME.copy()
    changed[40, 60] += 1
    assert md5("g.fits", data=changed) != first


def test_a_header_that_claims_endless_axes_is_refused_at_once(camera):
    path = camera.frame("b.fits")
    raw = path.read_bytes()
    at = raw.index(b"NAXIS   =")
    card = b"NAXIS   = 99999999999999999999".ljust(80)
    path.write_bytes(raw[:at] + card + raw[at + 80 :])
    with pytest.raises(InputError, match=r"b\.fits.*9999"):
        io.open_raw(path)
    extended = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(FRAME)])
    extended.writeto(path, overwrite=True)
    raw = path.read_bytes()
    at = raw.index(b"NAXIS   =", 2880)
    path.write_bytes(raw[:at] + card + raw[at + 80 :])
    with pytest.raises(InputError, match=r"b\.fits.*9999"):
        io.open_raw(path)


# -- products that are none -------------------------------------------------------------------


def test_files_that_are_no_products_are_refused(camera):
    raw = camera.frame("raw.fits")
    with pytest.raises(InputError, match=r"raw\.fits: PRO\.CATG is None"):
        io.read_product(raw)
    with pytest.raises(InputError, match="no such file"):
        io.read_product(camera.folder / "none.fits")
