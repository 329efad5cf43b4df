"""Whole nights: speed, memory, overhead, scans, plans, and survival of kill -9.

``python benchmarks/bench_night.py FOLDER`` writes everything below FOLDER (about 3 GB).
``--part night|scan|plan|kill`` measures one part; on a loaded machine trust CPU times and ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from astropy.io import fits

from kspecpipe.frame import FrameInfo
from kspecpipe.instrument import shipped_instruments
from kspecpipe.night.chain import load_chain
from kspecpipe.night.frames import Listing, NightFrame
from kspecpipe.night.index import Memory, Rules, scan
from kspecpipe.night.plan import Request, make_plan
from kspecpipe.simulate import FrameCounts, NightPlan, simulate_night

MODES = ("150_620", "300_490", "600_680")
NIGHT = NightPlan(modes=MODES, counts=FrameCounts(bias=15, dark=5, flat=3, arc=3, object=6))
TEN_FRAMES = NightPlan(size="small", counts=FrameCounts(bias=3, dark=1, flat=2, arc=2, object=2))


def timed(action: Callable[[], object]) -> tuple[float, float, object]:
    """Return wall-clock time, CPU time with that of children, and the result."""
    wall, cpu = time.perf_counter(), _cpu()
    result = action()
    return time.perf_counter() - wall, _cpu() - cpu, result


def _cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def command(raw: Path, output: Path, *words: str) -> list[str]:
    """Return the words of a run."""
    kspec = [sys.executable, "-m", "kspecpipe.cli", "reduce", str(raw), "-o", str(output), "--json"]
    return [*kspec, *words]


def reduce(raw: Path, output: Path, *words: str) -> dict:
    """Run `kspec reduce`; return its JSON with the most memory that it had at a time in all."""
    run = subprocess.Popen(
        command(raw, output, *words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    most = [0.0]
    watcher = threading.Thread(target=_watch_memory, args=(run, most))
    watcher.start()
    printed, _ = run.communicate()
    watcher.join()
    return json.loads(printed) | {"memory_mb": most[0]}


def _watch_memory(run: subprocess.Popen[bytes], most: list[float]) -> None:
    """Note the memory of a process and its children while it runs [MB]; shared pages once."""
    while run.poll() is None:
        most[0] = max(most[0], sum(_memory(pid) for pid in (run.pid, *children_of(run.pid))))
        time.sleep(1.0)


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def children_of(pid: int) -> list[int]:
    """Return the children of a process; none when it has ended."""
    try:
        return [int(w) for w in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def bench_night(folder: Path, counts: Sequence[int]) -> None:
    """One simulated night with some numbers of workers, and again."""
    raw = folder / "night"
    if not raw.exists():
        simulate_night(raw, NIGHT, seed=1)
    work, data = {}, {}
    for workers in counts:
        output = folder / f"products_{workers}_{os.getpid()}"
        again = ("--workers", str(workers))
        wall, cpu, found = timed(lambda o=output, w=again: reduce(raw, o, *w))
        work[workers], data[workers] = wall, images(output)
        jobs = found["jobs"]
        busy = sum(job["seconds"] for job in jobs)
        print(f"{workers} workers: {wall:.1f} s wall, {cpu:.1f} s CPU, exit {found['exit_code']}")
        print(f"  {len(jobs)} jobs, {busy:.1f} s in jobs, {found['memory_mb']:.0f} MB in all")
        for recipe in dict.fromkeys(job["recipe"] for job in jobs):
            own = [job for job in jobs if job["recipe"] == recipe]
            seconds = sum(job["cpu"] for job in own) / len(own)
            memory = max(job["memory_mb"] for job in own)
            print(f"  {recipe:<8} {len(own):3d} jobs, {seconds:.2f} s CPU each, {memory:.0f} MB")
        start, cpu, _ = timed(lambda o=output, w=again: reduce(raw, o, *w))
        print(f"  again: {start:.2f} s wall, {cpu:.2f} s CPU")
        if workers == 1:
            print(f"  overhead: {100 * (wall - busy) / busy:.1f} % of the time in jobs")
            print(f"  between jobs: {100 * (wall - start - busy) / busy:.1f} %")
    if {1, 2} <= set(work):
        same = "the same data" if data[1] == data[2] else "DIFFERENT DATA"
        print(f"two workers against one: {work[1] / work[2]:.2f}x, {same}")


def bench_scan(folder: Path, number: int = 10_000) -> None:
    """Headers of many raw frames; their pixels are holes, which take no space."""
    raw = folder / "headers"
    if not raw.exists():
        counts = FrameCounts(bias=1, dark=0, flat=0, arc=0, object=0)
        night = simulate_night(folder / "one", NightPlan(counts=counts), seed=1)
        (path,) = [file.path for file in night.files]
        content = path.read_bytes()
        start = content.find(b"END     ")
        length = -(-(start + 80) // 2880) * 2880
        raw.mkdir()
        for i in range(number):
            with (raw / f"Bias {i}.fits").open("wb") as stream:
                stream.write(content[:length])
                stream.truncate(len(content))
    cache = folder / "headers.sqlite"
    cache.unlink(missing_ok=True)
    rules = Rules.of(None)
    for name in ("first", "again"):
        wall, cpu, found = timed(lambda: scan(raw, rules, Memory(cache)))
        print(f"scan of {len(found.frames)}, {name}: {wall:.2f} s wall, {cpu:.2f} s CPU")


def bench_plan() -> None:
    """Plans of simulated indexes."""
    chain = load_chain().recipes
    instruments = {one.facts.name: one for one in shipped_instruments().values()}
    for nights in (10, 100, 300, 1000):
        frames = [frame for day in range(nights) for frame in _frames(day)]
        listing = Listing(Path("/raw"), frames=tuple(frames))
        request = Request(Path("/out"), chain, chain, instruments)
        wall, cpu, plan = timed(lambda one=listing, r=request: make_plan(one, r))
        print(f"plan of {nights} nights, {len(plan.jobs)} jobs: {wall:.2f} s wall, {cpu:.2f} s CPU")


def _frames(day: int) -> list[NightFrame]:
    kinds = [("BIAS", "150_620", 15), ("DARK", "150_620", 5)]
    kinds += [
        (tag, mode, n) for mode in MODES for tag, n in (("FLAT", 3), ("ARC", 3), ("OBJECT", 6))
    ]
    start = datetime(2026, 1, 29, 22) + timedelta(days=day)
    frames = []
    for number, (tag, mode) in enumerate((t, m) for t, m, n in kinds for _ in range(n)):
        date = start + timedelta(minutes=8 * number)
        info = FrameInfo(
            name=f"{tag} {day} {number}.fits",
            tag=tag,
            mode=mode,
            readmode="slow",
            date_obs=date.isoformat(),
            mjd=(date - datetime(1858, 11, 17)).total_seconds() / 86400,
            exptime=20.0,
            keywords={"target": "tile_046"} if tag == "OBJECT" else {},
            layout="1300x1340",
        )
        frames.append(NightFrame(Path("/raw") / info.name, info, "1300x1340", 1, "ISOPLANE"))
    return [replace(frame) for frame in frames]


def bench_kill(folder: Path, moments: range, workers: int) -> None:
    """Kill a worker or the whole run at random moments of a night of ten frames."""
    night = simulate_night(folder / f"ten_{os.getpid()}", TEN_FRAMES, seed=3)
    words = ("--instrument", str(night.instrument), "--plots", "none")
    words += ("--workers", str(workers))
    quiet = folder / f"quiet_{os.getpid()}"
    wall, _, found = timed(lambda: reduce(night.folder, quiet, *words))
    if found["exit_code"] not in (0, 4) or len(found["jobs"]) < 5:
        raise SystemExit(f"the quiet run failed: {found}")
    expected, rng, same = images(quiet), random.Random(f"8 {moments}"), 0
    for number in moments:
        output = folder / f"killed_{os.getpid()}_{number}"
        run = subprocess.Popen(
            command(night.folder, output, *words),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0, wall))
        victim = rng.choice([run.pid, *children_of(run.pid)])
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(victim, signal.SIGKILL)
        run.wait()
        reduce(night.folder, output, *words)
        equal = images(output) == expected
        same += equal
        who = "run" if victim == run.pid else "worker"
        print(f"  {number + 1:2d}: {who} killed, {'same data' if equal else 'DIFFERENT DATA'}")
    print(f"kill -9 at {len(moments)} moments: {same} times the data of the quiet run")


def images(folder: Path) -> dict[str, list[bytes]]:
    """Return the bytes of all images of all products."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            found[path.name] = [hdu.data.tobytes() for hdu in hdus if hdu.is_image]
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parts = ("night", "scan", "plan", "kill")
    parser.add_argument("--part", choices=parts, action="append")
    parser.add_argument("--moments", type=int, nargs="+", default=[20], help="number, or from, to")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 1])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    chosen = arguments.part or parts
    if "plan" in chosen:
        bench_plan()
    if "scan" in chosen:
        bench_scan(arguments.folder)
    if "kill" in chosen:
        bench_kill(arguments.folder, range(*arguments.moments), arguments.workers[0])
    if "night" in chosen:
        bench_night(arguments.folder, arguments.workers)


if __name__ == "__main__":
    main()
