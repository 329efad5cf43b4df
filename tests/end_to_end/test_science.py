"""What EXTRACTED and REDUCED say of pointing, atmosphere and resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

TELLURIC = 512


@pytest.mark.parametrize("catg", ["EXTRACTED", "REDUCED"])
def test_every_target_has_airmass_and_velocity(reduced: Any, catg: str) -> None:
    rows = [reduced.product("object", catg, number)["FIBRES"].data for number in (0, 1)]
    known = np.isfinite(rows[0]["RA"])
    assert known.sum() > 5
    assert (rows[0]["AIRMASS"][known] >= 1).all()
    assert (np.abs(rows[0]["VBARY"][known]) < 31).all()
    # the second exposure began later
    assert (rows[0]["AIRMASS"][known] != rows[1]["AIRMASS"][known]).all()


def test_telluric_bands_are_flagged_and_keep_their_values(reduced: Any) -> None:
    for catg in ("EXTRACTED", "REDUCED"):
        product = reduced.product("object", catg)
        header = product[0].header
        if catg == "EXTRACTED":
            wavelength = product["WAVELA"].data
        else:
            step = header["CDELT1"] * np.arange(header["NAXIS1"])
            wavelength = np.broadcast_to(header["CRVAL1"] + step, product[0].data.shape)
        flagged = (product["DQ"].data & TELLURIC) > 0
        inside = np.isfinite(product[0].data)
        b_band = inside & (wavelength > 6870) & (wavelength < 6940)
        free = inside & (wavelength > 5300) & (wavelength < 5800)
        assert b_band.sum() > 10
        assert flagged[b_band].all()
        assert not flagged[free].any()


def test_header_tells_how_strongly_neighbours_correlate(reduced: Any) -> None:
    header = reduced.product("object", "REDUCED")[0].header
    lags = [header[f"ESO PRO CORR{lag}"] for lag in (1, 2, 3)]
    assert 0.05 < lags[0] < 0.7
    assert np.abs(lags[1:]).max() < lags[0]


def test_read_noise_and_pixel_noise_stand_beside_the_spectra(reduced: Any) -> None:
    product = reduced.product("object", "EXTRACTED")
    ron, pixel = product["RON"].data, product["PIXVAR"].data
    used = np.isfinite(product[0].data)
    assert np.abs(ron[used] - 4.48).max() < 1e-3
    assert (pixel[used] > 0.99 * ron[used] ** 2).all()
    assert product["RON"].header["PRNU"] == pytest.approx(0.006)
    assert np.isfinite(product["SKYVAR"].data[used]).mean() > 0.9
