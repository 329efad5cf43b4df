"""Quality of a flux calibration: numbers and words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from kspecpipe.fluxcal.containers import FluxCalibrationResult, StarFit
from kspecpipe.fluxcal.grid import BANDS
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal

_LIGHT = 2.99792458e18
_FEW = 20
#: Where the zero point is measured, if the spectrum reaches there [Angstrom].
ZERO_POINT_RANGE = (5500.0, 6500.0)


def quality_metrics(
    wavelength: FloatArray,
    response: Signal,
    stars: Table,
    fits: Sequence[StarFit],
    scatter: tuple[float, float],
) -> dict[str, float]:
    """Numbers by which a flux calibration is judged.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        [Angstrom].
    response : Signal, shape (nw,)
        Combined response.
    stars : Table
        As `star_table` builds it.
    fits : sequence of StarFit
        Of the used stars.
    scatter : tuple of float
        Grey [mag] and shape [relative] scatter between stars; NaN for one star.

    Returns
    -------
    dict
        ``stars_used``, ``stars_rejected``, ``grey_scatter``, ``shape_scatter``, medians over
        the used stars (``teff``, ``velocity``, ``chi2``, ``runner_up``, ``residual``,
        ``line_misfit``, ``ebv``, ``snr``),
        ``colour_<band>`` (mean magnitude residual before correction), ``colour_rms`` (all bands,
        after it), ``zero_point`` (AB magnitude that gives 1 electron/s/Angstrom near 6000
        Angstrom), ``error`` (median relative error of the response).
    """
    used = np.asarray(stars["used"], bool)
    metrics = {
        "stars_used": float(used.sum()),
        "stars_rejected": float((~used).sum()),
        "grey_scatter": scatter[0],
        "shape_scatter": scatter[1],
    }
    for name in ("teff", "velocity", "chi2", "runner_up", "residual", "line_misfit", "ebv", "snr"):
        metrics[name] = _median(np.asarray(stars[name], float)[used])
    for band in BANDS:
        metrics[f"colour_{band}"] = _mean(np.asarray(stars[f"res_{band}"], float)[used])
    final = np.array([fit.final_residual for fit in fits])
    metrics["colour_rms"] = float(np.sqrt(_mean(final**2)))
    metrics["zero_point"] = zero_point(wavelength, response)
    metrics["error"] = _median((response.error / response.value)[_trusted(response)])
    return metrics


def zero_point(wavelength: FloatArray, response: Signal) -> float:
    """AB magnitude of a star that gives 1 electron/s/Angstrom near 6000 Angstrom.

    In a spectrum that does not reach there it is that of the spectrum's middle; NaN if nothing can
    be trusted.
    """
    trusted = _trusted(response)
    inside = (wavelength > ZERO_POINT_RANGE[0]) & (wavelength < ZERO_POINT_RANGE[1]) & trusted
    if inside.sum() < _FEW:
        middle, span = (wavelength[0] + wavelength[-1]) / 2, wavelength[-1] - wavelength[0]
        inside = (np.abs(wavelength - middle) < 0.15 * span) & trusted
    if not inside.any():
        return float("nan")
    fnu = response.value[inside] * wavelength[inside] ** 2 / _LIGHT
    return float(-2.5 * np.log10(np.median(fnu)) - 48.60)


def summarize_calibration(result: FluxCalibrationResult) -> str:
    """Describe a flux calibration in words and a table, one line per star."""
    m = result.metrics
    lines = [
        f"Flux calibration from {m['stars_used']:.0f} of {len(result.stars)} standard stars, "
        f"{result.wavelength[0]:.0f} to {result.wavelength[-1]:.0f} Angstrom",
        f"zero point {m['zero_point']:.3f} mag, relative error {100 * m['error']:.1f} %, "
        f"grey scatter {_number(m['grey_scatter'], 'mag')}, "
        f"shape scatter {_number(100 * m['shape_scatter'], '%')}",
    ]
    for row in result.stars:
        if not row["used"]:
            lines.append(f"  {row['name']}: rejected: {row['reason']}")
            continue
        lines.append(
            f"  {row['name']}: {row['template']}, Teff {row['teff']:.0f} K, "
            f"{row['velocity']:+.0f} km/s, E(B-V) {row['ebv']:+.3f}, chi2 {row['chi2']:.2f}, "
            f"S/N {row['snr']:.0f}, grey {row['grey']:+.3f} mag, shape {row['shape_rms']:.1%}"
        )
    return "\n".join(lines)


def history_lines(result: FluxCalibrationResult) -> list[str]:
    """HISTORY of the header: one line per star."""
    return [line.strip() for line in summarize_calibration(result).splitlines()]


def _trusted(response: Signal) -> BoolArray:
    flagged = response.dq & np.uint16(DQ.TELLURIC | DQ.EXTRAPOLATED | DQ.NO_DATA)
    trusted: BoolArray = (flagged == 0) & response.good
    return trusted


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if np.isfinite(value) else "unknown (one star)"


def _median(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if known.size else float("nan")
