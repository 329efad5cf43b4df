"""The recipe fluxcal on written products: what it makes, what it refuses, what it falls back on."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from kspecpipe import io, plots
from kspecpipe.base_recipe import find_recipe, run_recipe
from kspecpipe.cli import main
from kspecpipe.fibres import fibre_table
from kspecpipe.products.hdus import build_hdus
from kspecpipe.signal import DQ, Signal
from kspecpipe.simulate.standards import StandardStar, write_catalogue
from kspecpipe.spectra import Reduced

STARS = (
    StandardStar(6400.0, 4.3, -0.5, 15.0, 150.0, -30.0, velocity=60.0),
    StandardStar(6000.0, 4.4, -0.3, 15.4, 150.1, -30.1, velocity=-40.0, ebv=0.03),
    StandardStar(6700.0, 4.0, -0.8, 15.2, 150.2, -30.2),
)
AXIS = {"CTYPE1": "AWAV", "CRPIX1": 1.0, "CRVAL1": 3620.0, "CDELT1": 5.2, "CUNIT1": "Angstrom"}
HEADER = {
    "ESO PRO CATG": "REDUCED",
    "INSTRUME": "ISOPLANE",
    "INSMODE": "150_620",
    "READMODE": "lownoise",
    "DATE-OBS": "2026-01-29T14:53:08",
    "MJD-OBS": 61069.62,
    "EXPTIME": 600.0,
    "OBJECT": "tile_046",
}


def reduced_of(scene, stars, types=None):
    """Put the stars' spectra beside a program fibre (the first star again) and a dead fibre."""
    count = len(stars)
    value, variance = scene.spectra.value, scene.spectra.variance
    value = np.concatenate([value, value[:1], np.full_like(value[:1], np.nan)])
    variance = np.concatenate([variance, variance[:1], np.full_like(value[:1], np.nan)])
    spectra = Signal.of(value, variance)
    lost = np.arange(count + 2)[:, None] == count + 1
    spectra = spectra.flag(np.broadcast_to(lost, value.shape), DQ.NO_DATA)
    fibres = fibre_table(range(1, count + 3), ["OK"] * (count + 1) + ["DEAD"])
    fibres["TYPE"] = types or ["C"] * count + ["P", "C"]
    fibres["RA"][:count] = [star.ra for star in stars]
    fibres["DEC"][:count] = [star.dec for star in stars]
    fibres["AIRMASS"] = np.where(np.arange(count + 2) < count, 1.3, np.nan)
    fibres["VBARY"] = 0.0
    lsf = np.concatenate([scene.observation.lsf, scene.observation.lsf[[0, 0]]])
    return Reduced(
        spectra=spectra,
        rwss=value + 10,
        sky=np.full_like(value, 10.0),
        sky_variance=np.ones_like(value),
        lsf=lsf,
        axis=AXIS,
        fibres=fibres,
    )


def store(product, path, **cards):
    header = {key: (value, "") for key, value in {**HEADER, **cards}.items()}
    io.write_products([(path, build_hdus(product, header, {}))])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(scope="module")
def files(place, observe, folder):
    """REDUCED of two stars, another exposure, the catalogue and the templates."""
    scene = observe(STARS[:2], snr=80.0)
    return {
        "REDUCED": store(reduced_of(scene, STARS[:2]), place / "a.fits"),
        "STD_CATALOG": write_catalogue(place / "stars.csv", STARS[::-1], np.random.default_rng(3)),
        "TEMPLATES": folder,
    }


def run(files, output, *more, **options):
    sof = output.parent / f"{output.name}.sof"
    lines = [f"{path} {tag}" for tag, path in files.items()]
    sof.write_text("\n".join([*lines, *more]) + "\n")
    return run_recipe("fluxcal", sof, log=False, output=output, **{"plots": "none", **options})


@pytest.fixture(scope="module")
def healthy(files, place):
    return run(files, place / "healthy")


def product(outcome, catg):
    return io.read_product(next(path for path, tag in outcome.products if tag == catg))


