"""Which part of the chip lines fix."""

import numpy as np
import pytest

from kspecpipe.wavelength.span import trusted_span

LINES = np.array([400.0, 20.0, 300.0, 700.0, 900.0])


def error_of(*stretches):
    error = np.full(1000, 0.05)
    for first, end in stretches:
        error[first:end] = 0.5
    return error


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ((), (20.0, 900.0)),
        (((0, 20), (901, 1000)), (20.0, 900.0)),
        (((20, 100),), (300.0, 900.0)),
        (((450, 460),), (20.0, 400.0)),
        (((350, 360), (850, 860)), (400.0, 700.0)),
        (((0, 1000),), (20.0, 20.0)),
    ],
)
def test_the_longest_stretch_with_small_errors_is_trusted(stretches, expected):
    assert trusted_span(LINES, error_of(*stretches), 0.1) == expected


def test_lines_beside_the_chip_count_as_on_its_edge():
    assert trusted_span(np.array([-3.0, 1004.0]), error_of(), 0.1) == (-3.0, 1004.0)
