"""Rebuild REDUCED from EXTRACTED and its stored factors, and predict its variance.

Nothing of what made the products is used here but the resampling: no recipe, no sky model, no
extraction. What agrees is therefore not merely repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kspecpipe import io
from kspecpipe.errors import InputError
from kspecpipe.signal import BoolArray, FloatArray, IntArray, Signal
from kspecpipe.sky.rebin import Grid, pixel_widths, plan_rebin
from kspecpipe.sky.resample import Kernel
from kspecpipe.spectra import Extracted, Reduced, TramlineMap, WaveSolution
from kspecpipe.trace.table import sample_profile

_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class AuditedFiles:
    """The products of one audit.

    Parameters
    ----------
    reduced, extracted : Reduced, Extracted
        Products of one exposure.
    tramlines : TramlineMap or None
        Traces and profile with which it was extracted.
    solution : WaveSolution or None
        Its wavelengths, when they replaced those of EXTRACTED.
    """

    reduced: Reduced
    extracted: Extracted
    tramlines: TramlineMap | None = None
    solution: WaveSolution | None = None


@dataclass(frozen=True)
class Rebuilt:
    """REDUCED made again, all of shape (nfib, nw) [electron per grid pixel].

    Parameters
    ----------
    rwss, sky, reduced : ndarray
        Spectra with sky, the sky, and their difference.
    variance : ndarray
        Variance of ``reduced``; samples of the sky model are taken as independent.
    grid : Grid
        Wavelength grid.
    response : ndarray, shape (nfib, nx)
        FLAT times THROUGHPUT.
    """

    rwss: FloatArray
    sky: FloatArray
    reduced: FloatArray
    variance: FloatArray
    grid: Grid
    response: FloatArray


@dataclass(frozen=True)
class Difference:
    """How a stored array differs from the rebuilt one, per fibre (nfib,).

    Parameters
    ----------
    name : str
        What was compared.
    absolute : ndarray
        Largest difference [electron].
    relative : ndarray
        Largest difference relative to RWSS of its sample, or to SKY or the error of REDUCED where
        these are larger: float32 cannot do better than a share of what is added.
    of_brightest : ndarray
        Largest difference relative to the fibre's brightest RWSS.
    unmatched : ndarray of int
        Samples that have a value in one of the two only.
    """

    name: str
    absolute: FloatArray
    relative: FloatArray
    of_brightest: FloatArray
    unmatched: IntArray


@dataclass(frozen=True)
class Noise:
    """Variance of EXTRACTED against predictions, all of shape (nfib, nx) [electron2].

    Parameters
    ----------
    given : ndarray
        The stored variance.
    predicted : ndarray
        Of a fit with the profile p to pixels of variance V: ``1 / sum(p^2 / V)``, V of read noise,
        dark and scattered light, of all fibres' electrons and the pixel response; with what is
        lost because neighbouring profiles overlap.
    simple : ndarray
        Electrons plus read noise squared times the exact number of noise pixels.
    boss : ndarray
        The same with the BOSS pipeline's number, right for profiles of sigma = 1 pixel only.
    pixels, boss_pixels : ndarray
        Number of noise pixels: ``1 / sum(p^2)``, and ``sigma^2 (4 pi)^(1/2)``.
    clean : ndarray of bool
        Samples without any DQ bit but telluric and low throughput.
    """

    given: FloatArray
    predicted: FloatArray
    simple: FloatArray
    boss: FloatArray
    pixels: FloatArray
    boss_pixels: FloatArray
    clean: BoolArray

    def ratio(self, variance: FloatArray) -> FloatArray:
        """Return the median of a predicted over the given variance of each fibre, shape (nfib,)."""
        return _row_median(np.where(self.clean, variance / self.given, np.nan))


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Parameters
    ----------
    files : AuditedFiles
        The products.
    rebuilt : Rebuilt
        REDUCED made again.
    differences : tuple of Difference
        Of RWSS, SKY and REDUCED.
    variance_ratio : ndarray, shape (nfib,)
        Rebuilt over stored variance of REDUCED, median of each fibre.
    noise : Noise or None
        None without a profile or without the noise of the pixels.
    """

    files: AuditedFiles
    rebuilt: Rebuilt
    differences: tuple[Difference, ...]
    variance_ratio: FloatArray
    noise: Noise | None


