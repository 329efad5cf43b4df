"""A BOSZ tree: names, index, completeness, parsing, cache."""

import gzip
import shutil

import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.broaden import prepare_template
from kspecpipe.fluxcal.templates import (
    TemplateLibrary,
    check_library,
    index_path,
    parse_bosz_filename,
    read_index,
    write_index,
)
from kspecpipe.simulate.atmospheres import eddington_flux
from kspecpipe.simulate.standards import LibraryPlan, write_template_library

SMALL = LibraryPlan(teff=(5500.0, 6500.0), logg=(4.0,), feh=(-0.5, 0.0), resolution=500)


@pytest.fixture
def tree(tmp_path):
    write_template_library(tmp_path / "bosz", SMALL)
    return tmp_path / "bosz"


def test_a_name_tells_the_parameters():
    found = parse_bosz_filename(
        "r10000/m-0.75/bosz2024_ap_t7500_g+3.5_m-0.75_a+0.25_c-0.10_v1_r10000_resam.txt.gz"
    )
    assert (found.teff, found.logg, found.feh, found.alpha_m, found.carbon_m) == (
        7500,
        3.5,
        -0.75,
        0.25,
        -0.1,
    )
    assert (found.vmicro, found.atmos) == (1.0, "ap")
    with pytest.raises(ValueError, match="no name"):
        parse_bosz_filename("bosz2024_wave_r10000.txt")


def test_the_index_lists_every_model_and_is_read_back(tree):
    write_index(tree)
    models = read_index(tree, 500)
    assert len(models) == 4
    assert {m.parameters.teff for m in models} == {5500, 6500}
    assert all((tree / m.path).stat().st_size == m.size for m in models)
    assert check_library(tree).complete


def test_surface_flux_is_four_pi_times_the_eddington_flux_on_the_shared_wavelengths(tree):
    library = TemplateLibrary(tree)
    template = library.get_template(6450.0, 4.0, -0.1)
    assert template.parameters.teff == 6500
    flux, continuum = eddington_flux(template.wavelength, (6500.0, 4.0, 0.0), 500)
    np.testing.assert_allclose(template.flux, 4 * np.pi * flux, rtol=1e-4)
    np.testing.assert_allclose(template.continuum, 4 * np.pi * continuum, rtol=1e-4)


def test_parsed_models_are_on_air_wavelengths_and_their_files_in_vacuum(tree):
    library = TemplateLibrary(tree)
    template, grid = library.load(library.models[0]), library.grid(keep=False)
    depth = 1 - template.flux / template.continuum
    near = (template.wavelength > 6500) & (template.wavelength < 6630)
    vacuum = np.average(template.wavelength[near], weights=depth[near] ** 4)
    depth = 1 - grid.flux[0] / grid.continuum[0]
    near = (grid.wavelength > 6498) & (grid.wavelength < 6628)
    air = np.average(grid.wavelength[near], weights=depth[near] ** 4)
    assert vacuum / air == pytest.approx(1.000276, abs=1e-5)


def test_models_are_selected_without_reading_them(tree):
    library = TemplateLibrary(tree)
    for path in tree.rglob("*.gz"):
        path.write_bytes(b"x" * path.stat().st_size)
    assert library.grid_params.shape == (4, 4)
    assert sorted(set(library.grid_params[:, 0])) == [5500, 6500]
    assert len(library.query(teff_range=(6000, 7000))) == 2
    assert len(library.query(teff_range=(6000, 7000), feh_range=(-0.1, 0.1))) == 1


def test_parsed_models_are_kept_and_not_parsed_again(tree, monkeypatch):
    first = TemplateLibrary(tree).grid()
    assert (tree / "cache_r500.npz").exists()
    monkeypatch.setattr(TemplateLibrary, "_load", None)
    again = TemplateLibrary(tree).grid()
    np.testing.assert_array_equal(first.flux, again.flux)
    np.testing.assert_array_equal(first.magnitude, again.magnitude)


