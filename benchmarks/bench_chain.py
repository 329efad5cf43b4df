"""Accuracy of the whole chain on simulated nights: raw frames through SOFs, every trap on.

Usage: ``python benchmarks/bench_chain.py [SEEDS] [MODE ...]`` (3 seeds, all five ISOPLANE modes).
Each row is one night of 5 biases, 2 darks, 3 flats, 2 arcs and 2 science exposures. Seconds are of
the recipes in one process; the peak memory is that of the whole process.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.simulate import Night, NightPlan, simulate_night

MODES = ("150_620", "300_490", "600_430", "600_450", "600_680")
STEPS = {"mbias": "bias", "mdark": "dark", "mflat": "flats", "marc": "arcs", "object": "objects"}
HEADER = (
    "mode      seed  trace lit/all     wave in/chip    flux   spread  usable  pull   >5 sigma"
    "  S pull  exit  seconds"
)


def width(values: np.ndarray) -> float:
    """Return 1.4826 MAD."""
    finite = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(finite - np.median(finite)))) if finite.size else np.nan


def rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(values**2))) if values.size else np.nan


def reduce_night(night: Night, output: Path) -> tuple[dict[str, Any], float]:
    """Run all recipes; return the outcomes and the seconds that they took."""
    lines: list[str] = []
    outcomes: dict[str, Any] = {}
    start = time.perf_counter()
    for recipe, key in STEPS.items():
        sof = night.folder / f"{recipe}_all.sof"
        sof.write_text("\n".join([night.sofs[key].read_text(), *lines]) + "\n")
        outcomes[recipe] = run_recipe(recipe, sof, log=False, output=output)
        lines += [f"{path} {tag}" for path, tag in outcomes[recipe].products]
        if not outcomes[recipe].products:
            break
    return outcomes, time.perf_counter() - start


def opened(outcomes: dict[str, Any], recipe: str, catg: str, number: int = 0) -> fits.HDUList:
    """Open a product."""
    return fits.open([path for path, tag in outcomes[recipe].products if tag == catg][number])


def measure(night: Night, outcomes: dict[str, Any]) -> list[float]:
    """Compare products with the truth."""
    flats = [fits.open(file.truth) for file in night.tagged("FLAT")]
    traces = opened(outcomes, "mflat", "TRAMLINE_MAP")
    live = traces["FIBRES"].data["STATUS"] != "DEAD"
    offset = traces[0].data - np.mean([flat["TRACE"].data for flat in flats], axis=0)
    electrons = np.mean([flat["ELECTRON"].data for flat in flats], axis=0)
    lit = (electrons > 500) & live[:, None]
    extracted = opened(outcomes, "mflat", "FIBRE_FLAT")["EXTRACTED"].data
    ratio = np.nanmedian(np.where(lit, extracted / electrons, np.nan)[live], axis=1)

    solution = opened(outcomes, "marc", "WAVE_SOLUTION")
    # Arcs drift against each other; the solution is that of their mean.
    true = np.mean([fits.getdata(f.truth, "WAVELENGTH") for f in night.tagged("ARC")], axis=0)
    error = (solution[0].data - true) / np.gradient(true, axis=1)
    lines = solution["LINES"].data
    used = lines["wavelength"][lines["used"]]
    inside = (true > used.min()) & (true < used.max()) & live[:, None]

    pulls, sky = [], []
    for number, file in enumerate(night.tagged("OBJECT")):
        product = opened(outcomes, "object", "EXTRACTED", number)
        truth = fits.open(file.truth)["ELECTRON"].data
        pulls.append(((product[0].data - truth) / np.sqrt(product["VARIANCE"].data))[live])
        reduced = opened(outcomes, "object", "REDUCED", number)
        rows = reduced["FIBRES"].data["TYPE"] == "S"
        sky.append((reduced[0].data / np.sqrt(reduced["VARIANCE"].data))[rows])
    sample = np.concatenate(pulls)
    finite = sample[np.isfinite(sample)]
    return [
        *(rms(offset[lit]), rms(offset[live])),
        *(rms(error[inside]), rms(error[live])),
        *(float(np.median(ratio)), width(ratio)),
        float(np.isfinite(sample).mean()),
        *(width(sample), float(np.mean(np.abs(finite) > 5))),
        width(np.concatenate(sky)),
    ]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(HEADER)
    for mode in sys.argv[2:] or MODES:
        instrument = "kspec" if mode == "VIS" else "isoplane"
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as name:
                plan = NightPlan(instrument=instrument, modes=(mode,))
                night = simulate_night(Path(name) / "raw", plan, seed=seed)
                outcomes, seconds = reduce_night(night, Path(name) / "out")
                codes = "".join(str(int(o.exit_code)) for o in outcomes.values())
                if len(outcomes) < len(STEPS):
                    reason = list(outcomes.values())[-1].errors
                    print(f"{mode:<9} {seed:>4}  exit {codes}: {' '.join(reason)[:160]}")
                    continue
                m = measure(night, outcomes)
                print(
                    f"{mode:<9} {seed:>4}  {m[0]:.4f} {m[1]:.4f}   {m[2]:.4f} {m[3]:.4f}   "
                    f"{m[4]:.4f} {m[5]:.4f}  {m[6]:.4f}  {m[7]:.3f}  {m[8]:.5f}  {m[9]:.3f}   "
                    f"{codes}  {seconds:.1f}",
                    flush=True,
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
