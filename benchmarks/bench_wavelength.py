"""Wavelength solutions of many simulated arcs: how often wrong, how accurate, how honest, how fast.

Run from the repository: ``python benchmarks/bench_wavelength.py [arcs per mode] [mode ...] [--first
SEED] [--fibres N]``. All arcs of a run are solved in one process. Shift, scale, curvature,
distortion, slit, lamp ratios, brightness, saturation, and whether a lamp is off, are drawn anew for
every arc. An arc counts as solvable with 6 listed lines of S/N > 10 and less than saturation, of 2
species, over half of the chip; as wrong when it is off by more than half a pixel anywhere between
its outermost lines.

The bound is that of Cramer and Rao for the same lines, samples and dispersion model, with perfect
knowledge of the line-spread function and of which line is which, given the departures from a
grating that the pipeline expects.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.wavelength.arcs import ArcSpectra
from kspecpipe.wavelength.dispersion import default_prior, shared_columns, slit_place
from kspecpipe.wavelength.linelist import LineList, parse_line_list
from kspecpipe.wavelength.predict import predict_grating
from kspecpipe.wavelength.solution import WaveSolution
from kspecpipe.wavelength.solve import solve_arcs

ROOT = Path(__file__).parents[1]
HEADER = (
    f"{'mode':>8} {'arcs':>5} {'wrong':>5} {'refused':>7} {'solvable':>8}"
    f" {'inside rms med p95':>23} {'chip rms med p95':>23} {'bound in chip':>15}"
    f" {'true/claimed in chip':>20} {'s':>5}"
)


@dataclass(frozen=True)
class Outcome:
    """One arc: errors in pixels, NaN when it was refused."""

    solvable: bool
    inside: float
    chip: float
    claimed: float
    claimed_chip: float
    worst: float
    bound: float
    bound_chip: float
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


def bound(arcs: ModuleType, recipe: Any, arc: Any, table: Any, listed: np.ndarray) -> np.ndarray:
    """Smallest error (nfib, nx) [pixel] that lines at ``listed`` wavelengths allow."""
    rng = np.random.default_rng(recipe.seed)
    wavelength, _, strength, first = arcs.lamp_lines(recipe, table, rng)
    throughput = np.exp(0.25 * rng.standard_normal(recipe.nfib))
    x, half = np.arange(recipe.nx, dtype=float), (recipe.nx - 1) / 2
    prior = default_prior(predict_grating(**arc.prediction))
    sd = np.concatenate([prior.distortion, prior.slit, [recipe.jitter, recipe.fibre_scale / 2]])
    n_shared = sd.size - 2
    information = np.zeros((n_shared + 2 * recipe.nfib,) * 2)
    np.fill_diagonal(information, 1 / np.append(sd, np.tile(sd[-2:], recipe.nfib - 1)) ** 2)
    for fibre in range(recipe.nfib):
        flux = recipe.brightness * throughput[fibre] * strength / 1000
        position = np.interp(wavelength, arc.wavelength[fibre], x, np.nan, np.nan)
        on = np.isfinite(position) & (flux > 1)
        known = first[on] & np.isin(wavelength[on], listed)
        lines = (position[on], flux[on], known)
        fisher = _position_information(arcs, recipe, arc, fibre, lines)
        columns = _columns(position[on][known] / half - 1, fibre, recipe.nfib)
        information += columns.T @ fisher @ columns
    covariance = np.linalg.inv(information)
    rows = [_columns(x / half - 1, fibre, recipe.nfib) for fibre in range(recipe.nfib)]
    return np.sqrt([np.einsum("xp,pq,xq->x", row, covariance, row) for row in rows])


def _columns(u: np.ndarray, fibre: int, nfib: int) -> np.ndarray:
    """Return what the parameters of the dispersion move at places u (n, n_parameter)."""
    own = np.zeros((u.size, 2 * nfib))
    own[:, 2 * fibre], own[:, 2 * fibre + 1] = 1.0, u
    return np.concatenate([shared_columns(u, slit_place(nfib)[fibre]), own], axis=1)


def _position_information(
    arcs: ModuleType,
    recipe: Any,
    arc: Any,
    fibre: int,
    lines: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Fisher information of the known lines' positions, all else free [1/pixel^2]."""
    position, flux, known = lines
    x = np.arange(recipe.nx, dtype=float)[:, None]
    width = 1 + recipe.lsf_slope * (2 * position / (recipe.nx - 1) - 1)

    def shape(moved: float) -> np.ndarray:
        near = x - position - moved
        inside = np.abs(near) < 45
        drawn = arcs.lsf_cdf(recipe, near + 0.5, width) - arcs.lsf_cdf(recipe, near - 0.5, width)
        return np.where(inside, drawn, 0.0)

    slope = flux * (shape(0.01) - shape(-0.01)) / 0.02
    smooth = BSpline.design_matrix(x[:, 0], np.pad(np.linspace(0, x[-1, 0], 20), 3, "edge"), 3)
    free = np.concatenate([shape(0.0), smooth.toarray(), slope[:, ~known]], axis=1)
    full = np.convolve(arc.saturated[fibre], np.ones(3), "same") > 0
    weight = np.where(full, 0.0, 1 / arc.variance[fibre])[:, None]
    scale = 1 / np.sqrt(np.sum(weight * free**2, axis=0) + 1e-12)
    free = free * scale
    inner = free.T @ (weight * free) + 1e-9 * np.eye(scale.size)
    cross = free.T @ (weight * slope[:, known])
    return slope[:, known].T @ (weight * slope[:, known]) - cross.T @ np.linalg.solve(inner, cross)


