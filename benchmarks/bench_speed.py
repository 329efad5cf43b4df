"""Time of the kernels beside a plain sum and a naive solution, and of whole recipes.

``python benchmarks/bench_speed.py [NIGHT PRODUCTS]``. The kernels run on one simulated frame of 150
fibres x 2048 columns: the two-pass solve; the same with a local background and cosmic rays; beside
them, in the same run, a plain sum over the same windows and ``numpy.linalg.lstsq`` of the columns
one by one, as one would write it first. Seconds are of CPU, the best of some runs, so that other
work on the machine matters little; ratios are to the plain sum.

With the folder of a simulated night and that of its products (of any run of the chain), the recipes
run again as processes of their own, with pictures, into a folder that is removed: CPU and elapsed
seconds, peak memory, and the share of the elapsed time [%] that each step takes. ``start`` is the
interpreter, what it loads, the terminal and its end; ``run`` is the numerics.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from kspecpipe.detector.cosmic import CosmicOptions, find_cosmics
from kspecpipe.extraction.solve import ExtractionOptions, extract_fibres
from kspecpipe.signal import Signal

N_FIBRE, N_X, N_WINDOW, PITCH, RON = 150, 2048, 15, 8.15, 4.0
SOFS = {
    "mbias": "bias.sof",
    "mdark": "dark.sof",
    "mflat": "flats.sof",
    "marc": "arcs.sof",
    "object": "objects.sof",
}
#: Products that the chain has made before each recipe.
MADE = {
    "mbias": (),
    "mdark": ("MASTER_BIAS",),
    "mflat": ("MASTER_BIAS", "MASTER_DARK", "BAD_PIXEL_MAP"),
    "marc": ("MASTER_BIAS", "MASTER_DARK", "BAD_PIXEL_MAP", "TRAMLINE_MAP", "FIBRE_FLAT"),
}
MADE["object"] = (*MADE["marc"], "WAVE_SOLUTION")
STEPS = ("verify", "load", "run", "write", "plots")


def simulate_frame(seed: int = 1) -> tuple[Signal, np.ndarray, np.ndarray]:
    """Return an image of fibres with overlapping profiles, a background and cosmic rays."""
    rng = np.random.default_rng(seed)
    trace = 30 + PITCH * np.arange(N_FIBRE)[:, None] + np.linspace(-1, 1, N_X)
    window = np.round(trace).astype(int) - N_WINDOW // 2
    rows = window[:, None, :] + np.arange(N_WINDOW)[:, None]
    weights = np.exp(-0.5 * ((rows - trace[:, None, :]) / 1.5) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    flux = 10 ** rng.uniform(2, 4, (N_FIBRE, 1)) * (1 + 0.3 * np.sin(np.arange(N_X) / 30))
    light = np.full((int(rows.max()) + 30, N_X), 20.0)
    np.add.at(light, (rows, np.arange(N_X)), weights * flux[:, None, :])
    image = rng.poisson(light) + rng.normal(0, RON, light.shape)
    hit = rng.integers(0, image.size, 2000)
    image.ravel()[hit] += rng.exponential(1500, hit.size)
    return Signal.of(image.astype(np.float32), RON**2), window, weights.astype(np.float32)


def sum_windows(image: Signal, window: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Add the pixels of each window, and no more."""
    rows = window[:, None, :] + np.arange(weights.shape[1])[:, None]
    return image.value[rows, np.arange(window.shape[1])].sum(axis=1)


def solve_columns(image: Signal, window: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Solve one column after the other with a dense design matrix, unweighted, in one pass."""
    flux = np.empty(window.shape)
    fibre = np.arange(len(window))[:, None]
    for x in range(window.shape[1]):
        design = np.zeros((image.shape[0], len(window)))
        design[window[:, x, None] + np.arange(weights.shape[1]), fibre] = weights[:, :, x]
        flux[:, x] = np.linalg.lstsq(design, image.value[:, x], rcond=None)[0]
    return flux


def best(kernel: Callable[[], object], repeat: int = 3) -> float:
    """Return the least CPU time of some runs [s]."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        kernel()
        seconds.append(time.process_time() - start)
    return min(seconds)


def time_kernels() -> None:
    """Print the table of the kernels."""
    image, window, weights = simulate_frame()
    two_pass = ExtractionOptions(reject_sigma=0.0)
    everything = ExtractionOptions(background="local")
    few = N_X // 64  # columns of the naive solution, which is scaled to all of them
    naive = [np.asarray(part)[..., :few] for part in (window, weights)]
    part = image.select((slice(None), slice(few)))
    rows = {
        "plain sum": best(lambda: sum_windows(image, window, weights)),
        "lstsq, column by column": best(lambda: solve_columns(part, *naive), 1) * N_X / few,
        "two passes": best(lambda: extract_fibres(image, window, weights, options=two_pass)),
        "+ background, cosmic rays": best(
            lambda: extract_fibres(image, window, weights, options=everything)
        ),
        "L.A.Cosmic, one pass": best(
            lambda: find_cosmics(image.value, RON, options=CosmicOptions(iterations=1))
        ),
    }
    print(f"{N_FIBRE} fibres x {N_X} columns{'':12}{'CPU s':>8}{'sums':>8}")
    for name, seconds in rows.items():
        print(f"{name:36}{seconds:8.3f}{seconds / rows['plain sum']:8.1f}", flush=True)


def time_recipe(recipe: str, night: Path, products: Path) -> None:
    """Run one recipe as a process and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        lines = [(night / SOFS[recipe]).read_text().rstrip()]
        lines = [f"{night.resolve()}/{line}" for line in lines[0].splitlines()]
        for path in sorted(products.resolve().glob("*.fits")):
            tag = fits.getheader(path).get("ESO PRO CATG")
            if tag in MADE[recipe] and not (recipe == "mflat" and "mflat" in path.name):
                lines.append(f"{path} {tag}")
        sof = Path(name) / "bench.sof"
        sof.write_text("\n".join(lines) + "\n")
        program = Path(sys.executable).with_name("kspec")
        command = [str(program), recipe, str(sof), "-o", f"{name}/out", "--json"]
        said = Path(name) / "said.json"
        with said.open("w") as stream:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            elapsed = time.perf_counter() - start
        cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        code = os.waitstatus_to_exitcode(status)
        timing = json.loads(said.read_text())["timing"]
        steps = [elapsed - timing["total"], *(timing.get(step, 0.0) for step in STEPS)]
        shares = "".join(f"{100 * step / elapsed:8.0f}" for step in steps)
        print(f"{recipe:10}{cpu:8.1f}{elapsed:10.1f}{peak:8.0f}{code:6d}{shares}", flush=True)


def main() -> None:
    """Print both tables."""
    time_kernels()
    if len(sys.argv) == 3:
        steps = "".join(f"{step:>8}" for step in ("start", *STEPS))
        print(f"\n{'recipe':10}{'CPU s':>8}{'elapsed':>10}{'MB':>8}{'exit':>6}{steps}")
        for recipe in SOFS:
            time_recipe(recipe, *map(Path, sys.argv[1:]))


if __name__ == "__main__":
    main()
