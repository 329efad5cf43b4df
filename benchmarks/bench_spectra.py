"""Coaddition, splicing and export: 10 exposures of 150 fibres, as whole processes.

usage: python benchmarks/bench_spectra.py

Products with known truth are written to a scratch folder; the commands run as a user runs them. The
reference of the coaddition is astropy's sigma clipping and mean of the same numbers in memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.stats import sigma_clip

from kspecpipe import fibres, io, read_spectra
from kspecpipe.products.hdus import build_hdus
from kspecpipe.signal import Signal
from kspecpipe.spectra import Reduced

NFIB, NW, COUNT = 150, 2048, 10
BLUE, RED = 4000.0, 4000.0 + 1700.0
_CARDS = {"INSTRUME": "KSPEC", "READMODE": "slow", "OBJECT": "tile_001", "EXPTIME": 600.0}


def truth(wavelength: np.ndarray) -> np.ndarray:
    """Return the spectra [electron per Angstrom]."""
    lines = sum(150 * np.exp(-0.5 * ((wavelength - at) / 4) ** 2) for at in range(4100, 9000, 237))
    level = np.geomspace(0.2, 5, NFIB)[:, None]
    return level * (80 + 20 * np.sin(wavelength / 300) + lines)


def write(folder: Path, number: int, mode: str, start: float, step: float) -> Path:
    """Write one exposure as REDUCED."""
    rng = np.random.default_rng([number, int(start)])
    wavelength = start + step * np.arange(NW)
    clean = truth(wavelength) * step * (1 + 0.1 * np.sin(number))
    sky = np.broadcast_to(120 + 600 * np.exp(-0.5 * ((wavelength - 5577) / 3) ** 2), clean.shape)
    variance = clean + sky + 25.0
    value = clean + np.sqrt(variance) * rng.standard_normal(clean.shape)
    hit = (rng.integers(0, NFIB, 300), rng.integers(10, NW - 10, 300))
    value[hit] += 30 * np.sqrt(variance[hit])
    product = Reduced(
        spectra=Signal.of(value, variance),
        rwss=value + sky,
        sky=sky,
        sky_variance=np.full(clean.shape, 5.0),
        lsf=np.full(clean.shape, 6.0),
        axis={"CRPIX1": 1.0, "CRVAL1": start, "CDELT1": step, "CTYPE1": "AWAV"},
        fibres=fibres.fibre_table(range(1, NFIB + 1), ["OK"] * NFIB),
    )
    cards = {name: (card, "") for name, card in _CARDS.items()}
    cards |= {
        "ESO PRO CATG": ("REDUCED", ""),
        "INSMODE": (mode, ""),
        "DATE-OBS": (f"2026-01-29T{number:02d}:00:00", ""),
        "MJD-OBS": (61069.0 + number / 24, ""),
    }
    path = folder / f"{mode}_{number:02d}.fits"
    io.write_products([(path, build_hdus(product, cards, {}))])
    return path


def timed(*words: object) -> tuple[float, float]:
    """Run kspec; return wall clock and CPU time [s]."""
    command = [sys.executable, "-c", "from kspecpipe.cli import main; raise SystemExit(main())"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, *map(str, words)], check=False, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def reference(paths: list[Path]) -> float:
    """Return the time of a plain clipped mean in memory [s]."""
    stack = np.stack([io.read_product(path).spectra.value for path in paths])
    start = time.perf_counter()
    sigma_clip(stack, sigma=4.5, axis=0, masked=True).mean(axis=0)
    return time.perf_counter() - start


def report(name: str, found: str, goal: str) -> None:
    """Print one row of the table."""
    print(f"| {name:<52} | {found:>22} | {goal:>10} |")


def main() -> None:
    """Measure everything and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        blue = [write(folder, i, "blue", BLUE, 1.0) for i in range(COUNT)]
        red = [write(folder, i, "red", RED, 1.2) for i in range(COUNT)]
        wall, cpu = timed("coadd", *blue, "-o", folder, "--plots", "none")
        plain = reference(blue)
        coadded = next(folder.glob("*blue_coadded*.fits"))
        timed("coadd", *red, "-o", folder, "--plots", "none")
        timed("splice", coadded, next(folder.glob("*red_coadded*.fits")), "-o", folder)
        written, used = timed("export", coadded, "-o", folder / "export")
        report("coadd, whole process: wall, CPU", f"{wall:.1f} s, {cpu:.1f} s", "5 s")
        report("the same over astropy's clipped mean alone", f"{wall / plain:.1f} x", "")
        report("export of 150 fibres: wall, CPU", f"{written:.1f} s, {used:.1f} s", "5 s")
        accuracy(coadded, blue)
        join(next(folder.glob("*spliced*.fits")))


def accuracy(coadded: Path, singles: list[Path]) -> None:
    """Compare the mean with the truth and with single exposures."""
    mean = read_spectra(coadded)
    expected = truth(mean.wavelength)
    single = read_spectra(singles[0])
    gain = np.median((mean.flux / mean.uncertainty) / (single.flux / single.uncertainty), axis=1)
    # The exposures differ in level: what N of them allow is the root of their summed squares.
    levels = 1 + 0.1 * np.sin(np.arange(COUNT))
    ideal = np.sqrt(COUNT) * np.sqrt(np.mean(levels**2)) / levels[0]
    report("S/N over sqrt(N) of the exposures", f"{np.median(gain) / ideal:.3f}", "0.97-1.03")
    pull = (mean.flux - expected * np.mean(levels)) / mean.uncertainty
    width = 1.4826 * np.median(np.abs(pull - np.median(pull)))
    report("pulls of the mean: robust width", f"{width:.3f}", "")
    report("samples beyond 5 sigma (3000 cosmic rays put in)", f"{(np.abs(pull) > 5).sum()}", "0")


def join(spliced: Path) -> None:
    """Look for a step at either end of the overlap."""
    found = read_spectra(spliced)
    step = np.median(np.diff(found.wavelength))
    ratio = found.flux / (truth(found.wavelength) * step)
    worst = 0.0
    for edge in (RED, BLUE + NW):
        at = int(np.searchsorted(found.wavelength, edge))
        sides = [
            np.nanmean(ratio[NFIB // 2 :, part])
            for part in (slice(at - 60, at - 4), slice(at + 4, at + 60))
        ]
        worst = max(worst, abs(sides[1] / sides[0] - 1))
    report("splice: step at the ends of the overlap", f"{100 * worst:.2f} %", "0.5 %")


if __name__ == "__main__":
    main()
