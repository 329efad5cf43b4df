"""The simulator's stars, library and catalogue."""

import gzip

import numpy as np
import pytest
import speclite.filters

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.templates import TemplateLibrary, read_index
from kspecpipe.simulate.standards import (
    LibraryPlan,
    StandardStar,
    catalogue_magnitudes,
    eddington_flux,
    standard_star,
    star_flux,
    write_catalogue,
    write_template_library,
)

WAVE = np.arange(3700.0, 9000.0, 1.0)


def equivalent_width(teff, feh, line, half):
    flux, continuum = eddington_flux(WAVE, (teff, 4.3, feh))
    near = np.abs(WAVE - line * 1.00028) < half
    return np.sum(1 - flux[near] / continuum[near])


def test_balmer_lines_grow_with_temperature_and_metals_with_metallicity():
    assert equivalent_width(7000, -0.5, 6562.8, 30) > 1.3 * equivalent_width(5500, -0.5, 6562.8, 30)
    assert equivalent_width(5800, 0.0, 3933.7, 15) > 1.3 * equivalent_width(5800, -1.0, 3933.7, 15)


def test_hot_stars_are_bluer_and_have_a_balmer_jump():
    ratio = {}
    for teff in (5500.0, 7500.0):
        flux, continuum = eddington_flux(np.array([3550.0, 3750.0, 4500.0, 8000.0]), (teff, 4, -1))
        ratio[teff] = flux[2] / flux[3], continuum[0] / continuum[1]
    assert ratio[7500.0][0] > 1.5 * ratio[5500.0][0]
    assert ratio[7500.0][1] < 0.9 * ratio[5500.0][1]


def test_a_standard_star_has_the_wanted_flux():
    star = standard_star(6300.0, 3e-15, (10.0, -30.0))
    level = star_flux(np.linspace(5950.0, 6050.0, 400), star).mean()
    assert level == pytest.approx(3e-15, rel=1e-6)
    assert (star.ra, star.dec) == (10.0, -30.0)


def test_a_star_has_its_gaia_magnitude_and_reddening_dims_the_blue_most():
    star = StandardStar(6000.0, 4.3, -0.5, 15.0)
    assert catalogue_magnitudes(star)["Gaia"] == pytest.approx(15.0, abs=1e-6)
    red = StandardStar(6000.0, 4.3, -0.5, 15.0, ebv=0.2)
    bluer = catalogue_magnitudes(star)["g"] - catalogue_magnitudes(star)["i"]
    redder = catalogue_magnitudes(red)["g"] - catalogue_magnitudes(red)["i"]
    assert redder - bluer == pytest.approx(0.2 * 1.6, abs=0.08)


def test_magnitudes_are_those_of_the_spectrum():
    star = StandardStar(6000.0, 4.3, -0.5, 15.0, velocity=100.0)
    curve = speclite.filters.load_filter("panstarrs-r")
    wave = np.arange(5200.0, 7200.0, 0.5)
    # Air and vacuum differ by 1.7 Angstrom here, which changes r by less than a millimagnitude.
    seen = np.interp(wave, curve.wavelength, curve.response, left=0, right=0)
    light = np.sum(star_flux(wave, star) * seen * wave)
    r = -2.5 * np.log10(light / np.sum(seen / wave) / 2.99792458e18) - 48.60
    assert catalogue_magnitudes(star)["r"] == pytest.approx(r, abs=0.003)


def test_equal_plans_give_equal_files_and_the_layout_is_that_of_bosz(tmp_path):
    plan = LibraryPlan((6000.0,), (4.0,), (-0.5,), 300)
    paths = [write_template_library(tmp_path / name, plan)[0] for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    relative = paths[0].relative_to(tmp_path / "a").as_posix()
    assert relative == (
        "r300/m-0.50/bosz2024_mp_t6000_g+4.0_m-0.50_a+0.00_c+0.00_v1_r300_resam.txt.gz"
    )
    assert [model.path for model in read_index(tmp_path / "a", 300)] == [relative]
    wave = np.loadtxt(tmp_path / "a" / "bosz2024_wave_r300.txt")
    assert np.loadtxt(paths[0]).shape == (wave.size, 2)
    assert wave[0] < 2500
    assert wave[-1] > 26000


def test_a_simulated_library_that_lost_a_model_knows_it_and_a_changed_one_may_be_used(tmp_path):
    paths = write_template_library(tmp_path, LibraryPlan((6000.0, 6500.0), (4.0,), (-0.5,), 300))
    paths[0].write_bytes(gzip.compress(gzip.decompress(paths[0].read_bytes()), compresslevel=9))
    assert len(TemplateLibrary(tmp_path)) == 2
    paths[1].unlink()
    with pytest.raises(RecipeError, match="of 2 models in its index 1 are missing"):
        TemplateLibrary(tmp_path)


def test_the_catalogue_has_refcat2s_columns_and_sentinels(tmp_path):
    star = StandardStar(6000.0, 4.3, -0.5, 15.0, missing=("J",), variable=True)
    lines = write_catalogue(tmp_path / "c.csv", [star]).read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert len(row) == 46
    assert float(row["J"]) >= 99
    assert float(row["dJ"]) >= 9.9
    assert row["dupvar"] == "1"
    assert float(row["BP"]) > float(row["RP"])
