"""RESPONSE and CALIBRATED on disk."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from kspecpipe import io
from kspecpipe.products.flux import CALIBRATION_CARDS, Calibrated, Response
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.product import squared_unit
from kspecpipe.signal import Signal

AXIS = {"CTYPE1": "AWAV", "CRPIX1": 1.0, "CRVAL1": 4000.0, "CDELT1": 2.5, "CUNIT1": "Angstrom"}
CARDS = {
    "FLUXCAL": True,
    "FCALNSTR": 2,
    "FCALRMS": 0.01,
    "HISTORY": ["star 1: used", "star 2: rejected: " + "far too long for one card " * 4],
}


def response(count=7):
    rng = np.random.default_rng(1)
    return Response(
        response=Signal.of(rng.uniform(1, 2, count) * 1e-16, 1e-36),
        extinction=np.linspace(0.5, 0.1, count),
        vectors=rng.uniform(1, 2, (2, count)) * 1e-16,
        vector_variance=np.full((2, count), 1e-36),
        observed=rng.uniform(10, 20, (2, count)),
        model=rng.uniform(1, 2, (2, count)) * 1e-15,
        stars=Table({"name": ["a", "b"], "used": [True, True], "reason": ["", ""]}),
        axis=AXIS,
        calibration=CARDS,
    )


def calibrated():
    flux = np.random.default_rng(2).uniform(1, 2, (3, 7)) * 1e-17
    return Calibrated(
        spectra=Signal.of(flux, (0.1 * flux) ** 2),
        sky=flux / 3,
        lsf=np.full((3, 7), 12.0),
        factor=np.full((3, 7), 1e-19),
        factor_error=np.full(7, 0.01),
        extinction=np.full(7, 0.2),
        telluric=np.full((3, 7), 0.9),
        axis=AXIS,
        calibration=CARDS,
        fibres=Table({"FIBRE_ID": [1, 2, 3], "AIRMASS": [1.1, 1.2, 1.3]}),
    )


def stored(product, path):
    header = {"ESO PRO CATG": (product.catg, "")}
    io.write_products([(path, build_hdus(product, header, {}))])
    return path


@pytest.mark.parametrize("product", [response(), calibrated()], ids=lambda p: p.catg)
def test_products_come_back_as_they_were_written(product, tmp_path):
    found = io.read_product(stored(product, tmp_path / "a.fits"))
    assert type(found) is type(product)
    for name, spec in product.hdus().items():
        one, other = getattr(found, name), getattr(product, name)
        if spec.kind == "signal":
            np.testing.assert_allclose(one.value, other.value, rtol=1e-6)
            np.testing.assert_allclose(one.variance, other.variance, rtol=1e-6)
        elif spec.kind == "image":
            np.testing.assert_allclose(one, other, rtol=1e-6)
    assert found.axis == AXIS
    np.testing.assert_allclose(found.wavelength, 4000 + 2.5 * np.arange(7))


def test_every_star_has_its_history_and_it_comes_back(tmp_path):
    found = io.read_product(stored(response(), tmp_path / "a.fits"))
    assert found.calibration["FLUXCAL"] is True
    assert found.calibration["FCALNSTR"] == 2
    assert found.calibration["HISTORY"][0] == "star 1: used"
    assert "rejected: far too long" in found.calibration["HISTORY"][1]
    again = io.read_product(stored(found, tmp_path / "b.fits"))
    assert again.calibration == found.calibration


def test_every_card_says_what_it_is(tmp_path):
    header = fits.getheader(stored(response(), tmp_path / "a.fits"))
    assert header.comments["FCALNSTR"] == "stars in the response"
    assert all(header.comments[key] for key in CARDS if key != "HISTORY")
    assert all(len(text) < 48 for text in CALIBRATION_CARDS.values())


def test_every_hdu_has_its_unit(tmp_path):
    with fits.open(stored(calibrated(), tmp_path / "a.fits")) as hdus:
        units = {hdu.name: hdu.header["BUNIT"] for hdu in hdus if hdu.is_image}
    assert units == {
        "PRIMARY": "erg/s/cm2/Angstrom",
        "VARIANCE": "erg2/s2/cm4/Angstrom2",
        "DQ": "",
        "SKY": "erg/s/cm2/Angstrom",
        "LSF": "Angstrom",
        "FACTOR": "erg/s/cm2/Angstrom/electron",
        "FACTERR": "",
        "EXTINCT": "mag",
        "TELLURIC": "",
    }


@pytest.mark.parametrize(
    ("unit", "squared"),
    [("", ""), ("electron", "electron2"), ("electron/s", "electron2/s2"), ("erg/cm2", "erg2/cm4")],
)
def test_unit_of_a_variance_is_squared_factor_by_factor(unit, squared):
    assert squared_unit(unit) == squared
