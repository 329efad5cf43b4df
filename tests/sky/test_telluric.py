from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kspecpipe.signal import DQ
from kspecpipe.sky.telluric import TelluricRegion, parse_telluric_regions, telluric_dq

TABLES = Path(__file__).parents[2] / "static_calibrations"
HEADER = "# %ECSV 1.0\n# ---\n# datatype:\n"


def shipped() -> tuple[TelluricRegion, ...]:
    return parse_telluric_regions((TABLES / "telluric_regions.ecsv").read_text())


def test_shipped_regions_hold_the_oxygen_bands_and_leave_h_alpha_free_of_oxygen():
    flags = telluric_dq(np.array([[6280.0, 6870.0, 7600.0, 5577.3, 6620.0, 8600.0]]), shipped())
    assert flags.tolist() == [[512, 512, 512, 0, 0, 0]]
    assert flags.dtype == np.uint16


def test_shipped_regions_rise_and_do_not_overlap():
    limits = np.array([(r.start, r.end) for r in shipped()]).ravel()
    assert len(limits) >= 12
    assert (np.diff(limits) >= 0).all()


def test_margin_widens_regions_per_sample():
    region = [TelluricRegion(7590, 7700, "O2")]
    wavelength = np.array([[7580.0, 7650.0], [7580.0, np.nan]])
    margin = np.array([[12.0, 12.0], [4.0, 4.0]])
    flags = telluric_dq(wavelength, region, margin=margin)
    assert flags.tolist() == [[DQ.TELLURIC, DQ.TELLURIC], [0, 0]]


def test_a_table_without_molecules_is_enough():
    text = HEADER + (
        "# - {name: start, datatype: float64}\n# - {name: end, datatype: float64}\nstart end\n1 2\n"
    )
    assert parse_telluric_regions(text) == (TelluricRegion(1, 2),)


def test_bad_tables_are_refused_with_what_was_found():
    text = HEADER + "# - {name: begin, datatype: float64}\nbegin\n1\n"
    with pytest.raises(ValueError, match=r"no column \['end', 'start'\]; found \['begin'\]"):
        parse_telluric_regions(text)
    with pytest.raises(ValueError, match="is empty"):
        TelluricRegion(7700, 7600)


@pytest.mark.parametrize("site", ["ctio", "la_silla", "siding_spring"])
def test_extinction_tables_fall_towards_the_red_and_name_their_source(site):
    from astropy.table import Table

    text = (TABLES / f"extinction_{site}.ecsv").read_text()
    table = Table.read(text.splitlines(), format="ascii.ecsv")
    assert len(table.meta["source"]) > 20
    assert (np.diff(table["wavelength"]) > 0).all()
    value = np.interp([3500, 5000, 7000], table["wavelength"], table["extinction"])
    assert value[0] > value[1] > value[2] > 0
    assert 0.1 < value[1] < 0.25