def audit(files: AuditedFiles) -> Audit:
    """Compare REDUCED with what EXTRACTED and its factors give.

    Raises
    ------
    InputError
        If the products do not belong together.
    """
    rebuilt = rebuild(files)
    reduced = files.reduced
    with np.errstate(invalid="ignore"):
        error = np.sqrt(reduced.spectra.variance.astype(float))
        sizes = [np.abs(part.astype(float)) for part in (reduced.rwss, reduced.sky, error)]
        scale = np.fmax(np.fmax(*sizes[:2]), sizes[2])
        ratio = np.where(reduced.spectra.good, rebuilt.variance / reduced.spectra.variance, np.nan)
    pairs = (
        ("RWSS", rebuilt.rwss, reduced.rwss),
        ("SKY", rebuilt.sky, reduced.sky),
        ("REDUCED", rebuilt.reduced, reduced.spectra.value),
    )
    differences = tuple(
        _difference(name, ours, theirs, reduced.rwss, scale) for name, ours, theirs in pairs
    )
    return Audit(files, rebuilt, differences, _row_median(ratio), predict_noise(files))


def rebuild(files: AuditedFiles) -> Rebuilt:
    """Make REDUCED again from EXTRACTED and its stored factors.

    Raises
    ------
    InputError
        If the products do not belong together.
    """
    extracted, reduced = files.extracted, files.reduced
    missing = [card for card in ("CRVAL1", "CDELT1") if card not in reduced.axis]
    if missing or len(reduced.rwss) != len(extracted.wavelength):
        raise InputError(
            f"{reduced.name} ({len(reduced.rwss)} fibres) and {extracted.name} "
            f"({len(extracted.wavelength)} fibres) are not of one exposure, or have no grid"
        )
    grid = Grid(reduced.axis["CRVAL1"], reduced.axis["CDELT1"], reduced.rwss.shape[1])
    throughput = np.asarray(extracted.fibres["THROUGHPUT"], dtype=float)
    divisor = np.where(np.isfinite(throughput), throughput, 1.0)[:, None]
    response = extracted.flat.astype(float) * divisor
    flat_variance = _or_zero(extracted.flat_variance, response) * divisor**2
    value = extracted.spectra.value.astype(float) / response
    variance = extracted.spectra.variance.astype(float) + value**2 * flat_variance
    even = Signal(value, variance / response**2, extracted.spectra.dq)
    plan = plan_rebin(_wavelength(files), grid, even.good, kernel=_kernel(reduced))
    rwss = plan.apply(even).signal
    if not np.isfinite(extracted.sky).any():
        empty = np.full(rwss.shape, np.nan)
        return Rebuilt(rwss.value, empty, rwss.value, rwss.variance, grid, response)
    native = extracted.sky.astype(float) / response
    spread = _or_zero(extracted.sky_variance, response) / response**2
    sky = plan.apply(Signal(native, spread, extracted.spectra.dq)).signal
    lost = plan.touches(~np.isfinite(native))
    subtracted = np.where(lost, np.nan, sky.value)
    left = rwss.value - subtracted
    return Rebuilt(rwss.value, subtracted, left, rwss.variance + sky.variance, grid, response)


