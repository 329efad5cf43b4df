"""Splice: two modes with known truth through the recipe."""

import numpy as np
import pytest

from kspecpipe import fibres
from kspecpipe.base_recipe import find_recipe
from kspecpipe.errors import InputError, RecipeError
from kspecpipe.products.combined import Coadded, unit_cards
from kspecpipe.signal import Signal
from kspecpipe.spectra import Reduced

NFIB = 4
GRIDS = {"blue": (4000.0, 4.0, 500), "red": (5700.0, 2.0, 900), "far": (8000.0, 2.0, 400)}


def light(wave):
    return np.linspace(0.3, 1, NFIB)[:, None] * (90 + 30 * np.sin(wave / 350))


def segment(mode, *, factor=1.0, noise=1.0, cls=Coadded, unit="erg/s/cm2/Angstrom", **columns):
    start, step, n = GRIDS[mode]
    wave = start + step * np.arange(n)
    rng = np.random.default_rng(n)
    value = factor * light(wave) + noise * rng.standard_normal((NFIB, n))
    per_pixel = step if unit == "electron" else 1.0
    made = fibres.fibre_table(range(1, NFIB + 1), ["OK"] * NFIB)
    made["RA"], made["DEC"] = 150.0 + np.arange(NFIB) / 100, -30.0
    for name, values in columns.items():
        made[name] = values
    common = {
        "spectra": Signal.of(value, noise**2).scale(per_pixel),
        "sky": np.full((NFIB, n), 20.0 * per_pixel),
        "lsf": np.full((NFIB, n), 4 * step),
        "axis": {"CRPIX1": 1.0, "CRVAL1": start, "CDELT1": step},
        "fibres": made,
        "header": {"FILENAME": f"{mode}.fits", "INSMODE": mode, "OBJECT": "tile_046"},
    }
    if cls is Reduced:
        plane = np.ones((NFIB, n))
        return Reduced(rwss=common["spectra"].value, sky_variance=plane, **common)
    return Coadded(
        exposure_map=np.ones((NFIB, n)), scales=made["FIBRE_ID",], **unit_cards(unit), **common
    )


def splice(*segments, **parameters):
    recipe = find_recipe("splice")(log=False)
    inputs = recipe.Inputs(segments=list(segments))
    products, metrics = recipe.run(inputs, recipe.Parameters(**parameters))
    return products.spliced, metrics


def wavelength(spliced):
    axis = spliced.axis
    return axis["CRVAL1"] + axis["CDELT1"] * np.arange(spliced.spectra.shape[1])


@pytest.mark.parametrize("order", [1, -1])
def test_two_modes_become_one_spectrum_without_a_step(order):
    arms = [segment("blue", noise=0.3), segment("red", factor=1.2)][::order]
    spliced, metrics = splice(*arms)
    wave = wavelength(spliced)
    assert wave[0] == pytest.approx(4000, abs=2)
    assert wave[-1] == pytest.approx(7498)
    assert metrics.scale == pytest.approx(1.2, rel=0.01)
    assert metrics.step < 0.005
    assert metrics.usable > 0.99
    inner = spliced.spectra.value[:, 2:-2] / light(wave[2:-2])
    assert np.median(inner) == pytest.approx(1, abs=0.005)
    assert spliced.unit == {"BUNIT": "erg/s/cm2/Angstrom"}
    assert np.nanmedian(spliced.sky) == pytest.approx(20, rel=0.25)
    assert set(np.unique(spliced.lsf[np.isfinite(spliced.lsf)]).round(6)) >= {8.0, 16.0}


def test_the_level_of_the_segment_of_most_light_is_kept():
    spliced, _ = splice(segment("blue"), segment("red", factor=1.2, noise=0.1))
    inner = spliced.spectra.value[:, 2:-2] / light(wavelength(spliced)[2:-2])
    assert np.median(inner) == pytest.approx(1.2, abs=0.01)


def test_the_scales_are_in_a_table():
    spliced, _ = splice(segment("blue"), segment("red", factor=0.8))
    assert list(spliced.joins["MODE"]) == ["red"] * NFIB
    assert np.asarray(spliced.joins["SCALE"]) == pytest.approx([0.8] * NFIB, abs=0.02)
    assert spliced.joins["START"][0] == pytest.approx(5699)
    assert spliced.joins["STOP"][0] == pytest.approx(5998)


def test_electrons_per_pixel_stay_so_on_the_new_pixels():
    arms = [segment(mode, cls=Reduced, unit="electron") for mode in ("blue", "red")]
    spliced, metrics = splice(*arms)
    wave = wavelength(spliced)
    assert metrics.scale == pytest.approx(1, abs=0.02)
    assert np.median(spliced.spectra.value[:, 2:-2] / light(wave[2:-2])) == pytest.approx(
        spliced.axis["CDELT1"], rel=0.01
    )
    assert spliced.unit == {"BUNIT": "electron"}


def test_scaling_can_be_switched_off():
    spliced, metrics = splice(segment("blue"), segment("red", factor=1.5), scale=False)
    assert metrics.scale == pytest.approx(1.5, rel=0.02)
    wave = wavelength(spliced)
    red = wave > 6100
    ratio = (spliced.spectra.value / light(wave))[:, red]
    assert np.nanmedian(ratio) == pytest.approx(1.5, abs=0.02)


def test_segments_of_one_mode_other_units_and_other_targets_are_refused():
    with pytest.raises(InputError, match="both of the mode blue; kspec coadd"):
        splice(segment("blue"), segment("blue"))
    with pytest.raises(InputError, match="its unit is electron"):
        splice(segment("blue"), segment("red", unit="electron"))
    with pytest.raises(InputError, match="saw other targets"):
        splice(segment("blue"), segment("red", DEC=-31.0))


def test_modes_that_do_not_meet_are_refused():
    with pytest.raises(RecipeError, match="the modes cannot be joined: one covers"):
        splice(segment("blue"), segment("far"))
