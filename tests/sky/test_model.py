from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspecpipe.errors import RecipeError
from kspecpipe.signal import DQ, Signal
from kspecpipe.sky.fit import expected_variance
from kspecpipe.sky.model import SkyOptions, fit_sky


def model_of(night, **options):
    options.setdefault("blaze", night.blaze)
    return fit_sky(
        night.spectra,
        night.wavelength,
        night.lsf,
        night.sky_fibres,
        options=SkyOptions(**options),
    )


def sky_of(night, model, spectra=None, *, leave_one_out=True):
    matching = model.match(spectra or night.spectra, night.wavelength, night.lsf)
    return model.predict(night.wavelength, night.lsf, matching, leave_one_out=leave_one_out)


def regions(night) -> tuple[np.ndarray, np.ndarray]:
    """Strong lines, and continuum, of every fibre's true sky."""
    continuum = np.median(night.true_sky, axis=1, keepdims=True)
    return night.true_sky > 3 * continuum, night.true_sky < 1.2 * continuum


def robust_width(values: np.ndarray) -> float:
    low, high = np.nanpercentile(values, [25, 75])
    return float(high - low) * 0.7413


def test_without_noise_the_sky_of_every_program_fibre_is_right_whatever_its_lsf(observe):
    night = observe(noise=False)
    model = model_of(night)
    sky = sky_of(night, model)
    lines, continuum = regions(night)
    program = ~night.sky_fibres[:, None]
    relative = sky.value / night.true_sky - 1
    assert robust_width(relative[lines & program]) < 0.005
    assert abs(np.median(relative[lines & program])) < 0.002
    assert np.abs(relative[lines & program]).max() < 0.03
    assert robust_width(relative[continuum & program]) < 0.005
    assert model.used.sum() == 4
    assert not model.dropped.any()


def test_lsf_matching_is_what_makes_it_right(observe):
    night = observe(noise=False)
    lines, _ = regions(night)
    lines &= ~night.sky_fibres[:, None]
    matched, mean = (
        fit_sky(
            night.spectra,
            night.wavelength,
            lsf,
            night.sky_fibres,
            options=SkyOptions(match="none", blaze=night.blaze),
        ).predict(night.wavelength, lsf)
        for lsf in (night.lsf, np.broadcast_to(night.lsf.mean(axis=0), night.lsf.shape))
    )
    with_it, without = (np.std((s.value / night.true_sky)[lines]) for s in (matched, mean))
    assert with_it < 0.5 * without


@pytest.mark.parametrize("seed", [3, 4])
def test_pulls_of_sky_fibres_left_out_are_standard_normal_in_lines_and_continuum(observe, seed):
    night = observe(seed=seed, nfib=24, sky=tuple(range(0, 24, 3)), lines=150)
    model = model_of(night)
    sky = sky_of(night, model)
    used = model.used[:, None]
    pull = (night.spectra.value - sky.value) / np.sqrt(night.spectra.variance + sky.variance)
    lines, continuum = regions(night)
    assert 0.95 < robust_width(pull[model.used]) < 1.08
    for region in (lines & used, continuum & used):
        chi2 = np.mean(pull[region & (np.abs(pull) < 5)] ** 2)
        assert abs(chi2 - 1) < 0.06 + 4 * np.sqrt(2 / region.sum())
    assert (np.abs(pull[used & np.isfinite(pull)]) > 6).sum() == 0


def test_imperfect_calibration_is_absorbed_by_the_matching(observe):
    trouble = {"shift_error": 0.03, "lsf_error": 0.03, "throughput_error": 0.02, "lines": 200}
    night = observe(nfib=24, sky=tuple(range(0, 24, 3)), line_flux=4000.0, seed=6, **trouble)
    widths = {}
    for match in ("full", "scale", "none"):
        model = model_of(night, match=match)
        sky = sky_of(night, model)
        pull = (night.spectra.value - sky.value) / np.sqrt(night.spectra.variance + sky.variance)
        lines = regions(night)[0] & model.used[:, None]
        widths[match] = robust_width(pull[lines])
    assert 0.9 < widths["full"] < 1.1
    assert widths["full"] < widths["scale"] < widths["none"]