def reasons(outcome):
    return " ".join([*outcome.errors, *outcome.warnings])


def flags(outcome):
    return {row.name: str(row.flag) for row in outcome.qc}


# -- what it makes -----------------------------------------------------------------------------


def test_spectra_get_the_flux_of_the_stars(healthy, blur):
    from kspecpipe.simulate.standards import star_flux

    assert healthy.exit_code == 0, reasons(healthy)
    found = product(healthy, "CALIBRATED")
    wave = found.wavelength
    fine = np.arange(3400.0, 9100.0, 0.8)
    clear = (wave > 3950) & (wave < 8600) & ((found.spectra.dq[0] & DQ.TELLURIC) == 0)
    for row, star in ((0, STARS[0]), (1, STARS[1]), (2, STARS[0])):
        truth = blur(fine, star_flux(fine, star), wave, 15.0 * (wave / 6000.0) ** 0.2)
        ratio = (found.spectra.value[row] / truth)[clear]
        assert abs(np.median(ratio) - 1) < 0.02
        assert np.std(ratio / np.median(ratio)) < 0.03
    assert np.isnan(found.spectra.value[3]).all()


def test_flux_and_variance_follow_from_the_stored_factors(healthy, files):
    reduced, found = io.read_product(files["REDUCED"]), product(healthy, "CALIBRATED")
    good = found.spectra.good
    rebuilt = reduced.spectra.value * found.factor
    np.testing.assert_allclose(rebuilt[good], found.spectra.value[good], rtol=1e-5)
    variance = reduced.spectra.variance * found.factor**2 + (rebuilt * found.factor_error) ** 2
    np.testing.assert_allclose(variance[good], found.spectra.variance[good], rtol=1e-4)
    np.testing.assert_allclose(found.sky[good], (reduced.sky * found.factor)[good], rtol=1e-5)


def test_factor_follows_from_response_extinction_and_airmass(healthy):
    response, found = product(healthy, "RESPONSE"), product(healthy, "CALIBRATED")
    airmass = np.asarray(found.fibres["AIRMASS"])
    np.testing.assert_allclose(airmass, 1.3)
    clear = 10 ** (0.4 * airmass[:, None] * found.extinction)
    expected = response.response.value * clear / 600.0 / 5.2
    good = np.isfinite(expected)
    np.testing.assert_allclose(found.factor[good], expected[good], rtol=1e-5)


def test_header_tells_how_it_came_about(healthy):
    found = product(healthy, "CALIBRATED").calibration
    assert found["FLUXCAL"] is True
    assert found["FCALNSTR"] == 2
    assert 0 < found["FCALRMS"] < 0.05
    assert found["FCALEXT"] == "ctio"
    assert found["FCALAIRM"] == pytest.approx(1.3)
    history = "\n".join(found["HISTORY"])
    assert "2 of 2 standard stars" in history
    assert history.count("Teff") == 2


def test_stars_are_listed_with_their_vectors(healthy):
    found = product(healthy, "RESPONSE")
    assert list(found.stars["fibre_id"]) == [1, 2]
    assert np.asarray(found.stars["used"]).all()
    assert found.vectors.shape == found.model.shape == (2, found.wavelength.size)
    clear = found.response.dq == 0
    ratio = found.observed * found.vectors / found.model
    np.testing.assert_allclose(np.nanmedian(ratio[:, clear], axis=1), 1.0, atol=0.01)


def test_every_metric_is_within_its_limits(healthy):
    own = {spec.label for spec in find_recipe("fluxcal").Metrics.specs.values()}
    found = {name: flag for name, flag in flags(healthy).items() if name in own}
    assert set(found) == own
    assert set(found.values()) <= {"ok", "na"}, found
    assert flags(healthy)["ZERO POINT CHANGE"] == "na"
    assert flags(healthy)["GREY SCATTER"] == "ok"


def test_nothing_is_done_twice(files, place, healthy):
    assert healthy.products
    assert run(files, place / "healthy").unchanged


