"""Where marc starts from."""

from types import SimpleNamespace

import numpy as np
from kspecpipe.recipes.marc import predict

from kspecpipe.signal import Signal
from kspecpipe.wavelength.predict import predict_linear

FROM_THE_HEADER = predict_linear(centre=6000.0, step=4.0, nx=101)


class Setup:
    """An instrument that knows one prediction."""

    def prediction(self, info, nx):
        assert (info, nx) == ("arc", 101)
        return FROM_THE_HEADER


def inputs(earlier):
    return SimpleNamespace(arcs=SimpleNamespace(infos=["arc"], shape=(1, 50, 101)), earlier=earlier)


def test_without_an_earlier_solution_the_instrument_predicts():
    assert predict(inputs(None), Setup()) is FROM_THE_HEADER


def test_an_earlier_solution_replaces_the_header_and_narrows_the_search():
    measured = 5000.0 + 3.9 * np.arange(101.0) + np.arange(3.0)[:, None]
    earlier = SimpleNamespace(wavelength=Signal.of(measured))
    found = predict(inputs(earlier), Setup())
    assert np.array_equal(found.wavelength, measured[1])
    assert found.measured
    assert found.shift_range < FROM_THE_HEADER.shift_range
