import numpy as np
import pytest

from kspecpipe import fibres
from kspecpipe.combine.targets import mean_fibres, require_same_targets
from kspecpipe.errors import InputError


def table(**columns):
    made = fibres.fibre_table(range(1, 5), ["OK", "OK", "LOW", "DEAD"])
    made["RA"], made["DEC"] = 150.0 + np.arange(4) / 100, -30.0 + np.arange(4) / 100
    made["AIRMASS"], made["VBARY"] = 1.1, 12.0
    for name, values in columns.items():
        made[name] = values
    return made


def test_equal_tables_pass():
    require_same_targets([table(), table(), table()], ["a", "b", "c"])


def test_targets_within_an_arcsec_are_the_same():
    near = table(RA=150.0 + np.arange(4) / 100 + 0.5 / 3600)
    require_same_targets([table(), near], ["a", "b"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"DEC": -31.0 + np.arange(4) / 100}, "b: 4 fibres (first: [1, 2, 3, 4]) saw other"),
        ({"TYPE": ["P", "S", "P", "P"]}, "b: 1 fibres (first: [2]) saw other"),
        ({"FIBRE_ID": [1, 2, 3, 5]}, "differ in FIBRE_ID"),
    ],
)
def test_other_targets_are_refused_by_name(columns, words):
    with pytest.raises(InputError) as caught:
        require_same_targets([table(), table(**columns)], ["a", "b"])
    assert words in str(caught.value)


def test_another_number_of_fibres_is_refused():
    with pytest.raises(InputError, match="has 3 fibres, a has 4"):
        require_same_targets([table(), table()[:3]], ["a", "b"])


def test_right_ascension_wraps_around():
    require_same_targets([table(RA=[0.0, 1, 2, 3]), table(RA=[359.9999, 1, 2, 3])], ["a", "b"])


def test_unknown_coordinates_cannot_differ():
    require_same_targets([table(RA=np.nan), table()], ["a", "b"])


def test_means_are_weighted_by_time_and_skip_what_is_unknown():
    mean = mean_fibres([table(AIRMASS=1.0), table(AIRMASS=[2.0, 2.0, 2.0, np.nan])], [1.0, 3.0])
    assert np.asarray(mean["AIRMASS"]) == pytest.approx([1.75, 1.75, 1.75, 1.0])


def test_a_fibre_is_as_alive_as_in_its_best_exposure():
    other = table(STATUS=["DEAD", "OK", "OK", "LOW"])
    assert list(mean_fibres([table(), other], [1, 1])["STATUS"]) == ["OK", "OK", "OK", "LOW"]


def test_the_tables_are_left_as_they_were():
    first, second = table(), table(AIRMASS=3.0)
    mean_fibres([first, second], [1, 1])
    assert (np.asarray(first["AIRMASS"]) == 1.1).all()
