"""Coadd: exposures with known truth through the recipe."""

import numpy as np
import pytest

from kspecpipe import fibres
from kspecpipe.base_recipe import find_recipe
from kspecpipe.errors import InputError
from kspecpipe.products.flux import Calibrated
from kspecpipe.signal import Signal
from kspecpipe.spectra import Reduced

NFIB, NW = 5, 500
AXIS = {"CTYPE1": "AWAV", "CRPIX1": 1.0, "CRVAL1": 5000.0, "CDELT1": 4.0, "CUNIT1": "Angstrom"}
WAVE = 5000.0 + 4.0 * np.arange(NW)


def light():
    shape = 300 + 80 * np.sin(WAVE / 200) + 400 * np.exp(-0.5 * ((WAVE - 6100) / 12) ** 2)
    return np.linspace(0.2, 1, NFIB)[:, None] * shape


def sky(shift=0.0):
    lines = (5577.3, 5890.0, 6300.3, 6363.8, 6863.0)
    found = sum(800 * np.exp(-0.5 * ((WAVE - 4 * shift - at) / 7) ** 2) for at in lines)
    return np.broadcast_to(100 + found, (NFIB, NW))


def table(**columns):
    made = fibres.fibre_table(range(1, NFIB + 1), ["OK"] * 4 + ["DEAD"])
    made["RA"], made["DEC"] = 150.0 + np.arange(NFIB) / 100, -30.0
    made["AIRMASS"], made["VBARY"] = 1.2, 10.0
    for name, values in columns.items():
        made[name] = values
    return made


def exposure(number, *, factor=1.0, exptime=600.0, shift=0.0, cls=Reduced, **columns):
    rng = np.random.default_rng(number)
    variance = np.maximum(factor * light() + sky() + 25, 1)
    value = factor * light() + np.sqrt(variance) * rng.standard_normal((NFIB, NW))
    value[4] = np.nan
    signal = Signal.of(value, np.where(np.isnan(value), np.nan, variance))
    header = {
        "FILENAME": f"exposure_{number}.fits",
        "EXPTIME": exptime,
        "MJD-OBS": 61000.0 + number / 24,
        "OBJECT": "tile_046",
    }
    common = {
        "sky": sky(shift).copy(),
        "lsf": np.full((NFIB, NW), 16.0),
        "axis": dict(AXIS),
        "correlation": {"ESO PRO CORR1": 0.2, "ESO PRO CORR2": 0.02, "ESO PRO CORR3": 0.0},
        "fibres": table(**columns),
        "header": header,
    }
    if cls is Reduced:
        rwss = value + common["sky"]
        return Reduced(spectra=signal, rwss=rwss, sky_variance=np.ones((NFIB, NW)), **common)
    scale = 1e-18
    shared = np.full(NW, 0.02)
    calibrated = signal.scale(scale)
    variance = calibrated.variance + (calibrated.value * shared) ** 2
    return Calibrated(
        spectra=Signal(calibrated.value, variance, calibrated.dq),
        factor=np.full((NFIB, NW), scale),
        factor_error=shared,
        extinction=np.full(NW, 0.1),
        calibration={"FLUXCAL": "ABSOLUTE"},
        **{**common, "sky": common["sky"] * scale},
    )


def coadd(*exposures, recipe=None, **parameters):
    recipe = recipe or find_recipe("coadd")(log=False)
    inputs = recipe.Inputs(exposures=list(exposures))
    products, metrics = recipe.run(inputs, recipe.Parameters(**parameters))
    return products.coadded, metrics


def test_the_mean_is_unbiased_and_its_errors_are_true():
    coadded, metrics = coadd(*[exposure(i) for i in range(4)])
    pull = ((coadded.spectra.value - light()) / coadded.spectra.error)[:4]
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)
    assert metrics.gain == pytest.approx(1, abs=0.02)
    assert metrics.chi2 == pytest.approx(1, abs=0.1)
    assert metrics.rejected == pytest.approx([0] * 4, abs=2e-3)


def test_signal_to_noise_grows_with_the_root_of_the_number():
    two, eight = (coadd(*[exposure(i) for i in range(n)])[1].snr for n in (2, 8))
    assert eight / two == pytest.approx(2, rel=0.03)


def test_exposures_of_other_transparency_are_scaled_to_their_mean():
    coadded, metrics = coadd(exposure(1, factor=1.2), exposure(2, factor=0.8))
    assert metrics.scales == pytest.approx([1.2, 0.8], abs=0.02)
    assert np.nanmedian(coadded.spectra.value[:4] / light()[:4]) == pytest.approx(1, abs=0.01)
    rows = coadded.scales
    assert len(rows) == 2 * NFIB
    assert np.asarray(rows["SCALE"][:4]) == pytest.approx([1.2] * 4, abs=0.05)


