"""Wavelength solutions of many simulated arcs: how often wrong, how accurate, how honest, how fast.

Run from the repository: ``python benchmarks/bench_wavelength.py [arcs per mode] [mode ...]``. All
arcs of a run are solved in one process. Shift, scale, curvature, distortion, slit, lamp ratios,
brightness, saturation, and whether a lamp is off, are drawn anew for every arc. An arc counts as
solvable with 6 listed lines of S/N > 10 and less than saturation, of 2 species, over half of the
chip; as wrong when it is off by more than half a pixel anywhere between its outermost lines.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.wavelength.linelist import LineList, parse_line_list
from kspecpipe.wavelength.predict import predict_grating
from kspecpipe.wavelength.solve import ArcSpectra, WaveSolution, solve_arcs

ROOT = Path(__file__).parents[1]
HEADER = (
    f"{'mode':>8} {'arcs':>5} {'wrong':>5} {'refused':>7} {'solvable':>8}"
    f" {'inside rms med p95':>23} {'chip rms med p95':>23} {'true/claimed':>12} {'s':>5}"
)


@dataclass(frozen=True)
class Outcome:
    """One arc: errors in pixels, NaN when it was refused."""

    solvable: bool
    inside: float
    chip: float
    claimed: float
    worst: float
    seconds: float
    reason: str = ""


def load_simulator() -> ModuleType:
    """Import the simulator of the tests, which shares no code with the package."""
    path = ROOT / "tests" / "wavelength" / "arcs.py"
    spec = importlib.util.spec_from_file_location("wavelength_arcs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def draw(arcs: ModuleType, mode: str, seed: int, **fixed: Any) -> Any:
    """Draw an instrument and a set of lamps."""
    rng = np.random.default_rng([seed, len(mode)])
    off = (str(rng.choice(["Hg", "Ne", "Kr", "Cd"])),) if rng.random() < 0.25 else ()
    brightness = 10 ** rng.uniform(4.7, 6.0) * (3 if mode.startswith("600") else 1)
    return arcs.Recipe(
        mode=mode,
        seed=seed,
        shift=rng.uniform(-75, 75),
        scale=rng.uniform(0.92, 1.08),
        angle=rng.uniform(-28, 28),
        distortion=tuple(np.array([0.2, 0.5, 0.08]) * rng.uniform(-1, 1, 3)),
        tilt=rng.uniform(-3.5, 3.5),
        bend=rng.uniform(-0.5, 0.5),
        off=off,
        brightness=brightness,
        hump=10 ** rng.uniform(1, 3),
        saturation=max(10 ** rng.uniform(4.8, 6), 0.1 * brightness),
        second_order=rng.uniform(0, 0.08),
        **fixed,
    )


def is_solvable(arc: Any, lines: LineList, saturation: float) -> bool:
    """Count what the simulator put in, as issue 04 does."""
    wavelength, snr, species, first = arc.lines
    low, high = arc.wavelength[len(arc.wavelength) // 2, [0, -1]]
    good = (snr > 10) & first & (wavelength > low) & (wavelength < high)
    good &= np.isin(wavelength, lines.wavelength) & (snr**2 < saturation)
    span = np.ptp(wavelength[good]) if good.any() else 0.0
    return bool(good.sum() >= 6 and np.unique(species[good]).size >= 2 and span > (high - low) / 2)


def measure(arc: Any, found: WaveSolution) -> tuple[float, float, float, float]:
    """Rms errors inside and on the chip, rms claimed inside, worst inside [pixel]."""
    step = np.gradient(arc.wavelength, axis=1)
    error = (found.wavelength - arc.wavelength) / step
    low, high = found.diagnostics["range"]  # type: ignore[misc]
    inside = (arc.wavelength >= low) & (arc.wavelength <= high)
    claimed = (found.error / step)[inside]

    def rms(value: np.ndarray) -> float:
        return float(np.sqrt(np.mean(value**2)))

    return rms(error[inside]), rms(error), rms(claimed), float(np.max(np.abs(error[inside])))


def run(arcs: ModuleType, recipe: Any, lines: LineList) -> Outcome:
    """Simulate, solve and compare one arc."""
    arc = arcs.expose(recipe, (lines.wavelength, lines.species, lines.intensity))
    dq = np.where(arc.saturated, np.uint16(DQ.SATURATED), np.uint16(0))
    spectra = ArcSpectra(Signal.of(arc.value, arc.variance, dq))
    solvable = is_solvable(arc, lines, recipe.saturation)
    start = time.perf_counter()
    try:
        found = solve_arcs([spectra], lines, predict_grating(**arc.prediction), arc.live)
    except RecipeError as error:
        nan = float("nan")
        return Outcome(solvable, nan, nan, nan, nan, time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    inside, chip, claimed, worst = measure(arc, found)
    return Outcome(solvable, inside, chip, claimed, worst, seconds)


def report(mode: str, outcomes: list[Outcome]) -> None:
    """Print one row of the table, and why solvable arcs were refused."""
    solved = [o for o in outcomes if not o.reason]
    refused = [o for o in outcomes if o.reason and o.solvable]
    inside, chip, claimed, worst, seconds = (
        np.array([getattr(o, name) for o in solved])
        for name in ("inside", "chip", "claimed", "worst", "seconds")
    )

    def three(value: np.ndarray) -> str:
        numbers = (np.sqrt(np.mean(value**2)), np.median(value), np.quantile(value, 0.95))
        return " ".join(f"{number:7.4f}" for number in numbers)

    print(
        f"{mode:>8} {len(outcomes):5d} {int(np.sum(worst > 0.5)):5d} {len(refused):7d}"
        f" {sum(o.solvable for o in outcomes):8d} {three(inside)} {three(chip)}"
        f" {np.median(inside / claimed):12.2f} {np.median(seconds):5.2f}",
        flush=True,
    )
    for outcome in refused:
        print("         refused:", outcome.reason[:110])


def main(count: int, modes: list[str]) -> None:
    """Solve ``count`` arcs of each mode, then time a large one."""
    arcs = load_simulator()
    lines = parse_line_list((ROOT / "static_calibrations" / "arc_lines.ecsv").read_text())
    print(HEADER)
    for mode in modes or list(arcs.MODES):
        report(mode, [run(arcs, draw(arcs, mode, seed), lines) for seed in range(count)])
    large = arcs.Recipe(mode="150_620", nfib=150, nx=2048, scale=1.02, shift=5.0)
    outcome = run(arcs, large, lines)
    print(
        f"150 fibres x 2048: {outcome.seconds:.1f} s, {outcome.inside:.4f} pixel {outcome.reason}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, sys.argv[2:])
