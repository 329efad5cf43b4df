"""Audit: REDUCED made again from its factors, and its variance predicted."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspecpipe.audit.figure import draw_audit
from kspecpipe.audit.reduced import audit, pixel_ratio, predict_noise, rebuild
from kspecpipe.errors import InputError
from kspecpipe.signal import DQ

DEAD, LIVE = 1, [0, 2, 3, 4]


def by_name(found):
    return {one.name: one for one in found.differences}


def test_an_untouched_product_is_rebuilt_exactly(exposure):
    found = audit(exposure())
    for one in found.differences:
        assert (one.absolute[LIVE] < 1e-9).all()
        assert (one.relative[LIVE] < 1e-12).all()
        assert one.unmatched.sum() == 0
    assert np.isnan(by_name(found)["RWSS"].absolute[DEAD])
    assert np.abs(found.variance_ratio[LIVE] - 1).max() < 1e-9


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fibre=st.sampled_from(LIVE), column=st.integers(0, 119), error=st.floats(1e-5, 0.5))
def test_one_wrong_sample_is_found_with_its_size(exposure, fibre, column, error):
    files = exposure()
    rwss = files.reduced.rwss.copy()
    rwss[fibre, column] *= 1 + error
    found = by_name(audit(replace(files, reduced=files.reduced.replace(rwss=rwss))))
    scale = max(abs(rwss[fibre, column]), np.sqrt(files.reduced.spectra.variance[fibre, column]))
    wrong = rwss[fibre, column] * error / (1 + error)
    assert found["RWSS"].absolute[fibre] == pytest.approx(wrong, rel=1e-6)
    assert found["RWSS"].relative[fibre] == pytest.approx(wrong / scale, rel=1e-6)
    others = [i for i in LIVE if i != fibre]
    assert (found["RWSS"].relative[others] < 1e-12).all()
    assert found["SKY"].absolute[fibre] < 1e-9


def test_wrong_throughput_shows_in_every_sample_of_its_fibre(exposure):
    files = exposure()
    table = files.extracted.fibres.copy()
    table["THROUGHPUT"][3] *= 1.01
    wrong = replace(files, extracted=files.extracted.replace(fibres=table))
    found = by_name(audit(wrong))
    assert found["RWSS"].relative[3] == pytest.approx(1 - 1 / 1.01, rel=1e-6)
    assert found["REDUCED"].relative[3] == pytest.approx(0.7 * (1 - 1 / 1.01), rel=1e-6)


def test_a_value_where_there_should_be_none_is_unmatched(exposure):
    files = exposure()
    hit = np.zeros(files.extracted.spectra.shape, bool)
    hit[0, 60] = True
    masked = files.extracted.replace(spectra=files.extracted.spectra.flag(hit, DQ.COSMIC))
    found = by_name(audit(replace(files, extracted=masked)))
    assert found["RWSS"].unmatched.tolist() == [1, 0, 0, 0, 0]


def test_without_sky_reduced_is_rwss(exposure):
    rebuilt = rebuild(exposure(sky=False))
    assert np.isnan(rebuilt.sky).all()
    assert np.array_equal(rebuilt.reduced[LIVE], rebuilt.rwss[LIVE])
    assert np.isfinite(rebuilt.rwss[LIVE]).all()


def test_predicted_variance_is_that_of_a_fit_to_the_pixels(exposure):
    noise = predict_noise(exposure())
    assert np.abs(noise.predicted / noise.given - 1)[LIVE].max() < 0.01
    assert np.abs(noise.ratio(noise.predicted)[LIVE] - 1).max() < 0.005
    assert np.isnan(noise.ratio(noise.predicted)[DEAD])


def test_noise_pixels_are_those_of_the_profile_not_of_a_gaussian(exposure):
    noise = predict_noise(exposure())
    offset = np.arange(-8, 9)
    share = np.exp(-0.5 * (offset / np.where(offset < 0, 1.5, 1.9)) ** 2)
    share = share + 0.02 / (1 + (offset / 2.5) ** 2)
    exact = share.sum() ** 2 / (share**2).sum()
    assert np.median(noise.pixels) == pytest.approx(exact, rel=0.01)
    sigma = 4.0 / 2.3548
    assert np.median(noise.boss_pixels) == pytest.approx(sigma**2 * 3.5449, rel=1e-3)
    assert np.median(noise.boss_pixels) > 1.3 * exact


def test_variance_that_is_too_small_shows(exposure):
    files = exposure()
    spectra = files.extracted.spectra
    small = replace(spectra, variance=spectra.variance * 0.8)
    noise = predict_noise(replace(files, extracted=files.extracted.replace(spectra=small)))
    assert noise.ratio(noise.predicted)[LIVE] == pytest.approx(1.25, rel=0.01)


def test_flagged_samples_do_not_count_but_telluric_ones_do(exposure):
    files = exposure()
    where = np.zeros(files.extracted.spectra.shape, bool)
    where[:, :30] = True
    spectra = files.extracted.spectra.flag(where, DQ.HOT).flag(~where, DQ.TELLURIC)
    noise = predict_noise(replace(files, extracted=files.extracted.replace(spectra=spectra)))
    assert not noise.clean[:, :30].any()
    assert noise.clean[LIVE][:, 30:].all()


def test_without_profile_or_noise_nothing_is_predicted(exposure):
    files = exposure()
    assert predict_noise(replace(files, tramlines=None)) is None
    assert predict_noise(exposure(ron=None)) is None
    assert audit(replace(files, tramlines=None)).noise is None


def test_products_of_different_fibres_are_refused(exposure):
    files = exposure()
    fewer = files.reduced.replace(rwss=files.reduced.rwss[:3])
    with pytest.raises(InputError, match="3 fibres.*5 fibres.*not of one exposure"):
        rebuild(replace(files, reduced=fewer))


def test_traces_of_another_shape_are_refused(exposure):
    files = exposure()
    narrow = files.tramlines.replace(traces=files.tramlines.traces.select(np.s_[:, :50]))
    with pytest.raises(InputError, match="are not those of the spectra"):
        predict_noise(replace(files, tramlines=narrow))


def test_pixel_size_ratio_is_one_on_the_grid_of_the_pixels(exposure):
    files = exposure()
    assert pixel_ratio(files, rebuild(files).grid)[LIVE] == pytest.approx(1)


def test_figure_has_the_six_panels(exposure):
    figure = draw_audit(audit(exposure()), 3)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert len(labels) == 6
    assert "flat-field factors" in labels
    seen = dict(zip(labels, figure.axes, strict=True))["RWSS per electron"].lines[0]
    factors = dict(zip(labels, figure.axes, strict=True))["RWSS per electron"].lines[1]
    assert seen.get_ydata() == pytest.approx(factors.get_ydata())


def test_figure_without_profile_says_so(exposure):
    figure = draw_audit(audit(replace(exposure(), tramlines=None)), 0)
    assert [text.get_text() for text in figure.axes[4].texts] == ["no TRAMLINE_MAP"]


def test_audit_imports_no_recipe_and_nothing_that_reduces():
    code = (
        "import sys, kspecpipe.audit.reduced, kspecpipe.audit.figure;"
        "print([m for m in sys.modules if m.startswith(('kspecpipe.recipes', 'kspecpipe.reduction',"
        "'kspecpipe.sky.model', 'kspecpipe.sky.subtract', 'kspecpipe.base_recipe'))])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
