"""Which throughput of the fibres is trusted: of the twilight, else the flat, else the sky lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from astropy.table import Table

from kspecpipe import fibres
from kspecpipe.errors import RecipeError
from kspecpipe.signal import BoolArray, FloatArray, Signal
from kspecpipe.sky.lamp import without_lamp
from kspecpipe.sky.throughput import (
    Throughput,
    compare_throughputs,
    throughput_from_sky_lines,
    throughput_from_skyflat,
)
from kspecpipe.spectra import FibreFlat


@dataclass(frozen=True)
class TrustedThroughput:
    """The FIBRES table with the throughput of the best source.

    Parameters
    ----------
    fibres : Table
        Its THROUGHPUT is NaN when neither twilight nor lamp says anything of it.
    source : str
        SKYFLAT, FIBRE_FLAT, TRAMLINE_MAP (which knows that of its flat) or "sky lines".
    difference : float or None
        Robust scatter of the ratio of twilight and lamp flat; None without both.
    """

    fibres: Table
    source: str
    difference: float | None = None


def flat_response(flat: FibreFlat | None, wavelength: FloatArray) -> Signal:
    """Return the response of each fibre without its throughput (nfib, nx); 1 without a flat."""
    if flat is None:
        return Signal.of(np.ones(wavelength.shape))
    return without_lamp(flat.flat, flat.blaze.astype(float), wavelength)


def fine_response(flat: Signal, *, least_snr: float = 100.0) -> Signal:
    """Return the response that distorts lines, such as fringes, where a flat knows it.

    Parameters
    ----------
    flat : Signal, shape (nfib, nx)
        Response of each fibre to a lamp, about 1.
    least_snr : float
        Where the flat is worse than this, or missing, the response is that of the nearest samples.

    Returns
    -------
    Signal, shape (nfib, nx)
        Positive everywhere, without flags; 1 in fibres of which nothing is known.
    """
    sure = flat.good & (flat.value > least_snr * np.sqrt(np.maximum(flat.variance, 0.0)))
    sure &= flat.value > 0
    x = np.arange(flat.shape[1])
    value = [
        np.interp(x, x[known], row[known]) if known.any() else np.ones(x.size)
        for row, known in zip(flat.value, sure, strict=True)
    ]
    return Signal.of(np.stack(value), np.where(sure, flat.variance, 0.0))


def trusted_throughput(
    table: Table, flat: FibreFlat | None, twilight: Sequence[Signal], wavelength: FloatArray
) -> TrustedThroughput:
    """Fill in the throughput: from the twilight when there is one, else from the lamp flat.

    A lamp does not fill the fibres as the sky does, and single sky lines are faint: the twilight
    is trusted most, the sky lines of an exposure (see `line_throughput`) least.

    Parameters
    ----------
    table : Table
        FIBRES.
    flat : FibreFlat or None
        Lamp flat.
    twilight : sequence of Signal, shape (nfib, nx)
        Extracted twilight exposures [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom].

    Raises
    ------
    RecipeError
        If the throughput of a live fibre is not positive.
    """
    filled, live = table.copy(), fibres.live(table)
    lamp = None
    if flat is not None:
        value = fibres.throughput(flat.fibres)
        _refuse_negative(value, live, flat)
        lamp = Throughput(value, np.zeros(len(value)), np.zeros(len(value)))
        filled["THROUGHPUT"] = value
    if not twilight:
        traced = np.isfinite(fibres.throughput(filled)).any()
        source = "FIBRE_FLAT" if lamp else "TRAMLINE_MAP" if traced else "sky lines"
        return TrustedThroughput(filled, source)
    known = np.where(live[:, None], wavelength, np.nan)
    even = reduce(Signal.add, twilight).divide(flat_response(flat, known))
    found = throughput_from_skyflat(even, known, live)
    # A fibre too dark for the twilight keeps what the lamp says of it.
    filled["THROUGHPUT"] = np.where(np.isfinite(found.value), found.value, filled["THROUGHPUT"])
    difference = compare_throughputs(found, lamp).rms if lamp else None
    return TrustedThroughput(filled, "SKYFLAT", difference)


def line_throughput(spectra: Signal, wavelength: FloatArray, live: BoolArray) -> Throughput | None:
    """Measure throughput in the sky lines of an exposure; None where there are no such lines.

    Parameters
    ----------
    spectra : Signal, shape (nfib, nx)
        Spectra divided by the flat, not by throughput [electron].
    wavelength : ndarray, shape (nfib, nx)
        Wavelength of pixel centres [Angstrom].
    live : ndarray of bool, shape (nfib,)
        Fibres that are not dead.
    """
    try:
        return throughput_from_sky_lines(spectra, wavelength, live)
    except RecipeError:
        return None


def difference_from_lines(table: Table, lines: Throughput | None) -> float | None:
    """Return the robust scatter of the table's throughput over that of the lines, if measured."""
    if lines is None:
        return None
    value = np.where(fibres.live(table), fibres.throughput(table), np.nan)
    rms = compare_throughputs(Throughput(value, np.zeros(len(value)), value), lines).rms
    return rms if np.isfinite(rms) else None


def _refuse_negative(value: FloatArray, live: BoolArray, flat: FibreFlat) -> None:
    wrong = np.flatnonzero(live & (value <= 0))
    if wrong.size:
        ids = np.asarray(flat.fibres["FIBRE_ID"])[wrong[:5]].tolist()
        raise RecipeError(
            f"{flat.name}: the throughput of {wrong.size} live fibres (first: {ids}) is not "
            "positive; expected a value around 1. Was a background subtracted twice from the flat?"
        )
