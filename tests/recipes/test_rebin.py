"""Rebin: EXTRACTED onto a grid with its stored factors, and back."""

import numpy as np
import pytest

from kspecpipe import fibres
from kspecpipe.base_recipe import find_recipe
from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.spectra import Extracted, WaveSolution

NFIB, NX = 4, 400
DEAD = 2


def wavelengths(slope=3.9, offset=0.0):
    angle = 0.2 + np.arctan((np.arange(NX) - NX / 2 + 7 * np.arange(NFIB)[:, None]) * 0.02 / 320)
    nominal = 1e7 / 150 * (np.sin(angle) - 0.1)
    return nominal * slope / 3.9 + offset


def spectrum(wavelength):
    """Electron per Angstrom: a continuum and lines of 4 pixels."""
    lines = sum(
        900 * np.exp(-0.5 * ((wavelength - at) / 7) ** 2) for at in np.arange(6000, 7800, 137.0)
    )
    return 60 + 10 * np.sin(wavelength / 300) + lines


def exposure(*, sky=True, noise=0.0, seed=1):
    wave = wavelengths()
    width = np.gradient(wave, axis=1)
    rng = np.random.default_rng(seed)
    table = fibres.fibre_table(range(1, NFIB + 1), ["OK", "OK", "DEAD", "LOW"])
    table["THROUGHPUT"] = [1.0, 0.8, np.nan, 0.5]
    flat = 1 + 0.05 * np.sin(np.arange(NX) / 14 + np.arange(NFIB)[:, None])
    response = flat * fibres.divisor(table)
    light = spectrum(wave) * width * response
    value = light + noise * rng.standard_normal(light.shape)
    value[DEAD], flat[DEAD] = np.nan, np.nan
    wave = np.where(np.arange(NFIB)[:, None] == DEAD, np.nan, wave)
    spectra = Signal.of(value, max(noise, 1.0) ** 2).flag(~np.isfinite(value), DQ.NO_DATA)
    return Extracted(
        spectra=spectra,
        wavelength=wave,
        lsf=np.where(np.isfinite(wave), 16.0, np.nan),
        flat=flat,
        sky=0.4 * light if sky else np.full(light.shape, np.nan),
        sky_variance=np.full(light.shape, 4.0),
        fibres=table,
    )


def rebin(*extracted, reduced=(), solution=None, **parameters):
    recipe = find_recipe("rebin")(log=False)
    inputs = recipe.Inputs(extracted=list(extracted), reduced=list(reduced), solution=solution)
    return recipe.run(inputs, recipe.Parameters(**parameters))


def grid_of(reduced):
    return reduced.axis["CRVAL1"] + reduced.axis["CDELT1"] * np.arange(reduced.rwss.shape[1])


@pytest.mark.parametrize("kernel", ["cubic", "overlap"])
def test_flat_throughput_and_grid_are_applied_and_flux_is_conserved(kernel):
    products, metrics = rebin(exposure(), kernel=kernel)
    (reduced,) = products.reduced
    grid = grid_of(reduced)
    expected = spectrum(grid) * reduced.axis["CDELT1"]
    inside = np.isfinite(reduced.rwss) & (grid > 5900) & (grid < 7300)
    error = np.abs(reduced.rwss / expected - 1)[inside]
    assert inside.sum() > 900
    assert error.max() < (0.01 if kernel == "cubic" else 0.08)
    assert metrics.flux[0] == pytest.approx(1, abs=2e-3)
    assert metrics.usable[0] > 0.99
    assert np.isnan(reduced.rwss[DEAD]).all()
    assert np.allclose(reduced.sky[inside], 0.4 * reduced.rwss[inside], rtol=1e-6)
    assert np.allclose(
        reduced.spectra.value[inside], (reduced.rwss - reduced.sky)[inside], rtol=1e-9
    )


def test_there_and_back_again():
    given = exposure()
    forward = rebin(given)[0].reduced
    products, metrics = rebin(given, reduced=forward, reverse=True)
    (back,) = products.extracted
    assert products.reduced is None
    inside = np.isfinite(back.spectra.value)
    inside[:, :4] = inside[:, -4:] = False
    assert inside.sum() > 0.97 * 3 * (NX - 8)
    for new, old in ((back.spectra.value, given.spectra.value), (back.sky, given.sky)):
        assert np.abs(new / old - 1)[inside].max() < 0.02
    assert metrics.flux[0] == pytest.approx(1, abs=5e-3)
    assert np.isnan(back.spectra.value[DEAD]).all()
    assert (back.spectra.dq[DEAD] & DQ.NO_DATA).all()


