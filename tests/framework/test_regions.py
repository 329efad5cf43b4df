"""Regions of wavelength: reading, joining, telling what lies inside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.ancillary import load_mask_regions
from kspecpipe.errors import InputError
from kspecpipe.regions import WavelengthRegion, combine_regions, inside_regions, parse_regions

HEADER = "# %ECSV 1.0\n# ---\n# datatype:\n"
START, END = (f"# - {{name: {name}, datatype: float64}}\n" for name in ("start", "end"))


def test_shipped_bands_hold_the_oxygen_bands_and_leave_sky_and_continuum():
    wavelength = np.array([[6280.0, 6870.0, 7600.0, 5577.3, 6620.0, 8600.0]])
    inside = inside_regions(wavelength, load_mask_regions("telluric_regions"))
    assert inside.tolist() == [[True, True, True, False, False, False]]


@pytest.mark.parametrize("name", ["telluric_regions", "stellar_lines"])
def test_shipped_regions_rise_do_not_overlap_and_have_names(name):
    regions = load_mask_regions(name)
    limits = np.array([(region.start, region.end) for region in regions]).ravel()
    assert len(regions) >= 10
    assert (np.diff(limits) >= 0).all()
    assert all(region.name for region in regions)


@pytest.mark.parametrize(
    "line", [6562.8, 4861.3, 4340.5, 4101.7, 3933.7, 3968.5, 5183.6, 5889.95, 8542.1]
)
def test_strong_stellar_lines_lie_in_a_shipped_region(line):
    assert inside_regions(np.array([line]), load_mask_regions("stellar_lines")).all()


def test_regions_of_an_unknown_name_are_refused():
    with pytest.raises(InputError, match="no static calibration 'martian_air.ecsv'"):
        load_mask_regions("martian_air")


def test_regions_move_with_the_star_and_widen():
    region = [WavelengthRegion(6000.0, 6010.0, "line")]
    wave = np.array([6000.0, 6012.0, 6019.0])
    assert inside_regions(wave, region).tolist() == [True, False, False]
    assert inside_regions(wave, region, margin=3.0).tolist() == [True, True, False]
    assert inside_regions(wave, region, velocity=450.0).tolist() == [False, True, True]


def test_a_margin_of_each_sample_widens_and_nan_lies_nowhere():
    wavelength = np.array([[7580.0, 7650.0], [7580.0, np.nan]])
    margin = np.array([[12.0, 12.0], [4.0, 4.0]])
    inside = inside_regions(wavelength, [WavelengthRegion(7590, 7700, "O2")], margin=margin)
    assert inside.tolist() == [[True, True], [False, False]]


def test_overlapping_regions_become_one():
    joined = combine_regions(
        [WavelengthRegion(10, 20, "a"), WavelengthRegion(50, 60)], [WavelengthRegion(15, 30, "b")]
    )
    assert joined == (WavelengthRegion(10, 30, "a+b"), WavelengthRegion(50, 60))


@given(st.lists(st.tuples(st.floats(1, 900), st.floats(1, 90)), max_size=8))
def test_joined_regions_hold_what_they_held(pairs):
    regions = [WavelengthRegion(start, start + width) for start, width in pairs]
    wave = np.arange(0.5, 1000.0)
    joined = combine_regions(regions)
    assert (inside_regions(wave, regions) == inside_regions(wave, joined)).all()
    assert all(a.end < b.start for a, b in zip(joined, joined[1:], strict=False))


def test_a_table_without_names_is_enough():
    assert parse_regions(HEADER + START + END + "start end\n1 2\n") == (WavelengthRegion(1, 2),)


def test_bad_tables_are_refused_with_what_was_found():
    with pytest.raises(ValueError, match=r"no column \['end'\]; found \['start'\]"):
        parse_regions(HEADER + START + "start\n5\n")
    with pytest.raises(ValueError, match="is empty"):
        WavelengthRegion(7700, 7600)
