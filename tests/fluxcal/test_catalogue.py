"""Refcat2: reading, sentinels, matching by position."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from kspecpipe.ancillary import load_standard_star_catalog
from kspecpipe.errors import InputError
from kspecpipe.fluxcal.catalogue import (
    CATALOGUE_MJD,
    is_giant,
    is_variable,
    match_positions,
    parse_refcat2,
    photometry_from_catalog_row,
    positions,
)
from kspecpipe.fluxcal.photometry import FILTER_INFO
from kspecpipe.simulate.standards import StandardStar, catalogue_magnitudes, write_catalogue


@pytest.fixture
def catalogue_of(tmp_path):
    def write(*stars):
        return parse_refcat2(write_catalogue(tmp_path / "c.csv", stars).read_text())

    return write


def star(**changes):
    values = {"teff": 6200.0, "logg": 4.3, "feh": -0.3, "gaia": 15.0, "ra": 150.0, "dec": -30.0}
    return StandardStar(**{**values, **changes})


def test_vega_magnitudes_become_ab_and_ab_stay(catalogue_of):
    photometry = photometry_from_catalog_row(catalogue_of(star())[0])
    true = catalogue_magnitudes(star())
    assert photometry.get_band("gaia_rp")[0] == pytest.approx(true["RP"] + 0.377, abs=1e-3)
    assert photometry.get_band("ps1_r")[0] == pytest.approx(true["r"], abs=1e-3)
    assert photometry.get_band("2mass_k")[0] == pytest.approx(
        true["K"] + FILTER_INFO["2mass_k"].vega_to_ab, abs=1e-3
    )


def test_magnitudes_of_99_and_errors_of_9_9_are_missing():
    text = "RA,Dec,g,dg,r,dr,i,di,z,dz\n1,2,99.0,0.01,15.0,9.9,0,0,14.5,0.02\n"
    photometry = photometry_from_catalog_row(parse_refcat2(text)[0])
    assert photometry.get_band("ps1_z") == (14.5, 0.02)
    assert photometry.valid.sum() == 1


def test_columns_may_come_in_any_order_with_blanks_and_a_commented_header():
    text = "# Dec , RA , dr , r \n-30,10, 0.02, 15.5\n# a remark, of two words\n"
    table = parse_refcat2(text)
    assert len(table) == 1
    assert photometry_from_catalog_row(table[0]).get_band("ps1_r") == (15.5, 0.02)


def test_a_catalogue_may_be_a_table_of_a_fits_file(tmp_path):
    star_a, star_b = star(missing=("J",)), star(ra=150.01)
    text = write_catalogue(tmp_path / "c.csv", [star_a, star_b])
    table = Table.read(text, format="csv")
    table.rename_columns(["RA", "Dec"], ["ra", "DEC"])
    table["H"] = MaskedColumn(table["H"], mask=[True, False])
    table.write(tmp_path / "c.fits.gz")
    found, expected = (
        load_standard_star_catalog(tmp_path / "c.fits.gz"),
        parse_refcat2(text.read_text()),
    )
    np.testing.assert_allclose(positions(found, 60000.0), positions(expected, 60000.0))
    first, second = (photometry_from_catalog_row(row) for row in found)
    assert not first.valid[first.filter_names.index("2mass_j")]
    assert not first.valid[first.filter_names.index("2mass_h")]
    np.testing.assert_allclose(
        second.magnitudes, photometry_from_catalog_row(expected[1]).magnitudes
    )


def test_a_fits_file_without_a_catalogue_is_refused_in_words(tmp_path):
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match=r"image\.fits: .*has no rows"):
        load_standard_star_catalog(tmp_path / "image.fits")
    Table({"RA": [1.0], "mass": [2.0]}).write(tmp_path / "other.fits")
    with pytest.raises(InputError, match=r"other\.fits: .*expected RA, Dec"):
        load_standard_star_catalog(tmp_path / "other.fits")


@pytest.mark.parametrize("text", ["", "RA,Dec,g,dg\n", "a,b\n1,2\n", "RA,Dec,mass\n1,2,3\n"])
def test_what_is_no_catalogue_is_refused_in_words(text):
    with pytest.raises(InputError, match="catalogue of standard stars"):
        parse_refcat2(text)


def test_stars_are_found_by_position_whatever_their_order(catalogue_of):
    stars = [star(ra=150 + 0.01 * k, dec=-30 + 0.003 * k) for k in range(6)]
    order = np.array([4, 0, 5, 2])
    ra, dec = np.array([(stars[k].ra, stars[k].dec) for k in order]).T
    row, separation = match_positions(ra, dec, catalogue_of(*stars), mjd=np.nan, radius=1.0)
    assert row.tolist() == order.tolist()
    assert (separation < 0.01).all()


def test_a_fibre_far_from_any_star_or_without_place_matches_nothing(catalogue_of):
    row, separation = match_positions(
        np.array([150.001, np.nan]),
        np.array([-30.0, -30.0]),
        catalogue_of(star()),
        mjd=np.nan,
        radius=2.0,
    )
    assert row.tolist() == [-1, -1]
    assert separation[0] == pytest.approx(3.6 * np.cos(np.deg2rad(30)), rel=1e-3)
    assert np.isinf(separation[1])


def test_one_star_is_not_given_to_two_fibres(catalogue_of):
    row, _ = match_positions(
        np.array([150.0002, 150.00001]),
        np.array([-30.0, -30.0]),
        catalogue_of(star()),
        mjd=np.nan,
        radius=2.0,
    )
    assert row.tolist() == [-1, 0]


def test_proper_motion_moves_a_star_and_either_epoch_matches(catalogue_of):
    fast = catalogue_of(star(pmra=800.0, pmdec=-300.0))
    later = CATALOGUE_MJD + 10 * 365.25
    ra, dec = positions(fast, later)
    assert (ra[0] - 150.0) * np.cos(np.deg2rad(30)) * 3600 == pytest.approx(8.0, rel=1e-3)
    assert (dec[0] + 30.0) * 3600 == pytest.approx(-3.0, rel=1e-3)
    for place in ((ra, dec), (np.array([150.0]), np.array([-30.0]))):
        assert match_positions(*place, fast, mjd=later, radius=1.0)[0].tolist() == [0]
    assert match_positions(ra, dec, fast, mjd=np.nan, radius=1.0)[0].tolist() == [-1]


def test_a_match_across_the_zero_of_right_ascension_is_found(catalogue_of):
    near = catalogue_of(star(ra=359.99999))
    row, _ = match_positions(np.array([0.00001]), np.array([-30.0]), near, mjd=np.nan, radius=2.0)
    assert row.tolist() == [0]


def test_gaia_variables_and_giants_are_known_dwarfs_are_neither(catalogue_of):
    table = catalogue_of(
        star(variable=True),
        star(teff=5000.0, gaia=11.0, parallax=0.5),
        star(teff=6200.0, gaia=12.0, parallax=4.0),
    )
    photometry = [photometry_from_catalog_row(row) for row in table]
    assert [is_variable(p) for p in photometry] == [True, False, False]
    assert [is_giant(p) for p in photometry] == [False, True, False]
