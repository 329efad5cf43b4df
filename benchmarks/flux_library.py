"""A template library between crude and perfect: models that have been taught by real stars.

The simulator's atmospheres have the wrong lines below 4500 Angstrom. Here they are multiplied by
what real spectra differ from them, on the mean of several stars; a star that is to be calibrated is
left out of that mean. On top, all models can be wrong alike: in their lines (correlated over some
20 Angstrom) and smoothly, most in the blue, as libraries of computed spectra are.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kspecpipe.simulate.atmospheres import eddington_flux

Floats = NDArray[np.float64]
Spectrum = Callable[[Floats], Floats]
#: Vacuum wavelengths of the correction, even in the logarithm [Angstrom].
WAVE = np.exp(np.arange(np.log(1500.0), np.log(32000.0), 1 / 4000.0))
_BLUENESS = (3500.0, 4000.0, 4600.0, 5500.0)
#: Error per correlation length (samples of `WAVE`), in units of the mismatch asked for: lines of
#: 20 Angstrom, tilts of some 200; below 4000, at 4600, redward of 5500 Angstrom.
_MISMATCH = ((9, (1.0, 1.0, 0.4, 0.18)), (200, (0.4, 0.4, 0.25, 0.15)))


def real_over_model(spectrum: Spectrum) -> Floats:
    """Return what a real F or G star differs from the atmosphere which it resembles most.

    Parameters
    ----------
    spectrum : callable
        Flux at vacuum wavelengths [Angstrom], in any unit.
    """
    real = spectrum(WAVE)
    clear = (WAVE > 4500) & (WAVE < 9000) & (real > 0)
    ratios = []
    for teff in np.arange(5200.0, 7301.0, 100.0):
        ratio = real / eddington_flux(WAVE, (float(teff), 4.3, -0.2), 1000.0)[0]
        ratios.append(np.clip(ratio / np.median(ratio[clear]), 0.2, 5.0))
    spread = [float(np.mean(np.abs(np.log(ratio[clear])))) for ratio in ratios]
    return np.asarray(ratios[int(np.argmin(spread))])


def mismatch(size: float, seed: int) -> Floats:
    """Return what all models are wrong by: ``size`` is the rms in their lines below 4000."""
    rng = np.random.default_rng(seed)
    error = np.zeros_like(WAVE)
    for reach, amplitude in _MISMATCH:
        noise = gaussian_filter1d(rng.normal(size=WAVE.size), reach)
        error += noise / noise.std() * np.interp(WAVE, _BLUENESS, amplitude)
    return np.exp(size * error)


def correct_library(source: Path, target: Path, factors: Sequence[Floats]) -> Path:
    """Write a copy of a library whose models are multiplied by the geometric mean of factors."""
    wave_file = next(source.glob("bosz*_wave_*.txt"))
    factor = np.exp(np.mean(np.log(factors), axis=0))
    column = np.interp(np.loadtxt(wave_file), WAVE, factor)[:, None]
    for path in sorted(source.rglob("*_resam.txt.gz")):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "rt") as lines:
            model = np.loadtxt(lines) * column
        with gzip.open(place, "wt", compresslevel=1) as out:
            np.savetxt(out, model, fmt="%.5E")
    shutil.copy(wave_file, target / wave_file.name)
    return target
