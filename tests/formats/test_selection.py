import numpy as np
import pytest
from astropy.table import Table

from kspecpipe.errors import SettingsError
from kspecpipe.formats.fibre_spectra import FibreSpectra
from kspecpipe.formats.selection import brightest, choose

LEVELS = [5.0, 50.0, 9.0, np.nan, 20.0]


@pytest.fixture
def spectra():
    flux = np.repeat(np.array(LEVELS)[:, None], 4, axis=1)
    dead = np.isnan(flux)
    table = Table({"FIBRE_ID": [1, 2, 3, 4, 5], "TYPE": list("PSPPC")})
    return FibreSpectra(
        wavelength=np.arange(4.0),
        flux=flux,
        uncertainty=np.ones(flux.shape),
        mask=dead,
        dq=np.zeros(flux.shape, np.uint16),
        fibres=table,
        unit="electron",
        meta={},
    )


@pytest.mark.parametrize(
    ("ids", "types", "left"),
    [
        ([2, 5], None, [2, 5]),
        (None, "p", [1, 3, 4]),
        ([1, 2], "PC", [1]),
        (None, None, [1, 2, 3, 4, 5]),
    ],
)
def test_fibres_are_chosen_by_number_and_type(spectra, ids, types, left):
    assert list(choose(spectra, ids, types).fibres["FIBRE_ID"]) == left


@pytest.mark.parametrize(
    ("ids", "types", "words"),
    [([9], None, "no fibre 9; there are 1 to 5"), ([1], "S", "types of this product are CPS")],
)
def test_what_does_not_exist_is_refused(spectra, ids, types, words):
    with pytest.raises(SettingsError, match=words):
        choose(spectra, ids, types)


def test_the_brightest_are_program_fibres_in_trace_order(spectra):
    assert list(brightest(spectra, 2).fibres["FIBRE_ID"]) == [3, 5]
    assert list(brightest(spectra, 9).fibres["FIBRE_ID"]) == [1, 3, 5]


def test_with_sky_fibres_only_the_brightest_of_them_are_taken(spectra):
    assert list(brightest(spectra[[1]], 3).fibres["FIBRE_ID"]) == [2]