def test_a_changed_model_is_parsed_anew(tree):
    first = TemplateLibrary(tree).grid()
    path = next(iter(sorted(tree.rglob("*t5500*m+0.00*.gz"))))
    rows = np.loadtxt(path)
    path.write_bytes(gzip.compress("\n".join(f"{2 * a} {2 * b}" for a, b in rows).encode()))
    again = TemplateLibrary(tree).grid()
    ratio = again.flux.sum(axis=1) / first.flux.sum(axis=1)
    assert sorted(ratio.round(3)) == [1, 1, 1, 2]


def test_magnitudes_use_the_full_range_and_are_missing_where_there_is_none(tmp_path):
    optical = LibraryPlan((6000.0,), (4.0,), (0.0,), 500, wave_range=(3100.0, 9900.0))
    write_template_library(tmp_path / "optical", optical)
    magnitude = TemplateLibrary(tmp_path / "optical").grid().magnitude[0]
    # G, RP, J, H, K reach further than 9900 Angstrom; BP, g, r, i, z do not.
    assert np.isnan(magnitude[[0, 2, 7, 8, 9]]).all()
    assert np.isfinite(magnitude[[1, 3, 4, 5, 6]]).all()


def test_an_absent_or_empty_library_is_refused(tmp_path, tree):
    with pytest.raises(RecipeError, match="no folder"):
        TemplateLibrary(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="no template library"):
        TemplateLibrary(tmp_path / "empty")
    index_path(tree, 500).unlink()
    shutil.rmtree(tree / "r500")
    with pytest.raises(RecipeError, match="no model of resolution 500"):
        TemplateLibrary(tree)


def test_another_resolution_is_refused_and_the_one_there_is_named(tree):
    with pytest.raises(RecipeError, match=r"\(500,\), not 10000"):
        TemplateLibrary(tree, 10000)


def test_a_library_that_lacks_models_of_its_index_is_refused(tree):
    write_index(tree)
    lost = sorted(tree.rglob("*.gz"))[0]
    lost.unlink()
    report = check_library(tree)
    assert (report.indexed, report.present, len(report.missing)) == (4, 3, 1)
    with pytest.raises(RecipeError, match="of 4 models in its index 1 are missing"):
        TemplateLibrary(tree)


def test_a_library_with_half_a_file_is_refused(tree):
    write_index(tree)
    path = sorted(tree.rglob("*.gz"))[0]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RecipeError, match="1 have another size"):
        TemplateLibrary(tree)
    index_path(tree, 500).unlink()
    with pytest.raises(RecipeError, match="damaged"):
        TemplateLibrary(tree).grid()


def test_a_model_with_another_number_of_rows_is_refused(tree):
    path = sorted(tree.rglob("*.gz"))[0]
    path.write_bytes(gzip.compress(b"1 2\n3 4\n"))
    with pytest.raises(RecipeError, match="2 rows"):
        TemplateLibrary(tree).grid()


def test_wavelengths_that_break_off_in_the_ultraviolet_are_refused(tree):
    path = next(tree.glob("bosz2024_wave_*.txt"))
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if float(line) < 2500))
    with pytest.raises(RecipeError, match="do not cover the optical range"):
        TemplateLibrary(tree).grid(keep=False)


def test_an_index_of_something_else_is_refused(tree):
    index_path(tree, 500).write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match="no index of BOSZ"):
        TemplateLibrary(tree)


def test_a_prepared_template_has_the_lines_where_the_velocity_puts_them(tree):
    library = TemplateLibrary(tree)
    template = library.load(library.nearest(6500.0, 4.0, 0.0))
    wave = np.arange(6300.0, 6850.0, 2.0)
    lsf = np.full(wave.size, 20.0)
    centres = []
    for velocity in (0.0, 400.0):
        seen = prepare_template(template, wave, lsf, velocity=velocity)
        depth = 1 - seen.flux / seen.meta["continuum"]
        near = np.abs(wave - 6562.8) < 60
        centres.append(np.sum(wave[near] * depth[near] ** 3) / np.sum(depth[near] ** 3))
    # Weak neighbours blend with the line.
    assert centres[0] == pytest.approx(6562.8, abs=3.0)
    assert centres[1] - centres[0] == pytest.approx(6562.8 * 400 / 299792.458, abs=0.5)
