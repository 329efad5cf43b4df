"""The empirical LSF."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.wavelength.lsf import gaussian_lsf, lsf_basis, measure_fwhm, place_terms

CENTRE = place_terms(np.zeros(1), np.zeros(1))


@given(st.floats(2.2, 9.0))
def test_the_first_guess_has_unit_flux_no_centroid_and_its_fwhm(fwhm):
    lsf = gaussian_lsf(lsf_basis(fwhm), fwhm)
    offset = lsf.basis.offset
    value, _ = lsf.evaluate(offset, np.broadcast_to(CENTRE, (offset.size, 4)))
    step = offset[1] - offset[0]
    assert value.sum() * step == pytest.approx(1, abs=1e-6)
    assert (value * offset).sum() * step == pytest.approx(0, abs=1e-6)
    assert measure_fwhm(lsf, CENTRE)[0] == pytest.approx(fwhm, rel=0.03)


def test_the_slope_is_the_derivative():
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    d = np.linspace(-6, 6, 50)
    terms = np.broadcast_to(CENTRE, (50, 4))
    up, down = lsf.evaluate(d + 0.01, terms)[0], lsf.evaluate(d - 0.01, terms)[0]
    assert np.allclose(lsf.evaluate(d, terms)[1], (up - down) / 0.02, atol=2e-4)


def test_the_lsf_ends_where_it_says():
    lsf = gaussian_lsf(lsf_basis(4.0), 4.0)
    far = np.array([-lsf.basis.reach - 1.0, lsf.basis.reach + 1.0])
    value, slope = lsf.evaluate(far, np.broadcast_to(CENTRE, (2, 4)))
    assert np.all(value == 0)
    assert np.all(slope == 0)