def test_one_star_has_no_scatter_and_a_floor_of_its_own(files, place, observe):
    scene = observe(STARS[:1], snr=80.0)
    one = store(reduced_of(scene, STARS[:1]), place / "one.fits")
    outcome = run({**files, "REDUCED": one}, place / "single")
    assert outcome.exit_code == 0, reasons(outcome)
    assert flags(outcome)["GREY SCATTER"] == flags(outcome)["SHAPE SCATTER"] == "na"
    found = product(outcome, "RESPONSE")
    assert "FCALRMS" not in found.calibration
    good = found.response.good
    assert ((found.response.error / found.response.value)[good] > 0.005).all()


def test_odd_stars_are_left_out_with_the_reason(files, place, observe):
    hot = lambda wave: 1e-14 * (wave / 5000.0) ** -3.6  # noqa: E731 - a featureless blue star
    odd = (
        STARS[0],
        StandardStar(6300.0, 4.3, -0.4, 15.1, 151.0, -30.0),
        StandardStar(6300.0, 4.3, -0.4, 15.1, 151.2, -30.0, variable=True),
        StandardStar(6500.0, 4.3, -0.4, 15.1, 151.3, -30.0),
        StandardStar(6500.0, 4.2, -0.6, 15.3, 151.4, -30.0),
    )
    seen = (odd[0], hot, odd[2], odd[3], odd[4])
    scene = observe(odd, snr=80.0, seen=seen, losses=(1.0, 1.0, 1.0, 0.5, 1.0))
    path = store(reduced_of(scene, odd), place / "odd.fits")
    catalogue = write_catalogue(place / "odd.csv", odd, np.random.default_rng(3))
    outcome = run({**files, "REDUCED": path, "STD_CATALOG": catalogue}, place / "odd")
    stars = product(outcome, "RESPONSE").stars
    assert list(stars["used"]) == [True, False, False, False, True]
    said = [str(reason) for reason in stars["reason"]]
    assert said[0] == said[4] == ""
    assert "lines" in said[1]
    assert "variable" in said[2]
    assert "less light" in said[3]
    assert "rejected" in "\n".join(product(outcome, "CALIBRATED").calibration["HISTORY"])


# -- what it falls back on ---------------------------------------------------------------------


def test_response_of_another_exposure_serves_where_there_is_no_star(files, place, healthy):
    spectra = io.read_product(files["REDUCED"])
    without = spectra.replace(fibres=_with_types(spectra.fibres, "P"))
    path = store(without, place / "nostar.fits")
    response = next(path for path, tag in healthy.products if tag == "RESPONSE")
    given = {"REDUCED": path, "RESPONSE": response}
    outcome = run(given, place / "borrowed")
    assert outcome.exit_code == 0, reasons(outcome)
    assert [tag for _, tag in outcome.products] == ["CALIBRATED"]
    found = product(outcome, "CALIBRATED")
    assert found.calibration["FCALRESP"] == response.name
    assert flags(outcome)["STARS USED"] == "warn"
    first = product(healthy, "CALIBRATED").spectra
    good = first.good
    np.testing.assert_allclose(found.spectra.value[good], first.value[good], rtol=1e-6)


def test_exposures_of_one_run_help_each_other(files, place):
    spectra = io.read_product(files["REDUCED"])
    rng = np.random.default_rng(4)
    noisy = spectra.spectra.value + rng.normal(0, 1e-3, spectra.spectra.shape)
    without = spectra.replace(
        fibres=_with_types(spectra.fibres, "P"),
        spectra=Signal(noisy, spectra.spectra.variance, spectra.spectra.dq),
    )
    path = store(without, place / "second.fits", **{"DATE-OBS": "2026-01-29T15:53:08"})
    outcome = run(files, place / "both", f"{path} REDUCED")
    assert outcome.exit_code == 0, reasons(outcome)
    assert sorted(tag for _, tag in outcome.products) == ["CALIBRATED", "CALIBRATED", "RESPONSE"]
    assert any("calibrated with the response of a.fits" in text for text in _logged(outcome))