def test_sky_of_program_fibres_is_true_within_its_stated_error(observe):
    night = observe(nfib=24, sky=tuple(range(0, 24, 3)), lines=150, seed=8)
    sky = sky_of(night, model_of(night))
    lines, continuum = regions(night)
    program = ~night.sky_fibres[:, None]
    error = sky.value - night.true_sky
    for region, bias in ((lines & program, 0.003), (continuum & program, 0.01)):
        assert abs(np.median((error / night.true_sky)[region])) < bias
        assert 0.8 < robust_width((error / sky.error)[region]) < 1.2


@pytest.mark.parametrize(
    ("nfib", "sky"),
    [(14, (3,)), (14, (3, 9)), (14, tuple(range(14))), (32, tuple(range(30)))],
)
def test_one_two_or_only_sky_fibres_are_enough(observe, nfib, sky):
    night = observe(nfib=nfib, sky=sky, seed=9)
    model = model_of(night)
    predicted = sky_of(night, model, leave_one_out=False)
    lines, _ = regions(night)
    assert abs(np.median((predicted.value / night.true_sky - 1)[lines])) < 0.01
    alone = sky_of(night, model)
    if len(sky) == 1:
        assert np.isnan(alone.value[3]).all()
        assert (alone.dq[3] & DQ.NO_DATA).all()
        assert np.isfinite(np.delete(alone.value, 3, axis=0)).all()
    else:
        assert np.isfinite(alone.value).all()


def test_a_sky_made_without_a_fibre_does_not_know_it(observe):
    night = observe(seed=10)
    spectra = night.spectra
    bump = spectra.value.copy()
    bump[4, 300:306] += 60 * np.sqrt(spectra.variance[4, 300:306])
    noisy = Signal(bump, spectra.variance, spectra.dq)
    model = fit_sky(
        noisy,
        night.wavelength,
        night.lsf,
        night.sky_fibres,
        options=SkyOptions(blaze=night.blaze, clip=1e9, match="none", contamination=1e9),
    )
    alone = model.predict(night.wavelength, night.lsf, leave_one_out=True)
    clean = fit_sky(
        spectra,
        night.wavelength,
        night.lsf,
        night.sky_fibres & (np.arange(14) != 4),
        options=SkyOptions(blaze=night.blaze, match="none"),
    ).predict(night.wavelength, night.lsf)
    pull = (alone.value - clean.value)[4] / alone.error[4]
    assert np.abs(pull).max() < 1.5
    assert robust_width(pull) < 0.3


def test_cosmic_rays_in_sky_fibres_do_not_reach_the_sky(observe):
    night = observe(seed=11)
    rng = np.random.default_rng(1)
    value = night.spectra.value.copy()
    fibres = np.flatnonzero(night.sky_fibres)
    where = rng.integers(20, 680, 40)
    for i, x in enumerate(where):
        value[fibres[i % 4], x : x + 2] += 40 * night.spectra.error[fibres[i % 4], x]
    hit = model_of(replace(night, spectra=Signal(value, night.spectra.variance, night.spectra.dq)))
    clean = model_of(night)
    skies = [m.predict(night.wavelength, night.lsf) for m in (hit, clean)]
    assert 60 <= hit.rejected <= 130
    assert clean.rejected < 5
    change = (skies[0].value - skies[1].value) / np.hypot(skies[0].error, skies[1].error)
    assert np.abs(change[~night.sky_fibres]).max() < 3.5
    assert hit.used.sum() == 4
    assert robust_width(change[~night.sky_fibres]) < 0.3


