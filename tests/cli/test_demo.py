"""`kspec demo`: the chain by the same code as the command line."""

import dataclasses

import pytest

from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli import demo
from kspecpipe.cli.demo import MODES, Step, steps, tags_of
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.outcome import Outcome
from kspecpipe.simulate import FrameCounts

FEW = dataclasses.replace(
    demo.PLAN, counts=FrameCounts(bias=3, dark=1, flat=0, arc=0, object=0), layout="1300x1340"
)


def test_biases_and_darks_are_simulated_and_reduced(kspec, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PLAN", FEW)
    folder = tmp_path / "demo"
    result = kspec("demo", "-o", folder, "--until", "mdark")
    products = sorted(path.name for path in (folder / "products").glob("*.fits"))
    assert result.code == 0, result.out
    assert {name.split("_high_")[1] for name in products} == {
        "2400s_bad_pixel_map_mdark.fits",
        "2400s_master_dark.fits",
        "master_bias.fits",
    }
    for name in products:
        assert name in result.out
    assert "look at" in result.out
    assert "demo: ok" in result.out
    assert " MASTER_BIAS" in (folder / "raw" / "dark.sof").read_text()


def test_every_step_takes_what_earlier_ones_made():
    chain = steps(MODES)
    fed: dict[str, set[str]] = {step.sof: set() for step in chain}
    for step in chain:
        specs = find_recipe(step.recipe).Inputs.specs.values()
        for spec in specs:
            if spec.required and spec.kind == "calibration":
                assert set(spec.tags) & fed[step.sof], (step, spec.tags)
        assert len({tag for tag in fed[step.sof] if tag in ("REDUCED", "CALIBRATED")}) <= 1
        made = {spec.catg for spec in find_recipe(step.recipe).Products.specs.values()}
        for name in step.feeds:
            fed[name] |= made & tags_of(next(s.recipe for s in chain if s.sof == name))
    assert fed["splice"] == {"COADDED"}
    assert [step.recipe for step in chain].count("coadd") == len(MODES)


def test_products_go_only_to_those_who_take_them(kspec, tmp_path, monkeypatch):
    def reduce(recipe, *_):
        made = [(tmp_path / f"{recipe}.fits", tag) for tag in ("MASTER_BIAS", "RESPONSE")]
        return Outcome(recipe, ExitCode.OK, products=tuple(made))

    pretend(monkeypatch, tmp_path, [])
    monkeypatch.setattr(demo, "reduce", reduce)
    monkeypatch.setattr(demo, "steps", lambda _: [Step("mbias", "a", ("b",)), Step("mdark", "b")])
    (tmp_path / "raw").mkdir()
    assert kspec("demo", "-o", tmp_path).code == 0
    assert (tmp_path / "raw" / "b.sof").read_text().split() == [
        str(tmp_path / "mbias.fits"),
        "MASTER_BIAS",
    ]


def pretend(monkeypatch, tmp_path, codes):
    """Replace the simulator and the recipes by ones that end with given codes."""

    class Night:
        files: tuple[str, ...] = ()

    left = iter(codes)

    def reduce(recipe, *_):
        code = next(left)
        made = code in (ExitCode.OK, ExitCode.QC_FAILED)
        return Outcome(recipe, code, products=((tmp_path / "a.fits", "OTHER"),) if made else ())

    monkeypatch.setattr(demo, "simulate", lambda *_: Night())
    monkeypatch.setattr(demo, "reduce", reduce)
    six = [
        Step(recipe, recipe) for recipe in ("mbias", "mdark", "mflat", "marc", "object", "rebin")
    ]
    monkeypatch.setattr(demo, "steps", lambda _: six)


@pytest.mark.parametrize(
    ("codes", "code", "steps"),
    [
        ([0, 0, 0, 0, 0, 0], 0, 6),
        ([0, 4, 0, 0, 0, 0], 4, 6),
        ([0, 0, 1], 1, 3),
        ([3], 3, 1),
        ([0, 4, 5], 5, 3),
    ],
)
def test_exit_code_is_that_of_the_worst_step(kspec, tmp_path, monkeypatch, codes, code, steps):
    pretend(monkeypatch, tmp_path, map(ExitCode, codes))
    result = kspec("demo", "-o", tmp_path)
    assert result.code == code
    assert result.out.count(" (exit ") == steps + (code != 0)


def test_recipe_that_cannot_be_loaded_fails_the_demo(kspec, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise SettingsError("the recipe cannot be loaded")

    pretend(monkeypatch, tmp_path, [])
    monkeypatch.setattr(demo, "reduce", missing)
    result = kspec("demo", "-o", tmp_path)
    assert result.code == 2
    assert "the recipe cannot be loaded" in result.out


def test_file_in_place_of_the_folder_is_refused(kspec, tmp_path):
    (tmp_path / "demo").touch()
    result = kspec("demo", "-o", tmp_path / "demo")
    assert result.code == 2
    assert "is a file" in result.err


def test_unknown_recipe_is_refused(kspec):
    assert kspec("demo", "--until", "mbais").code == 2


def test_seed_that_is_no_number_from_0_is_refused(kspec, tmp_path):
    result = kspec("demo", "-o", tmp_path / "demo", "--seed", "-1")
    assert result.code == 2
    assert "-1 is below 0" in result.err
    assert not (tmp_path / "demo").exists()
