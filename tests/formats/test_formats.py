"""Spectra in the hands of users: read_spectra, specutils, export."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

import kspecpipe
from kspecpipe import fibres, io
from kspecpipe.cli import main
from kspecpipe.errors import InputError, ProductError
from kspecpipe.formats.export import export
from kspecpipe.formats.fibre_spectra import read_spectra
from kspecpipe.formats.names import unique_names
from kspecpipe.products.combined import Coadded, unit_cards
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.images import BadPixelMap
from kspecpipe.signal import DQ, Signal
from kspecpipe.spectra import Extracted

NFIB, NW = 5, 40
NAMES = ["NGC 1", "star/../x", "NGC 1", "", "Ωmega"]
FLUX_UNIT = "erg/s/cm2/Angstrom"


def table():
    made = fibres.fibre_table(range(1, NFIB + 1), ["OK"] * 4 + ["DEAD"])
    made["NAME"] = NAMES
    made["TYPE"] = list("PPSCP")
    made["RA"], made["DEC"] = [10.0, 20.0, 30.0, np.nan, 50.0], -30.0
    return made


def signal():
    value = np.arange(NFIB * NW, dtype=float).reshape(NFIB, NW) + 10
    value[4] = np.nan
    found = Signal.of(value, 4.0).flag(np.isnan(value), DQ.NO_DATA)
    bad = np.zeros(value.shape, bool)
    bad[1, 5] = True
    return found.flag(bad, DQ.SATURATED)


def write(folder, product, catg):
    header = {
        "ESO PRO CATG": (catg, ""),
        "INSTRUME": ("TEST", ""),
        "EXPTIME": (600.0, ""),
        "MJD-OBS": (61000.0, ""),
    }
    path = folder / f"night_{catg.lower()}.fits"
    io.write_products([(path, build_hdus(product, header, {}))])
    return path


@pytest.fixture
def coadded(tmp_path):
    made = Coadded(
        spectra=signal(),
        sky=np.ones((NFIB, NW)),
        lsf=np.full((NFIB, NW), 8.0),
        exposure_map=np.full((NFIB, NW), 1200.0),
        axis={"CTYPE1": "AWAV", "CRPIX1": 1.0, "CRVAL1": 5000.0, "CDELT1": 2.0},
        exposures={"NCOMBINE": 2, "TEXPTIME": 1200.0, "MJD-END": 61000.02, "SPECSYS": "TOPOCENT"},
        scales=table(),
        fibres=table(),
        **unit_cards(FLUX_UNIT),
    )
    return write(tmp_path, made, "COADDED")


@pytest.fixture
def extracted(tmp_path):
    wave = 5000.0 + 2 * np.arange(NW) + np.arange(NFIB)[:, None]
    wave[4] = np.nan
    plane = np.ones((NFIB, NW))
    made = Extracted(
        spectra=signal(), wavelength=wave, lsf=plane, flat=plane, sky=plane, fibres=table()
    )
    return write(tmp_path, made, "EXTRACTED")


def test_spectra_of_a_grid_share_their_wavelengths(coadded):
    spectra = kspecpipe.read_spectra(coadded)
    assert len(spectra) == NFIB
    assert spectra.wavelength.tolist() == [5000.0 + 2 * i for i in range(NW)]
    assert spectra.unit == FLUX_UNIT
    assert (spectra.uncertainty[:4] == 2).all()
    assert spectra.mask[1, 5]
    assert spectra.mask[4].all()
    assert spectra.mask.sum() == 1 + NW
    assert spectra.meta["INSTRUME"] == "TEST"


def test_native_spectra_have_wavelengths_of_their_own(extracted):
    spectra = read_spectra(extracted)
    assert spectra.wavelength.shape == (NFIB, NW)
    assert spectra[2].wavelength[0] == 5002
    assert spectra[1:3].wavelength.shape == (2, NW)
    assert spectra.unit == "electron"


def test_one_fibre_is_found_by_number_id_name_and_place(coadded):
    spectra = read_spectra(coadded)
    assert spectra[1].flux[0] == 50
    assert spectra[-1].fibre["FIBRE_ID"] == 5
    assert spectra.fibre(2).flux[0] == 50
    assert spectra["STAR/../X"].flux[0] == 50
    assert spectra.near(20.0, -30.0).flux[0] == 50
    assert spectra.near(20.0 + 1.5 / 3600, -30.0).fibre["FIBRE_ID"] == 2


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s["NGC 2"], "did you mean 'NGC 1'"),
        (lambda s: s["NGC 1"], "is the name of 2 fibres: [1, 3]"),
        (lambda s: s.fibre(9), "no fibre 9; there are 1 to 5"),
        (lambda s: s.near(21.0, -30.0), "no target within 2 arcsec"),
    ],
)
def test_what_is_not_there_is_said(coadded, ask, words):
    with pytest.raises(KeyError) as caught:
        ask(read_spectra(coadded))
    assert words in str(caught.value)


def test_numbers_beyond_the_last_fibre_are_an_index_error(coadded):
    with pytest.raises(IndexError):
        read_spectra(coadded)[NFIB]


@pytest.mark.parametrize("key", [slice(1, 3), [1, 2], np.array([False, True, True, False, False])])
def test_slices_lists_and_masks_give_some_fibres(coadded, key):
    some = read_spectra(coadded)[key]
    assert list(some.fibres["FIBRE_ID"]) == [2, 3]
    assert some.flux[:, 0].tolist() == [50, 90]
    assert [one.fibre["FIBRE_ID"] for one in some] == [2, 3]


def test_fibres_of_a_type_are_the_live_ones(coadded):
    assert list(read_spectra(coadded).of_type("PC").fibres["FIBRE_ID"]) == [1, 2, 4]


def test_the_signal_to_noise_ratio_is_the_median_of_usable_samples(coadded):
    spectra = read_spectra(coadded)
    assert spectra[0].snr == pytest.approx((10 + 19.5) / 2)
    assert np.isnan(spectra[4].snr)


def test_products_without_spectra_are_refused(tmp_path):
    path = write(tmp_path, BadPixelMap(dq=np.zeros((4, 4), np.uint16)), "BAD_PIXEL_MAP")
    with pytest.raises(InputError, match="is a BAD_PIXEL_MAP; spectra are in EXTRACTED, REDUCED"):
        read_spectra(path)


@pytest.mark.parametrize("kind", ["coadded", "extracted"])
def test_specutils_reads_products_through_its_registry(request, kind):
    pytest.importorskip("specutils", reason="specutils is not installed")
    from specutils import SpectrumList

    found = SpectrumList.read(str(request.getfixturevalue(kind)))
    assert len(found) == 4  # without the dead fibre
    assert found[1].flux.value[0] == 50
    assert found[1].mask[5]
    assert found[1].uncertainty.array[0] == 2
    assert found[1].meta["NAME"] == "star/../x"
    assert found[1].meta["AIRORVAC"] == "air"
    assert str(found[1].spectral_axis.unit) == "Angstrom"
    unit = "erg / (Angstrom s cm2)" if kind == "coadded" else "electron"
    assert str(found[0].flux.unit) == unit


def test_specutils_that_is_imported_later_knows_products_too():
    pytest.importorskip("specutils", reason="specutils is not installed")
    code = (
        "import kspecpipe, sys; assert 'specutils' not in sys.modules\n"
        "from specutils import SpectrumList\n"
        "from astropy.io.registry import get_formats\n"
        "print(*get_formats(SpectrumList)['Format'])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert any("kspec" in name for name in seen.stdout.split())


def test_specutils_leaves_other_files_alone(tmp_path):
    pytest.importorskip("specutils", reason="specutils is not installed")
    from kspecpipe.formats.specutils_loaders import is_ours

    path = tmp_path / "other.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)
    text = tmp_path / "text.txt"
    text.write_text("no spectrum")
    assert not is_ours("read", str(path))
    assert not is_ours("read", text)
    assert not is_ours("read", tmp_path / "missing.fits")
    assert not is_ours("read", None)


def test_single_spectra_convert_too(coadded):
    pytest.importorskip("specutils", reason="specutils is not installed")
    spectra = read_spectra(coadded)
    assert spectra.fibre(2).to_specutils().flux.value[0] == 50
    assert len(spectra.to_specutils()) == 4


def test_letters_that_fits_does_not_have_are_replaced(coadded):
    assert str(read_spectra(coadded).fibres["NAME"][4]) == "?mega"


def test_names_are_sanitised_and_unique():
    names = unique_names([*NAMES, "ngc_1_001"], [1, 2, 3, 4, 5, 6])
    assert names == ["ngc_1_001", "star_.._x", "ngc_1_003", "fibre_004", "mega", "ngc_1_001_006"]
    assert len(set(names)) == 6


def test_an_exported_spectrum_has_the_columns_and_cards_of_the_archive(coadded, tmp_path):
    files = export(read_spectra(coadded), tmp_path / "out", "night", "fits")
    assert [path.name for path in files] == [
        "night_ngc_1_001.fits",
        "night_star_.._x.fits",
        "night_ngc_1_003.fits",
        "night_fibre_004.fits",
        "night_targets.csv",
    ]
    with fits.open(files[1]) as hdus:
        hdus.verify("exception")
        primary, columns = hdus[0].header, hdus[1].header
        row = hdus[1].data[0]
        assert hdus[1].columns.names == ["WAVE", "FLUX", "ERR", "QUAL"]
        assert row["WAVE"][:2].tolist() == [5000, 5002]
        assert row["FLUX"][0] == 50
        assert row["ERR"][0] == 2
        assert row["QUAL"][5] == DQ.SATURATED
        assert row["QUAL"].sum() == DQ.SATURATED
    assert columns["TUCD1"] == "em.wl;obs.atmos"
    assert columns["TUNIT2"] == FLUX_UNIT
    assert columns["TUCD2"] == "phot.flux.density;em.wl"
    assert columns["TELAPSE"] == pytest.approx(0.02 * 86400)
    assert columns["VOCLASS"] == "SPECTRUM v2.0"
    assert columns["NELEM"] == NW
    assert primary["PRODCATG"] == "SCIENCE.SPECTRUM"
    assert primary["FLUXCAL"] == "ABSOLUTE"
    assert primary["WAVELMIN"] == 500
    assert primary["RA"] == 20
    assert primary["TEXPTIME"] == 1200
    assert primary["FIBRE_ID"] == 2


def test_the_target_list_tells_which_file_is_which(coadded, tmp_path):
    files = export(read_spectra(coadded), tmp_path, "n", "csv")
    with files[-1].open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [path.name for path in files[:-1]]
    assert rows[1]["name"] == "star/../x"
    assert float(rows[0]["snr"]) == pytest.approx(14.75)
    samples = files[0].read_text(encoding="utf-8").splitlines()
    assert samples[0] == "wavelength,flux,uncertainty,dq"
    assert samples[1] == "5000.0,10.0,2.0,0"
    assert len(samples) == NW + 1


def test_export_without_data_or_without_a_place_is_refused(coadded, tmp_path):
    spectra = read_spectra(coadded)
    with pytest.raises(InputError, match="no fibre has data"):
        export(spectra[[4]], tmp_path, "n", "fits")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ProductError, match="cannot write to"):
        export(spectra, blocked, "n", "fits")


def test_the_command_exports_chosen_fibres(coadded, capsys):
    assert main(["export", str(coadded), "--type", "pc", "--format", "csv"]) == 0
    assert "3 spectra in" in capsys.readouterr().out
    folder = coadded.with_name("night_coadded_export")
    assert len(list(folder.glob("*.csv"))) == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--fibre", "77"], 2, "no fibre 77; there are 1 to 5"),
        (["--type", "X"], 2, "the types of this product are CPS"),
        (["--fibre", "5"], 3, "no fibre has data"),
    ],
)
def test_the_command_says_what_it_cannot_export(coadded, capsys, words, code, said):
    assert main(["export", str(coadded), *words]) == code
    assert said in capsys.readouterr().err
    assert not coadded.with_name("night_coadded_export").exists()
