"""``kspec demo``: simulate a night of ISOPLANE and reduce it, recipe by recipe."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.text import Text

from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.recipe import reduce
from kspecpipe.cli.simulate import count, simulate
from kspecpipe.errors import ExitCode, KspecError, SettingsError
from kspecpipe.outcome import Outcome, RunOptions, merge
from kspecpipe.simulate import FrameCounts, NightPlan
from kspecpipe.simulate.standards import LibraryPlan
from kspecpipe.terminal import print_outcome, short_path

#: Recipe and the SOF of the simulated night on which it runs.
STEPS = {
    "mbias": "bias",
    "mdark": "dark",
    "mflat": "flats",
    "marc": "arcs",
    "object": "objects",
    "fluxcal": "standards",
}
PLAN = NightPlan(
    instrument="isoplane",
    modes=("150_620",),
    counts=FrameCounts(bias=10, dark=5, flat=5, arc=2, object=2),
    library=LibraryPlan(),
)


@dataclass
class Demo:
    """One run of the demonstration."""

    folder: Path
    recipes: Sequence[str]
    plan: NightPlan
    seed: int
    verbosity: int
    console: Console

    def run(self) -> list[Outcome]:
        """Simulate and reduce; stops where there is no product."""
        outcomes: list[Outcome] = []
        with _progress(self.console) as progress:
            task = progress.add_task("simulating a night", total=len(self.recipes) + 1)
            start = time.perf_counter()
            night = simulate(self.folder / "raw", self.plan, self.seed)
            seconds = time.perf_counter() - start
            self.console.print(f"{len(night.files)} raw files, with truth beside, {seconds:.1f} s")
            sofs = {recipe: night.sofs[STEPS[recipe]] for recipe in self.recipes}
            for recipe in self.recipes:
                progress.update(task, advance=1, description=f"kspec {recipe}")
                try:
                    outcomes.append(self._reduce(recipe, sofs))
                except KspecError as error:
                    self.console.print(Text(str(error), style="red"))
                    outcomes.append(Outcome(recipe, error.exit_code, errors=(str(error),)))
                if not outcomes[-1].products:
                    break
            progress.update(task, advance=1, description="done")
        return outcomes

    def _reduce(self, recipe: str, sofs: dict[str, Path]) -> Outcome:
        """Run one recipe; its products go into the SOFs of the recipes that follow."""
        later = list(sofs)[list(sofs).index(recipe) + 1 :]
        made = {spec.catg for spec in find_recipe(recipe).Products.specs.values()}
        takers = [sofs[name] for name in later if made & tags_of(name)]
        options = RunOptions(
            output=self.folder / "products", overwrite=True, verbosity=self.verbosity
        )
        shown = f"kspec {recipe} {short_path(sofs[recipe])} -o {short_path(options.output)}"
        self.console.print(Rule(Text(shown, style="bold"), align="left"))
        outcome = reduce(recipe, [sofs[recipe]], options, sofs=takers)
        print_outcome(outcome, self.console)
        return outcome


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Simulate a raw ISOPLANE night in 150_620 and reduce it with every recipe of the chain."
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="folder [demo]"
    )
    parser.add_argument("--until", choices=tuple(STEPS), help="stop after this recipe")
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
    recipes = list(STEPS)
    if arguments.until:
        recipes = recipes[: recipes.index(arguments.until) + 1]
    verbosity = 0 if arguments.verbose else -1
    outcomes = Demo(folder, recipes, PLAN, arguments.seed, verbosity, console).run()
    console.print(Rule())
    _show_products(outcomes, console)
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


def _show_products(outcomes: Sequence[Outcome], console: Console) -> None:
    for outcome in outcomes:
        for path, tag in outcome.products:
            line = f"{outcome.recipe:<8}{tag:<15}{short_path(path)}"
            console.print(line, soft_wrap=True, markup=False)
    pictures = [path.with_suffix(".png") for path in _spectra(outcomes)]
    shown = [path for path in pictures if path.exists()]
    if shown:
        console.print(Text(f"look at   {short_path(shown[0])}", style="bold"), soft_wrap=True)
        product = short_path(shown[0].with_suffix(".fits"))
        console.print(f"or run    kspec show {product}", soft_wrap=True, markup=False)


def _spectra(outcomes: Sequence[Outcome]) -> list[Path]:
    """Return the calibrated or reduced spectra, or else the last product."""
    products = [item for outcome in outcomes for item in outcome.products]
    for wanted in ("CALIBRATED", "REDUCED"):
        found = [path for path, tag in products if tag == wanted]
        if found:
            return found
    return [path for path, _ in products[-1:]]
