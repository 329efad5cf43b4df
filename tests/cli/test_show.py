"""`kspec show`: pictures of written products."""

import pytest
from matplotlib.figure import Figure

from kspecpipe.cli import show

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
