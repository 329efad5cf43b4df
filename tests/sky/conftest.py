"""Simulated fibre spectra of the night sky, independent of the code under test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.special import erfcx

from kspecpipe.signal import Signal


@dataclass(frozen=True)
class Night:
    """What the sky, the instrument and its calibration do."""

    nfib: int = 14
    nx: int = 700
    sky: tuple[int, ...] = (1, 4, 8, 11)
    lines: int = 90
    line_flux: float = 1500.0  # electron
    continuum: float = 150.0  # electron per pixel
    ron: float = 6.0  # electron per extracted sample
    objects: float = 1.0  # typical object in units of the sky continuum
    shift_error: float = 0.0  # pixel, per fibre
    lsf_error: float = 0.0  # relative, per fibre
    throughput_error: float = 0.0  # relative, per fibre
    lsf_spread: float = 0.06
    noise: bool = True
    seed: int = 1
    extra: tuple[tuple[int, float], ...] = ()  # fibre, star in units of the continuum


@dataclass(frozen=True)
class Observed:
    """One exposure: what the pipeline gets, and the truth."""

    spectra: Signal
    wavelength: np.ndarray
    lsf: np.ndarray
    sky_fibres: np.ndarray
    blaze: np.ndarray
    true_sky: np.ndarray
    true_object: np.ndarray
    night: Night


def grating(x: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Wavelength of detector positions from the grating equation, 150 lines/mm, f = 320 mm."""
    angle = 0.2 + np.arctan((x[None, :] + offset[:, None]) * 0.02 / 320)
    return 1e7 / 150 * (np.sin(angle) - 0.1)


def line_density(distance: np.ndarray, sigma: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Gaussian convolved with an exponential towards the blue, its centroid at 0."""
    from_peak = distance - tau
    z = (sigma / tau + from_peak / sigma) / np.sqrt(2)
    # erfcx grows without bound far in the blue wing, where the plain form is exact.
    core = np.exp(-0.5 * (from_peak / sigma) ** 2) * erfcx(np.maximum(z, -5.0))
    wing = 2 * np.exp(from_peak / tau + 0.5 * (sigma / tau) ** 2)
    return np.where(z > -5.0, core, wing) / (2 * tau)


def full_width(sigma: float, tau: float) -> float:
    t = np.linspace(-12, 12, 48001)
    p = line_density(t, np.array(sigma), np.array(tau))
    return float(np.ptp(t[p > p.max() / 2]))


def line_flux_in_pixels(night: Night, wave_fine: np.ndarray, sigma, tau, rng) -> np.ndarray:
    """All lines of all fibres, averaged over nine points in each pixel; electron per Angstrom."""
    first, last = wave_fine.min(), wave_fine.max()
    centre = first + (last - first) * (0.25 + 0.75 * rng.random(night.lines))
    flux = night.line_flux * rng.exponential(size=night.lines) ** 1.5
    centre = np.concatenate([centre, first + (last - first) * np.array([0.2, 0.31, 0.4])])
    flux = np.concatenate([flux, night.line_flux * np.array([6.0, 3.0, 8.0])])
    total = np.zeros((night.nfib, night.nx))
    for f in range(night.nfib):
        middle = wave_fine[f, :, 4]
        for c, strength in zip(centre, flux, strict=True):
            at = int(np.searchsorted(middle, c))
            near = slice(max(0, at - 40), min(night.nx, at + 40))
            if near.start >= near.stop:
                continue
            k = min(at, night.nx - 1)
            profile = line_density(wave_fine[f, near] - c, sigma[f, k], tau[f, k])
            total[f, near] += strength * profile.mean(axis=-1)
    return total


@lru_cache(maxsize=32)
def expose(night: Night) -> Observed:
    rng = np.random.default_rng(night.seed)
    noise = np.random.default_rng(night.seed + 1000)
    x = np.arange(night.nx) - night.nx / 2
    offset = np.linspace(0, 2.7, night.nfib) + rng.uniform(-0.5, 0.5, night.nfib)
    sub = (np.arange(9) - 4) / 9
    wave_fine = grating((x[:, None] + sub).ravel(), offset).reshape(night.nfib, night.nx, 9)
    wavelength = grating(x, offset)
    width = grating(x + 0.5, offset) - grating(x - 0.5, offset)

    unit = full_width(1.0, 0.8)
    wobble = rng.normal(size=(night.nfib, 1)) * night.lsf_spread
    fwhm = width * 4.0 * (1 + wobble + 0.1 * x / night.nx)
    sigma = fwhm / unit
    lines = line_flux_in_pixels(night, wave_fine, sigma, 0.8 * sigma, rng) * width

    blaze = 0.5 + np.cos(1.1 * x / night.nx) ** 2 * 0.5 + 0.15 * x / night.nx
    throughput = rng.uniform(0.7, 1.3, (night.nfib, 1))
    fringe = 1 + 0.05 * np.sin(2 * np.pi * wave_fine.mean(-1) / 55 + 3) * (wavelength > 6800)
    bend = 1 + 0.3 * np.sin(wavelength / 900)
    sky = (night.continuum * bend * width / width.mean() + lines) * blaze
    objects = night.objects * night.continuum * galaxy(wavelength, rng) * blaze
    is_sky = np.zeros(night.nfib, bool)
    is_sky[list(night.sky)] = True
    objects[is_sky] = 0
    for fibre, strength in night.extra:
        objects[fibre] += strength * night.continuum * blaze
    response = throughput * fringe
    electrons = (sky + objects) * response
    variance = electrons + night.ron**2
    if night.noise:
        electrons = noise.poisson(electrons) + noise.normal(0, night.ron, electrons.shape)
        variance = np.maximum(electrons, 0) + night.ron**2
    error = 1 + night.throughput_error * rng.normal(size=(night.nfib, 1))
    spectra = Signal.of(electrons / response / error, variance / (response * error) ** 2)
    known = wavelength + night.shift_error * width * rng.normal(size=(night.nfib, 1))
    lsf = fwhm * (1 + night.lsf_error * rng.normal(size=(night.nfib, 1)))
    return Observed(spectra, known, lsf, is_sky, blaze, sky, objects, night)


def galaxy(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Continua with a break, absorption and, in some, an emission line."""
    nfib = len(wavelength)
    level = np.exp(rng.normal(0, 0.8, (nfib, 1)))
    edge = rng.uniform(wavelength.min(), wavelength.max(), (nfib, 1))
    spectrum = level * (0.6 + 0.4 / (1 + np.exp(-(wavelength - edge) / 15)))
    for _ in range(4):
        centre = rng.uniform(wavelength.min(), wavelength.max(), (nfib, 1))
        depth = rng.uniform(-0.3, 0.4, (nfib, 1))
        spectrum *= 1 - depth * np.exp(-0.5 * ((wavelength - centre) / 12) ** 2)
    return spectrum


@pytest.fixture
def observe():
    def one(**changes) -> Observed:
        return expose(replace(Night(), **changes))

    return one
