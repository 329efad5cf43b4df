"""Time and memory of the clipped average against ccdproc's, on the same frames in the same run.

``python benchmarks/bench_stack.py [--frames 20] [--repeat 3]``. Each side runs in a process of its
own, so that the peak of its memory is its own; library imports are in the memory, not in the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = (1300, 1340)


def write_frames(path: Path, n: int) -> None:
    """Write bias-like frames with a drifting level, column structure and cosmic rays: uint16."""
    rng = np.random.default_rng(20260129)
    structure = rng.normal(0, 2, SHAPE[1])
    frames = np.lib.format.open_memmap(path, "w+", np.uint16, (n, *SHAPE))
    for i in range(n):
        frame = 612 + i / n + structure + rng.normal(0, 4, SHAPE)
        frame.flat[rng.choice(frame.size, 3000, replace=False)] += rng.exponential(800, 3000)
        frames[i] = np.clip(np.rint(frame), 0, 65535)


def stack_ours(frames: np.memmap, out: Path) -> float:
    """Average with `clip_stack`; returns seconds."""
    from kspecpipe.detector.stack import ArrayPlanes, clip_stack

    start = time.perf_counter()
    stacked = clip_stack(ArrayPlanes(frames), sigma=5)
    elapsed = time.perf_counter() - start
    np.save(out, stacked.mean)
    # ccdproc computes its limits once; the same number of iterations must give the same image.
    np.save(out.with_stem("once"), clip_stack(ArrayPlanes(frames), iterations=1).mean)
    return elapsed


def stack_reference(frames: np.memmap, out: Path) -> float:
    """Average with ccdproc's Combiner; returns seconds, without those of reading."""
    from astropy.nddata import CCDData
    from astropy.stats import mad_std
    from ccdproc import Combiner

    images = [CCDData(np.asarray(frame, np.float32), unit="adu") for frame in frames]
    start = time.perf_counter()
    combiner = Combiner(images)
    combiner.sigma_clipping(5, 5, func=np.ma.median, dev_func=mad_std)
    mean = combiner.average_combine().data
    elapsed = time.perf_counter() - start
    np.save(out, mean)
    return elapsed


def run_side(side: str, folder: Path) -> dict[str, float]:
    """Run one side in its own process; returns its seconds and its peak memory in MB."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def report_side(side: str, folder: Path) -> None:
    """Measure one side in this process and print the numbers as JSON."""
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    average = {"ours": stack_ours, "ccdproc": stack_reference}[side]
    seconds = average(frames, folder / f"{side}.npy")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main() -> None:
    """Compare both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", choices=["ours", "ccdproc"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        report_side(options.side, options.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frames(folder / "frames.npy", options.frames)
        results = {
            side: [run_side(side, folder) for _ in range(options.repeat)]
            for side in ("ours", "ccdproc")
        }
        reference = np.load(folder / "ccdproc.npy")
        once, five = (
            np.count_nonzero(np.abs(np.load(folder / name) - reference) > 1e-3)
            for name in ("once.npy", "ours.npy")
        )
    print(f"{options.frames} frames of {SHAPE[0]} x {SHAPE[1]}, best of {options.repeat}")
    print(f"{'':12s}{'seconds':>10s}{'peak MB':>10s}")
    best = {side: min(run["seconds"] for run in runs) for side, runs in results.items()}
    for side, runs in results.items():
        print(f"{side:12s}{best[side]:10.3f}{max(run['peak'] for run in runs):10.0f}")
    print(f"{'ratio':12s}{best['ccdproc'] / best['ours']:10.1f}")
    print(f"pixels (of {reference.size}) that differ by more than 0.001 adu from ccdproc, whose")
    print(f"limits are computed once: {once} with 1 iteration, {five} with the 5 that are timed")


if __name__ == "__main__":
    main()
