"""The six panels of an audit, after those with which the calibration of BOSS was documented."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kspecpipe.audit.reduced import Audit, Noise, pixel_ratio
from kspecpipe.figures.house_style import COLOURS, house_style
from kspecpipe.signal import FloatArray

_DATA, _GIVEN, _PREDICTED, _NOISE = COLOURS[6], COLOURS[1], COLOURS[0], COLOURS[2]


@house_style()
def draw_audit(audit: Audit, fibre: int) -> Figure:
    """Draw the audit of one fibre.

    Parameters
    ----------
    audit : Audit
        What was found.
    fibre : int
        Row of the fibre.

    References
    ----------
    .. [1] BOSS calibration tutorial of the package bossdata (D. Kirkby).
    """
    figure = Figure(figsize=(10.0, 12.0), layout="constrained")
    axes = figure.subplots(3, 2).ravel()
    row = audit.files.extracted.fibres[fibre]
    title = f"{audit.files.reduced.name}   fibre {row['FIBRE_ID']} ({row['TYPE']})"
    figure.suptitle(title)
    wavelength = audit.files.extracted.wavelength[fibre]
    _flux(axes[0], audit, fibre)
    _electrons(axes[1], audit, fibre, wavelength)
    _flat_factors(axes[2], audit, fibre, wavelength)
    _calibration_factors(axes[3], audit, fibre, wavelength)
    if audit.noise is None:
        for axis in axes[4:]:
            axis.text(0.5, 0.5, "no TRAMLINE_MAP", ha="center", transform=axis.transAxes)
        return figure
    _excess(axes[4], audit, audit.noise, fibre)
    _predicted(axes[5], audit.noise, fibre)
    return figure


def _top(values: FloatArray, percent: float = 99.0) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, percent)) if finite.size else 1.0


def _finish(axis: Any, xlabel: str, ylabel: str, top: float | None = None) -> None:
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if top is not None and top > 0:
        axis.set_ylim(0, 1.1 * top)
    axis.legend(ncols=2)


def _flux(axis: Any, audit: Audit, fibre: int) -> None:
    reduced, grid = audit.files.reduced, audit.rebuilt.grid
    axis.plot(grid.wavelength, reduced.rwss[fibre], ".", ms=1, color=_DATA, label="RWSS")
    given = reduced.spectra.variance[fibre]
    axis.plot(grid.wavelength, given, ".", ms=1, color=_GIVEN, label="variance, given")
    rebuilt = audit.rebuilt.variance[fibre]
    axis.plot(grid.wavelength, rebuilt, ".", ms=1, color=_PREDICTED, label="variance, rebuilt")
    top = max(_top(reduced.rwss[fibre]), _top(given))
    _finish(axis, "wavelength [Å]", "flux [electron], variance [electron²] / pixel", top)


def _electrons(axis: Any, audit: Audit, fibre: int, wavelength: FloatArray) -> None:
    spectra = audit.files.extracted.spectra
    given = spectra.variance[fibre]
    axis.plot(wavelength, spectra.value[fibre], ".", ms=1, color=_DATA, label="electrons")
    axis.plot(wavelength, given, ".", ms=1, color=_GIVEN, label="variance, given")
    if audit.noise is not None:
        predicted = audit.noise.predicted[fibre]
        axis.plot(wavelength, predicted, ".", ms=1, color=_PREDICTED, label="variance, predicted")
        axis.plot(wavelength, _read_noise(audit, audit.noise, fibre), color=_NOISE, label="ron")
    top = max(_top(spectra.value[fibre]), _top(given))
    _finish(axis, "wavelength [Å]", "detected electrons, variance [electron²]", top)


def _flat_factors(axis: Any, audit: Audit, fibre: int, wavelength: FloatArray) -> None:
    flat = audit.files.extracted.flat[fibre]
    axis.plot(wavelength, audit.rebuilt.response[fibre], color=_DATA, label="both")
    axis.plot(wavelength, flat, color=_PREDICTED, label="FLAT")
    throughput = audit.rebuilt.response[fibre] / flat
    axis.plot(wavelength, throughput, color=_GIVEN, label="THROUGHPUT")
    _finish(axis, "wavelength [Å]", "flat-field factors")


def _calibration_factors(axis: Any, audit: Audit, fibre: int, wavelength: FloatArray) -> None:
    """RWSS per detected electron, and the factors of which it is made."""
    reduced, grid = audit.files.reduced, audit.rebuilt.grid
    known = np.isfinite(wavelength)
    electrons = audit.files.extracted.spectra.value[fibre]
    with np.errstate(divide="ignore", invalid="ignore"):
        if known.any():
            seen = np.interp(wavelength, grid.wavelength, reduced.rwss[fibre]) / electrons
            axis.plot(wavelength, seen, ".", ms=1, color=COLOURS[4], label="RWSS / electrons")
    width = pixel_ratio(audit.files, grid)[fibre]
    inverse = 1 / audit.rebuilt.response[fibre]
    axis.plot(wavelength, width * inverse, color=_DATA, label="all")
    axis.plot(wavelength, width, color=_NOISE, label="pixel-size ratio")
    axis.plot(wavelength, inverse, color=_PREDICTED, label="1 / (FLAT THROUGHPUT)")
    _finish(axis, "wavelength [Å]", "RWSS per electron", _top(width * inverse) * 1.2)


def _excess(axis: Any, audit: Audit, noise: Noise, fibre: int) -> None:
    """Noise beyond that of the fibre's own electrons, against the read noise of its pixels."""
    wavelength = audit.files.extracted.wavelength[fibre]
    electrons = np.maximum(audit.files.extracted.spectra.value[fibre], 0)
    for variance, colour, label in (
        (noise.given, _DATA, "given"),
        (noise.predicted, _PREDICTED, "predicted"),
    ):
        excess = np.sqrt(np.maximum(variance[fibre] - electrons, 0))
        axis.plot(wavelength, excess, ".", ms=1, color=colour, label=label)
    axis.plot(
        wavelength, np.sqrt(_read_noise(audit, noise, fibre)), color=_NOISE, label="read noise"
    )
    top = _top(np.sqrt(np.maximum(noise.given[fibre] - electrons, 0)), 95)
    _finish(axis, "wavelength [Å]", "(variance - electrons)^½ [electron]", 1.3 * top)


def _predicted(axis: Any, noise: Noise, fibre: int) -> None:
    used = noise.clean[fibre]
    axis.plot(noise.predicted[fibre, used], noise.given[fibre, used], ".", ms=1, color=_DATA)
    axis.plot(noise.boss[fibre, used], noise.given[fibre, used], ".", ms=1, color=COLOURS[5])
    axis.plot([], [], ".", color=_DATA, label="profile fit")
    axis.plot([], [], ".", color=COLOURS[5], label="BOSS form")
    top = _top(noise.given[fibre, used])
    axis.plot([0, top], [0, top], "--", color=_GIVEN, label="equal")
    axis.set_xlim(0, 1.1 * top)
    _finish(axis, "predicted variance [electron²]", "given variance [electron²]", top)


def _read_noise(audit: Audit, noise: Noise, fibre: int) -> FloatArray:
    ron = audit.files.extracted.ron
    if ron is None:
        return np.full(noise.pixels.shape[1], np.nan)
    squared: FloatArray = ron[fibre] ** 2 * noise.pixels[fibre]
    return squared