def predict_noise(files: AuditedFiles) -> Noise | None:
    """Predict the variance of EXTRACTED from electrons, noise of the pixels, and the profile."""
    extracted, tramlines = files.extracted, files.tramlines
    if tramlines is None or extracted.ron is None or extracted.pixel_variance is None:
        return None
    traces, profile = tramlines.model
    if traces.y.shape != extracted.spectra.shape:
        raise InputError(
            f"{tramlines.name}: traces {traces.y.shape} are not those of the spectra "
            f"{extracted.spectra.shape}"
        )
    shift = extracted.header.get("ESO QC TRACE SHIFT", 0.0)
    window, weights = sample_profile(profile, traces.y, shift=float(shift))
    electrons = np.maximum(np.nan_to_num(extracted.spectra.value.astype(float)), 0.0)
    rows = window[:, None, :] + np.arange(weights.shape[1])[None, :, None]
    light = _light(rows, weights * electrons[:, None, :])
    prnu = float(extracted.noise.get("PRNU", 0.0))
    pixel = extracted.pixel_variance.astype(float)[:, None, :] + light + (prnu * light) ** 2
    pixels = 1.0 / (weights**2).sum(axis=1)
    sigma = np.asarray(tramlines.width, dtype=float) / _FWHM
    boss_pixels = sigma**2 * np.sqrt(4 * np.pi)
    squared = extracted.ron.astype(float) ** 2
    informing = np.uint16(0x0300)  # low throughput and telluric say nothing of the noise
    return Noise(
        given=extracted.spectra.variance.astype(float),
        predicted=_fit_variance(window, weights, pixel),
        simple=electrons + squared * pixels,
        boss=electrons + squared * boss_pixels,
        pixels=pixels,
        boss_pixels=boss_pixels,
        clean=extracted.spectra.good & ((extracted.spectra.dq & ~informing) == 0),
    )


def pixel_ratio(files: AuditedFiles, grid: Grid) -> FloatArray:
    """Return the width of a grid pixel over that of each native pixel, shape (nfib, nx)."""
    ratio: FloatArray = grid.step / pixel_widths(_wavelength(files))
    return ratio


def find_files(path: Path, given: Mapping[str, Path]) -> AuditedFiles:
    """Read a product and those that belong to it, found by what their headers say.

    Parameters
    ----------
    path : Path
        REDUCED or EXTRACTED.
    given : mapping of category to Path
        Products that are not in the same folder.

    Raises
    ------
    InputError
        If it is neither, or its partner is not found.
    """
    product = io.read_product(path)
    if isinstance(product, Reduced):
        reduced, extracted = product, find_partner(path, product, "EXTRACTED", given)
    elif isinstance(product, Extracted):
        reduced, extracted = find_partner(path, product, "REDUCED", given), product
    else:
        raise InputError(f"{path.name}: is {product.catg}; an audit takes REDUCED or EXTRACTED")
    tramlines = find_calibration(path, extracted.header, "TRAMLINE_MAP", given)
    solution = None
    if _parameter(reduced.header, "wavelengths") == "solution":
        solution = find_calibration(path, reduced.header, "WAVE_SOLUTION", given)
        if solution is None:
            raise InputError(f"{path.name}: its WAVE_SOLUTION is needed: --with WAVE_SOLUTION=PATH")
    return AuditedFiles(reduced, extracted, tramlines, solution)


def find_partner(path: Path, product: Any, catg: str, given: Mapping[str, Path]) -> Any:
    """Find the other product of the exposure: same run and start, or one made of the other."""
    own = product.header
    places = (
        [given[catg]] if catg in given else sorted(path.parent.glob(f"*_{catg.lower()}_*.fits"))
    )
    for place in places:
        header = io.read_header(place)
        if header.get("ESO PRO CATG") != catg or header.get("DATE-OBS") != own.get("DATE-OBS"):
            continue
        made_of = {*_inputs(own), *_inputs(header)}
        kin = {own.get("DATAMD5"), header.get("DATAMD5")} & made_of
        if kin or header.get("ESO PRO KEY") == own.get("ESO PRO KEY"):
            return io.read_product(place)
    raise InputError(
        f"{path.name}: there is no {catg} of the same exposure and run in {path.parent}; "
        f"name it: --with {catg}=PATH"
    )


def find_calibration(
    path: Path, header: Mapping[str, Any], catg: str, given: Mapping[str, Path]
) -> Any | None:
    """Read a calibration that the header names, from the folder of the product or above it."""
    if catg in given:
        product = io.read_product(given[catg])
        if product.catg != catg:
            raise InputError(f"{given[catg].name}: is {product.catg}, not {catg}")
        return product
    wanted = _inputs(header)
    for folder in (path.parent, path.parent.parent):
        for name, kind in wanted.values():
            place = folder / name
            if kind == catg and place.is_file():
                product = io.read_product(place)
                if product.header.get("DATAMD5") in wanted:
                    return product
    return None