def test_zero_point_is_compared_with_the_response_given(files, place, healthy):
    response = next(path for path, tag in healthy.products if tag == "RESPONSE")
    outcome = run({**files, "RESPONSE": response}, place / "compared")
    assert flags(outcome)["ZERO POINT CHANGE"] == "ok"
    change = next(row.value for row in outcome.qc if row.name == "ZERO POINT CHANGE")
    assert change == pytest.approx(0.0, abs=1e-4)


# -- what it refuses ---------------------------------------------------------------------------


def _with_types(fibres, kind):
    table = fibres.copy()
    table["TYPE"] = kind
    return table


def _logged(outcome):
    path = outcome.products[0][0].with_suffix(".log")
    return path.read_text().splitlines()


def refused(outcome, output, code, *words):
    assert outcome.exit_code == code, reasons(outcome)
    for word in words:
        assert word in reasons(outcome)
    assert not list(output.glob("*.fits"))


def test_no_standard_fibre_is_refused(files, place):
    spectra = io.read_product(files["REDUCED"])
    path = store(spectra.replace(fibres=_with_types(spectra.fibres, "P")), place / "p.fits")
    outcome = run({**files, "REDUCED": path}, place / "no_c")
    refused(outcome, place / "no_c", 1, "no fibre looks at a standard star", "RESPONSE")


def test_catalogue_without_the_star_is_refused(files, place):
    far = write_catalogue(place / "far.csv", [StandardStar(6000.0, 4.3, -0.5, 15.0, 10.0, 10.0)])
    outcome = run({**files, "STD_CATALOG": far}, place / "far")
    refused(outcome, place / "far", 1, "not in the catalogue", "arcsec away")


def test_star_without_any_magnitude_is_refused(files, place):
    import dataclasses

    columns = ("Gaia", "BP", "RP", "g", "r", "i", "z", "J", "H", "K")
    stars = [dataclasses.replace(star, missing=columns) for star in STARS]
    empty = write_catalogue(place / "empty.csv", stars)
    outcome = run({**files, "STD_CATALOG": empty}, place / "empty")
    refused(outcome, place / "empty", 1, "no magnitude in any band")


@pytest.mark.parametrize("text", ["", "RA,Dec\n1,2\n", "this is no catalogue\n", "a,b\n1\n2,3,4\n"])
def test_catalogue_that_is_none_is_refused(files, place, text):
    path = place / "nonsense.csv"
    path.write_text(text)
    outcome = run({**files, "STD_CATALOG": path}, place / "nonsense")
    refused(outcome, place / "nonsense", 3, "nonsense.csv", "catalogue of standard stars")


def test_empty_library_is_refused(files, place):
    empty = place / "no_templates"
    empty.mkdir()
    outcome = run({**files, "TEMPLATES": empty}, place / "no_library")
    refused(outcome, place / "no_library", 3, "no template library", "kspec templates download")


def test_half_downloaded_library_is_refused(files, place, folder):
    import shutil

    from kspecpipe.fluxcal.templates import write_index

    half = place / "half"
    shutil.copytree(folder, half)
    write_index(half)
    for path in sorted(half.rglob("*.txt.gz"))[::2]:
        path.unlink()
    outcome = run({**files, "TEMPLATES": half}, place / "half_library")
    refused(outcome, place / "half_library", 3, "incomplete", "missing")


def test_library_of_several_resolutions_is_refused(files, place, folder):
    import shutil

    mixed = place / "mixed"
    shutil.copytree(folder, mixed)
    (mixed / "bosz2024_wave_r500.txt").write_text("3000\n4000\n")
    outcome = run({**files, "TEMPLATES": mixed}, place / "mixed_library")
    refused(outcome, place / "mixed_library", 3, "resolutions (500, 2000)")