def test_pulls_are_standard_normal_and_the_correlation_is_told():
    noisy, clean = exposure(noise=20, seed=3), exposure()
    found, true = rebin(noisy)[0].reduced[0], rebin(clean)[0].reduced[0]
    variance = found.spectra.variance - found.sky_variance
    live = [0, 1, 3]
    pull = ((found.rwss - true.rwss) / np.sqrt(variance))[live]
    used = np.isfinite(pull)
    assert used.sum() > 1000
    # neighbours correlate: there are fewer independent samples
    assert abs(pull[used].std() - 1) < 4 * 1.3 / np.sqrt(2 * used.sum())
    pairs = used[:, 1:] & used[:, :-1]
    measured = np.mean((pull[:, 1:] * pull[:, :-1])[pairs])
    assert found.correlation["ESO PRO CORR1"] == pytest.approx(measured, abs=4 / np.sqrt(1000))


def test_flux_is_linear():
    once = exposure()
    twice = once.replace(spectra=once.spectra.scale(2.0), sky=2 * once.sky)
    a, b = (rebin(one)[0].reduced[0] for one in (once, twice))
    used = np.isfinite(a.spectra.value)
    assert used.sum() > 1000
    assert np.allclose(b.spectra.value[used], 2 * a.spectra.value[used], rtol=1e-12)


def test_masked_sample_takes_no_part():
    given = exposure()
    hit = np.zeros(given.spectra.shape, bool)
    hit[0, 150:153] = True
    value = np.where(hit, 1e6, given.spectra.value)
    masked = given.replace(
        spectra=Signal(value, given.spectra.variance, given.spectra.dq).flag(hit, DQ.COSMIC)
    )
    found, clean = (rebin(one)[0].reduced[0].rwss for one in (masked, given))
    assert np.nanmax(found[0]) < 1.5 * np.nanmax(clean[0])
    assert 1 <= np.isnan(found[0]).sum() - np.isnan(clean[0]).sum() <= 3


def test_without_sky_nothing_is_subtracted():
    (reduced,) = rebin(exposure(sky=False))[0].reduced
    used = np.isfinite(reduced.rwss)
    assert used.sum() > 1000
    assert np.isnan(reduced.sky).all()
    assert np.array_equal(reduced.spectra.value[used], reduced.rwss[used])


def solution(wavelength):
    table = fibres.fibre_table(range(1, NFIB + 1), ["OK"] * NFIB)
    return WaveSolution(
        wavelength=Signal.of(wavelength),
        error=np.zeros(wavelength.shape),
        lsf=np.full(wavelength.shape, 16.0),
        lines=table,
        shifts=table,
        fibres=table,
    )


def test_grid_is_that_of_another_solution():
    other = wavelengths(slope=4.4)
    (reduced,) = rebin(exposure(), solution=solution(other))[0].reduced
    assert reduced.axis["CDELT1"] == pytest.approx(np.median(np.diff(other, axis=1)), rel=1e-3)
    grid = grid_of(reduced)
    used = np.isfinite(reduced.rwss) & (grid > 6400) & (grid < 7000)
    assert used.sum() > 200
    ratio = reduced.rwss / (spectrum(grid) * reduced.axis["CDELT1"])
    assert np.abs(ratio[used] - 1).max() < 0.03


def test_wavelengths_of_the_solution_are_taken_when_asked_for():
    moved = rebin(exposure(), solution=solution(wavelengths(offset=39.0)), wavelengths="solution")
    (reduced,) = moved[0].reduced
    grid = grid_of(reduced)
    used = np.isfinite(reduced.rwss) & (grid > 6000) & (grid < 7300)
    expected = np.broadcast_to(spectrum(grid - 39.0) * reduced.axis["CDELT1"], used.shape)
    assert np.abs(reduced.rwss[used] / expected[used] - 1).max() < 0.02


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reverse": True}, "0 REDUCED of the same exposure"),
        ({"wavelengths": "solution"}, "there is none"),
    ],
)
def test_what_is_missing_is_named(parameters, message):
    with pytest.raises(RecipeError, match=message):
        rebin(exposure(), **parameters)


def test_grid_beyond_the_spectra_is_refused():
    from kspecpipe.reduction.gridding import GridSettings

    with pytest.raises(RecipeError, match="no spectrum reaches the grid"):
        rebin(exposure(), grid=GridSettings(start=20000, step=4, n=50))


def test_reduced_of_other_fibres_is_refused():
    given = exposure()
    (reduced,) = rebin(given)[0].reduced
    fewer = reduced.replace(rwss=reduced.rwss[:3])
    with pytest.raises(RecipeError, match="3 fibres, a grid; 4 fibres"):
        rebin(given, reduced=[fewer], reverse=True)
