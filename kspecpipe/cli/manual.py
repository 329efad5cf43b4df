"""``kspec man``: manual pages, made from the declarations alone."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator

from rich.console import Console

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.cli.document import Block, Code, Document, Heading, Paragraph, Table
from kspecpipe.cli.main import EXIT_CODES
from kspecpipe.cli.reference import (
    describe_default,
    describe_kind,
    hdu_rows,
    instrument_page,
    product_page,
)
from kspecpipe.cli.shipped import limits_of_modes
from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.declare import InputSpec, MetricSpec, ParameterSpec, ProductSpec
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.registry import recipe_names
from kspecpipe.framework.terminal import interval
from kspecpipe.quality.common_metrics import COMMON_LIMITS, CommonMetrics

#: Pages that are not of a recipe.
TOPICS = {"instrument": instrument_page, "products": product_page}
_KINDS = {"raw": "raw frames", "calibration": "product", "user": "your file", "static": "shipped"}
_SCOPES = {"frame": "one value", "exposure": "per exposure", "fibre": "per fibre"}
#: Ends of the names of the user's own files that are no plain text.
_SUFFIXES = {"STD_CATALOG": ".csv", "TEMPLATES": "/"}
_SEVERAL = {
    "error": "",
    "list": "may be several",
    "nearest_exptime": "of several, the nearest in exposure time is taken",
}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = "Print the manual page of a recipe, of the instrument file or of products."
    parser.add_argument("recipe", metavar="RECIPE", help=f"a recipe, or {' or '.join(TOPICS)}")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="as Markdown")
    form.add_argument("--rst", action="store_true", help="as reStructuredText")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print the page."""
    del name
    page = page_of(arguments.recipe)
    if arguments.md or arguments.rst:
        sys.stdout.write(page.markdown() if arguments.md else page.rst())
    else:
        page.show(Console(highlight=False))
    return int(ExitCode.OK)


def page_of(name: str) -> Document:
    """Return the page of a recipe or topic.

    Raises
    ------
    SettingsError
        If there is none of that name.
    """
    if name in TOPICS:
        return TOPICS[name]()
    known = recipe_names()
    if name not in known:
        raise SettingsError(f"no manual page {name!r}; {nearest(name, [*known, *TOPICS])}")
    return recipe_page(find_recipe(name))


def recipe_page(recipe: type[BaseRecipe]) -> Document:
    """Return the manual page of a recipe."""
    first, *rest = inspect.cleandoc(recipe.__doc__ or "").split("\n\n")
    blocks: list[Block] = [
        Paragraph(first),
        Heading("Synopsis"),
        Code(f"kspec {recipe.name} SOF [-o DIR] [--set {recipe.name}.NAME=VALUE] [options]"),
    ]
    if rest:
        blocks += [Heading("Description"), *map(Paragraph, rest)]
    blocks += [
        *_inputs(recipe),
        *_parameters(recipe),
        *_products(recipe),
        *_metrics(recipe),
        *_exit_codes(),
        *_example(recipe),
    ]
    return Document(f"kspec {recipe.name}", blocks)


