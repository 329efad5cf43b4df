"""Traces, profiles and extraction against a simulated spectrograph whose truth is known.

Usage: ``python benchmarks/bench_extraction.py [14|150|traps ...]`` (all parts). Beside the package
the same frames are extracted by a plain sum over the pitch and, when specreduce is installed
(``pip install specreduce``), by its HorneExtract fibre by fibre. The noise of an extraction is
compared with the Cramer-Rao bound: the least noise that any unbiased estimator can have which
knows the true profiles of all fibres. Seconds are CPU time.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from kspecpipe.detector.cosmic import CosmicOptions, find_cosmics
from kspecpipe.extraction.halo import measure_halo, subtract_scattered
from kspecpipe.extraction.response import split_response
from kspecpipe.extraction.solve import ExtractionOptions, extract_fibres, extract_sum
from kspecpipe.signal import DQ, Signal
from kspecpipe.simulate import NightPlan, Traps
from kspecpipe.simulate.detector import cosmic_rays
from kspecpipe.simulate.exposure import open_dome
from kspecpipe.simulate.fibres import transmission
from kspecpipe.simulate.light import arc_light, flat_light, object_light
from kspecpipe.simulate.optics import Shift
from kspecpipe.simulate.plan import LAMPS
from kspecpipe.simulate.scene import expected_image
from kspecpipe.trace.find import find_traces
from kspecpipe.trace.layout import FibreLayout
from kspecpipe.trace.model import Traces
from kspecpipe.trace.profile import measure_profile
from kspecpipe.trace.shift import measure_shift
from kspecpipe.trace.table import sample_profile

PRNU, FLAT_FRAMES = 0.006, 3
LEVELS = (0.0, 100.0, 1000.0, 5000.0)


def rms(values: np.ndarray) -> float:
    """Return the root mean square of the finite values."""
    return float(np.sqrt(np.nanmean(np.square(values))))


def robust(values: np.ndarray) -> float:
    """Return 1.4826 times the median absolute value."""
    return float(1.4826 * np.nanmedian(np.abs(values)))


@dataclass
class Scene:
    """A spectrograph with drawn accidents, its flat and what was measured on it."""

    plan: NightPlan
    ron: float
    seed: int = 1

    def __post_init__(self) -> None:
        """Draw the instrument and trace it on a flat of three exposures."""
        self.rng = np.random.default_rng(self.seed)
        self.dome = open_dome(self.plan, self.seed)
        self.bench = next(iter(self.dome.benches.values()))
        self.optics = self.bench.optics
        rows = np.mean(self.optics.trace(Shift()), axis=1)
        free = (round(rows[-1]) + 42, round(rows[-1]) + 142)
        scattered = self.plan.traps.scattered_light
        self.layout = FibreLayout(np.round(rows), 6.0, (free,) if scattered else ())
        light = flat_light(self.bench, Shift(), 0.7)
        image = self.image(light)
        self.flat = self.expose(image, frames=FLAT_FRAMES, rays=False)
        start = time.process_time()
        traces = find_traces(self.flat, self.layout)
        self.profile, self.traces = measure_profile(self.flat, traces)
        self.trace_time = time.process_time() - start
        self.flat_light = light
        self.halo = measure_halo(self.flat, self.traces) if scattered else None

    def image(self, electron: np.ndarray, shift: Shift | None = None) -> np.ndarray:
        """Return the expected image of spectra."""
        trace = self.optics.trace(shift or Shift())
        return expected_image(self.optics, trace, electron, self.plan.traps)

    def expose(
        self, image: np.ndarray, *, frames: int = 1, prnu: float = 0.0, rays: bool = False
    ) -> Signal:
        """Take the average of some frames; its variance is that of the read noise."""
        seen = image * (1 + prnu * self.rng.standard_normal(image.shape)) if prnu else image
        value = self.rng.poisson(np.maximum(seen, 0) * frames) / frames
        value = value + self.ron / np.sqrt(frames) * self.rng.standard_normal(image.shape)
        if rays:
            value = value + self.rays
        return Signal.of(value.astype(np.float32), np.float32(self.ron**2 / frames))

    def cleaned(self, frame: Signal, traces: Traces | None = None) -> Signal:
        """Subtract scattered light, if there is some."""
        if self.halo is None:
            return frame
        return subtract_scattered(frame, traces or self.traces, self.layout, self.halo)[0]

    @cached_property
    def rays(self) -> np.ndarray:
        """Electrons of the cosmic rays of a long exposure."""
        rate = self.dome.instrument.detector.ray_rate
        return cosmic_rays(self.dome.instrument.detector.shape, 2400 * rate, self.rng)

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Measured windows and profiles."""
        return sample_profile(self.profile, self.traces.y)

    @cached_property
    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows and true profiles, 12 pixels to both sides."""
        y = self.optics.trace(Shift())
        window = np.round(y).astype(int) - 12
        mix = self.optics.mix(np.arange(y.shape[1], dtype=float))
        scale = self.optics.profile_scale()
        rows = np.arange(25)[:, None]
        shares = [
            self.optics.profile.shares(w + rows - t, s, mix)
            for w, t, s in zip(window, y, scale, strict=True)
        ]
        return window, np.stack(shares)

    def bound(self, image: np.ndarray) -> np.ndarray:
        """Return the Cramer-Rao bound of the variance of every sample."""
        window, shares = self.truth
        variance = self.ron**2 + image
        n_fibre, n_x = window.shape
        least = np.empty((n_fibre, n_x))
        for x in range(n_x):
            design = np.zeros((image.shape[0] + 60, n_fibre))
            for f in range(n_fibre):
                first = window[f, x] + 30
                design[first : first + shares.shape[1], f] = shares[f, :, x]
            design = design[30:-30]
            normal = (design.T / variance[:, x]) @ design
            least[:, x] = np.diag(np.linalg.inv(normal))
        return least


Method = Callable[[Scene, Signal], tuple[np.ndarray, np.ndarray]]


def by_package(scene: Scene, frame: Signal, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Extract as object does, without looking for cosmic rays."""
    chosen = ExtractionOptions(**({"reject_sigma": 0.0} | options))
    spectra = extract_fibres(frame, *scene.profiles, options=chosen).spectra
    return spectra.value, spectra.variance


