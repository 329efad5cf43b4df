"""Manual pages hold everything that is declared, in three forms."""

from typing import Any

import pytest

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.cli.main import EXIT_CODES
from kspecpipe.cli.manual import page_of, recipe_page
from kspecpipe.cli.reference import sections
from kspecpipe.configuration.instrument_schema import InstrumentFacts
from kspecpipe.configuration.schema import yaml_keys
from kspecpipe.declare import Declared, calibration, metric, parameter, product, raw, user_file
from kspecpipe.errors import ExitCode
from kspecpipe.framework.registry import recipe_names
from kspecpipe.products.product import Product
from kspecpipe.signal import DQ


class Sample(BaseRecipe):
    """Do one thing of every kind.

    A second paragraph, with `code` and <angles> | pipes.
    """

    name = "sample"

    class Inputs(Declared):
        flats: Any = raw(
            "FLAT",
            at_least=2,
            recommended=7,
            at_most=9,
            match=("mode", "exptime"),
            tolerance={"exptime": 0.25},
            doc="lamp flats",
        )
        dark: Any = calibration(
            "MASTER_DARK", default=None, several="nearest_exptime", maximum_age=3.5, doc="rate"
        )
        bias: Any = calibration("MASTER_BIAS", doc="zero")
        names: Any = user_file("ASSIGN", default=None, doc="who is who")

    class Parameters(Declared):
        depth: float | None = parameter(None, unit="electron", above=0, at_most=8, doc="how deep")
        quick: bool = parameter(True, affects_result=False, doc="how quick")

    class Products(Declared):
        traces: Any = product("TRAMLINE_MAP", qualifier="sample", doc="where fibres run")
        spectra: Any = product("REDUCED", per_exposure=True, required=False, doc="spectra")

    class Metrics(Declared):
        spread: float = metric(
            "ODD SPREAD", unit="pixel", scope="fibre", doc="how odd", needs="two fibres"
        )


SAID = [
    "Do one thing of every kind.",
    "A second paragraph",
    "2 to 9, 7 recommended",
    "exptime (to 25 %)",
    "of several, the nearest in exposure time is taken",
    "older than 3.5 days: warning",
    "number or null",
    "> 0, <= 8",
    "how quick (does not affect the result)",
    "DATE_MODE_tramline_map_sample.fits",
    "DATE_MODE_reduced_EXPOSURE.fits",
    "(one for each exposure, not always written)",
    "PROFILE",
    "electron2",
    "CALIBRATION AGE",
    "largest distance in time between a calibration and the first raw frame; only where",
    "ODD SPREAD",
    "per fibre",
    "how odd; only where two fibres",
    "number of FLAT frames (warning below 7)",
    *EXIT_CODES.values(),
    "raw/flat_2.fits FLAT",
    "# optional: products/master_dark.fits MASTER_DARK",
    'run_recipe("sample", "sample.sof", output="products")',
]


@pytest.mark.parametrize("text", SAID)
def test_page_says_all_that_is_declared(text):
    page = recipe_page(Sample)
    assert text in page.rst()
    assert text.replace("<", r"\<") in page.markdown() or text in page.markdown()


@pytest.mark.parametrize("name", [*recipe_names(), "instrument", "products"])
def test_rst_pages_are_valid_and_complete(name):
    core = pytest.importorskip("docutils.core")  # comes with the extra `docs`
    messages = core.publish_doctree(
        page_of(name).rst(), settings_overrides={"report_level": 5, "halt_level": 5}
    )
    problems = [n.astext() for n in messages.findall() if n.tagname == "system_message"]
    assert problems == []


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_page_with_all_parameters_and_metrics(kspec, name):
    recipe = find_recipe(name)
    result = kspec("man", name)
    assert result.code == 0
    words = [*recipe.Parameters.specs]
    words += [spec.label for spec in recipe.Metrics.specs.values()]
    words += [spec.tag for spec in recipe.Inputs.specs.values()]
    words += [spec.catg for spec in recipe.Products.specs.values()]
    assert len(words) > 3
    for word in words:
        assert word in result.out


def test_limits_of_the_shipped_modes_are_on_the_page(kspec):
    assert "READ NOISE RATIO" in kspec("man", "mbias").out
    page = kspec("man", "mbias", "--md").out
    assert "| READ NOISE RATIO | isoplane" in page


def test_markdown_escapes_what_would_break_a_table():
    assert r"\<= 8" in recipe_page(Sample).markdown()
    for line in recipe_page(Sample).markdown().splitlines():
        assert not line.startswith("|") or line.endswith(" |")


@pytest.mark.parametrize("columns", ["60", "80", "240"])
def test_page_fits_the_terminal(kspec, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    out = kspec("man", "mdark").out
    prose = [line for line in out.splitlines() if not line.startswith(" " * 8)]
    assert max(map(len, prose)) <= int(columns)
    assert "clipping_sigma" in out


def test_instrument_page_names_every_key_of_the_schema():
    page = page_of("instrument").markdown()
    count = 0
    for path, schema in sections(InstrumentFacts, "instrument"):
        assert f"## {path}\n" in page
        for key in yaml_keys(schema):
            assert f"| {key} |" in page
            count += 1
    assert count > 60
    assert "| longitude | required | deg east | number |" in page


def test_product_page_names_every_product_and_every_bit():
    page = page_of("products").markdown()
    assert len(Product.known) >= 9
    for catg, cls in Product.known.items():
        assert f"## {catg}\n" in page
        for part in cls.hdus().values():
            assert part.hdu.replace(",", ", ") in page
    for bit in DQ:
        assert f"| {int(bit)} |" in page


def test_exit_codes_are_those_of_the_package():
    assert sorted(EXIT_CODES) == sorted(int(code) for code in ExitCode)


def test_unknown_page_is_answered_with_the_nearest(kspec):
    result = kspec("man", "mbais")
    assert result.code == 2
    assert "did you mean 'mbias'?" in result.err


def test_recipes_are_listed_in_the_order_of_a_night(kspec):
    out = kspec("recipes").out
    places = [out.index(f"\n{name} " if name != "mbias" else "mbias ") for name in ORDER]
    assert places == sorted(places)
    assert "DARK + MASTER_BIAS -> MASTER_DARK + BAD_PIXEL_MAP" in out


ORDER = ("mbias", "mdark", "tlm", "mflat", "marc", "object")


def test_recipe_that_cannot_be_loaded_is_listed_with_the_reason(kspec, monkeypatch):
    from kspecpipe.cli import listing

    monkeypatch.setattr(listing, "recipe_names", lambda: ["nowhere"])
    result = kspec("recipes")
    assert result.code == 0
    assert "unknown recipe 'nowhere'" in result.out
