"""Pictures of single spectra: what is drawn, not how it looks."""

import numpy as np
import pytest
from astropy.table import Table

from kspecpipe.figures.spectrum import SpectraView, draw_spectra, target_lines
from kspecpipe.formats.fibre_spectra import FibreSpectra

WAVE = np.arange(4500.0, 7500.0, 4.0)


def spectra(count=3, dead=()):
    rng = np.random.default_rng(1)
    flux = 100 + rng.normal(0, 5, (count, WAVE.size))
    mask = np.zeros(flux.shape, bool)
    mask[list(dead)] = True
    table = Table({"FIBRE_ID": np.arange(1, count + 1), "TYPE": ["P"] * count})
    table["NAME"] = [f"target {i}" for i in range(count)]
    plane = np.full(flux.shape, 5.0)
    quality = np.zeros(flux.shape, np.uint16)
    return FibreSpectra(WAVE, flux, plane, mask, quality, table, "electron", {})


@pytest.mark.parametrize(("layout", "axes"), [("stack", 3), ("grid", 4), ("overlay", 1)])
def test_every_spectrum_has_its_place(layout, axes):
    figure = draw_spectra(spectra(), SpectraView(layout=layout), "night")
    assert len(figure.axes) == axes
    drawn = [line for axis in figure.axes for line in axis.get_lines() if len(line.get_xdata()) > 9]
    assert len(drawn) == 3
    assert figure.get_suptitle() == "night"
    assert any(axis.get_xlabel() == "wavelength in air [Å]" for axis in figure.axes)
    assert "electron" in figure.get_supylabel()


def test_dead_fibres_are_left_out():
    assert len(draw_spectra(spectra(dead=[1]), SpectraView()).axes) == 2
    with pytest.raises(ValueError, match="none of these fibres has data"):
        draw_spectra(spectra(dead=[0, 1, 2]), SpectraView())


def test_too_many_spectra_are_refused():
    with pytest.raises(ValueError, match="31 spectra; a picture holds 30"):
        draw_spectra(spectra(31), SpectraView())


def test_telluric_bands_are_shaded():
    assert len(draw_spectra(spectra(1), SpectraView()).axes[0].patches) > 4


def test_lines_of_the_target_are_marked_at_its_redshift():
    axis = draw_spectra(spectra(1), SpectraView(redshift=0.1)).axes[0]
    marked = [line.get_xdata()[0] for line in axis.get_lines() if len(line.get_xdata()) == 2]
    assert any(abs(x - 6562.80 * 1.1) < 1e-6 for x in marked)
    assert "H beta" in [text.get_text() for text in axis.texts]


def test_sky_lines_are_marked_on_request():
    plain, marked = (
        len(draw_spectra(spectra(1), SpectraView(sky_lines=on)).axes[0].get_lines())
        for on in (False, True)
    )
    assert marked > plain + 10


def test_limits_cut_the_axis_and_must_hold_data():
    axis = draw_spectra(spectra(1), SpectraView(limits=(5000, 5500))).axes[0]
    assert axis.get_xlim() == (5000, 5500)
    with pytest.raises(ValueError, match="no data between 100 and 200"):
        draw_spectra(spectra(1), SpectraView(limits=(100, 200)))


def test_smoothing_averages_noise_away():
    rough, smooth = (
        np.nanstd(
            draw_spectra(spectra(1), SpectraView(smooth=n)).axes[0].get_lines()[0].get_ydata()
        )
        for n in (1, 25)
    )
    assert smooth == pytest.approx(rough / 5, rel=0.25)


def test_lines_of_targets_run_from_blue_to_red_and_shift_with_redshift():
    rest, moved = target_lines(0.0), target_lines(0.5)
    waves = [wavelength for wavelength, _, _ in rest]
    assert waves == sorted(waves)
    assert [w for w, _, _ in moved] == pytest.approx([1.5 * w for w in waves])
    assert {kind for _, _, kind in rest} == {"emission", "absorption"}