def _inputs(header: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return name and category of the calibrations of a product by their checksums."""
    found = {}
    for number in _numbers("ESO PRO REC1 CAL{} NAME", header):
        stem = f"ESO PRO REC1 CAL{number}"
        found[str(header.get(f"{stem} DATAMD5"))] = (
            str(header[f"{stem} NAME"]),
            str(header.get(f"{stem} CATG")),
        )
    return found


def _parameter(header: Mapping[str, Any], name: str) -> Any:
    for number in _numbers("ESO PRO REC1 PARAM{} NAME", header):
        if header[f"ESO PRO REC1 PARAM{number} NAME"] == name:
            return header.get(f"ESO PRO REC1 PARAM{number} VALUE")
    return None


def _numbers(card: str, header: Mapping[str, Any]) -> Iterable[int]:
    number = 1
    while card.format(number) in header:
        yield number
        number += 1


def _kernel(reduced: Reduced) -> Kernel:
    return "overlap" if _parameter(reduced.header, "kernel") == "overlap" else "cubic"


def _wavelength(files: AuditedFiles) -> FloatArray:
    own = files.extracted.wavelength
    if files.solution is None:
        return own
    return np.where(np.isfinite(own), files.solution.wavelength.value, np.nan)


def _or_zero(variance: FloatArray | None, like: FloatArray) -> FloatArray:
    return np.zeros(like.shape) if variance is None else variance.astype(float)


def _difference(
    name: str, ours: FloatArray, theirs: FloatArray, rwss: FloatArray, scale: FloatArray
) -> Difference:
    size = np.abs(ours - theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(scale > 0, size / scale, np.nan)
        brightest = _row_max(size) / _row_max(np.abs(rwss.astype(float)))
    unmatched = (np.isfinite(ours) != np.isfinite(theirs)).sum(axis=1)
    return Difference(name, _row_max(size), _row_max(relative), brightest, unmatched)


def _row_max(values: FloatArray) -> FloatArray:
    largest = np.max(np.where(np.isfinite(values), values, -np.inf), axis=1)
    return np.where(np.isfinite(largest), largest, np.nan)


def _row_median(values: FloatArray) -> FloatArray:
    median = np.full(len(values), np.nan)
    some = np.isfinite(values).any(axis=1)
    median[some] = np.nanmedian(np.where(np.isfinite(values), values, np.nan)[some], axis=1)
    return median


def _light(rows: IntArray, electrons: FloatArray) -> FloatArray:
    """Electrons of all fibres in the pixels of each fibre's window, shape (nfib, nwin, nx)."""
    first = int(rows.min())
    image = np.zeros((int(rows.max()) - first + 1, rows.shape[2]))
    columns = np.broadcast_to(np.arange(rows.shape[2]), rows.shape)
    np.add.at(image, (rows - first, columns), electrons)
    return np.maximum(image[rows - first, columns], 0.0)


def _fit_variance(window: IntArray, weights: FloatArray, pixel: FloatArray) -> FloatArray:
    """Variance of the flux of a profile fit; neighbours that share pixels take some of it."""
    weighted = weights / pixel
    own = (weighted * weights).sum(axis=1)
    lost = np.zeros(own.shape)
    for step in (-1, 1):
        inner = np.arange(len(own))[max(0, -step) : len(own) - max(0, step)]
        index = (
            window[inner, None, :]
            + np.arange(weights.shape[1])[None, :, None]
            - window[inner + step, None, :]
        )
        inside = (index >= 0) & (index < weights.shape[1])
        at = np.clip(index, 0, weights.shape[1] - 1)
        other = np.where(inside, np.take_along_axis(weights[inner + step], at, axis=1), 0.0)
        shared = (weighted[inner] * other).sum(axis=1)
        lost[inner] += shared**2 / own[inner + step]
    variance: FloatArray = 1.0 / (own - lost)
    return variance
