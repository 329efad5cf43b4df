"""Accuracy of science spectra on simulated nights: sky, throughput, errors, audit, velocity, speed.

Usage: ``python benchmarks/bench_science.py [SEEDS] [MODE ...]`` (2 seeds; ISOPLANE 150_620 and
600_680, and VIS, which is K-SPEC with 150 fibres). Full-size nights with every trap on are reduced
through set-of-files lists as a user would. Each row is one night of two science exposures; the
columns are those of the table in docs/accuracy.md.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers
from bench_chain import reduce_night, width
from scipy.interpolate import CubicSpline
from scipy.ndimage import median_filter

from kspecpipe.audit.reduced import audit, find_files
from kspecpipe.simulate import Night, NightPlan, simulate_night
from kspecpipe.sky.rebin import inflate_errors

MODES = ("150_620", "600_680", "VIS")
#: Samples that are summed to see whether their correlation is known.
SUMMED = 8
#: Parts of the spectrum whose level of the sky is compared.
PARTS = 8
#: Relative noise of the light of a fibre that can tell an error of 1 %.
SHARP = 0.005
HEADER = (
    "mode     seed | S pull  chi2 cont line | sky cont  noise   line  noise [%] | "
    "P ratio spread [%] | "
    "P pull  sum | audit   var | air    v [m/s] | dropped |  cpu s   MB"
)


@dataclass(frozen=True)
class Exposed:
    """One exposure: its products and its truth."""

    extracted: fits.HDUList
    reduced: fits.HDUList
    truth: fits.HDUList
    fibres: fits.HDUList

    @property
    def kind(self) -> np.ndarray:
        """Return the type of each fibre; dead ones are blank."""
        table = self.reduced["FIBRES"].data
        return np.where(table["STATUS"] == "DEAD", "", table["TYPE"])

    @property
    def edges(self) -> np.ndarray:
        """Return the edges of the grid's pixels [Angstrom]."""
        header = self.reduced[0].header
        centre = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"] + 1)
        return np.asarray(centre - header["CDELT1"] / 2)

    def true(self, part: str) -> np.ndarray:
        """Return true light on the grid in electrons of the median fibre, (nfib, nw)."""
        passed = self.fibres["TRANSMISSION"].data
        table = self.fibres["FIBRES"].data
        alive = table["STATUS"] == "OK"
        even = passed / np.mean(passed[alive] / table["THROUGHPUT"][alive, None], axis=0)
        light = self.truth[part].data / even
        return np.stack([self._onto_grid(*row) for row in zip(self.wavelength, light, strict=True)])

    @property
    def wavelength(self) -> np.ndarray:
        """Return true wavelengths (nfib, nx)."""
        return np.asarray(self.truth["WAVELENGTH"].data)

    def _onto_grid(self, wavelength: np.ndarray, light: np.ndarray) -> np.ndarray:
        """Share light among the pixels of the grid, by a spline of what is summed up."""
        x = np.arange(len(light) + 1) - 0.5
        at = CubicSpline(wavelength, np.arange(len(light), dtype=float))(self.edges)
        total = CubicSpline(x, np.concatenate([[0.0], np.cumsum(light)]))(at)
        outside = (at < 0) | (at > len(light) - 1)
        return np.diff(np.where(outside, np.nan, total))


