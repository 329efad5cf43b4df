"""`kspec show`: pictures of written products."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from kspecpipe import io
from kspecpipe.cli import show
from kspecpipe.fibres import fibre_table
from kspecpipe.products.combined import Coadded, unit_cards
from kspecpipe.products.hdus import build_hdus
from kspecpipe.signal import Signal

PNG = b"\x89PNG"


def test_without_a_display_the_picture_stands_beside_the_product(kspec, camera):
    product = camera.master_bias()
    result = kspec("show", product)
    assert result.code == 0
    assert "no display" in result.out
    assert product.with_suffix(".png").read_bytes().startswith(PNG)


def test_picture_goes_where_it_is_asked_for(kspec, camera):
    target = camera.folder / "mine.pdf"
    assert kspec("show", camera.master_bias(), "-o", target).code == 0
    assert target.read_bytes().startswith(b"%PDF")
    assert not camera.master_bias().with_suffix(".png").exists()


def test_with_a_display_a_window_opens(kspec, camera, monkeypatch):
    shown = []
    monkeypatch.setattr(show, "has_display", lambda: True)
    monkeypatch.setattr("kspecpipe.plots.show", shown.append)
    result = kspec("show", camera.master_bias(), camera.master_bias())
    assert result.code == 0
    assert result.out == ""
    assert [type(figure) for figure in shown] == [Figure, Figure]


def test_backend_that_draws_files_only_is_no_display(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("matplotlib.pyplot.get_backend", lambda: "agg")
    assert not show.has_display()
    monkeypatch.setattr("matplotlib.pyplot.get_backend", lambda: "QtAgg")
    assert show.has_display()


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [("x.nonsense", 2, "nonsense"), ("nowhere/x.png", 1, "cannot be written")],
)
def test_picture_that_cannot_be_written_is_an_error(kspec, camera, target, code, message):
    result = kspec("show", camera.master_bias(), "-o", camera.folder / target)
    assert result.code == code
    assert message in result.err


def test_what_is_no_product_is_refused(kspec, camera):
    (raw,) = camera.biases(1)
    empty = camera.folder / "empty.fits"
    empty.touch()
    for path, message in ((raw, "PRO.CATG is None"), (empty, "empty"), ("gone.fits", "no such")):
        result = kspec("show", path)
        assert result.code == 3
        assert message in result.err


def test_one_name_for_several_pictures_is_refused(kspec):
    assert kspec("show", "a.fits", "b.fits", "-o", "c.png").code == 2


@pytest.fixture
def coadded(tmp_path):
    """Return a product with spectra of three fibres."""
    fibres = fibre_table([1, 2, 3], ["OK", "OK", "DEAD"])
    flux = np.tile(100.0 + np.arange(200), (3, 1))
    flux[2] = np.nan
    product = Coadded(
        spectra=Signal.of(flux, 25.0),
        sky=flux,
        lsf=flux,
        exposure_map=flux,
        axis={"CRPIX1": 1.0, "CRVAL1": 6000.0, "CDELT1": 4.0},
        scales=fibres,
        fibres=fibres,
        **unit_cards("electron"),
    )
    path = tmp_path / "coadded.fits"
    cards = {"ESO PRO CATG": ("COADDED", ""), "INSTRUME": ("TINY", "")}
    io.write_products([(path, build_hdus(product, cards, {}))])
    return path


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--fibre", "1,2", "--layout", "grid"],
        ["--type", "p", "--layout", "overlay"],
        ["--redshift", "0.02", "--sky-lines", "--range", "6100", "6500", "--smooth", "3"],
    ],
)
def test_single_spectra_are_drawn(kspec, coadded, words):
    result = kspec("show", coadded, *words)
    assert result.code == 0, result.err
    assert coadded.with_suffix(".png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fibre", "9"], "no fibre 9"),
        (["--fibre", "one"], "argument --fibre"),
        (["--fibre", "3"], "none of these fibres has data"),
        (["--type", "S"], "types of this product are P"),
        (["--range", "7000", "6000"], "the first must be the smaller"),
        (["--range", "100", "200"], "no data between 100 and 200"),
        (["--smooth", "0"], "must be 1 or more"),
    ],
)
def test_what_cannot_be_drawn_is_said(kspec, coadded, words, said):
    result = kspec("show", coadded, *words)
    assert result.code == 2
    assert said in result.err
    assert not coadded.with_suffix(".png").exists()


def test_an_image_without_spectra_or_traces_is_refused(kspec, camera, coadded):
    bias = camera.master_bias()
    for path, words, said in (
        (bias, ["--fibre", "1"], "spectra are in EXTRACTED"),
        (bias, ["--traces", coadded], "--traces takes a TRAMLINE_MAP"),
    ):
        result = kspec("show", path, *words)
        assert result.code == 3
        assert said in result.err
