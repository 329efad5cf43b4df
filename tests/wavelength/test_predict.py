"""Predictions from header and data sheet."""

import numpy as np
import pytest

from kspecpipe.wavelength.drift import predict_from_solution
from kspecpipe.wavelength.predict import (
    GratingGeometry,
    Prediction,
    predict_grating,
    predict_linear,
)


def test_the_data_sheet_dispersion_scales_with_the_grooves():
    found = predict_grating(
        lines=150, centre=6200, nx=1340, focal_length=320, pixel=0.02, dispersion=23.0
    )
    assert found.step == pytest.approx(23.0 * 8 * 0.02)
    assert found.centre == pytest.approx(6200)
    assert found.grating.spacing == pytest.approx(1e7 / 150)


def test_a_linear_prediction_knows_no_geometry():
    found = predict_linear(centre=6500, step=1.2, nx=101)
    assert found.wavelength[50] == 6500
    assert found.wavelength[51] == pytest.approx(6501.2)
    assert found.grating is None


def test_an_earlier_solution_narrows_the_search():
    wavelength = np.linspace(5000, 6000, 200) + np.arange(5)[:, None]
    found = predict_from_solution(wavelength)
    assert np.array_equal(found.wavelength, wavelength[2])
    assert found.measured
    assert found.shift_range == 10


def test_predictions_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="rise"):
        Prediction(np.linspace(6000, 5000, 100))
    with pytest.raises(ValueError, match="shape"):
        Prediction(np.zeros((2, 100)))
    with pytest.raises(ValueError, match="positive"):
        GratingGeometry(0, 320, 0.02)
    with pytest.raises(ValueError, match="search range"):
        predict_linear(centre=6500, step=1.0, nx=100, scale_range=(1.1, 0.9))
