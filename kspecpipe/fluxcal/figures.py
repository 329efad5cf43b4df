"""Figures of a flux calibration, drawn from what its products hold.

Each ``plot_`` function returns a figure of its own; the functions that draw on given axes serve the
pictures beside the products (`kspecpipe.figures.flux`) too.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kspecpipe.figures.house_style import house_style
from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.grid import BANDS
from kspecpipe.fluxcal.photometry import ab_mag_to_flam, load_filter_curve
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal

_RESPONSE = "response [(erg/s/cm²/Å) / (electron/s/Å)]"
_WAVELENGTH = "wavelength [Å]"
#: Characters of a reason that fit into a panel.
_REASON = 52
#: More entries of a legend than this are written small.
_MANY = 5


@house_style()
def plot_calibration_summary(wavelength: FloatArray, response: Signal, stars: Table) -> Figure:
    """Response with its error, the flagged regions, and how many stars made it.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        [Angstrom].
    response : Signal, shape (nw,)
        Combined response.
    stars : Table
        As `star_table` builds it.
    """
    figure, axes = _sheet(1)
    draw_response(axes[0], wavelength, response)
    used = int(np.sum(stars["used"]))
    axes[0].set_title(f"Response from {used} of {len(stars)} stars")
    return figure


@house_style()
def plot_per_star_vectors(
    wavelength: FloatArray, response: Signal, vectors: FloatArray, names: Sequence[str]
) -> Figure:
    """Responses of the single stars, shape (nstar, nw), over the combined one."""
    figure, axes = _sheet(1)
    draw_response(axes[0], wavelength, response)
    draw_vectors(axes[0], wavelength, vectors, names)
    return figure


@house_style()
def plot_calibration_residuals(
    wavelength: FloatArray, response: Signal, vectors: FloatArray, names: Sequence[str]
) -> Figure:
    """Shape of each star's response relative to the combined one, with the quoted error."""
    figure, axes = _sheet(1)
    draw_residuals(axes[0], wavelength, response, vectors, names)
    return figure


@house_style()
def plot_photometric_residuals(stars: Table) -> Figure:
    """Observed minus model magnitudes of the used stars, before and after the correction."""
    figure, axes = _sheet(2)
    for axis, stem, title in zip(axes, ("res", "fin"), ("before", "after"), strict=True):
        draw_photometry(axis, stars, stem)
        axis.set_title(f"{title} the colour correction")
    return figure


@house_style()
def plot_template_match(
    wavelength: FloatArray,
    observed: FloatArray,
    model: FloatArray,
    response: FloatArray,
    title: str = "",
    telluric: BoolArray | None = None,
) -> Figure:
    """One star over its model, and the ratio of the two.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        [Angstrom].
    observed : ndarray, shape (nw,)
        [electron/s/Angstrom] above the air.
    model : ndarray, shape (nw,)
        [erg/s/cm2/Angstrom].
    response : ndarray, shape (nw,)
        Of this star.
    title : str
        Name and template.
    telluric : ndarray of bool, shape (nw,), optional
        Samples in telluric bands, which are shaded.
    """
    figure, axes = _sheet(2)
    draw_match(axes[0], wavelength, (observed, model, response))
    axes[0].set_title(title)
    axes[1].plot(wavelength, observed * response / model - 1, lw=0.5)
    axes[1].axhline(0, color="0.5", lw=0.5)
    axes[1].set(xlabel=_WAVELENGTH, ylabel="observed / model - 1", ylim=(-0.3, 0.3))
    if telluric is not None:
        for axis in axes:
            shade(axis, wavelength, telluric)
    return figure


@house_style()
def plot_calibrated_spectrum(
    wavelength: FloatArray, flux: Signal, photometry: Photometry | None = None, title: str = ""
) -> Figure:
    """Draw a calibrated spectrum with its error and, if given, the catalogue's mean fluxes."""
    figure, axes = _sheet(1)
    axes[0].fill_between(wavelength, flux.value - flux.error, flux.value + flux.error, alpha=0.3)
    axes[0].plot(wavelength, flux.value, lw=0.6)
    if photometry is not None:
        bands = photometry.valid_bands()
        place = np.array([load_filter_curve(name).pivot_wavelength for name in bands])
        width = np.array([load_filter_curve(name).half_width for name in bands])
        pairs = np.array([photometry.get_band(name) for name in bands]).reshape(-1, 2)
        level, error = ab_mag_to_flam(pairs[:, 0], place, pairs[:, 1])
        # The mean over a wide band need not lie on the spectrum: its width is shown.
        axes[0].errorbar(place, level, error, width, fmt="o", ms=3, lw=0.8)
        for name, x, y in zip(bands, place, level, strict=True):
            if wavelength[0] < x < wavelength[-1]:
                axes[0].annotate(
                    _short(name), (x, y), (0, 4), textcoords="offset points", ha="center"
                )
    known = flux.value[flux.good]
    # A few samples at the ends, of large error, would hide all others.
    top = 1.25 * float(np.percentile(known, 99.5)) if known.size else 1.0
    axes[0].set(
        xlabel=_WAVELENGTH,
        ylabel="erg/s/cm²/Å",
        xlim=(float(wavelength[0]), float(wavelength[-1])),
        ylim=(min(0.0, float(np.percentile(known, 0.5))) if known.size else 0.0, top),
        title=title,
    )
    return figure


@house_style()
def plot_grey_scales(stars: Table) -> Figure:
    """Light that each used or odd star lost relative to the combination."""
    figure, axes = _sheet(1)
    draw_grey(axes[0], stars)
    return figure