def test_scaling_can_be_switched_off():
    _, metrics = coadd(exposure(1, factor=1.2), exposure(2, factor=0.8), scale="none")
    assert metrics.scales == [1.0, 1.0]
    assert metrics.chi2 > 3


def test_planted_cosmic_rays_do_not_survive():
    hit = exposure(2)
    places = (np.arange(4).repeat(10), np.tile(np.arange(25, 475, 45), 4))
    hit.spectra.value[places] += 40 * hit.spectra.error[places]
    coadded, metrics = coadd(exposure(1), hit, exposure(3))
    left = np.abs(coadded.spectra.value - light())[places] / coadded.spectra.error[places]
    assert left.max() < 5
    assert metrics.rejected[1] == pytest.approx(40 / (4 * NW), rel=0.2)
    assert (coadded.exposure_map[places] == 1200).all()


def test_an_exposure_that_the_others_contradict_is_counted_as_left_out():
    wrong = exposure(2)
    signs = np.random.default_rng(3).choice([-1, 1], wrong.spectra.shape)
    wrong.spectra.value[:] += 40 * signs * wrong.spectra.error
    recipe = find_recipe("coadd")(log=False)
    coadd(exposure(1), wrong, exposure(3), exposure(4), recipe=recipe, scale="none")
    assert recipe.dropped == 1
    coadd(exposure(1), exposure(3), recipe=(calm := find_recipe("coadd")(log=False)))
    assert calm.dropped == 0


def test_the_exposure_map_counts_seconds():
    short = exposure(2, exptime=300.0)
    short.spectra.value[1, 100] = np.nan
    coadded, _ = coadd(exposure(1), short)
    assert np.median(coadded.exposure_map[:4]) == 900
    assert coadded.exposure_map[1, 100] == 600
    assert (coadded.exposure_map[4] == 0).all()
    assert np.isnan(coadded.spectra.value[4]).all()


def test_times_of_all_exposures_are_in_the_header():
    coadded, _ = coadd(exposure(1), exposure(2, exptime=300.0))
    assert coadded.exposures["NCOMBINE"] == 2
    assert coadded.exposures["TEXPTIME"] == 900
    assert coadded.exposures["MJD-END"] == pytest.approx(61000 + 2 / 24 + 300 / 86400)
    assert coadded.exposures["SPECSYS"] == "TOPOCENT"


def test_shifted_exposures_are_aligned_by_their_sky():
    moved, still = exposure(1, shift=0.3), exposure(2, shift=-0.3)
    coadded, metrics = coadd(moved, still)
    assert metrics.zero_points == pytest.approx([0.3, -0.3], abs=0.03)
    assert np.abs(np.asarray(coadded.scales["MOVED"])) == pytest.approx(
        np.full(2 * NFIB, 0.3), abs=0.03
    )
    kept, metrics = coadd(moved, still, align_above=1.0)
    assert (np.asarray(kept.scales["MOVED"]) == 0).all()


def test_without_a_sky_the_zero_point_does_not_apply():
    bare = [exposure(i).replace(sky=np.full((NFIB, NW), np.nan)) for i in (1, 2)]
    coadded, metrics = coadd(*bare)
    assert metrics.zero_points == [None, None]
    assert np.isnan(coadded.sky).all()


def test_velocities_can_be_taken_out():
    coadded, _ = coadd(exposure(1), exposure(2, VBARY=-20.0), velocity="barycentric")
    assert coadded.exposures["SPECSYS"] == "BARYCENT"
    with pytest.raises(InputError, match="no barycentric velocities"):
        coadd(exposure(1, VBARY=np.nan), exposure(2), velocity="barycentric")


def test_calibrated_exposures_keep_their_unit_and_the_error_that_they_share():
    pair = [exposure(i, cls=Calibrated) for i in range(1, 5)]
    coadded, _ = coadd(*pair)
    assert coadded.unit == {"BUNIT": "erg/s/cm2/Angstrom"}
    assert coadded.squared == {"BUNIT": "erg2/s2/cm4/Angstrom2"}
    shared = (0.02 * coadded.spectra.value[:4]) ** 2
    own = coadded.spectra.variance[:4] - shared
    assert np.median(own / pair[0].spectra.variance[:4]) == pytest.approx(0.25, abs=0.03)
    assert np.nanmedian(coadded.spectra.value[:4] / light()[:4]) == pytest.approx(1e-18, rel=0.01)


def test_other_targets_and_other_grids_are_refused():
    with pytest.raises(InputError, match="saw other targets"):
        coadd(exposure(1), exposure(2, DEC=-31.0))
    other = exposure(2).replace(axis={**AXIS, "CDELT1": 3.9})
    with pytest.raises(InputError, match=r"step 3\.9.*kspec rebin"):
        coadd(exposure(1), other)
