"""Extinction curves of observatories."""

import numpy as np
import pytest

from kspecpipe.ancillary import static_extinction
from kspecpipe.configuration.instrument_schema import SiteFacts
from kspecpipe.fluxcal.extinction import nearest_curve, parse_extinction
from kspecpipe.reduction.flux import choose_extinction

TEXT = """# %ECSV 1.0
# ---
# datatype:
# - {name: wavelength, datatype: float64}
# - {name: extinction, datatype: float64}
# meta: {longitude: 10.0, latitude: 40.0}
# schema: astropy-2.0
wavelength extinction
4000 0.4
5000 0.2
"""


def test_a_curve_is_interpolated_and_kept_beyond_its_ends():
    curve = parse_extinction(TEXT, "here")
    np.testing.assert_allclose(curve.at(np.array([3000.0, 4500, 9000])), [0.4, 0.3, 0.2])
    assert (curve.longitude, curve.latitude) == (10.0, 40.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("4000 0.4", "6000 0.4", "do not rise"), ("wavelength", "lambda", "no column")],
)
def test_a_table_of_another_form_is_refused(old, new, words):
    with pytest.raises(ValueError, match=words):
        parse_extinction(TEXT.replace(old, new), "here")


@pytest.mark.parametrize(
    ("name", "longitude", "latitude"),
    [
        ("ctio", -70.8, -30.2),
        ("la_silla", -70.7, -29.2),
        ("siding_spring", 149.1, -31.3),
        ("siding_spring", -179.0, -40.0),
    ],
)
def test_the_nearest_observatory_is_taken(name, longitude, latitude):
    curves = static_extinction()
    assert nearest_curve(curves, longitude, latitude).name == name
    site = SiteFacts(name="x", longitude=longitude, latitude=latitude)
    assert choose_extinction(curves, "site", site).name == name


def test_a_named_curve_wins_and_without_a_site_there_is_none():
    curves = static_extinction()
    site = SiteFacts(name="x", longitude=-70.8, latitude=-30.2)
    assert choose_extinction(curves, "la_silla", site).name == "la_silla"
    for wanted, place in (("none", site), ("site", None)):
        assert not choose_extinction(curves, wanted, place).at(np.array([4000.0])).any()


def test_every_shipped_curve_falls_towards_the_red():
    for curve in static_extinction().values():
        blue, red = curve.at(np.array([4000.0, 8000.0]))
        assert 0.2 < blue < 0.5
        assert 0.0 <= red < 0.1