def test_library_coarser_than_the_spectra_is_told(files, place):
    spectra = io.read_product(files["REDUCED"])
    sharp = store(spectra.replace(lsf=spectra.lsf / 6), place / "sharp.fits")
    outcome = run({**files, "REDUCED": sharp}, place / "coarse")
    assert "templates of resolution 2000 are coarser than the spectra" in reasons(outcome)


def test_file_in_place_of_the_library_is_refused(files, place):
    path = place / "plain.txt"
    path.write_text("no folder\n")
    outcome = run({**files, "TEMPLATES": path}, place / "file_library")
    refused(outcome, place / "file_library", 3, "no folder plain.txt of templates")


def test_calibrated_spectra_are_not_calibrated_again(files, place, healthy):
    done = next(path for path, tag in healthy.products if tag == "CALIBRATED")
    outcome = run({**files, "REDUCED": done}, place / "twice")
    refused(outcome, place / "twice", 3, "PRO.CATG is CALIBRATED")


def test_spectra_that_only_claim_to_be_reduced_are_refused(files, place):
    path = place / "claims.fits"
    store(io.read_product(files["REDUCED"]), path, FLUXCAL=True)
    outcome = run({**files, "REDUCED": path}, place / "claims")
    refused(outcome, place / "claims", 1, "calibrated already", "Give the REDUCED spectra")


def test_response_of_another_mode_is_refused(files, place, healthy):
    path = place / "other_mode.fits"
    with fits.open(next(p for p, tag in healthy.products if tag == "RESPONSE")) as hdus:
        hdus[0].header["INSMODE"] = "600_680"
        hdus.writeto(path)
    outcome = run({"REDUCED": files["REDUCED"], "RESPONSE": path}, place / "mode")
    refused(outcome, place / "mode", 3, "600_680", "150_620")


def test_response_on_another_grid_is_refused(files, place, healthy):
    path = place / "other_grid.fits"
    found = product(healthy, "RESPONSE")
    moved = found.replace(axis={**found.axis, "CRVAL1": 3700.0})
    store(moved, path, **{"ESO PRO CATG": "RESPONSE"})
    outcome = run({"REDUCED": files["REDUCED"], "RESPONSE": path}, place / "grid")
    refused(outcome, place / "grid", 1, "belongs to another mode")


@pytest.mark.parametrize("left", ["STD_CATALOG", "TEMPLATES", None])
def test_neither_stars_nor_response_is_a_missing_calibration(files, place, left):
    given = {tag: path for tag, path in files.items() if tag in ("REDUCED", left)}
    outcome = run(given, place / f"missing_{left}")
    refused(outcome, place / f"missing_{left}", 5, "STD_CATALOG with TEMPLATES is needed")


def test_response_without_any_sample_is_refused(files, place, healthy):
    found = product(healthy, "RESPONSE")
    empty = Signal.of(np.full(found.response.shape, np.nan))
    path = place / "no_sample.fits"
    store(found.replace(response=empty), path, **{"ESO PRO CATG": "RESPONSE"})
    outcome = run({"REDUCED": files["REDUCED"], "RESPONSE": path}, place / "hollow")
    refused(outcome, place / "hollow", 1, "no_sample.fits has no usable sample")


def test_second_response_is_refused(files, place, healthy):
    response = next(path for path, tag in healthy.products if tag == "RESPONSE")
    found = io.read_product(response)
    other = store(found, place / "again.fits", **{"ESO PRO CATG": "RESPONSE", "EXPTIME": 1.0})
    outcome = run({**files, "RESPONSE": response}, place / "two", f"{other} RESPONSE")
    assert outcome.exit_code == 3


# -- its inputs --------------------------------------------------------------------------------