def test_masked_samples_of_sky_fibres_leave_an_honest_gap(observe):
    night = observe(seed=12)
    dq = night.spectra.dq.copy()
    value = night.spectra.value.copy()
    dq[:, 400:403] |= np.uint16(DQ.SATURATED)
    dq[:, 500:520] |= np.uint16(DQ.BAD)
    value[:, 500:520] = np.nan
    spectra = Signal(value, night.spectra.variance, dq)
    model = fit_sky(spectra, night.wavelength, night.lsf, night.sky_fibres)
    sky = model.predict(night.wavelength, night.lsf)
    middle = sky.select((slice(None), slice(508, 510)))
    assert np.isnan(middle.value).all()
    assert (middle.dq & DQ.NO_DATA).all()
    assert np.isfinite(sky.value[:, 395:408]).all()
    assert (sky.dq[:, 499:521] & DQ.EXTRAPOLATED).any(axis=1).all()
    assert not sky.dq[:, 100:300].any()


def test_a_dead_sky_fibre_is_ignored(observe):
    night = observe(seed=13)
    value, wavelength, lsf = night.spectra.value.copy(), night.wavelength.copy(), night.lsf.copy()
    value[8] = wavelength[8] = lsf[8] = np.nan
    model = fit_sky(
        Signal(value, night.spectra.variance, night.spectra.dq), wavelength, lsf, night.sky_fibres
    )
    assert np.flatnonzero(model.used).tolist() == [1, 4, 11]
    sky = model.predict(wavelength, lsf)
    assert np.isnan(sky.value[8]).all()
    assert np.isfinite(np.delete(sky.value, 8, axis=0)).all()


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(factor=st.floats(1e-2, 1e3))
def test_the_sky_scales_with_the_unit_of_the_spectra(observe, factor):
    night = observe(seed=14)
    sky = model_of(night).predict(night.wavelength, night.lsf)
    other = replace(night, spectra=night.spectra.scale(factor))
    scaled = model_of(other).predict(night.wavelength, night.lsf)
    assert scaled.value == pytest.approx(factor * sky.value, rel=1e-5)
    assert scaled.variance == pytest.approx(factor**2 * sky.variance, rel=1e-4)


def test_expected_variance_follows_the_sky_not_the_noise():
    rng = np.random.default_rng(5)
    x = np.arange(600)
    sky = 100 + 900 * np.exp(-0.5 * ((x % 50 - 25) / 3.0) ** 2) * np.ones((3, 1))
    gain = np.array([[0.7], [1.0], [1.4]])
    truth = (sky * gain + 36) / gain**2
    noisy = (rng.poisson(sky * gain) + 36) / gain**2
    found = expected_variance(noisy.astype(float), sky, np.ones(sky.shape, bool))
    assert np.abs(found / truth - 1).max() < 0.1
    noise = noisy / truth - 1
    assert abs(np.corrcoef(noise.ravel(), (found / truth).ravel())[0, 1]) < 0.2
    damaged = noisy.astype(float)
    damaged[1, 300] *= 30
    assert expected_variance(damaged, sky, np.ones(sky.shape, bool))[1, 300] == damaged[1, 300]


def test_callers_mistakes_and_useless_data_are_told_apart(observe):
    night = observe()
    args = (night.spectra, night.wavelength, night.lsf)
    with pytest.raises(ValueError, match="no sky fibre"):
        fit_sky(*args, np.zeros(14, bool))
    with pytest.raises(ValueError, match=r"sky_fibres \(3,\) is not \(14,\)"):
        fit_sky(*args, np.ones(3, bool))
    with pytest.raises(ValueError, match=r"wavelength \(14, 699\)"):
        fit_sky(night.spectra, night.wavelength[:, 1:], night.lsf, night.sky_fibres)
    empty = Signal.of(np.full(night.spectra.shape, np.nan), 1.0)
    with pytest.raises(RecipeError, match="none of the 4 sky fibres is usable"):
        fit_sky(empty, night.wavelength, night.lsf, night.sky_fibres)
