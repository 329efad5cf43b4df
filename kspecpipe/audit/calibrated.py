"""Rebuild CALIBRATED from REDUCED and RESPONSE, with nothing of what made it but the formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspecpipe import io
from kspecpipe.audit.reduced import find_calibration, find_partner
from kspecpipe.errors import InputError
from kspecpipe.products.flux import Calibrated, Response
from kspecpipe.signal import FloatArray
from kspecpipe.spectra import Reduced


@dataclass(frozen=True)
class FluxAudit:
    """How CALIBRATED differs from what its factors give.

    Parameters
    ----------
    names : tuple of str
        CALIBRATED, REDUCED, and RESPONSE or where FACTOR was taken from instead.
    differences : dict
        Largest relative difference of each fibre by what was compared: FACTOR, PRIMARY, VARIANCE,
        SKY; shape (nfib,), NaN for fibres without data.
    unmatched : int
        Samples that have a value in one of the two only.
    """

    names: tuple[str, str, str]
    differences: dict[str, FloatArray]
    unmatched: int


def audit_flux(path: Path, given: Mapping[str, Path]) -> FluxAudit:
    """Audit one CALIBRATED.

    Parameters
    ----------
    path : Path
        The product.
    given : mapping of category to Path
        REDUCED or RESPONSE, if not in the same folder.

    Raises
    ------
    InputError
        If it is no CALIBRATED, or its REDUCED is not found.
    """
    product = io.read_product(path)
    if not isinstance(product, Calibrated):
        raise InputError(f"{path.name}: is {product.catg}, not CALIBRATED")
    reduced = find_calibration(path, product.header, "REDUCED", given)
    if not isinstance(reduced, Reduced):
        raise InputError(f"{path.name}: its REDUCED is not found; name it: --with REDUCED=PATH")
    response = _response(path, product, given)
    factor = _factor(product, reduced, response)
    value = reduced.spectra.value.astype(float) * factor
    variance = reduced.spectra.variance.astype(float) * factor**2
    variance += (value * product.factor_error.astype(float)) ** 2
    sky = reduced.sky.astype(float) * factor
    error = np.sqrt(variance)
    stored = product.spectra
    pairs = {
        "FACTOR": (factor, product.factor, np.abs(factor)),
        "PRIMARY": (value, stored.value, np.fmax(np.abs(value), error)),
        "VARIANCE": (variance, stored.variance, variance),
        "SKY": (sky, product.sky, np.fmax(np.abs(sky), error)),
    }
    return FluxAudit(
        (product.name, reduced.name, response.name if response else "its own FACTOR"),
        {name: _largest(*parts) for name, parts in pairs.items()},
        int((np.isfinite(value) != np.isfinite(stored.value)).sum()),
    )


def _response(path: Path, product: Calibrated, given: Mapping[str, Path]) -> Response | None:
    """Return the response of the exposure, or the one that it was given; None if it is lost."""
    if "FCALRESP" in product.calibration:
        found = find_calibration(path, product.header, "RESPONSE", given)
    else:
        try:
            found = find_partner(path, product, "RESPONSE", given)
        except InputError:
            return None
    return found if isinstance(found, Response) else None


def _factor(product: Calibrated, reduced: Reduced, response: Response | None) -> FloatArray:
    """Return flux per electron from RESPONSE, EXTINCT, AIRMASS, EXPTIME and the pixel's width."""
    if response is None:
        return product.factor.astype(float)
    airmass = np.asarray(product.fibres["AIRMASS"], float)[:, None]
    clear = 10 ** (0.4 * airmass * response.extinction.astype(float))
    width = float(reduced.header["EXPTIME"]) * float(reduced.axis["CDELT1"])
    factor: FloatArray = response.response.value.astype(float) * clear / width
    return factor


def _largest(ours: FloatArray, theirs: FloatArray, scale: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(scale > 0, np.abs(ours - theirs) / scale, np.nan)
    largest = np.max(np.where(np.isfinite(relative), relative, -np.inf), axis=1)
    return np.where(np.isfinite(largest), largest, np.nan)
