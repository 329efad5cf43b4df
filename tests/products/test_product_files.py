"""Products on disk: every kind comes back as it was written, or is refused in words."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.products import images
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.product import HduSpec, Product
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
    io.write_products([(path, build_hdus(product, header, tables))])
    return path


def cut_by_hand(path: Path, *names: str) -> None:
    """Take the last row of some HDUs away, checksum included."""
    with fits.open(path) as hdus:
        for name in names:
            hdus[name].data = hdus[name].data[:-1].copy()
            del hdus[name].header["DATASUM"], hdus[name].header["CHECKSUM"]
        hdus.writeto(path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


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


def test_a_product_cut_short_is_an_input_error(tmp_path):
    path = write(product_of("TRAMLINE_MAP"), tmp_path / "p.fits")
    whole = path.read_bytes()
    for part in np.linspace(100, len(whole) // 2, 12).astype(int):
        path.write_bytes(whole[:part])
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


def test_a_product_in_another_unit_is_refused_and_one_that_names_none_is_not(tmp_path):
    path = write(product_of("RESPONSE"), tmp_path / "p.fits")
    fits.setval(path, "BUNIT", value="adu")
    with pytest.raises(InputError, match=r"p\.fits: PRIMARY is in 'adu'; 'erg.*expected"):
        io.read_product(path)
    fits.delval(path, "BUNIT")
    assert io.read_product(path).catg == "RESPONSE"


def test_an_image_of_another_shape_than_its_header_says_is_refused(tmp_path):
    cards = {"ESO_PRO_SHAPE": "4x6", "ESO_PRO_TECH": "IMAGE"}
    path = write(product_of("PIXEL_FLAT"), tmp_path / "p.fits", **cards)
    assert io.read_product(path).catg == "PIXEL_FLAT"
    cut_by_hand(path, "PRIMARY", "VARIANCE", "DQ")
    with pytest.raises(InputError, match=r"p\.fits: PRIMARY has the shape 3x6; .* says 4x6"):
        io.read_product(path)


def test_a_variance_of_another_shape_than_its_image_is_refused(tmp_path):
    path = write(product_of("REDUCED"), tmp_path / "p.fits")
    cut_by_hand(path, "VARIANCE")
    with pytest.raises(InputError, match=r"p\.fits: VARIANCE has the shape 3x6, PRIMARY 4x6"):
        io.read_product(path)


def test_tables_are_read_by_name(tmp_path):
    path = write(product_of("MASTER_BIAS"), tmp_path / "p.fits")
    table = io.read_table(path, "QC")
    assert str(table["unit"][0]) == ""
    assert np.isnan(float(table["value"][0]))
    assert io.read_table(path, "NONE") is None
