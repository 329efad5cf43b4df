"""``kspec demo``: simulate a night of ISOPLANE and reduce it, recipe by recipe."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.text import Text

from kspecpipe import plots
from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.recipe import reduce
from kspecpipe.cli.simulate import count, simulate
from kspecpipe.errors import ExitCode, KspecError, SettingsError
from kspecpipe.figures.spectrum import SpectraView, draw_spectra
from kspecpipe.formats.fibre_spectra import read_spectra
from kspecpipe.formats.selection import brightest
from kspecpipe.framework.outcome import Outcome, RunOptions, merge
from kspecpipe.framework.terminal import print_outcome, short_path
from kspecpipe.io import read_table
from kspecpipe.simulate import FrameCounts, NightPlan
from kspecpipe.simulate.standards import LibraryPlan
from kspecpipe.sof import append_to_sof

MODES = ("150_620", "600_680")
PLAN = NightPlan(
    instrument="isoplane",
    modes=MODES,
    counts=FrameCounts(bias=10, dark=5, flat=3, arc=2, object=2),
    library=LibraryPlan(),
)


@dataclass(frozen=True)
class Step:
    """One run of a recipe: the name of its SOF, and the SOFs that get its products."""

    recipe: str
    sof: str
    feeds: tuple[str, ...] = ()


def steps(modes: Sequence[str]) -> list[Step]:
    """Return the whole chain: calibrations, each mode, and the modes joined."""
    sets = [f"{kind}_{mode}" for mode in modes for kind in ("flats", "arcs", "objects")]
    chain = [Step("mbias", "bias", ("dark", *sets)), Step("mdark", "dark", tuple(sets))]
    for mode in modes:
        flats, arcs, objects, standards, coadd = (
            f"{kind}_{mode}" for kind in ("flats", "arcs", "objects", "standards", "coadd")
        )
        chain += [
            Step("mflat", flats, (arcs, objects)),
            Step("marc", arcs, (objects,)),
            Step("object", objects, (standards,)),
            Step("fluxcal", standards, (coadd,)),
            Step("coadd", coadd, ("splice",)),
        ]
    return [*chain, Step("splice", "splice")]


RECIPES = tuple(dict.fromkeys(step.recipe for step in steps(MODES)))


@dataclass
class Demo:
    """One run of the demonstration."""

    folder: Path
    chain: Sequence[Step]
    plan: NightPlan
    seed: int
    verbosity: int
    console: Console

    def run(self) -> list[Outcome]:
        """Simulate and reduce; stops where there is no product."""
        outcomes: list[Outcome] = []
        with _progress(self.console) as progress:
            task = progress.add_task("simulating a night", total=len(self.chain) + 1)
            start = time.perf_counter()
            night = simulate(self.folder / "raw", self.plan, self.seed)
            seconds = time.perf_counter() - start
            self.console.print(f"{len(night.files)} raw files, with truth beside, {seconds:.1f} s")
            for step in self.chain:
                progress.update(task, advance=1, description=f"kspec {step.recipe}")
                try:
                    outcomes.append(self._reduce(step))
                except KspecError as error:
                    self.console.print(Text(str(error), style="red"))
                    outcomes.append(Outcome(step.recipe, error.exit_code, errors=(str(error),)))
                if not outcomes[-1].products:
                    break
            progress.update(task, advance=1, description="done")
        return outcomes

    def _reduce(self, step: Step) -> Outcome:
        """Run one recipe; its products go into the SOFs of the recipes that take them."""
        options = RunOptions(
            output=self.folder / "products", overwrite=True, verbosity=self.verbosity
        )
        sof = self._sof(step.sof)
        shown = f"kspec {step.recipe} {short_path(sof)} -o {short_path(options.output)}"
        self.console.print(Rule(Text(shown, style="bold"), align="left"))
        outcome = reduce(step.recipe, [sof], options)
        for taker in self.chain:
            if taker.sof in step.feeds:
                wanted = tags_of(taker.recipe)
                append_to_sof(
                    self._sof(taker.sof), [item for item in outcome.products if item[1] in wanted]
                )
        print_outcome(outcome, self.console)
        return outcome

    def _sof(self, name: str) -> Path:
        return self.folder / "raw" / f"{name}.sof"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        f"Simulate a raw ISOPLANE night in {' and '.join(MODES)} and reduce it with every recipe "
        "of the chain, to calibrated, coadded and spliced spectra."
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="folder [demo]"
    )
    parser.add_argument("--until", choices=RECIPES, help="stop after this recipe")
    parser.add_argument("--seed", type=count, default=1, metavar="N")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the log of each recipe")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Run the demonstration and name what to look at."""
    del name
    folder: Path = arguments.output
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; name a folder with -o")
    console = Console(highlight=False)
    start = time.perf_counter()
    chain = steps(MODES)
    if arguments.until:
        wanted = RECIPES[: RECIPES.index(arguments.until) + 1]
        chain = [step for step in chain if step.recipe in wanted]
    verbosity = 0 if arguments.verbose else -1
    outcomes = Demo(folder, chain, PLAN, arguments.seed, verbosity, console).run()
    console.print(Rule())
    _show_products(outcomes, folder, console)
    code = merge(outcomes).exit_code
    seconds = time.perf_counter() - start
    if code == ExitCode.OK:
        console.print(Text(f"demo: ok, {seconds:.0f} s", style="green"))
    else:
        last = outcomes[-1]
        text = f"demo: {last.recipe}: {last.status} (exit {int(code)}), {seconds:.0f} s"
        console.print(Text(text, style="bold red"))
    return int(code)


