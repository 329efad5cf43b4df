import bz2
import gzip
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from kspecpipe import atomic, images, io
from kspecpipe.errors import InputError, ProductError
from kspecpipe.instrument import load_instrument
from kspecpipe.product import HduSpec, Product
from kspecpipe.signal import DQ, Signal

RNG = np.random.default_rng(5)
PRODUCTS = sorted(Product.known)


def value_for(spec: HduSpec):
    """Return content for a field that is hard to keep: NaN, empty strings, high DQ bits."""
    if spec.kind == "cards":
        texts = {"CTYPE1": "AWAV", "CUNIT1": "Angstrom", "HISTORY": ["one line", "two"]}
        return {key: texts.get(key, 1.5 + i) for i, key in enumerate(spec.keys)}
    if spec.kind == "table":
        table = Table()
        table["FIBRE_ID"] = np.array([1, 2, 3], dtype=np.int32)
        table["TYPE"] = np.array(["P", "", "S"])
        table["RA"] = np.array([150.1, np.nan, -0.0])
        table["used"] = np.array([True, False, True])
        return table
    if spec.dtype.startswith("u"):
        return RNG.integers(0, 65535, (4, 6)).astype(np.uint16)
    values = RNG.normal(5000, 1, (4, 6)).astype(spec.dtype)
    values[1, 2] = np.nan
    if spec.kind == "image":
        return values
    dq = np.zeros((4, 6), np.uint16)
    dq[1, 2] = DQ.NO_DATA | DQ.TELLURIC
    return Signal(values, np.abs(values), dq)


def product_of(catg: str) -> Product:
    cls = Product.known[catg]
    return cls(**{name: value_for(spec) for name, spec in cls.hdus().items()})


def write(product: Product, path: Path, **cards) -> Path:
    header = {"ESO PRO CATG": (product.catg, "category")} | {
        key.replace("_", " "): (value, "x") for key, value in cards.items()
    }
    tables = {"QC": Table({"name": ["LEVEL"], "unit": [""], "value": [np.nan]})}
    io.write_products([(path, io.product_hdus(product, header, tables))])
    return path


def assert_same(found, expected):
    if isinstance(expected, Signal):
        for part in ("value", "variance", "dq"):
            assert_same(getattr(found, part), getattr(expected, part))
    elif isinstance(expected, Table):
        assert found.colnames == expected.colnames
        assert not found.has_masked_columns
        for name in expected.colnames:
            assert_same(np.asarray(found[name]), np.asarray(expected[name]))
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.kind == expected.dtype.kind
        assert found.dtype.isnative
    else:
        assert found == expected


@pytest.mark.parametrize("catg", PRODUCTS)
def test_every_product_comes_back_as_it_was(catg, tmp_path):
    product = product_of(catg)
    path = write(product, tmp_path / "p.fits")
    found = io.read_product(path)
    assert type(found) is type(product)
    for name in product.hdus():
        assert_same(getattr(found, name), getattr(product, name))
    assert found.name == "p.fits"


@pytest.mark.parametrize("catg", PRODUCTS)
def test_every_hdu_has_its_unit_and_checksum(catg, tmp_path):
    path = write(product_of(catg), tmp_path / "p.fits")
    with warnings.catch_warnings(), fits.open(path, checksum=True) as hdus:
        warnings.simplefilter("error")
        hdus.verify("exception")
        assert hdus[0].header["DATAMD5"] == io.data_md5(path)
        for hdu in hdus:
            assert "CHECKSUM" in hdu.header
            assert hdu.is_image is False or "BUNIT" in hdu.header
        assert "QC" in hdus


@pytest.mark.parametrize("catg", PRODUCTS)
def test_optional_parts_may_be_absent(catg, tmp_path):
    product = product_of(catg)
    optional = [name for name, spec in product.hdus().items() if spec.optional]
    found = io.read_product(write(product.replace(**dict.fromkeys(optional)), tmp_path / "p.fits"))
    assert [getattr(found, name) for name in optional] == [None] * len(optional)


@pytest.mark.parametrize("catg", PRODUCTS)
def test_a_missing_part_is_named(catg, tmp_path):
    path = write(product_of(catg), tmp_path / "p.fits")
    with fits.open(path) as hdus:
        names = {hdu.name for hdu in hdus[1:]} - {"QC"}
    cls = Product.known[catg]
    needed = {"VARIANCE", "DQ"} | {
        s.hdu for s in cls.hdus().values() if s.kind != "cards" and not s.optional
    }
    for name in sorted(names & needed):
        with fits.open(path) as hdus:
            fits.HDUList([hdu for hdu in hdus if hdu.name != name]).writeto(tmp_path / "cut.fits")
        with pytest.raises(InputError, match=rf"cut\.fits: lacks the HDU {name}"):
            io.read_product(tmp_path / "cut.fits")
        (tmp_path / "cut.fits").unlink()


