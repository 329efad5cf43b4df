import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspecpipe.errors import RecipeError
from kspecpipe.extraction.blaze import BlazeSplineOptions, fit_blaze_sinc
from kspecpipe.extraction.response import ResponseOptions, split_response
from kspecpipe.signal import DQ, Signal

X = np.arange(1340)
LAMP = 2e4 * np.exp(-0.5 * ((X - 800) / 350) ** 2) * np.clip((X - 190) / 150, 0, 1) ** 2
THROUGHPUT = np.array([0.7, 0.9, 1.0, 1.0, 1.1, 1.3, 0.8])
FRINGES = 1 + 0.04 * np.sin(2 * np.pi * X / 14.3) * (X > 800)


def spectra(rng=None, throughput=THROUGHPUT, lamp=LAMP):
    truth = throughput[:, None] * lamp * FRINGES
    variance = truth + 100.0
    value = truth if rng is None else truth + np.sqrt(variance) * rng.standard_normal(truth.shape)
    return Signal.of(value, variance)


def test_the_parts_multiply_to_the_spectra():
    flat = spectra(np.random.default_rng(1))
    found = split_response(flat, np.ones(7, dtype=bool))
    product = found.blaze * found.throughput[:, None] * found.fibre_flat.value
    direct = (found.fibre_flat.dq & DQ.EXTRAPOLATED) == 0
    np.testing.assert_allclose(product[direct], flat.value[direct], rtol=1e-10)
    assert direct.mean() > 0.6


def test_throughputs_are_those_of_the_fibres():
    found = split_response(spectra(np.random.default_rng(2)), np.ones(7, dtype=bool))
    np.testing.assert_allclose(found.throughput, THROUGHPUT, rtol=2e-3)
    assert np.median(found.throughput) == pytest.approx(1)


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.1, 100))
def test_exposure_changes_the_blaze_alone(scale):
    one = split_response(spectra(), np.ones(7, dtype=bool))
    other = split_response(spectra().scale(scale), np.ones(7, dtype=bool))
    np.testing.assert_allclose(other.throughput, one.throughput, rtol=1e-9)
    np.testing.assert_allclose(other.blaze, scale * one.blaze, rtol=1e-4, atol=1e-3 * scale)


def test_fringes_stay_in_the_flat_and_out_of_the_blaze():
    found = split_response(spectra(), np.ones(7, dtype=bool))
    lit = (X > 850) & (X < 1250)
    assert np.abs(found.fibre_flat.value[:, lit] - FRINGES[lit]).max() < 0.01
    wiggle = found.blaze[lit] / LAMP[lit]
    assert wiggle.std() < 0.005


def test_dark_columns_are_continued_and_say_so():
    found = split_response(spectra(np.random.default_rng(3)), np.ones(7, dtype=bool))
    dark = X < 180
    flat = found.fibre_flat
    assert np.isfinite(flat.value).all()
    assert (flat.dq[:, dark] & DQ.EXTRAPOLATED).all()
    assert np.abs(flat.value[:, dark] - 1).max() < 0.05
    assert flat.good.mean() > 0.98


@pytest.mark.parametrize("width", [1.5, 6.0])
def test_light_that_ends_steeply_is_followed_by_the_blaze(width):
    lamp = 2e4 * (1 + X / 1000) / (1 + np.exp(-(X - 165) / width))
    found = split_response(spectra(np.random.default_rng(3), lamp=lamp), np.ones(7, dtype=bool))
    assert found.blaze_rms < 0.05
    lit = 165 + 8 * width < X
    assert np.abs(found.blaze[lit] / lamp[lit] - 1).max() < 0.05


def test_noise_of_faint_flats_stays_out_of_the_flat():
    found = split_response(
        spectra(np.random.default_rng(4), lamp=LAMP / 100), np.ones(7, dtype=bool)
    )
    direct = (found.fibre_flat.dq & DQ.EXTRAPOLATED) == 0
    assert not direct.any()
    assert np.abs(found.fibre_flat.value[:, 400:1200] - 1).max() < 0.06