def tags_of(recipe: str) -> set[str]:
    """Return the tags that a recipe takes."""
    try:
        return {tag for spec in find_recipe(recipe).Inputs.specs.values() for tag in spec.tags}
    except KspecError:
        return set()  # it will say so itself when its turn comes


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _show_products(outcomes: Sequence[Outcome], folder: Path, console: Console) -> None:
    for outcome in outcomes:
        for path, tag in outcome.products:
            line = f"{outcome.recipe:<8}{tag:<15}{short_path(path)}"
            console.print(line, soft_wrap=True, markup=False)
    product = _worth_showing(outcomes)
    if product is None:
        return
    picture = product.with_suffix(".png")
    if outcomes[-1].recipe == "splice":
        truth = read_table(next((folder / "raw").rglob("fibres_*.fits")), "FIBRES")
        picture = picture if truth is None else _draw_galaxy(product, truth)
    if picture.exists():
        console.print(Text(f"look at   {short_path(picture)}", style="bold"), soft_wrap=True)
    console.print(f"or run    kspec show {short_path(product)}", soft_wrap=True, markup=False)


def _draw_galaxy(product: Path, truth: Table) -> Path:
    """Draw the galaxy of most light with its lines: the simulation knows the redshifts."""
    redshift = np.asarray(truth["REDSHIFT"], dtype=float)
    best = brightest(read_spectra(product)[np.isfinite(redshift)], 1)
    known = float(redshift[int(best.fibres["FIBRE_ID"][0]) - 1])
    title = f"{product.stem}: a simulated galaxy at redshift {known:.4f}"
    picture = product.with_name(f"{product.stem}_galaxy.png")
    plots.save(draw_spectra(best, SpectraView(redshift=known, smooth=3), title), picture)
    return picture


def _worth_showing(outcomes: Sequence[Outcome]) -> Path | None:
    """Return the product that came farthest."""
    products = [item for outcome in outcomes for item in outcome.products]
    for wanted in ("SPLICED", "COADDED", "CALIBRATED", "REDUCED"):
        found = [path for path, tag in products if tag == wanted]
        if found:
            return found[0]
    return products[-1][0] if products else None
