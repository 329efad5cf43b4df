"""Standard stars of simulated nights: spectra, catalogue, templates and truth agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.fluxcal.catalogue import match_positions, parse_refcat2, photometry_from_catalog_row
from kspecpipe.fluxcal.templates import check_library
from kspecpipe.simulate import FrameCounts, NightPlan, Traps, simulate_night
from kspecpipe.simulate.exposure import open_dome, take_frame
from kspecpipe.simulate.light import efficiency, target_flux
from kspecpipe.simulate.standards import LibraryPlan, StandardStar, star_flux

WAVE = np.arange(3600.0, 9000.0, 2.0)
LIBRARY = LibraryPlan((6000.0,), (4.0,), (0.0,), 300, (2900.0, 11500.0))
PLAN = NightPlan(size="small", counts=FrameCounts(0, 0, 0, 0, 1), library=LIBRARY)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return simulate_night(tmp_path_factory.mktemp("night"), PLAN, seed=4)


def stars_of(plan, seed=4):
    return next(iter(open_dome(plan, seed).benches.values())).fibres


def test_truth_holds_the_flux_of_the_stars(night):
    fibres = stars_of(PLAN)
    with fits.open(next(iter(night.fibres.values()))) as truth:
        wave, flux = truth["SPECTRA"].data["WAVELENGTH"], truth["SPECTRA"].data["FLUX"]
        assert (truth["FIBRES"].data["CLASS"] == 8).sum() == len(fibres.stars) == 2
        for index, star in fibres.stars.items():
            np.testing.assert_allclose(flux[:, index], star_flux(wave, star))
        given = truth["SPECTRA"].data["EFFICIENCY"]
    np.testing.assert_allclose(given, efficiency(wave))


def test_catalogue_has_every_star_at_its_fibre_among_others(night):
    catalogue = parse_refcat2((night.folder / "standard_star_atlas_refcat2.csv").read_text())
    fibres = stars_of(PLAN)
    place = np.loadtxt(night.assignment)
    rows = sorted(fibres.stars)
    found, distance = match_positions(
        place[rows, 3], place[rows, 4], catalogue, mjd=np.nan, radius=0.1
    )
    assert len(catalogue) == 10
    assert (found >= 0).all()
    assert (distance < 0.01).all()
    for row, index in zip(found, rows, strict=True):
        gaia = photometry_from_catalog_row(catalogue[int(row)]).get_band("gaia_g")
        assert abs(gaia[0] - 0.122 - fibres.stars[index].gaia) < 5 * gaia[1]


def test_templates_are_written_when_asked_for(night):
    assert check_library(night.folder / "templates").complete
    lines = night.sofs["standards"].read_text().splitlines()
    assert lines == ["standard_star_atlas_refcat2.csv STD_CATALOG", "templates TEMPLATES"]


def test_night_without_objects_has_no_standards(tmp_path):
    plan = dataclasses.replace(PLAN, counts=FrameCounts(1, 0, 0, 0, 0))
    found = simulate_night(tmp_path, plan)
    assert "standards" not in found.sofs
    assert not (tmp_path / "templates").exists()


def test_stars_of_the_plan_take_the_places_of_the_fibres():
    wanted = (
        StandardStar(12000.0, 4.0, 0.0, 14.0),
        StandardStar(5800.0, 4.4, 0.0, 15.0, ebv=0.15, velocity=200.0),
        StandardStar(6500.0, 4.3, -1.0, 15.0, listed_as=StandardStar(6000.0, 4.0, 0.0, 13.0)),
    )
    fibres = stars_of(dataclasses.replace(PLAN, standards=wanted))
    placed = [fibres.stars[index] for index in sorted(fibres.stars)]
    assert [star.teff for star in placed] == [12000.0, 5800.0, 6500.0]
    assert len({(star.ra, star.dec) for star in placed}) == 3
    assert (placed[2].listed_as.ra, placed[2].listed_as.dec) == (placed[2].ra, placed[2].dec)
    for index in fibres.stars:
        truth = target_flux(fibres, index, WAVE)
        np.testing.assert_allclose(truth, star_flux(WAVE, fibres.stars[index]))


def test_light_lost_at_the_fibre_is_grey_and_not_in_the_truth():
    star = StandardStar(6500.0, 4.3, -0.5, 14.0)
    plan = dataclasses.replace(
        PLAN, traps=Traps.none(), standards=(star, dataclasses.replace(star, light=0.5))
    )
    fibres = stars_of(plan)
    whole, half = sorted(fibres.stars)
    frame = take_frame(plan, "OBJECT", seed=4).truth
    ratio = frame.target[half] / frame.target[whole]
    assert abs(np.median(ratio) - 0.5) < 0.01
    np.testing.assert_allclose(
        target_flux(fibres, half, WAVE), target_flux(fibres, whole, WAVE), rtol=1e-12
    )


def test_star_may_have_a_spectrum_of_its_own():
    star = StandardStar(6000.0, 4.0, 0.0, 15.0, spectrum=lambda vacuum: vacuum**-2.0)
    flux = star_flux(WAVE, star)
    slope = np.polyfit(np.log(WAVE), np.log(flux), 1)[0]
    assert abs(slope + 2.0) < 1e-4
    brighter = star_flux(WAVE, dataclasses.replace(star, gaia=12.5))
    np.testing.assert_allclose(brighter / flux, 10.0)