def test_dead_fibres_are_nan():
    throughput = THROUGHPUT.copy()
    throughput[3] = 0
    live = throughput > 0
    found = split_response(spectra(np.random.default_rng(5), throughput), live)
    assert np.isnan(found.fibre_flat.value[3]).all()
    assert (found.fibre_flat.dq[3] & DQ.NO_DATA).all()
    assert np.isfinite(found.fibre_flat.value[live]).all()
    assert abs(found.throughput[3]) < 0.01


def test_masked_samples_are_filled_and_flagged():
    flat = spectra(np.random.default_rng(6))
    mask = np.zeros(flat.shape, dtype=bool)
    mask[2, 700:705] = True
    flat = Signal.of(np.where(mask, np.nan, flat.value), flat.variance, mask * int(DQ.NO_DATA))
    found = split_response(flat, np.ones(7, dtype=bool)).fibre_flat
    assert np.isfinite(found.value[2, 700:705]).all()
    assert (found.dq[2, 700:705] == DQ.EXTRAPOLATED).all()
    assert np.abs(found.value[2, 700:705] - 1).max() < 0.05


def test_no_light_is_an_error():
    with pytest.raises(RecipeError, match="no live fibre"):
        split_response(Signal.of(np.zeros((3, 50)), 1.0), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="does not fit"):
        split_response(spectra(), np.ones(3, dtype=bool))


def echelle_order(period=3200):
    distance = X - 700.0
    phase = 2 * np.pi * (distance + 2e-5 * distance**2) / period
    return 5e4 * np.sinc(phase / np.pi) ** 2 * (1 + 1e-4 * distance)


def test_a_sinc_squared_blaze_is_recovered():
    truth = echelle_order()
    noisy = truth + np.sqrt(truth + 10) * np.random.default_rng(7).standard_normal(X.size)
    noisy[300:304] = np.nan
    found = fit_blaze_sinc(noisy)
    used = found.used
    assert np.abs(found.blaze[used] / truth[used] - 1).max() < 0.02
    assert found.rms < 0.02
    assert found.period == pytest.approx(3200, rel=0.05)  # tied to slope and quadratic term
    with pytest.raises(RecipeError, match="samples"):
        fit_blaze_sinc(np.full(100, np.nan))
    with pytest.raises(RecipeError, match="too few samples have light"):
        fit_blaze_sinc(np.zeros(100))


def test_both_shapes_of_the_blaze_leave_the_same_spectra():
    flat = spectra(np.random.default_rng(8), lamp=echelle_order())
    live = np.ones(7, dtype=bool)
    for method in ("spline", "sinc"):
        found = split_response(flat, live, options=ResponseOptions(blaze=method))
        assert (found.sinc is not None) == (method == "sinc")
        assert found.blaze_rms < 0.04
        product = found.blaze * found.throughput[:, None] * found.fibre_flat.value
        direct = (found.fibre_flat.dq & DQ.EXTRAPOLATED) == 0
        np.testing.assert_allclose(product[direct], flat.value[direct], rtol=1e-10)


def test_a_blaze_of_the_wrong_shape_shows_in_its_scatter():
    humps = 2e4 * (1 + 0.6 * np.sin(X / 120))
    flat, live = spectra(lamp=humps), np.ones(7, dtype=bool)
    spline = split_response(flat, live).blaze_rms
    sinc = split_response(flat, live, options=ResponseOptions(blaze="sinc")).blaze_rms
    assert spline < 0.05 < sinc


def test_a_corner_between_two_lamps_is_followed():
    roof = 2e4 * (1.2 - np.minimum(np.abs(X - 601.5), 400) / 400)[None] ** -1
    flat = Signal.of(np.repeat(roof, 3, axis=0), 100.0)
    live, near = np.ones(3, dtype=bool), np.abs(X - 601.5) < 60
    smooth = split_response(flat, live)
    spline = BlazeSplineOptions(corners=(602,))
    cornered = split_response(flat, live, options=ResponseOptions(spline=spline))
    assert np.abs(smooth.fibre_flat.value[:, near] - 1).max() > 0.01
    assert np.abs(cornered.fibre_flat.value[:, near] - 1).max() < 0.003
