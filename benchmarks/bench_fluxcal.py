"""Accuracy of flux calibration through the whole chain, from raw frames, every trap on.

Usage: ``python benchmarks/bench_fluxcal.py [--spectra DIR] [--taught] [--seeds N] ...``

Three standard stars are observed at several signal-to-noise ratios. Without ``--spectra`` they are
F and G dwarfs between the models of the simulator's library; with it they are the first three real
spectra of a folder (FITS tables with WAVELENGTH in vacuum and FLUX, as CALSPEC has them).
``--templates`` names another library; ``--taught`` takes models corrected by those real stars that
are not among the standards, and wrong by ``--mismatch`` (see `flux_library`). The response from
each star alone (N = 1) and from all three (N = 3; from two if the third has taught the library)
turns the true light of every star into flux; what is printed is how this differs from the star's
true flux, in bins of 100 Angstrom from 3900 to 8600 without telluric bands.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from flux_library import correct_library, mismatch, real_over_model

from kspecpipe.ancillary import load_mask_regions
from kspecpipe.base_recipe import run_recipe
from kspecpipe.fluxcal.photometry import load_filter_curve
from kspecpipe.regions import inside_regions
from kspecpipe.simulate import FrameCounts, Night, NightPlan, simulate_night
from kspecpipe.simulate.standards import LibraryPlan, StandardStar

STEPS = {"mbias": "bias", "mflat": "flats", "marc": "arcs", "object": "objects"}
#: Gaia magnitudes that give these signal-to-noise ratios per pixel in 2400 s.
BRIGHTNESS = {100: 15.9, 70: 16.7, 30: 18.4, 10: 20.0}
#: The dead fibre is one that never looks at a star.
SKY_FIBRE = 9
LIBRARY = LibraryPlan(
    teff=tuple(np.arange(5250.0, 7300.0, 250.0)),
    logg=(3.5, 4.0, 4.5),
    feh=(-2.0, -1.5, -1.0, -0.5, 0.0),
)
EDGES = np.arange(3900.0, 8601.0, 100.0)
HEADER = "S/N   N  shape median worst   g-r rms worst   r-i rms   grey rms   pull   stars"


def simulated_stars(rng: np.random.Generator) -> list[StandardStar]:
    """Return stars that are no model of the library."""
    return [
        StandardStar(
            float(rng.uniform(5700, 6900)),
            float(rng.uniform(3.8, 4.5)),
            float(rng.uniform(-1.6, -0.2)),
            15.0,
            ebv=float(rng.uniform(0, 0.05)),
            velocity=float(rng.normal(0, 80)),
        )
        for _ in range(3)
    ]


def real_stars(folder: Path) -> list[StandardStar]:
    """Return stars with the spectra of a folder."""
    stars = []
    for path in sorted(folder.glob("*.fits*"))[:3]:
        with fits.open(path) as hdus:
            wave, flux = (np.array(hdus[1].data[key], float) for key in ("WAVELENGTH", "FLUX"))

        def spectrum(vacuum: Any, wave: Any = wave, flux: Any = flux) -> Any:
            return np.interp(vacuum, wave, flux)

        stars.append(StandardStar(6000.0, 4.4, 0.0, 15.0, spectrum=spectrum))
    return stars


class Bench:
    """One instrument, whose calibrations serve all brightnesses."""

    def __init__(self, folder: Path, stars: list[StandardStar], seed: int, library: Path | None):
        self.folder, self.stars, self.seed = folder, stars, seed
        self.lessons: list[Any] = []
        self.mismatch = 0.0
        self.lines: list[str] = []
        self.library = library
        middle = (EDGES[1:] + EDGES[:-1]) / 2
        self.clear = ~inside_regions(middle, load_mask_regions("telluric_regions"), margin=60.0)

    def night(self, magnitude: float, *, first: bool) -> Night:
        """Simulate the calibrations once, and the exposures of each brightness."""
        bright = tuple(dataclasses.replace(star, gaia=magnitude) for star in self.stars)
        counts = FrameCounts(3, 0, 1, 1, 1) if first else FrameCounts(0, 0, 0, 0, 1)
        library = LIBRARY if first and self.library is None else None
        plan = NightPlan(standards=bright, counts=counts, library=library, dead=(SKY_FIBRE,))
        found = simulate_night(self.folder / f"raw{magnitude}", plan, seed=self.seed)
        if library is not None:
            self.library = found.folder / "templates"
        return found

    def reduce(self, night: Night) -> dict[str, Path]:
        """Run the chain; return EXTRACTED and REDUCED."""
        products: dict[str, Path] = {}
        for recipe, key in STEPS.items():
            if key not in night.sofs:
                continue
            outcome = self.run(recipe, night, night.sofs[key].read_text().splitlines())
            products = {tag: path for path, tag in outcome.products}
            if recipe != "object":
                self.lines += [f"{path} {tag}" for path, tag in outcome.products]
        return products

    def run(self, recipe: str, night: Night, lines: list[str], name: str = "out") -> Any:
        """Run a recipe on lines of a SOF and the calibrations."""
        sof = night.folder / f"{recipe}_{name}.sof"
        sof.write_text("\n".join([*lines, *(self.lines if recipe != "fluxcal" else [])]) + "\n")
        outcome = run_recipe(
            recipe, sof, log=False, output=night.folder / name, plots="none", ignore_input_qc=True
        )
        if not outcome.products:
            raise SystemExit(f"{recipe}: {' '.join(outcome.errors)}")
        return outcome

    def teach(self, size: float) -> None:
        """Correct the library by the stars from now on, and make it wrong by ``size``."""
        self.lessons = [real_over_model(star.spectrum) for star in self.stars if star.spectrum]
        self.mismatch = size

    def library_for(self, used: tuple[int, ...]) -> Path | None:
        """Return the library for these stars, which the others have taught."""
        if not self.lessons or self.library is None:
            return self.library
        folder = self.folder / f"taught{used}".replace(" ", "")
        if not folder.exists():
            known = [one for k, one in enumerate(self.lessons) if k not in used]
            wrong = mismatch(self.mismatch, self.seed) ** len(known)
            correct_library(self.library, folder, [known[0] * wrong, *known[1:]])
        return folder

    def calibrate(self, night: Night, reduced: Path, used: tuple[int, ...]) -> Path:
        """Run fluxcal with some of the stars as standards, the others as program stars."""
        rows = [line.split() for line in night.assignment.read_text().splitlines()]
        standards = [row for row in rows if row[-1] == "8"]
        for number, row in enumerate(standards):
            row[-1] = "8" if number in used else "1"
        name = "n" + "".join(map(str, used))
        assignment = night.folder / f"{name}.assign.txt"
        assignment.write_text("\n".join(" ".join(row) for row in rows) + "\n")
        catalogue = next(night.folder.glob("*refcat2.csv"))
        lines = [
            f"{reduced} REDUCED",
            f"{assignment} ASSIGN",
            f"{catalogue} STD_CATALOG",
            f"{self.library_for(used)} TEMPLATES",
        ]
        outcome = self.run("fluxcal", night, lines, name)
        return next(path for path, tag in outcome.products if tag == "CALIBRATED")

    def compare(self, night: Night, extracted: Path, calibrated: Path) -> dict[str, float]:
        """Return how the flux of the true light of each star differs from its true flux."""
        with fits.open(night.tagged("OBJECT")[0].truth) as hdus:
            target = np.array(hdus["TARGET"].data, float)
            wave = np.array(hdus["WAVELENGTH"].data, float)
        with fits.open(extracted) as hdus:
            even = hdus["FLAT"].data * hdus["FIBRES"].data["THROUGHPUT"][:, None]
        with fits.open(calibrated) as hdus:
            header = hdus[0].header
            grid = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
            factor, error = hdus["FACTOR"].data, hdus["FACTERR"].data
            used = int(header["FCALNSTR"])
        with fits.open(next(iter(night.fibres.values()))) as hdus:
            table = hdus["SPECTRA"].data
            fine, truth = table["WAVELENGTH"], table["FLUX"]
            rows = np.flatnonzero(hdus["FIBRES"].data["CLASS"] == 8)
        curves, colours = [], []
        middle = (EDGES[1:] + EDGES[:-1]) / 2
        for row in rows:
            width = np.gradient(wave[row])
            scale = np.interp(wave[row], grid, factor[row]) * header["CDELT1"]
            flux = target[row] / even[row] / width * scale
            true = np.interp(wave[row], fine, truth[:, row])
            part = np.digitize(wave[row], EDGES) - 1
            inside = (part >= 0) & (part < EDGES.size - 1)
            weight = width * inside
            share = [
                np.bincount(part[inside], (values * weight)[inside], EDGES.size - 1)
                for values in (flux, true)
            ]
            curves.append(share[0] / share[1])
            # The truth holds telluric absorption, which is no error of the calibration.
            ratio = np.interp(wave[row], middle[self.clear], curves[-1][self.clear])
            colours.append([self.magnitude(wave[row], true, ratio, band) for band in "gri"])
        curve = np.median(curves, axis=0)[self.clear]
        g, r, i = np.median(colours, axis=0)
        expected = np.interp(middle, grid, error)[self.clear]
        return {
            "shape": float(np.std(curve / np.median(curve))),
            "g-r": float(g - r),
            "r-i": float(r - i),
            "grey": float(np.median(curve) - 1),
            "pull": float(np.sqrt(np.mean(((curve - 1) / expected) ** 2))),
            "used": used,
        }

    @staticmethod
    def magnitude(wave: Any, true: Any, ratio: Any, band: str) -> float:
        """Return the error of a magnitude."""
        curve = load_filter_curve(f"ps1_{band}")
        seen = np.interp(wave, curve.wavelength, curve.transmission, left=0, right=0)
        weight = seen * true * wave * np.gradient(wave)
        return float(-2.5 * np.log10(np.sum(weight * ratio) / np.sum(weight)))


def report(snr: int, count: int, found: list[dict[str, float]]) -> str:
    """Return one line of the table."""

    def rms(key: str) -> float:
        return float(np.sqrt(np.mean([one[key] ** 2 for one in found])))

    shape = [100 * one["shape"] for one in found]
    worst = max(abs(one["g-r"]) for one in found)
    return (
        f"{snr:<5} {count}  {np.median(shape):8.2f} % {max(shape):5.2f} %   {rms('g-r'):.4f} "
        f"{worst:.4f}   {rms('r-i'):.4f}   {100 * rms('grey'):6.2f} %   {rms('pull'):.2f}"
        f"   {len(found)}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spectra", type=Path)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--taught", action="store_true")
    parser.add_argument("--mismatch", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--snr", type=int, nargs="+", default=list(BRIGHTNESS))
    parser.add_argument("--reddening", type=float, default=0.0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for seed in range(1, given.seeds + 1):
        rng = np.random.default_rng(seed)
        stars = real_stars(given.spectra) if given.spectra else simulated_stars(rng)
        stars = [dataclasses.replace(one, ebv=one.ebv + given.reddening) for one in stars]
        with tempfile.TemporaryDirectory() as name:
            bench = Bench(Path(name), stars, seed, given.templates)
            if given.taught:
                bench.teach(given.mismatch)
            for number, snr in enumerate(given.snr):
                night = bench.night(BRIGHTNESS[snr], first=number == 0)
                products = bench.reduce(night)
                together = 2 if given.taught else 3
                sets = [(0,), (1,), (2,), *itertools.combinations(range(3), together)]
                for used in sets:
                    path = bench.calibrate(night, products["REDUCED"], used)
                    numbers = bench.compare(night, products["EXTRACTED"], path)
                    found.setdefault((snr, len(used)), []).append(numbers)
    print(HEADER)
    for (snr, count), numbers_of in found.items():
        print(report(snr, count, numbers_of))


if __name__ == "__main__":
    main()
