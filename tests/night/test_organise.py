"""Which frames belong to one night."""

import numpy as np
import pytest
from memory_nights import frame, mjd

from kspecpipe.night.organise import local_noon, night_of, night_split, nights_of

NOON_IN_CHILE = 0.5 + 70.8065 / 360


def test_noon_of_the_site_divides_the_nights(instruments):
    assert local_noon(instruments["ISOPLANE"]) == pytest.approx(NOON_IN_CHILE)
    evening, morning, next_evening = mjd(0), mjd(12), mjd(24)
    assert night_of(evening, NOON_IN_CHILE) == "2026-01-29"
    assert night_of(morning, NOON_IN_CHILE) == "2026-01-29"
    assert night_of(next_evening, NOON_IN_CHILE) == "2026-01-30"


def test_frames_around_noon_show_that_the_site_is_another(instruments):
    """A night in Australia, with the site of the instrument file in Chile."""
    frames = [frame("OBJECT", -10 + i / 2) for i in range(20)]  # 10 to 20 h UTC
    found = {one.night for one in nights_of(frames, instruments)}
    assert len(found) == 1


def test_the_split_is_noon_when_nothing_is_near_it():
    assert night_split([mjd(0), mjd(8)], NOON_IN_CHILE) == NOON_IN_CHILE
    assert night_split([], 0.3) == 0.3


def test_frames_at_all_hours_leave_the_split_at_noon():
    times = np.arange(0, 1, 1 / 48)
    assert night_split(list(times), 0.5) == 0.5