def draw_response(axis: Axes, wavelength: FloatArray, response: Signal) -> None:
    """Draw the combined response, its error, and where it bridges telluric bands."""
    value, error = response.value, response.error
    low, high = value - error, value + error
    axis.fill_between(wavelength, low, high, color="0.5", alpha=0.6, lw=0, label="error")
    axis.plot(wavelength, value, "k", lw=1.2, label="combined")
    shade(axis, wavelength, (response.dq & np.uint16(DQ.TELLURIC)) > 0, label="telluric, bridged")
    _legend(axis)
    positive = value[np.isfinite(value) & (value > 0)]
    if positive.size:
        axis.set_ylim(0.7 * positive.min(), 1.4 * float(np.percentile(positive, 99)))
    axis.set(xlabel=_WAVELENGTH, ylabel=_RESPONSE, yscale="log")


def draw_vectors(
    axis: Axes, wavelength: FloatArray, vectors: FloatArray, names: Sequence[str]
) -> None:
    """Draw the responses of the single stars."""
    for vector, name in zip(vectors, names, strict=True):
        axis.plot(wavelength, vector, lw=0.8, label=name)
    _legend(axis)


def draw_residuals(
    axis: Axes,
    wavelength: FloatArray,
    response: Signal,
    vectors: FloatArray,
    names: Sequence[str],
) -> None:
    """Draw each star's shape over the combined one, less 1."""
    error = response.error / response.value
    axis.fill_between(wavelength, -error, error, color="0.85", zorder=0, label="error", lw=0)
    shapes = vectors / response.value
    shapes = shapes / np.nanmedian(shapes, axis=1, keepdims=True) - 1
    for shape, name in zip(shapes, names, strict=True):
        axis.plot(wavelength, shape, lw=0.8, label=name)
    reach = float(np.clip(1.3 * np.nanpercentile(np.abs(shapes), 99), 0.05, 0.5))
    axis.set(xlabel=_WAVELENGTH, ylabel="star / combined - 1", ylim=(-reach, reach))
    _legend(axis)


def draw_photometry(axis: Axes, stars: Table, stem: str) -> None:
    """Draw observed minus model magnitudes; ``stem``: ``res`` before, ``fin`` after correction."""
    bands = sorted(BANDS, key=lambda band: load_filter_curve(band).wave_eff)
    place = np.arange(len(bands))
    for row in stars[np.asarray(stars["used"], bool)]:
        values = [float(row[f"{stem}_{band}"]) for band in bands]
        axis.plot(place, values, "o-", ms=3, lw=0.8, label=str(row["name"]))
    axis.axhline(0, color="0.5", lw=0.5)
    axis.set_xticks(place, [_short(band) for band in bands])
    axis.set(xlabel="band", ylabel="observed - model [mag]")
    _legend(axis)


def draw_match(
    axis: Axes, wavelength: FloatArray, star: tuple[FloatArray, FloatArray, FloatArray]
) -> None:
    """Draw a star (observed, model, response) over its model."""
    observed, model, response = star
    top = float(np.nan_to_num(model).max()) or 1.0
    power = int(np.floor(np.log10(top)))
    axis.plot(wavelength, observed * response / 10.0**power, lw=0.6, label="observed")
    axis.plot(wavelength, model / 10.0**power, lw=0.8, label="model")
    axis.set(
        xlabel=_WAVELENGTH,
        ylabel=f"flux [$10^{{{power}}}$ erg/s/cm²/Å]",
        ylim=(0, 1.15 * top / 10.0**power),
    )
    _legend(axis)


def draw_grey(axis: Axes, stars: Table) -> None:
    """Draw the light that each star lost relative to the combination, and why it was rejected."""
    grey = np.asarray(stars["grey"], float)
    used, known = np.asarray(stars["used"], bool), np.isfinite(grey)
    place = np.arange(len(stars))
    reach = max(0.05, 1.3 * float(np.abs(grey[known]).max(initial=0.0)))
    for style, label, chosen in (("o", "used", used), ("x", "rejected", ~used & known)):
        if chosen.any():
            axis.plot(grey[chosen], place[chosen], style, label=label)
    for row in np.flatnonzero(~used):
        reason = shorten(str(stars["reason"][row]), _REASON, placeholder=" ...")
        at = axis.get_yaxis_transform()
        axis.text(0.02, row - 0.1, reason, transform=at, fontsize=6, va="bottom")
    axis.axvline(0, color="0.5", lw=0.5)
    axis.set_yticks(place, [str(name) for name in stars["name"]], fontsize=7)
    axis.set(xlabel="lost light [mag]", xlim=(-reach, reach), ylim=(len(stars) - 0.3, -0.7))
    _legend(axis)


def shade(axis: Axes, wavelength: FloatArray, inside: BoolArray, label: str | None = None) -> None:
    """Shade where the mask is True."""
    axis.fill_between(
        wavelength,
        0,
        1,
        where=inside,
        transform=axis.get_xaxis_transform(),
        color="0.9",
        zorder=0,
        label=label,
    )


def _legend(axis: Axes) -> None:
    """Name what is drawn; many stars have small names in two columns."""
    many = len(axis.get_legend_handles_labels()[1]) > _MANY
    axis.legend(ncols=2 if many else 1, fontsize=5.5 if many else None)


def _short(band: str) -> str:
    """Return the name of a band as astronomers say it: ``gaia_bp`` is BP, ``ps1_g`` is g."""
    survey, name = band.split("_")
    return name if survey == "ps1" else name.upper()


def _sheet(rows: int) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of some panels."""
    figure = Figure(figsize=(9, 3.5 * rows), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, 1)))
