import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.nights import night_of

CHILE, AUSTRALIA, HAWAII = -70.8, 149.1, -155.5
MIDNIGHT = 61069.0  # 2026-01-29T00:00 UTC


@pytest.mark.parametrize(
    ("hours", "longitude", "night"),
    [
        (20.0, CHILE, "2026-01-29"),  # calibrations of the afternoon
        (28.0, CHILE, "2026-01-29"),  # after midnight, UTC and local
        (13.0, CHILE, "2026-01-28"),  # calibrations of the morning after
        (12.0, AUSTRALIA, "2026-01-29"),
        (1.0, AUSTRALIA, "2026-01-28"),
        (8.0, HAWAII, "2026-01-28"),
        (8.0, HAWAII + 360, "2026-01-28"),
        (11.9, 0.0, "2026-01-28"),
        (12.1, 0.0, "2026-01-29"),
    ],
)
def test_a_night_runs_from_local_noon_to_local_noon(hours, longitude, night):
    assert night_of(MIDNIGHT + hours / 24, longitude) == night


@pytest.mark.parametrize("mjd", [None, math.nan, math.inf, 1e12])
def test_an_unknown_time_is_of_no_night(mjd):
    assert night_of(mjd) == ""


@given(mjd=st.floats(40000, 80000), longitude=st.floats(-180, 360))
def test_a_day_later_is_the_next_night(mjd, longitude):
    assert night_of(mjd, longitude) < night_of(mjd + 1, longitude)
