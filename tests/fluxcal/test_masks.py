"""Regions to leave out, reddening, vacuum and air."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.fluxcal.grid import vacuum_to_air
from kspecpipe.fluxcal.masks import (
    MaskRegion,
    combine_regions,
    inside_regions,
    mask_coverage_fraction,
    parse_mask_regions,
)
from kspecpipe.fluxcal.reddening import reddening_law


@pytest.mark.parametrize("name", ["stellar_lines.ecsv", "telluric_regions.ecsv"])
def test_the_shipped_regions_can_be_read_and_leave_most_of_the_spectrum(name, static):
    regions = parse_mask_regions((static / name).read_text())
    assert len(regions) >= 10
    assert 0.03 < mask_coverage_fraction(np.arange(3800.0, 8900.0), regions) < 0.35


@pytest.mark.parametrize(
    "line", [6562.8, 4861.3, 4340.5, 4101.7, 3933.7, 3968.5, 5183.6, 5889.95, 8542.1]
)
def test_strong_stellar_lines_are_masked(line, static):
    regions = parse_mask_regions((static / "stellar_lines.ecsv").read_text())
    assert inside_regions(np.array([line]), regions).all()


def test_regions_move_with_the_star_and_widen():
    region = [MaskRegion(6000.0, 6010.0, "line")]
    wave = np.array([6000.0, 6012.0, 6019.0])
    assert inside_regions(wave, region).tolist() == [True, False, False]
    assert inside_regions(wave, region, margin=3.0).tolist() == [True, True, False]
    assert inside_regions(wave, region, velocity=450.0).tolist() == [False, True, True]


def test_overlapping_regions_become_one():
    joined = combine_regions(
        [MaskRegion(10, 20, "a"), MaskRegion(50, 60)], [MaskRegion(15, 30, "b")]
    )
    assert joined == (MaskRegion(10, 30, "a+b"), MaskRegion(50, 60))


@given(st.lists(st.tuples(st.floats(1, 900), st.floats(1, 90)), max_size=8))
def test_combining_regions_masks_what_they_mask(pairs):
    regions = [MaskRegion(start, start + width) for start, width in pairs]
    wave = np.arange(0.5, 1000.0)
    joined = combine_regions(regions)
    assert (inside_regions(wave, regions) == inside_regions(wave, joined)).all()
    assert all(a.end < b.start for a, b in zip(joined, joined[1:], strict=False))


def test_an_empty_region_and_a_missing_column_are_refused():
    with pytest.raises(ValueError, match="empty"):
        MaskRegion(20, 10)
    text = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: start, datatype: float64}\nstart\n5\n"
    with pytest.raises(ValueError, match="no column"):
        parse_mask_regions(text)


def test_reddening_lies_between_the_two_laws_in_use():
    """Published points: A_V = 3.055 (Fitzpatrick) and 3.116 E(B-V) (Cardelli) at 5470 Angstrom."""
    # Cardelli: x = 1.8282 gives y = 0.0082 and A / E(B-V) = 3.1 a + b = 3.1 * 1.0014 + 0.0117.
    assert reddening_law(np.array([5470.0]))[0] == pytest.approx((3.055 + 3.116) / 2, abs=2e-3)
    # In the infrared: a = 0.574 x^1.61, b = -0.527 x^1.61 with x = 0.8197 at 12200 Angstrom.
    infrared = (3.1 * 0.574 - 0.527) * (1 / 1.22) ** 1.61
    assert reddening_law(np.array([12200.0]))[0] == pytest.approx((0.829 + infrared) / 2, abs=1e-3)
    blue, visual = reddening_law(np.array([4400.0, 5500.0]))
    assert blue - visual == pytest.approx(1.0, abs=0.06)


def test_reddening_falls_smoothly_with_wavelength_even_where_a_law_ends():
    curve = reddening_law(np.arange(2700.0, 25000.0, 10.0))
    assert (np.diff(curve) < 0).all()
    assert np.abs(np.diff(curve)).max() < 0.03


def test_air_wavelengths_are_those_of_well_known_lines():
    """Ca II K and H alpha in vacuum and air, NIST."""
    air = vacuum_to_air(np.array([3934.777, 6564.614]))
    np.testing.assert_allclose(air, [3933.663, 6562.801], atol=0.003)
