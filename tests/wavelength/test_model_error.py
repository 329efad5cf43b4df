"""How wrong the model of lines is, as cores of lines say."""

import numpy as np
import pytest

from kspecpipe.wavelength.groups import model_error


def samples(true, noise, seed=1):
    """Relative errors of a model that is wrong by ``true``, with noise of these variances."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, np.sqrt(true**2 + noise)), noise


@pytest.mark.parametrize("true", [0.003, 0.01, 0.03])
def test_bright_lines_show_how_wrong_the_model_is(true):
    assert model_error(*samples(true, np.full(4000, 1e-6))) == pytest.approx(true, rel=0.1)


def test_faint_lines_among_bright_ones_do_not_blunt_them():
    noise = np.where(np.arange(4000) < 1000, 1e-6, 1e-2)
    assert model_error(*samples(0.004, noise)) == pytest.approx(0.004, rel=0.2)


def test_faint_lines_alone_leave_it_at_what_is_expected():
    found = [model_error(*samples(0.001, np.full(800, 0.01), seed)) for seed in range(20)]
    assert 0.005 < min(found) < max(found) < 0.02


def test_without_lines_it_is_what_is_expected():
    assert model_error(np.zeros(0), np.zeros(0)) == pytest.approx(0.01, rel=0.01)


def test_a_few_samples_of_lines_nobody_knows_do_not_spoil_it():
    error, noise = samples(0.004, np.full(4000, 1e-6))
    error[::50] = 0.5
    assert model_error(error, noise) == pytest.approx(0.004, rel=0.15)


def test_it_stays_between_its_limits():
    assert model_error(np.zeros(4000), np.full(4000, 1e-9)) == pytest.approx(0.001, rel=0.01)
    assert model_error(np.ones(4000), np.full(4000, 1e-6)) == pytest.approx(0.05, rel=0.01)
