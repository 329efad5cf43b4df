"""The life of a run, with a recipe so small that every step can be foreseen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import kspecpipe
from kspecpipe import io
from kspecpipe.base_recipe import BaseRecipe, find_recipe, recipe_names, run_recipe
from kspecpipe.declare import Declared, calibration, metric, parameter, product, raw
from kspecpipe.errors import ExitCode, InputError, RecipeError, SettingsError
from kspecpipe.frame import FrameStack
from kspecpipe.framework import execution
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.products.images import BadPixelMap, MasterBias, PixelFlat
from kspecpipe.quality.common_metrics import CommonMetrics
from kspecpipe.signal import Signal


class Tiny(BaseRecipe):
    """Average what is there."""

    name = "tiny"

    class Inputs(Declared):
        objects: FrameStack = raw("OBJECT", recommended=2, doc="objects")
        bias: MasterBias | None = calibration("MASTER_BIAS", default=None, doc="bias")

    class Parameters(Declared):
        scale: float = parameter(1.0, above=0, doc="factor")
        accident: str = parameter("", affects_result=False, doc="what goes wrong")

    class Products(Declared):
        image: PixelFlat = product("PIXEL_FLAT", doc="average")
        each: list[BadPixelMap] = product("BAD_PIXEL_MAP", per_exposure=True, required=False)

    class Metrics(Declared):
        level: float = metric("LEVEL", unit="adu")
        drift: list[float] = metric("DRIFT", scope="exposure")
        star: float = metric("STAR", needs="a star")

    def run(self, inputs: Any, parameters: Any) -> tuple[Any, Any]:
        errors = {
            "recipe": RecipeError("the star is too faint"),
            "bug": KeyError("forgotten"),
            "disk": OSError(28, "No space left on device"),
        }
        if parameters.accident in errors:
            raise errors[parameters.accident]
        frames = inputs.objects.rows(0, inputs.objects.shape[1])
        image = Signal.of(frames.mean(axis=0) * parameters.scale, 1.0)
        self.keep(PixelFlat(image=image))
        self.log.info("%d frames", len(frames))
        maps = [BadPixelMap(dq=np.zeros(image.shape, np.uint16)) for _ in frames]
        level = np.nan if parameters.accident == "nan" else float(image.value.mean())
        products = self.Products(image=PixelFlat(image=image), each=maps)
        return products, self.Metrics(level=level, drift=[float(f.mean()) for f in frames])


@pytest.fixture
def objects(camera):
    return [camera.frame(tag="OBJECT", OBJECT=f"tile_{i}", exptime=60.0) for i in range(2)]


@pytest.fixture
def run(camera, monkeypatch):
    monkeypatch.setattr(execution, "recipe_names", lambda: ["tiny", "mbias"])

    def tiny(source, **options):
        base = {"instrument": str(camera.instrument), "output": camera.output, "plots": "none"}
        recipe = Tiny(log=False, inputFrames=source, options=RunOptions(**(base | options)))
        return recipe.execute()

    return tiny


def names(outcome):
    return [path.name for path, _ in outcome.products]


def test_a_run_writes_products_tables_logs_and_history(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"))
    assert outcome.exit_code == ExitCode.OK
    assert names(outcome) == [
        "20260129_blue_pixel_flat.fits",
        "20260129_blue_bad_pixel_map_tile_0_200100.fits",
        "20260129_blue_bad_pixel_map_tile_1_200200.fits",
    ]
    stems = [name.removesuffix(".fits") for name in names(outcome)]
    expected = {f"{s}{end}" for s in stems for end in (".fits", ".log", "_qc.ecsv")}
    assert {path.name for path in camera.output.iterdir()} == expected | {"qc.sqlite"}
    assert {"load", "run", "write", "total"} <= set(outcome.timing)
    assert "2 frames" in (camera.output / f"{stems[0]}.log").read_text()
    table = Table.read(camera.output / f"{stems[0]}_qc.ecsv")
    common = [spec.label for spec in CommonMetrics.specs.values()]
    assert list(table["name"]) == ["LEVEL", "DRIFT", "DRIFT", "STAR", *common, "FRAMES OBJECT"]
    with sqlite3.connect(camera.output / "qc.sqlite") as store:
        assert store.execute("SELECT COUNT(*) FROM products").fetchone() == (3,)
    store.close()


def test_products_of_an_exposure_know_that_exposure_alone(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"))
    second = outcome.products[2][0]
    header = io.read_header(second)
    assert (header["OBJECT"], header["DATE-OBS"][:19]) == ("tile_1", "2026-01-29T20:02:00")
    table = io.read_table(second, "QC")
    assert [str(e) for e in table["exposure"] if e] == [objects[1].name]


def test_settings_are_stored_with_the_layer_that_set_them(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"), assignments=("tiny.scale=2",))
    table = io.read_table(outcome.products[0][0], "SETTINGS")
    assert [(r["name"], r["value"], r["source"]) for r in table] == [
        ("scale", "2.0", "--set tiny.scale=2"),
        ("accident", "", "default"),
    ]
    np.testing.assert_allclose(
        io.read_product(outcome.products[0][0]).image.value.mean(), 1200, 0.01
    )


def test_equal_runs_do_nothing_and_say_so(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    first = run(sof)
    stamps = [path.stat().st_mtime_ns for path, _ in first.products]
    second = run(sof)
    assert second.unchanged
    assert second.exit_code == first.exit_code
    assert names(second)[0] == names(first)[0]
    assert [path.stat().st_mtime_ns for path, _ in first.products] == stamps
    assert [(r.name, r.exposure, r.unit, r.flag) for r in second.qc][:3] == [
        (r.name, r.exposure, r.unit, r.flag) for r in first.qc
    ][:3]


def test_products_of_other_content_are_not_replaced_unasked(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    first = run(sof)
    before = first.products[0][0].read_bytes()
    other = run(sof, assignments=("tiny.scale=2",))
    assert other.exit_code == ExitCode.NO_PRODUCT
    assert "exists in" in other.errors[0]
    assert "--overwrite" in other.errors[0]
    assert first.products[0][0].read_bytes() == before
    third = run(sof, assignments=("tiny.scale=2",), overwrite=True)
    assert third.exit_code == ExitCode.OK
    assert first.products[0][0].read_bytes() != before


def test_a_file_in_the_way_that_is_no_product_is_not_replaced_unasked(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    path = run(sof).products[0][0]
    path.write_text("notes")
    assert run(sof).exit_code == ExitCode.NO_PRODUCT
    assert path.read_text() == "notes"
    assert run(sof, overwrite=True).exit_code == ExitCode.OK


def test_equal_runs_write_equal_bytes(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    one, two = run(sof), run(sof, output=camera.folder / "again")
    for (a, _), (b, _) in zip(one.products, two.products, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_limits_judge_and_products_that_failed_are_written(camera, run, objects):
    limits = {"tiny": {"qc": {"LEVEL": {"fail": [0, 1]}}}}
    outcome = run(camera.sof_of(objects, "OBJECT"), settings=limits)
    assert outcome.exit_code == ExitCode.QC_FAILED
    assert len(outcome.products) == 3
    assert io.read_header(outcome.products[0][0])["ESO QC LEVEL FLAG"] == "fail"


def test_limits_of_today_judge_existing_products_again(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    assert run(sof).exit_code == ExitCode.OK
    again = run(sof, settings={"tiny": {"qc": {"LEVEL": {"fail": [0, 1]}}}})
    assert again.unchanged
    assert again.exit_code == ExitCode.QC_FAILED


def test_what_was_not_measured_counts_as_failed(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"), assignments=("tiny.accident=nan",))
    assert outcome.exit_code == ExitCode.QC_FAILED


def test_a_precondition_that_does_not_hold_is_no_failure(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"))
    assert [row.flag for row in outcome.qc if row.name == "STAR"] == ["na"]


@pytest.mark.parametrize(
    ("accident", "code", "words"),
    [
        ("recipe", 1, "the star is too faint"),
        ("bug", 1, "internal error in tiny: KeyError"),
        ("disk", 1, "No space left"),
    ],
)
def test_a_run_that_fails_leaves_its_reason_and_nothing_else(
    camera, run, objects, accident, code, words
):
    outcome = run(camera.sof_of(objects, "OBJECT"), assignments=(f"tiny.accident={accident}",))
    assert outcome.exit_code == code
    assert outcome.products == ()
    assert words in outcome.errors[0]
    assert {p.name for p in camera.output.iterdir()} == {"tiny_failed.log", "qc.sqlite"}
    assert words in (camera.output / "tiny_failed.log").read_text()
    with sqlite3.connect(camera.output / "qc.sqlite") as store:
        (row,) = store.execute("SELECT exit_code, message FROM runs").fetchall()
    store.close()
    assert row[0] == code
    assert words in row[1]


def test_debug_shows_where_a_bug_is(camera, run, objects):
    with pytest.raises(KeyError):
        run(camera.sof_of(objects, "OBJECT"), assignments=("tiny.accident=bug",), debug=True)


def test_no_save_judges_and_writes_nothing(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"), save=False)
    assert outcome.exit_code == ExitCode.OK
    assert len(outcome.qc) == 5 + len(CommonMetrics.specs)
    assert outcome.products == ()
    assert not camera.output.exists()


def test_no_save_writes_nothing_on_failure_either(camera, run, objects):
    outcome = run(
        camera.sof_of(objects, "OBJECT"), save=False, assignments=("tiny.accident=recipe",)
    )
    assert outcome.exit_code == ExitCode.NO_PRODUCT
    assert not camera.output.exists()


def test_intermediate_products_are_kept_on_request(camera, run, objects):
    sof = camera.sof_of(objects, "OBJECT")
    kept = run(sof, save_intermediate=True)
    assert "20260129_blue_pixel_flat_tiny.fits" in names(kept)
    assert len(names(kept)) == 4


def test_separate_treats_each_frame_by_itself(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT", str(camera.master_bias())), separate=True)
    # Both would be the same PIXEL_FLAT of the same night: the second is refused, the first kept.
    assert outcome.exit_code == ExitCode.NO_PRODUCT
    assert "exists in" in "\n".join(outcome.errors)
    outcome = run(
        camera.sof_of(objects, "OBJECT", str(camera.master_bias())), separate=True, overwrite=True
    )
    assert outcome.exit_code == ExitCode.OK
    assert names(outcome).count("20260129_blue_pixel_flat.fits") == 2


def test_separate_finds_its_frames_in_a_folder(camera, run, objects):
    bias = camera.frame()
    outcome = run([*objects, bias], separate=True, overwrite=True)
    assert outcome.exit_code == ExitCode.OK
    assert len(outcome.products) == 4
    assert sum("BIAS is not used" in text for text in outcome.warnings) == 2


def test_separate_runs_go_on_after_a_bad_frame(camera, run, objects):
    bad = camera.folder / "bad.fits"
    bad.write_text("no FITS")
    sof = camera.sof(f"{bad.name} OBJECT", f"{objects[0].name} OBJECT")
    outcome = run(sof, separate=True)
    assert outcome.exit_code == ExitCode.INPUTS
    assert len(outcome.products) == 2


def test_a_wrong_setting_is_a_usage_error(camera, run, objects):
    outcome = run(camera.sof_of(objects, "OBJECT"), assignments=("tiny.scale=0",))
    assert outcome.exit_code == ExitCode.USAGE
    assert outcome.errors == ("--set tiny.scale=0: tiny.scale: 0.0 is not above 0",)


def test_instrument_facts_can_be_overridden(camera, run, objects):
    text = "instrument: {detector: {layouts: {'48x64': {amplifiers: [{data: [0, 48, 0, 32]}]}}}}"
    path = camera.folder / "own.yaml"
    path.write_text(text)
    outcome = run(camera.sof_of(objects, "OBJECT"), settings_files=(path,))
    assert io.read_product(outcome.products[0][0]).image.shape == (48, 32)
    assert run(camera.sof_of(objects, "OBJECT"), output=camera.folder / "x").products


def test_mode_settings_beside_the_instrument_are_used(camera, run, objects):
    (camera.folder / "tiny_blue.yaml").write_text("tiny: {parameters: {scale: 3}}")
    outcome = run(camera.sof_of(objects, "OBJECT"))
    assert io.read_header(outcome.products[0][0])["ESO PRO REC1 PARAM1 VALUE"] == 3.0


@pytest.mark.parametrize("cores", [1, 2])
def test_pictures_that_fail_are_a_warning(camera, run, objects, monkeypatch, cores):
    def fail(product, rows):
        raise ValueError(f"no picture of {product.catg} with {len(rows)} metrics")

    monkeypatch.setattr("kspecpipe.plots.draw", fail)
    outcome = run(camera.sof_of(objects, "OBJECT"), plots="file", cores=cores)
    assert outcome.exit_code == ExitCode.OK
    assert outcome.pictures == ()
    assert any("no picture" in text for text in outcome.warnings)
    assert "no picture" in outcome.products[0][0].with_suffix(".log").read_text()


def test_pictures_stand_beside_their_products(camera, run, objects):
    outcome = run(camera.sof_of(objects[:1], "OBJECT"), plots="file")
    assert [p.name for p in outcome.pictures] == [
        name.replace(".fits", ".png") for name in names(outcome)
    ]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in outcome.pictures)


# -- the call of soxspipe ----------------------------------------------------------------------


def test_produce_product_returns_paths_or_raises(camera, objects):
    options = RunOptions(instrument=str(camera.instrument), output=camera.output, plots="none")
    recipe = Tiny(log=False, inputFrames=camera.sof_of(objects, "OBJECT"), options=options)
    paths = recipe.produce_product()
    assert all(isinstance(path, str) and path.endswith(".fits") for path in paths)
    with pytest.raises(InputError, match="no such file"):
        Tiny(log=False, inputFrames="none.sof", options=options).produce_product()
    with pytest.raises(RecipeError, match="exists in"):
        (camera.output / "20260129_blue_pixel_flat.fits").write_text("x")
        recipe.produce_product()


def test_settings_and_overwrite_are_arguments_too(camera):
    recipe = Tiny(
        settings={"tiny": {"parameters": {"scale": 2}}}, verbose=True, overwrite=True, log=False
    )
    assert recipe.options.settings["tiny"]["parameters"]["scale"] == 2
    assert recipe.options.overwrite
    assert recipe.options.verbosity == 1
    assert camera


def test_no_input_is_an_outcome_and_no_exception(run):
    assert run(None).exit_code == ExitCode.INPUTS


def test_a_recipe_without_instrument_says_what_it_needs():
    with pytest.raises(SettingsError, match="instrument=..."):
        assert Tiny(log=False).setup


# -- finding recipes ---------------------------------------------------------------------------


def test_recipes_are_found_by_name():
    assert find_recipe("mbias").name == "mbias"
    assert {"mbias", "mdark"} <= set(recipe_names())
    with pytest.raises(SettingsError, match=r"unknown recipe 'mbais'; did you mean 'mbias'\?"):
        find_recipe("mbais")


def test_every_recipe_is_documented_and_declares_what_it_needs():
    for name in recipe_names():
        recipe = find_recipe(name)
        assert recipe.name == name
        assert recipe.__doc__
        for group in (recipe.Inputs, recipe.Parameters, recipe.Products, recipe.Metrics):
            for field, spec in group.specs.items():
                assert spec.doc, f"{name}: {field} has no line of documentation"
                assert group.type_of(field)
        assert [s.product_class for s in recipe.Products.specs.values()]


@pytest.mark.parametrize(
    ("value", "words"),
    [("kspecpipe.none:X", "cannot be loaded"), ("pathlib:Path", "no BaseRecipe")],
)
def test_broken_plug_ins_are_settings_errors(monkeypatch, value, words):
    point = EntryPoint("odd", value, "kspecpipe.recipes")
    monkeypatch.setattr("kspecpipe.base_recipe.recipe_points", lambda: {"odd": point})
    with pytest.raises(SettingsError, match=words):
        find_recipe("odd")


def test_a_plug_in_that_fails_in_any_way_is_a_settings_error(monkeypatch, tmp_path):
    (tmp_path / "odd_recipe.py").write_text("raise TypeError('half a class')\n")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("odd", "odd_recipe:X", "kspecpipe.recipes")
    monkeypatch.setattr("kspecpipe.base_recipe.recipe_points", lambda: {"odd": point})
    with pytest.raises(SettingsError, match=r"'odd' cannot be loaded: half a class"):
        find_recipe("odd")


def test_the_package_exports_its_names_lazily():
    code = (
        "import sys, kspecpipe, kspecpipe.cli; print('numpy' in sys.modules,"
        "'rich' in sys.modules);"
        "print(kspecpipe.run_recipe.__name__, kspecpipe.find_recipe('mbias').name,"
        "kspecpipe.read_product.__name__, kspecpipe.load_instrument('isoplane').name)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == [
        "False False",
        "run_recipe mbias read_product isoplane",
    ]


def test_unknown_names_of_the_package_are_attribute_errors():
    assert {"find_recipe", "run_recipe", "__version__"} <= set(dir(kspecpipe))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        assert kspecpipe.nothing


def test_run_recipe_takes_paths_as_text(camera):
    sof = camera.sof_of(camera.biases(3))
    outcome = run_recipe(
        "mbias",
        str(sof),
        log=False,
        output=str(camera.output),
        instrument=str(camera.instrument),
        plots="none",
    )
    assert outcome.exit_code == ExitCode.OK
    assert replace(outcome, timing={}).recipe == "mbias"
    with fits.open(outcome.products[0][0]) as hdus:
        assert hdus[0].header["HIERARCH ESO PRO REC1 ID"] == "mbias"