def one_line(recipe: type[BaseRecipe]) -> str:
    """Return the first sentence of a recipe's documentation."""
    return inspect.cleandoc(recipe.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _inputs(recipe: type[BaseRecipe]) -> Iterator[Block]:
    yield Heading("Inputs")
    rows = [_input_row(spec) for spec in recipe.Inputs.specs.values()]
    yield Table(("tag", "kind", "number", "must agree", "meaning"), rows)
    if any(spec.kind == "raw" for spec in recipe.Inputs.specs.values()):
        yield Paragraph(
            "Each plane of a raw cube counts as one frame. What must agree is compared among the "
            "raw frames, and between calibrations and raw frames. Frames of other tags are left "
            "out with a warning."
        )


def _input_row(spec: InputSpec) -> tuple[str, ...]:
    match = ", ".join(
        f"{name} (to {100 * spec.tolerance[name]:g} %)" if name in spec.tolerance else name
        for name in spec.match
    )
    doc = [spec.doc, _SEVERAL[spec.several]]
    if spec.maximum_age is not None:
        doc.append(f"older than {spec.maximum_age:g} days: warning")
    return (
        spec.label,
        _KINDS[spec.kind],
        _how_many(spec),
        match,
        "; ".join(text for text in doc if text),
    )


def _how_many(spec: InputSpec) -> str:
    if spec.kind != "raw":
        return "1" if spec.required else "optional"
    parts = [f"{spec.at_least} or more" if spec.at_least else "optional"]
    if spec.at_most is not None:
        parts = [f"{spec.at_least} to {spec.at_most}"]
    if spec.recommended > spec.at_least:
        parts.append(f"{spec.recommended} recommended")
    return ", ".join(parts)


def _parameters(recipe: type[BaseRecipe]) -> Iterator[Block]:
    yield Heading("Parameters")
    specs: dict[str, ParameterSpec] = recipe.Parameters.specs
    if not specs:
        yield Paragraph("None.")
        return
    rows = []
    for name, spec in specs.items():
        kind = describe_kind(recipe.Parameters.type_of(name))
        doc = spec.doc if spec.affects_result else f"{spec.doc} (does not affect the result)"
        rows.append(
            (name, describe_default(spec.default), spec.rule.unit, kind, spec.rule.range, doc)
        )
    yield Table(("name", "default", "unit", "type", "range", "meaning"), rows)
    yield Paragraph(
        f"Set them with ``--set {recipe.name}.NAME=VALUE`` or in a settings file under "
        f"``{recipe.name}: {{parameters: {{...}}}}``. ``kspec params {recipe.name} SOF`` shows "
        "the values for your frames and where each comes from."
    )


def _products(recipe: type[BaseRecipe]) -> Iterator[Block]:
    yield Heading("Products")
    for spec in recipe.Products.specs.values():
        notes = ["one for each exposure"] if spec.per_exposure else []
        notes += [] if spec.required else ["not always written"]
        note = f" ({', '.join(notes)})" if notes else ""
        yield Heading(spec.catg, 3)
        yield Paragraph(f"{spec.doc or 'Product'}{note}. File: ``{_file_name(recipe, spec)}``")
        rows = [row for part in spec.product_class.hdus().values() for row in hdu_rows(part)]
        yield Table(("HDU", "unit", "type", "content"), rows)
    yield Paragraph(
        "Every product also has the tables QC and SETTINGS; its picture (.png), QC table "
        "(_qc.ecsv) and log (.log) stand beside it under the same name."
    )


def _file_name(recipe: type[BaseRecipe], spec: ProductSpec) -> str:
    mode = "readmode" if recipe.by_readmode else "mode"
    qualifier = f"_{spec.qualifier}" if spec.qualifier else ""
    qualifier += "_EXPOSURE" if spec.per_exposure else ""
    return f"DATE_{mode.upper()}_{spec.catg.lower()}{qualifier}.fits"


def _metrics(recipe: type[BaseRecipe]) -> Iterator[Block]:
    yield Heading("Quality control")
    rows = [_metric_row(spec) for spec in recipe.Metrics.specs.values()]
    for tag in (s for s in recipe.Inputs.specs.values() if s.kind == "raw"):
        few = f" (warning below {tag.recommended})" if tag.recommended else ""
        text = f"number of {tag.tag} frames{few}"
        rows.append((f"FRAMES {tag.tag}", "", _SCOPES["frame"], text))
    rows += [_metric_row(spec) for spec in CommonMetrics.specs.values()]
    yield Table(("metric", "unit", "scope", "meaning"), rows)
    by_metric = limits_of_modes(recipe)
    limits = [
        (spec.label, ", ".join(modes), interval(pair.warn), interval(pair.fail))
        for spec in (*recipe.Metrics.specs.values(), *CommonMetrics.specs.values())
        for pair, modes in by_metric.get(spec.label, {}).items()
    ]
    for label, own in COMMON_LIMITS.items():
        where = "all others" if label in by_metric else "all"
        limits.append((label, where, interval(own.warn), interval(own.fail)))
    yield Paragraph("Closed limits of the shipped settings: outside them a value is flagged.")
    yield Table(("metric", "settings", "warn outside", "fail outside"), limits)


def _metric_row(spec: MetricSpec) -> tuple[str, ...]:
    needs = f"; only where {spec.needs}" if spec.needs else ""
    return spec.label, spec.unit, _SCOPES[spec.scope], f"{spec.doc}{needs}"


def _exit_codes() -> Iterator[Block]:
    yield Heading("Exit codes")
    yield Table(("code", "meaning"), [(str(code), text) for code, text in EXIT_CODES.items()])


def _example(recipe: type[BaseRecipe]) -> Iterator[Block]:
    yield Heading("Example")
    lines = []
    for spec in recipe.Inputs.specs.values():
        if spec.kind == "raw" and spec.at_least:
            frames = range(1, min(3, spec.at_least) + 1)
            lines += [f"raw/{spec.tag.lower()}_{i}.fits {spec.tag}" for i in frames]
        elif spec.kind != "static" and spec.kind != "raw":
            comment = "" if spec.required else "# optional: "
            lines += [f"{comment}{path} {spec.tag}" for path in _example_paths(spec)]
    yield Paragraph(f"With a set-of-files list ``{recipe.name}.sof`` such as")
    yield Code("\n".join(lines))
    yield Paragraph("the recipe runs as")
    yield Code(f"kspec {recipe.name} {recipe.name}.sof -o products --products-sof next.sof", "sh")
    yield Paragraph("or from Python as")
    yield Code(_python_example(recipe.name), "python")


def _example_paths(spec: InputSpec) -> list[str]:
    """Return names for the files of one input: products, or what a user brings."""
    name = spec.tag.lower()
    if spec.kind == "user":
        return [f"{name}{_SUFFIXES.get(spec.tag, '.txt')}"]
    numbers = [f"_{i}" for i in range(1, spec.at_least + 1)] if spec.at_least > 1 else [""]
    return [f"products/{name}{number}.fits" for number in numbers]


def _python_example(name: str) -> str:
    return (
        "from kspecpipe import run_recipe\n\n"
        f'outcome = run_recipe("{name}", "{name}.sof", output="products")\n'
        "print(outcome.status, outcome.products)"
    )
