from __future__ import annotations

import numpy as np
import pytest

from kspecpipe.sky.contamination import SkyDensity, find_contaminated, find_outliers, robust_sky
from kspecpipe.sky.model import SkyOptions, fit_sky


def dropped_in(night, **options) -> list[int]:
    chosen = SkyOptions(blaze=night.blaze, **options)
    model = fit_sky(night.spectra, night.wavelength, night.lsf, night.sky_fibres, options=chosen)
    return np.flatnonzero(model.dropped).tolist()


@pytest.mark.parametrize(
    ("sky", "star"), [((2, 8), 0.25), ((2, 8, 9), 0.15), (tuple(range(10)), 0.08)]
)
def test_a_star_in_a_sky_fibre_is_found_and_nobody_else_is_blamed(observe, sky, star):
    assert dropped_in(observe(seed=7, sky=sky, extra=((2, star),))) == [2]


@pytest.mark.parametrize("seed", range(20, 26))
@pytest.mark.parametrize("sky", [(2, 8), (1, 4, 8, 11), tuple(range(12))])
def test_clean_sky_fibres_are_kept_in_spite_of_lsf_and_throughput(observe, seed, sky):
    night = observe(seed=seed, sky=sky, lsf_spread=0.1, throughput_error=0.03, lines=150)
    assert dropped_in(night) == []


def test_clean_sky_fibres_are_kept_where_there_are_no_lines(observe):
    assert dropped_in(observe(seed=27, lines=0, line_flux=0.1)) == []


def test_several_contaminated_fibres_are_found_but_never_more_than_half(observe):
    stars = ((0, 0.2), (3, 1.0), (6, 5.0))
    assert dropped_in(observe(seed=28, sky=tuple(range(9)), extra=stars)) == [0, 3, 6]
    everywhere = tuple((f, 1.0 + f) for f in range(4))
    assert len(dropped_in(observe(seed=29, sky=(0, 1, 2, 3), extra=everywhere))) <= 2


def test_a_star_is_tolerated_on_request(observe):
    night = observe(seed=7, sky=(2, 8, 9), extra=((2, 0.15),))
    assert dropped_in(night, contamination=0.5) == []


def test_without_its_contaminated_fibre_the_sky_is_that_of_the_others(observe):
    clean = observe(seed=30, sky=tuple(range(0, 14, 2)))
    star = observe(seed=30, sky=tuple(range(0, 14, 2)), extra=((4, 0.5),))
    skies = []
    for night in (clean, star):
        options = SkyOptions(blaze=night.blaze)
        model = fit_sky(
            night.spectra, night.wavelength, night.lsf, night.sky_fibres, options=options
        )
        skies.append(model.predict(night.wavelength, night.lsf))
    change = (skies[1].value - skies[0].value) / skies[1].error
    # The noise of the fibre on the star differs too; the others weigh six to one.
    assert abs(np.median(change)) < 0.2
    assert np.abs(change).max() < 4


def test_robust_sky_is_the_median_and_the_lower_one_on_request():
    value = np.array([[1.0, 5.0, np.nan], [2.0, np.nan, np.nan], [9.0, 7.0, np.nan]])
    assert robust_sky(value) == pytest.approx([2.0, 6.0, 6.0])
    assert robust_sky(value, lower=True) == pytest.approx([2.0, 5.0, 5.0])


def test_outliers_are_found_in_either_of_two_fibres():
    rng = np.random.default_rng(3)
    value = 100 + rng.normal(0, 3, (2, 400))
    value[0, 100] += 60
    value[1, 200] += 60
    density = SkyDensity(value, np.full(value.shape, 9.0))
    found = find_outliers(density, robust_sky(value, lower=True))
    assert np.argwhere(found).tolist() == [[0, 100], [1, 200]]


def test_a_single_fibre_is_never_contaminated():
    density = SkyDensity(np.full((1, 300), 50.0), np.ones((1, 300)))
    assert not find_contaminated(density, 0.05).any()
