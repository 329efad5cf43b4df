"""A small library, stars and exposures whose response is known; shares no code with fluxcal."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import expit

from kspecpipe.ancillary import load_mask_regions
from kspecpipe.fluxcal.catalogue import parse_refcat2
from kspecpipe.fluxcal.exposure import Observation, Standards
from kspecpipe.fluxcal.options import FluxcalOptions
from kspecpipe.fluxcal.templates import TemplateLibrary
from kspecpipe.signal import Signal
from kspecpipe.simulate.standards import (
    LibraryPlan,
    StandardStar,
    star_flux,
    write_catalogue,
    write_template_library,
)

WAVELENGTH = 3620.0 + 5.2 * np.arange(1000)
FINE = np.arange(3400.0, 9100.0, 0.8)
EXPTIME, AIRMASS = 600.0, 1.3


def true_response(wavelength):
    """(erg/s/cm2/A) per (electron/s/A) of a grating, a chip and a mirror of 4000 cm2."""
    efficiency = expit((wavelength - 4000) / 330) * expit((8900 - wavelength) / 420)
    return 1.98644586e-8 / wavelength / (4000 * efficiency)


def extinction(wavelength):
    return 0.12 * (wavelength / 5500.0) ** -4 + 0.04


def telluric(wavelength):
    transmission = np.ones_like(wavelength)
    for start, end, depth in ((6864, 6945, 0.3), (7160, 7385, 0.15), (7590, 7705, 0.6)):
        place = np.clip((wavelength - start) / (end - start), 0, 1)
        transmission *= 1 - depth * np.sin(np.pi * place) ** 2
    return transmission


def blurred(wavelength, flux, target, fwhm):
    """Gaussian blur of a finely sampled spectrum, one target sample after another."""
    seen = np.empty(target.size)
    for k, (centre, width) in enumerate(zip(target, fwhm / 2.354820045, strict=True)):
        part = slice(*np.searchsorted(wavelength, [centre - 5 * width, centre + 5 * width]))
        kernel = np.exp(-0.5 * ((wavelength[part] - centre) / width) ** 2)
        seen[k] = kernel @ flux[part] / kernel.sum()
    return seen


@pytest.fixture(scope="session")
def blur():
    return blurred


@pytest.fixture(scope="session")
def response_of():
    return true_response


@dataclass
class Scene:
    """Everything that `calibrate_fluxes` is given, except the library and the options."""

    spectra: Signal
    observation: Observation
    standards: Standards
    catalogue: object


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "bosz2024"
    plan = LibraryPlan(
        teff=(5500.0, 6000.0, 6500.0, 7000.0), logg=(3.5, 4.5), feh=(-1.0, -0.5, 0.0)
    )
    write_template_library(path, plan)
    return path


@pytest.fixture(scope="session")
def grid(folder):
    return TemplateLibrary(folder).grid(keep=False)


@pytest.fixture(scope="session")
def options():
    return FluxcalOptions(
        telluric=load_mask_regions("telluric_regions"),
        stellar=load_mask_regions("stellar_lines"),
    )


@pytest.fixture(scope="session")
def observe(tmp_path_factory):
    """Expose stars; ``seen`` are the stars that really shine into the fibres."""
    memory = {}
    path = tmp_path_factory.mktemp("catalogue") / "refcat2.csv"

    def seen_by(star):
        if star not in memory:
            fwhm = 15.0 * (WAVELENGTH / 6000.0) ** 0.2
            flux = star_flux(FINE, star) if isinstance(star, StandardStar) else star(FINE)
            memory[star] = blurred(FINE, flux, WAVELENGTH, fwhm)
        return memory[star]

    def expose(stars, *, snr=100.0, seed=1, seen=None, losses=None):
        rng = np.random.default_rng(seed)
        dim = 10 ** (-0.4 * extinction(WAVELENGTH) * AIRMASS) * telluric(WAVELENGTH)
        light = np.array([seen_by(star) for star in (seen or stars)])
        light *= np.ones(len(light))[:, None] if losses is None else np.array(losses)[:, None]
        electron = light / true_response(WAVELENGTH) * dim * EXPTIME * 5.2
        # The gain sets the noise, so that every star has the wanted signal-to-noise ratio.
        gain = snr**2 / np.median(electron, axis=1, keepdims=True)
        value = electron + rng.normal(size=electron.shape) * np.sqrt(electron / gain)
        # The variance comes from the noisy counts, as in a real extraction.
        variance = np.clip(value, 0.02 * electron, None) / gain
        catalogue = parse_refcat2(write_catalogue(path, stars, rng).read_text())
        fwhm = np.tile(15.0 * (WAVELENGTH / 6000.0) ** 0.2, (len(light), 1))
        observation = Observation(WAVELENGTH, fwhm, EXPTIME, AIRMASS, extinction(WAVELENGTH))
        place = np.array([(star.ra, star.dec) for star in stars])
        names = tuple(f"star {k}" for k in range(len(stars)))
        standards = Standards(np.arange(len(stars)), place[:, 0], place[:, 1], names)
        return Scene(Signal.of(value, variance), observation, standards, catalogue)

    return expose