def by_sum(scene: Scene, frame: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Sum the pixels within the pitch."""
    noisy = Signal(frame.value, frame.variance + np.maximum(frame.value, 0), frame.dq)
    spectra = extract_sum(noisy, scene.traces.y, min(scene.traces.pitch, 12.0))
    return spectra.value, spectra.variance


def by_specreduce(scene: Scene, frame: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Extract each fibre on rows up to half-way to its neighbours with specreduce.

    Its interpolated profile is the better of its two on these frames, and masked corners of the
    sloped cut-out make it fail: they are left in.
    """
    from astropy import units
    from specreduce.extract import HorneExtract
    from specreduce.tracing import ArrayTrace

    half = int(scene.traces.pitch / 2)
    value = []
    for row in scene.traces.y:
        low, high = int(row.min()) - half, int(row.max()) + half + 2
        cut = np.asarray(frame.value[low:high], float)
        spectrum = HorneExtract(
            cut,
            ArrayTrace(cut, row - low),
            variance=scene.ron**2 + np.maximum(cut, 0),
            mask=np.zeros(cut.shape, bool),
            unit=units.electron,
            spatial_profile={"name": "interpolated_profile"},
        )()
        value.append(spectrum.flux.value)
    return np.array(value), np.full((len(value), value[0].size), np.nan)


def methods() -> dict[str, Method]:
    """Return the extractions to be compared."""
    chosen: dict[str, Method] = {"kspecpipe": by_package, "plain sum": by_sum}
    try:
        import specreduce  # noqa: F401
    except ImportError:
        print("specreduce is not installed: its HorneExtract is not measured")
    else:
        chosen["specreduce"] = by_specreduce
    return chosen


def measure_noise(scene: Scene, repeats: int) -> None:
    """Print noise over the bound, true over claimed errors and flux ratios, level by level."""
    print(
        f"{'electron':>9}  {'method':<10} {'noise/bound':>11} {'true/claimed':>12} {'flux':>8}  s"
    )
    shape = scene.traces.y.shape
    for level in LEVELS:
        image = scene.image(np.full(shape, level))
        bound = np.sqrt(scene.bound(image))
        frames = [scene.expose(image) for _ in range(repeats)]
        for name, method in methods().items():
            start = time.process_time()
            found = [method(scene, frame) for frame in frames]
            seconds = (time.process_time() - start) / repeats
            error = np.stack([value for value, _ in found]) - level
            claimed = np.sqrt(np.stack([variance for _, variance in found]))
            flux = np.nanmean(error) / level + 1 if level else np.nan
            print(
                f"{level:9.0f}  {name:<10} {rms(error / bound):11.4f} "
                f"{rms(error / claimed):12.4f} {flux:8.5f}  {seconds:.2f}",
                flush=True,
            )


def measure_bright(scene: Scene) -> None:
    """Print errors with pixel response, fibre-to-fibre differences and crosstalk."""
    shape = scene.traces.y.shape
    for level in (5e3, 2e4, 5e4):
        frame = scene.expose(scene.image(np.full(shape, level)), prnu=PRNU)
        value, variance = by_package(scene, frame, prnu=PRNU)
        pull = (value - level) / np.sqrt(variance)
        mean = np.mean(value, axis=1) / level
        error = np.sqrt(variance.sum(axis=1)) / shape[1] / level
        off = (mean - mean.mean()) / error
        print(
            f"{level:9.0f} e with pixel response: true/claimed {rms(pull):.3f}, flux "
            f"{mean.mean():.5f}, fibre-to-fibre {rms(off):.2f} sigma ({np.std(mean):.1e})"
        )
    light = np.full(shape, 5e4)
    dark = np.arange(2, shape[0] - 1, 7)
    light[dark] = 0
    frame = scene.expose(scene.image(light))
    value, _ = by_package(scene, frame)
    leak = value[dark].mean(axis=1) / 5e4
    print(
        f"crosstalk into dark fibres between bright ones: mean {leak.mean():+.5f}, "
        f"largest {np.abs(leak).max():.5f}"
    )


def measure_speed(scene: Scene) -> None:
    """Print the CPU time of one frame's extraction."""
    frame = scene.expose(scene.image(np.full(scene.traces.y.shape, 500.0)), rays=True)
    for label, options in (
        ("two passes", {"reject_sigma": 0.0}),
        ("with background and rejection", {"background": "local", "reject_sigma": 5.5}),
    ):
        start = time.process_time()
        by_package(scene, frame, **options)
        print(f"extraction, {label}: {time.process_time() - start:.2f} s")
    print(f"traces and profile: {scene.trace_time:.2f} s")


def measure_traces(scene: Scene) -> None:
    """Print the rms of traces where there is light and everywhere."""
    off = scene.traces.y - scene.optics.trace(Shift())
    lit = (scene.flat_light > 500) & scene.traces.live[:, None]
    print(f"trace rms: {rms(off[lit]):.4f} with light, {rms(off):.4f} everywhere (all fibres)")


def measure_shifts(scene: Scene, number: int = 12) -> None:
    """Print the error of frame-to-frame shifts of arcs and objects, and their claimed errors."""
    for kind in ("arc", "object"):
        off, claimed = [], []
        for _ in range(number):
            shift = Shift(float(scene.rng.uniform(-1.4, 1.4)), 0.2, scene.rng.normal(0, 0.015))
            light = science_light(scene, kind, shift)
            frame = scene.expose(scene.image(light, shift), rays=True)
            found = measure_shift(frame, scene.traces, scene.profile)
            moved = found.apply(scene.traces.y) - scene.optics.trace(shift)
            still = scene.traces.y - scene.optics.trace(Shift())
            lit = scene.traces.live
            off.append(np.mean((moved - still)[lit]))
            claimed.append(found.error)
        pull = np.array(off) / np.array(claimed)
        print(
            f"shift of an {kind}: rms error {rms(np.array(off)):.4f}, largest "
            f"{np.abs(off).max():.4f}, claimed {np.median(claimed):.4f}, pull {rms(pull):.2f}"
        )


def science_light(scene: Scene, kind: str, shift: Shift) -> np.ndarray:
    """Return the spectra of an arc or an object."""
    if kind == "arc":
        return arc_light(scene.bench, shift, LAMPS, 1.0)
    return object_light(scene.bench, shift, 2400.0, 1.2).electron


def measure_cosmics(scene: Scene, kind: str, number: int = 6) -> None:
    """Print cosmic rays that were found and samples of lines that were lost to them."""
    light = science_light(scene, kind, Shift())
    clean = scene.image(light)
    counts = np.sum([count_cosmics(scene, light, clean, kind) for _ in range(number)], axis=0)
    qualified, found, lines, lost, others, lost_others = counts.tolist()
    print(
        f"{kind}: {found / max(qualified, 1):.4f} of {qualified} events > 10 sigma found; lost "
        f"{lost / lines:.1e} of {lines} line samples, {lost_others / others:.1e} of the others"
    )


def count_cosmics(scene: Scene, light: np.ndarray, clean: np.ndarray, kind: str) -> list[int]:
    """Count events and those found, line samples and those lost, other samples and those lost."""
    rate = scene.dome.instrument.detector.ray_rate
    rays = cosmic_rays(clean.shape, 2400 * rate, scene.rng)
    saturated = clean > 90_000
    frame = scene.expose(clean)
    frame = Signal(frame.value + rays.astype(np.float32), frame.variance, frame.dq)
    frame = frame.flag(saturated, DQ.SATURATED)
    if kind == "object":
        low, high = int(scene.traces.y.min()) - 12, int(scene.traces.y.max()) + 13
        once = CosmicOptions(iterations=1)
        good = frame.good
        hit = find_cosmics(frame.value, scene.ron, good=good, rows=(low, high), options=once)
        frame = frame.flag(hit, DQ.COSMIC)
    window, weights = scene.profiles
    options = ExtractionOptions(prnu=PRNU, reject_tolerance=0.05 if kind == "arc" else 0.02)
    extraction = extract_fibres(scene.cleaned(frame), window, weights, options=options)
    rejected = extraction.cosmic | (frame.dq & np.uint16(DQ.COSMIC) > 0)
    rows = window[:, None, :] + np.arange(weights.shape[1])[:, None]
    rows = np.clip(rows, 0, clean.shape[0] - 1)
    column = np.broadcast_to(np.arange(rows.shape[2]), rows.shape)
    under = np.zeros(clean.shape, dtype=bool)
    under[rows[weights > 0.02], column[weights > 0.02]] = True
    strong = (rays > 10 * np.sqrt(scene.ron**2 + clean)) & under & ~saturated
    events, _ = ndimage.label(rays > 0, np.ones((3, 3)))
    struck = ndimage.binary_dilation(rays > 1, np.ones((3, 3)))
    lost = (rejected[rows, column] & (weights > 0.02)).any(axis=1)
    free = ~(struck[rows, column] & (weights > 0.01)).any(axis=1)
    free &= ~saturated[rows, column].any(axis=1) & scene.traces.live[:, None]
    line = light > 2 * ndimage.median_filter(light, (1, 51)) + 20
    return [
        np.unique(events[strong]).size,
        np.unique(events[strong & rejected]).size,
        int(np.sum(line & free)),
        int(np.sum(line & free & lost)),
        int(np.sum(~line & free)),
        int(np.sum(~line & free & lost)),
    ]


def measure_fringes(scene: Scene) -> None:
    """Print the fringes left in a flat-fielded continuum of S/N 200."""
    window, weights = scene.profiles
    options = ExtractionOptions(prnu=PRNU, frames=FLAT_FRAMES, reject_sigma=0.0)
    flat = extract_fibres(scene.cleaned(scene.flat), window, weights, options=options).spectra
    response = split_response(flat, scene.traces.live)
    passed = transmission(scene.optics, scene.bench.fibres)
    smooth = ndimage.uniform_filter1d(passed, 43, axis=1, mode="nearest")
    fringe = passed / smooth - 1
    for rows in (0.0, 0.6, 1.3):
        shift = Shift(rows, 0.0, 0.01)
        frame = scene.expose(scene.image(4e4 * passed, shift))
        moved = measure_shift(frame, scene.traces, scene.profile).apply(scene.traces.y)
        profiles = sample_profile(scene.profile, moved)
        frame = scene.cleaned(frame, replace(scene.traces, y=moved))
        science = extract_fibres(
            frame, *profiles, options=ExtractionOptions(prnu=PRNU, reject_sigma=0.0)
        ).spectra
        left = science.value / (response.fibre_flat.value * response.throughput[:, None])
        left = left / ndimage.uniform_filter1d(left, 43, axis=1, mode="nearest") - 1
        red = (slice(None), slice(900, left.shape[1] - 40))
        put, rest = fringe[red], left[red]
        live = scene.traces.live
        kept = np.sum(put * rest, axis=1)[live] / np.sum(put**2, axis=1)[live]
        amplitude = np.sqrt(2) * np.std(put[live])
        noise = np.sqrt(science.variance[red] / science.value[red] ** 2)[live]
        print(
            f"fringes, traces moved by {rows:.1f} pixel: {amplitude:.4f} put in, "
            f"{np.abs(kept).max() * amplitude:.5f} left (rms {np.std(rest[live]):.4f}, noise "
            f"{rms(noise):.4f})"
        )


def main() -> None:
    """Print all tables."""
    warnings.simplefilter("ignore")
    parts = sys.argv[1:] or ["14", "150", "traps"]
    clean = Traps.none().but(noise=True, distortion=True, varying_kernels=True, irregular_slit=True)
    if "14" in parts:
        print("== 14 fibres, pitch 12.06, 1340 columns; no ghosts, no scattered light")
        scene = Scene(NightPlan(modes=("150_620",), traps=clean), ron=4.48)
        measure_noise(scene, 4)
        measure_bright(scene)
    if "150" in parts:
        print("== 150 fibres, pitch 8.15, 2048 columns; no ghosts, no scattered light")
        scene = Scene(NightPlan(instrument="kspec", traps=clean), ron=4.0)
        measure_noise(scene, 1)
        measure_bright(scene)
        measure_speed(scene)
    if "traps" in parts:
        print("== 14 fibres with fringes, a dead fibre, ghosts and scattered light")
        scene = Scene(NightPlan(modes=("150_620",)), ron=4.48)
        measure_traces(scene)
        measure_shifts(scene)
        measure_cosmics(scene, "object")
        measure_cosmics(scene, "arc")
        measure_fringes(scene)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
