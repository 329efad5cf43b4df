"""Pictures of single spectra: with sky lines, telluric bands and the lines of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from kspecpipe.ancillary import load_mask_regions, static_line_list, static_text
from kspecpipe.combine.smooth import running_mean
from kspecpipe.figures.house_style import COLOURS, house_style
from kspecpipe.formats.fibre_spectra import FibreSpectra, Spectrum
from kspecpipe.signal import FloatArray

Layout = Literal["stack", "grid", "overlay"]
_WIDTH, _ROW = 11.0, 2.4
_MOST = 30
#: Labels of lines nearer than this part of the axis share one place.
_LABEL_SPACE = 0.022


@dataclass(frozen=True)
class SpectraView:
    """How spectra are shown.

    Parameters
    ----------
    layout : {"stack", "grid", "overlay"}
        One below the other, in two columns, or all in one axis.
    redshift : float or None
        Redshift of the targets: their lines are marked.
    sky_lines : bool
        Mark the night-sky lines.
    limits : tuple of float or None
        Ends of the wavelength axis [Angstrom].
    smooth : int
        Samples over which the flux is averaged in the picture; 1: none.
    """

    layout: Layout = "stack"
    redshift: float | None = None
    sky_lines: bool = False
    limits: tuple[float, float] | None = None
    smooth: int = 1


@house_style()
def draw_spectra(spectra: FibreSpectra, view: SpectraView, title: str = "") -> Figure:
    """Draw the spectra of some fibres.

    Parameters
    ----------
    spectra : FibreSpectra
        The spectra, 30 at most.
    view : SpectraView
        How.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If there are none or too many, or nothing lies within the limits.
    """
    chosen = [one for one in spectra if not one.mask.all()]
    if not chosen:
        raise ValueError("none of these fibres has data")
    if len(chosen) > _MOST:
        raise ValueError(
            f"{len(chosen)} spectra; a picture holds {_MOST}: choose some with --fibre"
        )
    limits = view.limits or _extent(chosen)
    figure, axes = _axes(len(chosen), view.layout)
    figure.suptitle(title)
    for i, (one, axis) in enumerate(zip(chosen, axes, strict=False)):
        _draw_one(axis, one, view, COLOURS[0])
        axis.text(0.008, 0.93, _label(one), transform=axis.transAxes, va="top", fontsize=9)
        _mark(axis, view, limits, labels=i < (2 if view.layout == "grid" else 1))
    if view.layout == "overlay":
        for colour, one in zip(COLOURS[1:], chosen[1:], strict=False):
            _draw_one(axes[0], one, view, colour)
        axes[0].texts[0].remove()
        lines = axes[0].get_lines()[: len(chosen)]
        axes[0].legend(lines, [_label(one) for one in chosen])
    for axis in axes:
        axis.set_xlim(*limits)
    _set_heights(axes, chosen, view, limits)
    figure.supylabel(f"flux [{chosen[0].unit}]", fontsize=9)
    for axis in axes[-2 if view.layout == "grid" else -1 :]:
        axis.set_xlabel("wavelength in air [Å]")
    return figure


def _axes(count: int, layout: Layout) -> tuple[Figure, list[Any]]:
    columns = 2 if layout == "grid" and count > 1 else 1
    rows = 1 if layout == "overlay" else -(-count // columns)
    height = max(4.2, _ROW * rows + 0.8)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).ravel())
    for axis in axes[count:] if layout != "overlay" else []:
        axis.set_visible(False)
    return figure, axes


def _draw_one(axis: Any, one: Spectrum, view: SpectraView, colour: str) -> None:
    flux, error = _shown(one, view.smooth)
    (line,) = axis.plot(one.wavelength, flux, lw=0.7, color=colour)
    axis.fill_between(
        one.wavelength, flux - error, flux + error, color=colour, alpha=0.25, lw=0, zorder=1
    )
    line.set_zorder(3)
    axis.axhline(0, color="k", lw=0.4, zorder=2)


def _shown(one: Spectrum, smooth: int) -> tuple[FloatArray, FloatArray]:
    flux = np.where(one.mask, np.nan, one.flux)
    error = np.where(one.mask, np.nan, one.uncertainty)
    if smooth > 1:
        flux, error = running_mean(flux, smooth), running_mean(error, smooth) / np.sqrt(smooth)
        flux, error = (np.where(one.mask, np.nan, part) for part in (flux, error))
    return flux, error


def _set_heights(
    axes: Sequence[Any], spectra: Sequence[Spectrum], view: SpectraView, limits: tuple[float, float]
) -> None:
    """Scale the axes on what lies within the limits, without its last outliers."""
    tops: list[tuple[float, float]] = []
    for one in spectra:
        inside = (one.wavelength >= limits[0]) & (one.wavelength <= limits[1])
        flux = _shown(one, view.smooth)[0][inside]
        flux = flux[np.isfinite(flux)]
        if flux.size == 0:
            raise ValueError(f"{_label(one)} has no data between {limits[0]:g} and {limits[1]:g} A")
        low, high = np.percentile(flux, [0.5, 99.95])
        tops.append((min(0.0, float(low)), float(high if high > low else low + 1)))
    if view.layout == "overlay":
        tops = [(min(low for low, _ in tops), max(high for _, high in tops))]
    for axis, (low, high) in zip(axes, tops, strict=False):
        axis.set_ylim(low - 0.05 * (high - low), high + 0.3 * (high - low))


def _mark(axis: Any, view: SpectraView, limits: tuple[float, float], *, labels: bool) -> None:
    """Shade the telluric bands and mark the lines of sky and target."""
    for band in load_mask_regions("telluric_regions"):
        if band.end > limits[0] and band.start < limits[1]:
            axis.axvspan(band.start, band.end, color="0.9", lw=0, zorder=0)
    if view.sky_lines:
        for wavelength in static_line_list("sky_lines.ecsv").wavelength:
            axis.axvline(wavelength, color="0.6", lw=0.5, ls=":", zorder=1)
    if view.redshift is None:
        return
    last = -np.inf
    for wavelength, name, kind in target_lines(view.redshift):
        if not limits[0] < wavelength < limits[1]:
            continue
        colour, style = (COLOURS[1], "-") if kind == "emission" else (COLOURS[2], "--")
        axis.axvline(wavelength, color=colour, lw=0.6, ls=style, alpha=0.7, zorder=1)
        if labels and (wavelength - last) / (limits[1] - limits[0]) > _LABEL_SPACE:
            place = axis.get_xaxis_transform()
            axis.text(
                wavelength, 1.01, name, transform=place, rotation=60, fontsize=7, color=colour
            )
            last = wavelength


def target_lines(redshift: float) -> list[tuple[float, str, str]]:
    """Return wavelength [Angstrom, air], name and kind of the lines of a target, from blue to red.

    Air wavelengths are shifted as if they were vacuum ones: the refractive index changes by 3e-6
    over the optical range, which no picture shows.
    """
    table = Table.read(static_text("galaxy_lines.ecsv").splitlines(), format="ascii.ecsv")
    return [
        (float(row["wavelength"]) * (1.0 + redshift), str(row["line"]), str(row["kind"]))
        for row in table
    ]


def _extent(spectra: Sequence[Spectrum]) -> tuple[float, float]:
    known = np.concatenate([one.wavelength[~one.mask] for one in spectra])
    return float(known.min()), float(known.max())


def _label(one: Spectrum) -> str:
    number, kind = int(one.fibre["FIBRE_ID"]), str(one.fibre["TYPE"])
    return f"fibre {number} {kind}  {one.name}   S/N {one.snr:.1f}"
