"""Pictures: each product has one, whatever its content."""

from io import BytesIO

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kspecpipe import plots
from kspecpipe.fibres import fibre_table
from kspecpipe.fluxcal.grid import BANDS
from kspecpipe.products.product import Product
from kspecpipe.signal import DQ, Signal

NFIB, NX = 5, 40
HEADER = {"INSTRUME": "TINY", "INSMODE": "blue", "DATE-OBS": "2026-01-29T20:00:00", "OBJECT": "x"}
CARDS = {
    "CTYPE1": "AWAV",
    "CUNIT1": "Angstrom",
    "CRVAL1": 5000.0,
    "CDELT1": 2.0,
    "CRPIX1": 1.0,
}
SHAPES = {
    "profile": (NFIB, 4, 11),
    "blaze": (NX,),
    "glow": (1, NFIB, NX),
    "response": (NX,),
    "extinction": (NX,),
    "factor_error": (NX,),
}


#: A response without any value is never written: its recipe refuses.
DRAWN = [(catg, "noise") for catg in sorted(plots._PAINTERS)]
DRAWN += [(catg, "nan") for catg in sorted(plots._PAINTERS) if catg != "RESPONSE"]


def tables(name: str) -> Table:
    if name == "fibres":
        table = fibre_table(range(1, NFIB + 1), ["OK", "OK", "LOW", "DEAD", "OK"])
        table["THROUGHPUT"] = [1.0, 0.9, 0.3, np.nan, 1.1]
        table["TYPE"] = ["P", "S", "C", "P", "P"]
        return table
    if name == "stars":
        stars = Table({"name": [f"star {i}" for i in range(NFIB)], "used": [True] * NFIB})
        stars["template"] = ["am00ct6000"] * NFIB
        stars["grey"] = np.linspace(0.9, 1.1, NFIB)
        for band in BANDS:
            stars[f"res_{band}"] = stars[f"fin_{band}"] = 0.01
        return stars
    if name == "lamps":
        return Table({"LAMP": ["d2", "qth"], "FIRST": [0, 30], "LAST": [29, 59]})
    rng = np.random.default_rng(2)
    columns = ("x", "fibre", "y", "wavelength", "residual", "x_err", "shift", "row", "level")
    table = Table({column: rng.uniform(1, 30, 20) for column in columns})
    table["species"] = ["Ne"] * 20
    table["used"] = rng.uniform(size=20) > 0.3
    return table


def product_of(catg: str, fill: str) -> Product:
    """Return a product filled with noise or NaN."""
    rng = np.random.default_rng(1)

    def array(shape):
        return rng.normal(100, 5, shape) if fill == "noise" else np.full(shape, np.nan)

    cls = Product.known[catg]
    parts = {}
    for name, spec in cls.hdus().items():
        shape = SHAPES.get(name, (NFIB, NX))
        if spec.kind == "cards":
            parts[name] = {key: CARDS.get(key, 1.0) for key in spec.keys}
        elif spec.kind == "table":
            parts[name] = tables(name)
        elif spec.kind == "signal":
            dq = np.full(shape, DQ.NO_DATA if fill == "nan" else 0)
            parts[name] = Signal.of(array(shape), 1.0, dq)
        elif spec.dtype == "u2":
            parts[name] = (rng.integers(0, 16, shape) * (fill == "noise")).astype(np.uint16)
        else:
            parts[name] = array(shape)
    return cls(header=HEADER, **parts)


@pytest.mark.filterwarnings(
    "ignore:(All-NaN|Mean of empty|Degrees of freedom|No artists|Data has no pos)"
)
@pytest.mark.parametrize(("catg", "fill"), DRAWN)
def test_each_product_is_drawn_with_axes_that_say_what_they_show(catg, fill):
    figure = plots.draw(product_of(catg, fill))
    assert figure is not None
    FigureCanvasAgg(figure).draw()  # tick labels and layout meet the content here
    drawn = [axis for axis in figure.axes if axis.has_data()]
    assert drawn or fill != "noise"
    for axis in drawn:
        assert axis.get_xlabel() or axis.get_ylabel() or axis.get_label() == "<colorbar>"
    assert catg in figure.get_suptitle()


@pytest.mark.parametrize("shape", [(7, 5), (8, 30), (2, 4)])
def test_the_median_of_each_column_leaves_out_what_is_missing(shape):
    values = np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)
    np.testing.assert_allclose(plots.column_median(values), np.median(values, axis=0))
    values[0, :3] = np.nan
    values[:, 3] = np.nan
    found = plots.column_median(values, empty=-7.0)
    assert found[3] == -7.0
    expected = np.nanmedian(np.delete(values, 3, axis=1), axis=0)
    np.testing.assert_allclose(np.delete(found, 3), expected)


def test_a_histogram_shows_a_single_pixel():
    values = np.zeros((50, 50), dtype=np.float32)
    values[:, 1] = 1.0
    values[7, 7] = 0.5
    figure = plots.draw(product_of("MASTER_BIAS", "noise").replace(image=Signal.of(values, 1.0)))
    axis = figure.axes[1]
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] < 1
    counts = axis.patches[0].get_data().values
    assert counts.sum() == values.size
    assert 1 in counts


def test_every_product_has_a_picture():
    assert set(plots._PAINTERS) <= set(Product.known)
    missing = set(Product.known) - set(plots._PAINTERS)
    assert all(plots.draw(product_of(catg, "noise")) is None for catg in missing)


def test_pictures_go_to_files_of_any_type_and_to_streams(tmp_path):
    figure = plots.draw(product_of("MASTER_BIAS", "noise"))
    stream = BytesIO()
    plots.save(figure, stream)
    assert stream.getvalue().startswith(b"\x89PNG")
    plots.save(figure, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