def masks(sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a true sky (nfib, n) is continuum, and where it is a strong line."""
    level = median_filter(np.nan_to_num(sky), (1, 151))
    return sky < 1.15 * level, sky > 3 * level


def chi2(pulls: np.ndarray) -> float:
    """Return the mean square of the pulls below 5."""
    kept = pulls[np.isfinite(pulls) & (np.abs(pulls) < 5)]
    return float(np.mean(kept**2)) if kept.size else float("nan")


def sky_rows(one: Exposed) -> list[float]:
    """Return width of the pulls of the sky fibres, chi2 in continuum and in strong lines."""
    rows = one.kind == "S"
    pulls = (one.reduced[0].data / np.sqrt(one.reduced["VARIANCE"].data))[rows]
    continuum, line = masks(one.true("SKY")[rows])
    return [width(pulls), chi2(pulls[continuum]), chi2(pulls[line])]


def sky_model(one: Exposed) -> list[float]:
    """Return mean square errors of the sky of the program fibres beyond noise [%^2].

    Parts of the spectrum are compared, so that the noise of single samples does not hide an error
    of the level: in each, the sky of every program fibre less the true one, over the true one. The
    expectation of its square is that of the error and the noise that the sky fibres themselves
    carry, which is taken off. In continuum, then in lines, each followed by that noise.
    """
    rows, sky_fibres = one.kind == "P", one.kind == "S"
    true = one.truth["SKY"].data
    variance = one.extracted["VARIANCE"].data[sky_fibres]
    found = []
    for mask in masks(true):
        parts = []
        for part in np.array_split(np.arange(true.shape[1]), PARTS):
            own = mask[rows][:, part] & np.isfinite(one.extracted["SKY"].data[rows][:, part])
            seen = mask[sky_fibres][:, part] & np.isfinite(variance[:, part])
            if own.sum(axis=1).min() < 3 or seen.sum() < 3:
                continue
            light = (own * true[rows][:, part]).sum(axis=1)
            off = one.extracted["SKY"].data[rows][:, part] - true[rows][:, part]
            error = np.where(own, off, 0).sum(axis=1) / light
            counted = np.where(seen, true[sky_fibres][:, part], 0).sum()
            noise = np.where(seen, variance[:, part], 0).sum() / counted**2
            parts.append((np.mean(error**2), noise))
        square, noise = np.array(parts).T
        weight = 1 / noise / np.sum(1 / noise)
        found += [1e4 * float(weight @ (square - noise)), 1e4 * float(weight @ noise)]
    return found


def program_fibres(one: Exposed) -> list[float]:
    """Return median of light over truth, its mean square scatter beyond noise [%^2], pulls.

    The scatter is that of the fibres whose light is known to 0.5 %; the median is of all, each
    with its weight.
    """
    rows = np.flatnonzero(one.kind == "P")
    true = one.true("TARGET")[rows]
    value, variance = one.reduced[0].data[rows], one.reduced["VARIANCE"].data[rows]
    known = np.isfinite(value) & np.isfinite(true)
    weight = np.where(known, 1 / variance, 0.0)
    value, true = np.where(known, value, 0.0), np.where(known, true, 0.0)
    information = (weight * true**2).sum(axis=1)
    ratio = (weight * value * true).sum(axis=1) / information
    noise = 1 / information
    middle = weighted_median(ratio, information)
    sharp = noise < SHARP**2
    excess = 1e4 * np.mean((ratio[sharp] - middle) ** 2 - noise[sharp]) if sharp.any() else np.nan
    pulls = np.where(known, (value - true) / np.sqrt(variance), np.nan)
    return [middle, float(excess), width(pulls), _sums(one, rows, true)]


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the value below which half of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def root(square: float) -> float:
    """Return the square root; of less than nothing, which noise leaves, 0."""
    return float(np.sqrt(max(square, 0.0)))


def _sums(one: Exposed, rows: np.ndarray, true: np.ndarray) -> float:
    """Return the width of the pulls of sums of samples, errors inflated by their correlation."""
    header = one.reduced[0].header
    lags = [header[f"ESO PRO CORR{lag}"] for lag in (1, 2, 3)]
    count = true.shape[1] // SUMMED * SUMMED
    shape = (len(rows), -1, SUMMED)
    difference = (one.reduced[0].data[rows] - true)[:, :count].reshape(shape).sum(axis=2)
    variance = one.reduced["VARIANCE"].data[rows][:, :count].reshape(shape).sum(axis=2)
    correlation = np.broadcast_to(lags, (len(rows), len(lags)))
    return width(difference / np.sqrt(inflate_errors(variance, correlation, SUMMED)))


def velocity(one: Exposed) -> list[float]:
    """Return the largest differences of airmass and velocity [m/s] from those of astropy."""
    header, table = one.reduced[0].header, one.reduced["FIBRES"].data
    time_of = Time(header["DATE-OBS"], scale="utc") + header["EXPTIME"] / 2 * u.s
    place = EarthLocation.from_geodetic(-70.8065 * u.deg, -30.1690 * u.deg, 2207 * u.m)
    target = SkyCoord(table["RA"] * u.deg, table["DEC"] * u.deg)
    with iers.conf.set_temp("auto_download", False):
        high = target.transform_to(AltAz(obstime=time_of, location=place)).secz
        speed = target.radial_velocity_correction("barycentric", obstime=time_of, location=place)
    air = np.abs(table["AIRMASS"] - high.value)
    return [float(np.nanmax(air)), float(np.nanmax(np.abs(table["VBARY"] * 1e3 - speed.value)))]


def audited(paths: list[Path]) -> list[float]:
    """Return the largest difference relative to RWSS, and predicted over given variance."""
    found = [audit(find_files(path, {})) for path in paths]
    worst = max(float(np.nanmax(d.relative)) for one in found for d in one.differences)
    ratios = [one.noise.ratio(one.noise.predicted) for one in found if one.noise]
    return [worst, float(np.nanmedian(ratios))]


def timed(night: Night, folder: Path) -> list[float]:
    """Run ``kspec object`` as a process of its own; return CPU seconds and peak memory [MB]."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(sys.executable).with_name("kspec")), "object", "object_all.sof"]
    subprocess.run(  # noqa: S603 - our own command
        [*command, "-q", "-o", str(folder)], cwd=night.folder, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [seconds, after.ru_maxrss / 1024]


def measure(night: Night, outcomes: dict[str, Any], folder: Path) -> list[float]:
    """Compare the products of a night with the truth, exposures averaged."""
    products = outcomes["object"].products
    paths = {tag: [p for p, t in products if t == tag] for tag in ("EXTRACTED", "REDUCED")}
    fibres = fits.open(next(iter(night.fibres.values())))
    rows = []
    dropped = 0
    for number, file in enumerate(night.tagged("OBJECT")):
        hdus = [fits.open(paths[tag][number]) for tag in ("EXTRACTED", "REDUCED")]
        one = Exposed(*hdus, fits.open(file.truth), fibres)
        rows.append([*sky_rows(one), *sky_model(one), *program_fibres(one), *velocity(one)])
        dropped += int((one.kind == "S").sum()) - hdus[1][0].header["ESO QC SKY FIBRES"]
    mean = np.mean(rows, axis=0).tolist()
    return [*mean[:11], *audited(paths["REDUCED"]), *mean[11:], dropped, *timed(night, folder)]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    print(HEADER)
    for mode in sys.argv[2:] or MODES:
        rows = []
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as name:
                plan = NightPlan("kspec" if mode == "VIS" else "isoplane", modes=(mode,))
                night = simulate_night(Path(name) / "raw", plan, seed=seed)
                outcomes, _ = reduce_night(night, Path(name) / "out")
                rows.append(measure(night, outcomes, Path(name) / "timed"))
                print_row(mode, str(seed), rows[-1])
        print_row(mode, "mean", np.nanmean(rows, axis=0).tolist())


def print_row(mode: str, seed: str, m: list[float]) -> None:
    """Print the numbers of one night, or means over nights (squares before their roots)."""
    print(
        f"{mode:<8} {seed:>4} | {m[0]:6.3f}  {m[1]:9.3f} {m[2]:4.3f} |"
        f" {root(m[3]):8.2f} {root(m[4]):6.2f} {root(m[5]):6.2f} {root(m[6]):6.2f}     |"
        f" {m[7]:7.4f} {root(m[8]):10.2f} | {m[9]:6.3f} {m[10]:5.3f} | {m[11]:.0e} {m[12]:5.3f} |"
        f" {m[13]:.0e} {m[14]:7.2f} | {m[15]:7.0f} | {m[16]:6.1f} {m[17]:4.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
