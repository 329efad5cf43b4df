"""What the flux calibration of an exposure is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspecpipe.declare import Declared, metric
from kspecpipe.products.flux import Response

# A response and the numbers by which it is judged; without stars of its own there are no numbers.
Derived = tuple[Response | None, Mapping[str, float]]


def _residual(name: str) -> Any:
    return metric(
        name,
        unit="mag",
        scope="exposure",
        needs="measured",
        doc="observed - model, mean of the used stars before the colour correction",
    )


def _of_stars(name: str, doc: str, unit: str = "") -> Any:
    return metric(
        name, unit=unit, scope="exposure", doc=f"{doc}, median of the used", needs="a usable star"
    )


class BandResiduals(Declared):
    """Observed minus model magnitude of the used stars in each band, before any correction."""

    colour_gaia_g: list[float | None] = _residual("RESIDUAL GAIA G")
    colour_gaia_bp: list[float | None] = _residual("RESIDUAL GAIA BP")
    colour_gaia_rp: list[float | None] = _residual("RESIDUAL GAIA RP")
    colour_ps1_g: list[float | None] = _residual("RESIDUAL PS1 G")
    colour_ps1_r: list[float | None] = _residual("RESIDUAL PS1 R")
    colour_ps1_i: list[float | None] = _residual("RESIDUAL PS1 I")
    colour_ps1_z: list[float | None] = _residual("RESIDUAL PS1 Z")
    colour_2mass_j: list[float | None] = _residual("RESIDUAL 2MASS J")
    colour_2mass_h: list[float | None] = _residual("RESIDUAL 2MASS H")
    colour_2mass_k: list[float | None] = _residual("RESIDUAL 2MASS K")


class FluxMetrics(BandResiduals):
    """Metrics of the recipe fluxcal."""

    used: list[int] = metric("STARS USED", scope="exposure", doc="stars in the response")
    rejected: list[int] = metric(
        "STARS REJECTED", scope="exposure", doc="stars left out, for the reasons in STARS"
    )
    grey: list[float | None] = metric(
        "GREY SCATTER",
        unit="mag",
        scope="exposure",
        doc="scatter of the stars' brightness",
        needs="at least two stars",
    )
    shape: list[float | None] = metric(
        "SHAPE SCATTER",
        scope="exposure",
        doc="relative scatter of the stars' responses without their brightness",
        needs="at least two stars",
    )
    colour: list[float | None] = metric(
        "COLOUR RMS",
        unit="mag",
        scope="exposure",
        doc="magnitudes of the stars less those of their corrected models",
        needs="a usable star",
    )
    error: list[float] = metric(
        "RESPONSE ERROR", scope="exposure", doc="median relative error of the response"
    )
    zero_point: list[float] = metric(
        "ZERO POINT",
        unit="mag",
        scope="exposure",
        doc="AB magnitude that gives 1 electron/s/Angstrom near 6000 Angstrom",
    )
    change: list[float | None] = metric(
        "ZERO POINT CHANGE",
        unit="mag",
        scope="exposure",
        doc="against the RESPONSE given; positive: more light is detected now",
        needs="a RESPONSE and a usable star",
    )
    teff: list[float | None] = _of_stars("STAR TEFF", "temperature of the stars", "K")
    velocity: list[float | None] = _of_stars(
        "STAR VELOCITY", "radial velocity of the stars as seen from the ground", "km/s"
    )
    ebv: list[float | None] = _of_stars("STAR EBV", "reddening E(B-V) of the stars", "mag")
    snr: list[float | None] = _of_stars("STAR SNR", "signal-to-noise ratio per pixel of the stars")
    chi2: list[float | None] = _of_stars(
        "TEMPLATE CHI2", "reduced chi-squared of the lines of the stars"
    )
    misfit: list[float | None] = _of_stars(
        "LINE MISFIT", "relative rms by which lines of models are wrong at 4000 Angstrom"
    )
    margin: list[float | None] = _of_stars(
        "RUNNER UP MARGIN", "chi-squared of the second best model less that of the best"
    )


def flux_metrics(
    derived: Sequence[Derived], applied: Sequence[Response], reference: Response | None
) -> dict[str, Any]:
    """Return the values of `FluxMetrics`.

    Parameters
    ----------
    derived : sequence of (Response or None, mapping)
        What the stars of each exposure gave.
    applied : sequence of Response
        The response with which each exposure was calibrated.
    reference : Response or None
        That with which the zero points are compared.
    """

    def each(key: str) -> list[float | None]:
        values = [numbers.get(key, float("nan")) for _, numbers in derived]
        return [value if np.isfinite(value) else None for value in values]

    zero = [float(response.calibration.get("FCALZP", np.nan)) for response in applied]
    before = None if reference is None else reference.calibration.get("FCALZP")
    return {name: each(name) for name in BandResiduals.specs} | {
        "used": [int(numbers.get("stars_used", 0)) for _, numbers in derived],
        "rejected": [int(numbers.get("stars_rejected", 0)) for _, numbers in derived],
        "grey": each("grey_scatter"),
        "shape": each("shape_scatter"),
        "colour": each("colour_rms"),
        "error": [_median_error(response) for response in applied],
        "zero_point": zero,
        "change": [
            float(now - before) if response is not None and before is not None else None
            for now, (response, _) in zip(zero, derived, strict=True)
        ],
        "teff": each("teff"),
        "velocity": each("velocity"),
        "ebv": each("ebv"),
        "snr": each("snr"),
        "chi2": each("chi2"),
        "misfit": each("line_misfit"),
        "margin": each("runner_up"),
    }


def _median_error(response: Response) -> float:
    vector = response.response
    return float(np.median((vector.error / vector.value)[vector.good]))