def test_assignment_names_the_standards_anew(files, place):
    spectra = io.read_product(files["REDUCED"])
    path = store(spectra.replace(fibres=_with_types(spectra.fibres, "P")), place / "unnamed.fits")
    rows = [(1, STARS[0], 8), (2, STARS[1], 8), (3, STARS[2], 1), (4, STARS[2], 5)]
    lines = [f"{i} 0 0 {star.ra} {star.dec} 1 {kind}" for i, star, kind in rows]
    assignment = place / "tile_046.assign.txt"
    assignment.write_text("\n".join(lines) + "\n")
    outcome = run({**files, "REDUCED": path, "ASSIGN": assignment}, place / "assigned")
    assert outcome.exit_code in (0, 4), reasons(outcome)
    assert list(product(outcome, "RESPONSE").stars["used"]) == [True, True]


def test_spectra_without_airmass_keep_the_extinction_in_the_response(files, place):
    spectra = io.read_product(files["REDUCED"])
    fibres = Table(spectra.fibres)
    fibres["AIRMASS"] = np.nan
    path = store(spectra.replace(fibres=fibres), place / "no_airmass.fits")
    outcome = run({**files, "REDUCED": path}, place / "no_airmass")
    assert outcome.exit_code == 0, reasons(outcome)
    found = product(outcome, "CALIBRATED")
    assert found.calibration["FCALEXT"] == "none"
    assert (found.extinction == 0).all()


# -- its pictures ------------------------------------------------------------------------------


def test_picture_of_the_response_shows_every_used_star(healthy):
    found = product(healthy, "RESPONSE")
    figure = plots.draw(found)
    curves, residuals = figure.axes[0].lines, figure.axes[1].lines
    assert [line.get_label() for line in curves] == ["combined", "fibre_001", "fibre_002"]
    np.testing.assert_allclose(curves[1].get_ydata(), found.vectors[0])
    assert len(residuals) == 2
    assert len(figure.axes) == 6
    figure.canvas.draw()


def test_picture_of_the_spectra_shows_standards_and_program_fibres(healthy):
    found = product(healthy, "CALIBRATED")
    figure = plots.draw(found)
    standards, program, sky = figure.axes
    assert [line.get_label() for line in program.lines] == ["3 P"]
    assert len(standards.lines) == 2
    good = found.spectra.good[2]
    np.testing.assert_allclose(program.lines[0].get_ydata()[good], found.spectra.value[2][good])
    assert len(sky.lines) == 1
    figure.canvas.draw()


def test_picture_of_spectra_without_standards_and_without_sky_is_drawn(healthy):
    found = product(healthy, "CALIBRATED")
    bare = found.replace(fibres=_with_types(found.fibres, "U"), sky=np.full_like(found.sky, np.nan))
    assert not any(axis.lines for axis in plots.draw(bare).axes)


# -- its audit ---------------------------------------------------------------------------------


def test_audit_rebuilds_the_spectra_from_reduced_and_response(healthy, files, capsys):
    path = next(path for path, tag in healthy.products if tag == "CALIBRATED")
    words = ["audit", str(path), "--with", f"REDUCED={files['REDUCED']}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "rebuilt from a.fits and 20260129_150_620_response_tile_046_145308.fits" in said
    assert "unmatched samples: 0" in said


def test_audit_notices_a_spectrum_that_was_changed(healthy, files, place, capsys):
    response = next(path for path, tag in healthy.products if tag == "RESPONSE")
    path = place / "changed.fits"
    with fits.open(next(p for p, tag in healthy.products if tag == "CALIBRATED")) as hdus:
        hdus[0].data[1, 300] *= 1.001
        hdus.writeto(path, checksum=True)
    partners = [f"REDUCED={files['REDUCED']}", f"RESPONSE={response}"]
    assert main(["audit", str(path), *(w for p in partners for w in ("--with", p))]) == 4
    assert "PRIMARY    0.0" in capsys.readouterr().out


def test_audit_asks_for_the_reduced_spectra(healthy, place, capsys):
    path = place / "all" / "alone"
    path.mkdir(parents=True)
    product = next(path for path, tag in healthy.products if tag == "CALIBRATED")
    (path / product.name).write_bytes(product.read_bytes())
    assert main(["audit", str(path / product.name)]) == 3
    assert "--with REDUCED=PATH" in capsys.readouterr().err