def rms(value: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(value**2)))


def run(arcs: ModuleType, recipe: Any, lines: LineList) -> Outcome:
    """Simulate, solve and compare one arc."""
    table = (lines.wavelength, lines.species, lines.intensity)
    arc = arcs.expose(recipe, table)
    dq = np.where(arc.saturated, np.uint16(DQ.SATURATED), np.uint16(0))
    spectra = ArcSpectra(Signal.of(arc.value, arc.variance, dq))
    solvable = is_solvable(arc, lines, recipe.saturation)
    start = time.perf_counter()
    try:
        found = solve_arcs([spectra], lines, predict_grating(**arc.prediction), arc.live)
    except RecipeError as error:
        return Outcome(solvable, *[float("nan")] * 7, time.perf_counter() - start, str(error))
    seconds = time.perf_counter() - start
    error, claimed, inside = compare(arc, found)
    least = bound(arcs, recipe, arc, table, lines.wavelength)
    return Outcome(
        solvable,
        *(rms(error[inside]), rms(error), rms(claimed[inside]), rms(claimed)),
        float(np.max(np.abs(error[inside]))),
        *(rms(least[inside]), rms(least)),
        seconds,
    )


def compare(arc: Any, found: WaveSolution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error, claimed error [pixel], and which pixels are between the outermost lines."""
    step = np.gradient(arc.wavelength, axis=1)
    low, high = found.diagnostics["range"]  # type: ignore[misc]
    inside = (arc.wavelength >= low) & (arc.wavelength <= high)
    return (found.wavelength - arc.wavelength) / step, found.error / step, inside


def report(mode: str, outcomes: list[Outcome]) -> None:
    """Print one row of the table, and why solvable arcs were refused."""
    solved = [o for o in outcomes if not o.reason]
    refused = [o for o in outcomes if o.reason and o.solvable]
    column = {
        item.name: np.array([getattr(o, item.name) for o in solved])
        for item in fields(Outcome)
        if item.name != "reason"
    }

    def three(value: np.ndarray) -> str:
        numbers = (rms(value), np.median(value), np.quantile(value, 0.95))
        return " ".join(f"{number:7.4f}" for number in numbers)

    print(
        f"{mode:>8} {len(outcomes):5d} {int(np.sum(column['worst'] > 0.5)):5d} {len(refused):7d}"
        f" {sum(o.solvable for o in outcomes):8d} {three(column['inside'])}"
        f" {three(column['chip'])} {rms(column['bound']):7.4f} {rms(column['bound_chip']):7.4f}"
        f" {np.median(column['inside'] / column['claimed']):10.2f}"
        f" {np.median(column['chip'] / column['claimed_chip']):9.2f}"
        f" {np.median(column['seconds']):5.2f}",
        flush=True,
    )
    for outcome in refused:
        print("         refused:", outcome.reason[:110])


def main() -> None:
    """Solve the arcs of each mode, then time a large one."""
    arcs = load_simulator()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=100, help="arcs per mode")
    parser.add_argument("modes", nargs="*", help="modes, default: all")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--fibres", type=int, default=14, help="fibres of each arc")
    chosen = parser.parse_args()
    lines = parse_line_list((ROOT / "static_calibrations" / "arc_lines.ecsv").read_text())
    print(HEADER, flush=True)
    for mode in chosen.modes or list(arcs.MODES):
        seeds = range(chosen.first, chosen.first + chosen.count)
        drawn = [draw(arcs, mode, seed, nfib=chosen.fibres) for seed in seeds]
        report(mode, [run(arcs, recipe, lines) for recipe in drawn])
    if chosen.modes:
        return
    large = arcs.Recipe(mode="150_620", nfib=150, nx=2048, scale=1.02, shift=5.0)
    outcome = run(arcs, large, lines)
    print(
        f"150 fibres x 2048: {outcome.seconds:.1f} s, {outcome.inside:.4f} pixel {outcome.reason}"
    )


if __name__ == "__main__":
    main()
