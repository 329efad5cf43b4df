import numpy as np
import pytest
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.errors import InputError
from kspecpipe.signal import DQ, Signal

IDS = [3, 2, 1]


def table(status=("OK", "DEAD", "LOW")):
    return fibres.fibre_table(IDS, status)


def assignment(ids=(1, 2, 3), types="PSC"):
    found = Table(
        {"FIBRE_ID": list(ids), "TYPE": list(types), "CLASS": ["1", "9", "8"][: len(ids)]}
    )
    found["RA"] = 10.0 * np.arange(len(ids))
    return found


def test_without_an_assignment_all_fibres_are_program_fibres():
    found = fibres.assign(table(), None)
    assert list(found["TYPE"]) == ["P", "P", "P"]
    assert list(found["FIBRE_ID"]) == IDS
    assert np.isnan(found["RA"]).all()
    assert np.isnan(found["THROUGHPUT"]).all()


def test_an_assignment_is_matched_by_fibre_id_and_not_by_row():
    found = fibres.assign(table(), assignment())
    assert list(found["TYPE"]) == ["C", "S", "P"]
    assert list(found["RA"]) == [20.0, 10.0, 0.0]
    assert list(found["STATUS"]) == ["OK", "DEAD", "LOW"]


def test_fibres_of_the_assignment_that_the_detector_lacks_do_no_harm():
    more = Table({"FIBRE_ID": [1, 2, 3, 4], "TYPE": list("PSCP"), "CLASS": list("1981")})
    assert list(fibres.assign(table(), more)["TYPE"]) == ["C", "S", "P"]


def test_fibres_that_the_assignment_lacks_are_an_error_that_names_them():
    with pytest.raises(InputError, match=r"names 2 fibres, but not \[3\] of the 3"):
        fibres.assign(table(), assignment((1, 2), "PS"))


def test_the_table_that_is_assigned_to_is_not_changed():
    before = table()
    fibres.assign(before, assignment())
    assert list(before["TYPE"]) == ["P", "P", "P"]


def test_dead_fibres_are_of_no_use_whatever_their_type():
    found = fibres.assign(table(), assignment())
    assert list(fibres.live(found)) == [True, False, True]
    assert not fibres.of_type(found, "S").any()
    assert list(fibres.of_type(found, "C")) == [True, False, False]


def test_spectra_of_dead_fibres_hold_nothing():
    spectra = Signal.of(np.ones((3, 5)), 2.0)
    found = fibres.without_dead(spectra, table())
    assert np.isnan(found.value[1]).all()
    assert np.isnan(found.variance[1]).all()
    assert np.all(found.dq[1] & DQ.NO_DATA)
    assert found.good[[0, 2]].all()
    assert spectra.good.all()


def test_spectra_are_divided_by_the_throughput_where_it_is_known():
    found = table()
    found["THROUGHPUT"] = [0.5, np.nan, 2.0]
    assert fibres.divisor(found).tolist() == [[0.5], [1.0], [2.0]]
