"""Pictures of RESPONSE and CALIBRATED, drawn from the written products."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kspecpipe.figures.house_style import COLOURS
from kspecpipe.fluxcal import figures
from kspecpipe.plots import column_median, new_figure
from kspecpipe.products.flux import Calibrated, Response
from kspecpipe.signal import DQ, BoolArray, FloatArray

_SPECTRA = 3


def paint_response(product: Response) -> Figure:
    """Draw the response, what each star says of it, magnitudes, a match, lost light."""
    figure, axes = new_figure(product, 2, 3)
    wave, response, stars = product.wavelength, product.response, product.stars
    names = [str(name) for name in stars["name"][np.asarray(stars["used"], bool)]]
    figures.draw_response(axes[0, 0], wave, response)
    figures.draw_vectors(axes[0, 0], wave, product.vectors, names)
    figures.draw_residuals(axes[0, 1], wave, response, product.vectors, names)
    figures.draw_grey(axes[0, 2], stars)
    figures.draw_photometry(axes[1, 0], stars, "res")
    figures.draw_photometry(axes[1, 1], stars, "fin")
    for axis, title in ((axes[1, 0], "before"), (axes[1, 1], "after")):
        axis.set_title(f"{title} the colour correction")
    best = (product.observed[0], product.model[0], product.vectors[0])
    figures.draw_match(axes[1, 2], wave, best)
    figures.shade(axes[1, 2], wave, (response.dq & np.uint16(DQ.TELLURIC)) > 0)
    template = stars["template"][np.asarray(stars["used"], bool)][0]
    axes[1, 2].set_title(f"{names[0]}: {template}")
    axes[0, 1].set_title(f"{len(names)} of {len(stars)} stars used")
    return figure


def paint_calibrated(product: Calibrated) -> Figure:
    """Draw standard stars, the brightest program fibres, and the sky, all in flux."""
    figure, axes = new_figure(product, 3, 1, stacked=True, sharex=True)
    wave = product.wavelength
    types = np.asarray(product.fibres["TYPE"]).astype(str)
    shown = np.where(product.spectra.good, product.spectra.value, np.nan)
    for axis, kind, label in ((axes[0, 0], "C", "standard stars"), (axes[1, 0], "P", "brightest")):
        rows = _brightest(shown, types == kind)
        for colour, row in zip(COLOURS, rows, strict=False):
            name = f"{product.fibres['FIBRE_ID'][row]} {kind}"
            axis.plot(wave, shown[row], lw=0.6, color=colour, label=name)
        if len(rows):
            axis.legend(title="fibre", loc="upper right", ncols=_SPECTRA)
            top = float(np.nanpercentile(shown[rows], 99.5))
            axis.set_ylim(-0.05 * top, 1.4 * top)  # the legend stands above the spectra
        axis.set(ylabel=f"{label}\n[erg/s/cm²/Å]")
    sky = product.sky[np.isfinite(product.sky).any(axis=1)]
    if len(sky):
        axes[2, 0].plot(wave, column_median(sky), lw=0.6, color=COLOURS[6])
    axes[2, 0].set(
        xlabel="wavelength [Å]",
        ylabel="sky, median fibre\n[erg/s/cm²/Å]",
        xlim=(wave[0], wave[-1]),
    )
    telluric = np.any((product.spectra.dq & np.uint16(DQ.TELLURIC)) > 0, axis=0)
    for axis in axes[:, 0]:
        figures.shade(axis, wave, np.asarray(telluric))
    return figure


def _brightest(spectra: FloatArray, chosen: BoolArray) -> list[int]:
    """Return the rows of most light among those chosen."""
    level = np.where(chosen, column_median(spectra.T, empty=-np.inf), -np.inf)
    return [int(row) for row in np.argsort(-level)[:_SPECTRA] if np.isfinite(level[row])]
