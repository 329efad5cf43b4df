"""Cosmic rays are found; arc lines, sky lines and fibres survive."""

from __future__ import annotations

import numpy as np
import pytest
from astroscrappy import detect_cosmics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, label

from kspecpipe.detector.cosmic import CosmicOptions, find_cosmics

RON = 4.5
SHAPE = (110, 500)


def fibre_light(spectra: np.ndarray) -> np.ndarray:
    """Fibres of skewed, winged profiles (FWHM about 3.7 pixels), on tilted traces."""
    y, x = np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])[None]
    image = np.zeros(SHAPE)
    for number, spectrum in enumerate(spectra):
        offset = y - (15 + 12.06 * number + 3.6 * x / 1340)
        width = np.where(offset > 0, 2.05, 1.75)
        profile = 1 / (1 + (np.abs(offset) / width) ** 3.5)
        image += profile / profile.sum(axis=0) * spectrum
    return image


def line_spectra(brightest: float, continuum: float, seed: int) -> np.ndarray:
    """Lines of about 4 pixels FWHM with a blue wing, the same in all fibres but for a shift."""
    rng = np.random.default_rng(seed)
    x = np.arange(SHAPE[1])
    centers = rng.uniform(10, SHAPE[1] - 10, 22)
    fluxes = 10 ** rng.uniform(2.5, np.log10(brightest), 22)
    spectra = np.full((7, SHAPE[1]), continuum)
    for fibre in range(7):
        for center, flux in zip(centers, fluxes, strict=True):
            offset = x - center - 0.2 * fibre
            line = 1 / (1 + (np.abs(offset) / np.where(offset < 0, 2.6, 1.7)) ** 4)
            spectra[fibre] += flux * line / line.sum()
    return spectra


def cosmic_rays(number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    charge = np.zeros(SHAPE)
    for _ in range(number):
        y, x, angle = rng.uniform(0, SHAPE[0]), rng.uniform(0, SHAPE[1]), rng.uniform(0, np.pi)
        steps = np.linspace(0, rng.exponential(3), 12)
        rows, columns = (y + steps * np.sin(angle)).astype(int), (x + steps * np.cos(angle))
        inside = (rows < SHAPE[0]) & (columns >= 0) & (columns < SHAPE[1])
        np.add.at(charge, (rows[inside], columns[inside].astype(int)), rng.uniform(300, 3000) / 12)
    return charge


def expose(light: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(light) + rng.normal(0, RON, light.shape)


SCENES = {
    "arc": line_spectra(6e5, 20.0, 1),
    "sky": line_spectra(1e4, 300.0, 2),
    "bright flat": np.full((7, SHAPE[1]), 1.2e5) * (1 + 0.04 * np.sin(np.arange(SHAPE[1]) * 0.45)),
    "flat": np.full((7, SHAPE[1]), 3e4) * (1 + 0.04 * np.sin(np.arange(SHAPE[1]) * 0.45)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_light_through_the_optics_survives(scene):
    light = fibre_light(SCENES[scene])
    found = [find_cosmics(expose(light, seed), RON) for seed in range(3)]
    lit = light > 3 * RON
    lost = np.mean([mask[lit].mean() for mask in found])
    assert lit.sum() > 15000
    assert lost < 2e-4


@pytest.mark.parametrize(("scene", "fraction"), [("arc", 0.85), ("sky", 0.9), ("flat", 0.7)])
def test_cosmic_rays_are_found_and_little_else(scene, fraction):
    light, charge = fibre_light(SCENES[scene]), cosmic_rays(80, seed=4)
    found = find_cosmics(expose(light + charge, seed=5), RON)
    events, number = label(charge > 0, np.ones((3, 3)))
    strong = np.unique(events[charge > 10 * np.sqrt(light + RON**2)])
    assert number > 50 and len(strong) > 35
    assert np.isin(strong, events[found]).mean() > fraction
    far = ~binary_dilation(charge > 0, np.ones((5, 5)))
    assert found[far].mean() < 2e-4


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_pixels_are_those_that_astroscrappy_finds_by_filtering_the_whole_image(
    scene, iterations
):
    image = expose(fibre_light(SCENES[scene]) + cosmic_rays(80, seed=4), seed=5)
    image = image.astype(np.float32)
    masked = np.zeros(SHAPE, bool)
    masked[50:52, 200:300] = True
    found = find_cosmics(image, RON, good=~masked, options=CosmicOptions(iterations=iterations))
    light = np.maximum(image, 0)
    expected, _ = detect_cosmics(
        image,
        inmask=masked,
        invar=(RON**2 + light + (0.02 * light) ** 2).astype(np.float32),
        sigclip=5.0,
        sigfrac=0.3,
        objlim=2.0,
        niter=iterations,
        satlevel=np.inf,
        sepmed=False,
    )
    # its filters leave the outermost pixels out
    inside = slice(6, -6), slice(6, -6)
    assert expected[inside].sum() > 70
    assert np.count_nonzero(found[inside] != expected[inside]) <= 1


def test_cosmic_ray_in_the_first_column_is_found():
    image = expose(fibre_light(SCENES["sky"]), seed=9)
    image[60, 0] += 3000
    assert find_cosmics(image, RON)[60, 0]


def test_only_the_rows_asked_for_are_searched_and_the_edge_does_not_matter():
    charge = cosmic_rays(120, seed=6)
    image = expose(fibre_light(SCENES["sky"]) + charge, seed=7)
    whole = find_cosmics(image, RON)
    part = find_cosmics(image, RON, rows=(30, 80))
    assert not part[:30].any() and not part[80:].any()
    inner = slice(33, 77)
    assert whole[inner].sum() > 50
    assert np.mean(whole[inner] != part[inner]) < 1e-3


def test_missing_and_bad_pixels_are_no_cosmic_rays_and_nothing_is_modified():
    image = expose(fibre_light(SCENES["sky"]), seed=8)
    image[20, 100] = np.nan
    image[40, 200] = np.inf
    image[60, 300] += 5000
    good = np.ones(SHAPE, bool)
    good[60, 300] = False
    before = image.copy()
    found = find_cosmics(image, RON, good=good)
    assert not found[[20, 40, 60], [100, 200, 300]].any()
    assert find_cosmics(image, RON)[60, 300]
    np.testing.assert_array_equal(image, before)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None)
def test_mirroring_the_image_mirrors_the_mask(seed):
    image = expose(fibre_light(SCENES["sky"]) + cosmic_rays(30, seed), seed).astype(np.float32)
    found = find_cosmics(image, RON)
    mirrored = find_cosmics(image[::-1, ::-1].copy(), RON)[::-1, ::-1]
    assert found.any()
    assert np.mean(found != mirrored) < 1e-4


def test_wrong_arguments_are_named():
    image = np.zeros(SHAPE)
    with pytest.raises(ValueError, match="not in an image of 110 rows"):
        find_cosmics(image, RON, rows=(100, 120))
    with pytest.raises(ValueError, match="above 0 electrons"):
        find_cosmics(image, 0.0)
    with pytest.raises(ValueError, match=r"good has shape \(3, 3\)"):
        find_cosmics(image, RON, good=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="an image"):
        find_cosmics(image[0], RON)
