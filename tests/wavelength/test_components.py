"""Which lines the forward model has."""

import numpy as np

from kspecpipe.wavelength.components import components, movers
from kspecpipe.wavelength.dispersion import Base, start_dispersion
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.lsf import gaussian_lsf, lsf_basis
from kspecpipe.wavelength.predict import predict_linear
from kspecpipe.wavelength.scene import Model


def parts_of(*wavelength):
    prediction = predict_linear(centre=6000.0, step=5.0, nx=1001)
    dispersion = start_dispersion(Base(prediction, 0.0, 1.0, 0.0), 2, np.zeros(2))
    count = len(wavelength)
    lines = LineList(np.array(wavelength), np.full(count, "Hg"), np.ones(count))
    return components(lines, dispersion)


def test_lines_off_the_chip_are_left_out_and_second_orders_come_at_twice_the_wavelength():
    parts = parts_of(4000.0, 5000.0, 9500.0)
    assert parts.wavelength.tolist() == [4000.0, 5000.0, 8000.0]
    assert parts.trusted.tolist() == [True, True, False]


def test_the_strength_of_a_second_order_is_unknown():
    assert np.isnan(parts_of(4000.0).intensity[1])


def test_added_lines_are_unknown_and_move_each_for_itself():
    parts = parts_of(4500.0).add(np.array([5000.0, 5005.0]))
    assert parts.species.tolist() == ["Hg", "", ""]
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    model = Model(lsf, np.ones(3), np.zeros(3, int), np.ones((1, 3)), np.zeros((1, 9)), 0.01)
    assert movers(parts, model).tolist() == [0, 1, 2]