def test_what_is_no_number_on_disk_is_flagged(tmp_path):
    value, variance = np.ones((3, 4)), np.ones((3, 4))
    value[0, 1], value[1, 1], variance[2, 2] = np.nan, 1e300, 1e60
    product = images.MasterBias(image=Signal.of(value, variance))
    found = io.read_product(write(product, tmp_path / "p.fits")).image
    expected = np.zeros((3, 4), np.uint16)
    expected[[0, 1, 2], [1, 1, 2]] = DQ.NO_DATA
    np.testing.assert_array_equal(found.dq, expected)
    np.testing.assert_array_equal(np.isnan(found.value), expected > 0)
    assert product.image.dq.max() == 0


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


def test_equal_products_are_equal_files(tmp_path):
    product = product_of("MASTER_BIAS")
    a, b = (write(product, tmp_path / name, EXPTIME=3.0) for name in ("a.fits", "b.fits"))
    assert a.read_bytes() == b.read_bytes()
    with fits.open(a) as hdus:
        comments = [hdu.header.comments[card] for hdu in hdus for card in ("CHECKSUM", "DATASUM")]
    assert not any(letter.isdigit() for comment in comments for letter in comment)  # no dates


def test_the_checksum_of_the_data_follows_the_data_alone(tmp_path):
    product = product_of("MASTER_BIAS")
    first = io.data_md5(write(product, tmp_path / "a.fits", EXPTIME=3.0))
    assert io.data_md5(write(product, tmp_path / "b.fits", EXPTIME=4.0)) == first
    other = product.replace(image=product.image.scale(1.0001))
    assert io.data_md5(write(other, tmp_path / "c.fits")) != first


def test_a_path_may_be_given_as_text(tmp_path):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    assert io.read_product(str(path)).catg == io.read_product(path).catg == "MASTER_BIAS"
    with pytest.raises(InputError, match=r"none\.fits: no such file"):
        io.read_product("none.fits")


def test_products_are_read_without_importing_recipes(tmp_path):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    code = f"from kspecpipe import read_product; print(read_product({str(path)!r}).catg)"
    code = code.replace(repr(str(path)), f"__import__('pathlib').Path({str(path)!r})")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "MASTER_BIAS"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a/b", "a/b"),
        ("..", ".."),
        ("tab\tnul\0", "tab?nul?"),
        ("Ärger", "?rger"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (np.float64(2.5), 2.5),
        (np.int64(7), 7),
        (True, True),
    ],
)
def test_header_values_of_any_kind_can_be_written(tmp_path, value, stored):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits", ESO_PRO_REC1_RAW1_NAME=value)
    assert io.read_header(path)["ESO PRO REC1 RAW1 NAME"] == stored


@pytest.mark.parametrize("length", [10, 40, 67, 68, 100, 200, 250])
def test_long_values_keep_their_ends(tmp_path, length):
    name = ("x" * length + ".fits")[-length:]
    path = write(
        product_of("MASTER_BIAS"), tmp_path / "p.fits", ESO_PRO_REC1_RAW1_NAME=name, OBJECT=name
    )
    header = io.read_header(path)
    assert header["OBJECT"] == name
    found = header["ESO PRO REC1 RAW1 NAME"]
    assert found == name or ("..." in found and found.endswith(name[-8:]))


# -- writing ---------------------------------------------------------------------------------


def hdus_of(catg="MASTER_BIAS"):
    return io.product_hdus(product_of(catg), {"ESO PRO CATG": (catg, "")}, {})


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


# -- products that are none -------------------------------------------------------------------


def test_files_that_are_no_products_are_refused(camera):
    raw = camera.frame("raw.fits")
    with pytest.raises(InputError, match=r"raw\.fits: PRO\.CATG is None"):
        io.read_product(raw)
    with pytest.raises(InputError, match="no such file"):
        io.read_product(camera.folder / "none.fits")


def test_a_product_cut_short_is_an_input_error(tmp_path):
    path = write(product_of("TRAMLINE_MAP"), tmp_path / "p.fits")
    size = path.stat().st_size
    for part in np.linspace(100, size // 2, 12).astype(int):
        cut(write(product_of("TRAMLINE_MAP"), path), int(part))
        with pytest.raises(InputError, match=r"p\.fits"):
            io.read_product(path)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_product_whose_data_changed_is_refused(tmp_path, number):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    with fits.open(path) as hdus:
        at, name = hdus[number].fileinfo()["datLoc"], hdus[number].name
    raw = bytearray(path.read_bytes())
    raw[at + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=rf"p\.fits: damaged: the data of {name} do not match"):
        io.read_product(path)


def test_a_product_without_pixels_is_an_input_error(tmp_path):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    with fits.open(path) as hdus:
        empty = fits.PrimaryHDU(header=None)
        empty.header["HIERARCH ESO PRO CATG"] = "MASTER_BIAS"
        fits.HDUList([empty, *hdus[1:]]).writeto(tmp_path / "e.fits")
    with pytest.raises(InputError, match=r"e\.fits.*PRIMARY"):
        io.read_product(tmp_path / "e.fits")


def test_tables_are_read_by_name(tmp_path):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    table = io.read_table(path, "QC")
    assert str(table["unit"][0]) == ""
    assert np.isnan(float(table["value"][0]))
    assert io.read_table(path, "NONE") is None
