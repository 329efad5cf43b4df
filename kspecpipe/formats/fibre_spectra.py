"""The spectra of a product in the hands of a user: by number, fibre, name or place on the sky."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from astropy.table import Table

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import InputError
from kspecpipe.io import read_product
from kspecpipe.products.combined import Coadded, Spliced, unit_of
from kspecpipe.products.flux import Calibrated, axis_wavelength
from kspecpipe.signal import UNUSABLE, BoolArray, DQArray, FloatArray
from kspecpipe.spectra import Extracted, Reduced

if TYPE_CHECKING:
    from specutils import Spectrum as SpecutilsSpectrum
    from specutils import SpectrumList

#: Products that hold one spectrum per fibre.
CATEGORIES = ("EXTRACTED", "REDUCED", "CALIBRATED", "COADDED", "SPLICED")


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one fibre.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,)
        Air wavelength of the pixel centres [Angstrom].
    flux, uncertainty : ndarray, shape (nw,)
        Flux and its standard deviation [unit]; NaN where there are none.
    mask : ndarray of bool, shape (nw,)
        True where the sample must not be used, as in numpy and specutils.
    dq : ndarray of uint16, shape (nw,)
        Data-quality bits, see `kspecpipe.signal.DQ`.
    fibre : mapping
        Its row of the table FIBRES.
    unit : str
        Unit of the flux.
    meta : mapping
        Header of the product.
    """

    wavelength: FloatArray
    flux: FloatArray
    uncertainty: FloatArray
    mask: BoolArray
    dq: DQArray
    fibre: Mapping[str, Any]
    unit: str
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the target, or of the fibre without one."""
        return str(self.fibre.get("NAME") or f"fibre_{int(self.fibre['FIBRE_ID']):03d}")

    @property
    def snr(self) -> float:
        """Median signal-to-noise ratio of the usable samples; NaN without any."""
        good = ~self.mask & (self.uncertainty > 0)
        return float(np.median(self.flux[good] / self.uncertainty[good])) if good.any() else np.nan

    def to_specutils(self) -> SpecutilsSpectrum:
        """Return it as a specutils spectrum (needs ``kspecpipe[specutils]``)."""
        from kspecpipe.formats.specutils_loaders import to_spectrum

        return to_spectrum(self)


@dataclass(frozen=True)
class FibreSpectra:
    """The spectra of all fibres of a product, in trace order.

    ``spectra[3]`` is the fourth `Spectrum`, ``spectra["name"]`` that of a target; slices, lists of
    numbers and boolean arrays of fibres give `FibreSpectra` again.

    Parameters
    ----------
    wavelength : ndarray, shape (nw,) or (nfib, nw)
        Air wavelength of the pixel centres [Angstrom]; of EXTRACTED each fibre has its own.
    flux, uncertainty : ndarray, shape (nfib, nw)
        Flux and its standard deviation [unit]; NaN where there are none.
    mask : ndarray of bool, shape (nfib, nw)
        True where a sample must not be used.
    dq : ndarray of uint16, shape (nfib, nw)
        Data-quality bits.
    fibres : Table
        FIBRES.
    unit : str
        Unit of the flux.
    meta : mapping
        Header of the product.
    """

    wavelength: FloatArray
    flux: FloatArray
    uncertainty: FloatArray
    mask: BoolArray
    dq: DQArray
    fibres: Table
    unit: str
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        """Return the number of fibres."""
        return len(self.flux)

    def __iter__(self) -> Iterator[Spectrum]:
        """Go through the spectra."""
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer[Any] | str) -> Spectrum: ...
    @overload
    def __getitem__(self, key: Any) -> FibreSpectra: ...

    def __getitem__(self, key: Any) -> Spectrum | FibreSpectra:
        """Return one spectrum by number or name, or some of them.

        Raises
        ------
        KeyError
            If no target or several have the name.
        IndexError
            If there is no fibre of that number.
        """
        if isinstance(key, str):
            key = self._number_of(key)
        if isinstance(key, int | np.integer):
            row = self.fibres[int(key)]
            rows = {name: getattr(self, name)[key] for name in _PLANES}
            fibre = {name: row[name] for name in self.fibres.colnames}
            wavelength = self.wavelength[key] if self.wavelength.ndim == 2 else self.wavelength
            return Spectrum(wavelength, **rows, fibre=fibre, unit=self.unit, meta=self.meta)
        return self._some(key)

    def fibre(self, fibre_id: int) -> Spectrum:
        """Return the spectrum of a FIBRE_ID.

        Raises
        ------
        KeyError
            If there is no such fibre.
        """
        found = np.nonzero(np.asarray(self.fibres["FIBRE_ID"]) == fibre_id)[0]
        if len(found) == 0:
            ids = np.asarray(self.fibres["FIBRE_ID"])
            raise KeyError(f"no fibre {fibre_id}; there are {ids.min()} to {ids.max()}")
        return self[int(found[0])]

    def of_type(self, types: str) -> FibreSpectra:
        """Return the live fibres of some types: ``"P"`` program, ``"S"`` sky, ``"PC"`` both."""
        chosen = np.isin(np.asarray(self.fibres["TYPE"]).astype(str), list(types))
        return self._some(chosen & (np.asarray(self.fibres["STATUS"]).astype(str) != "DEAD"))

    def near(self, ra: float, dec: float, radius: float = 2.0) -> Spectrum:
        """Return the spectrum of the target nearest to a place on the sky.

        Parameters
        ----------
        ra, dec : float
            Place [degree].
        radius : float
            Distance [arcsec] up to which it may lie.

        Raises
        ------
        KeyError
            If there is none so near.
        """
        turned = (np.asarray(self.fibres["RA"], float) - ra + 180.0) % 360.0 - 180.0
        rise = np.asarray(self.fibres["DEC"], float) - dec
        distance = 3600 * np.hypot(turned * np.cos(np.radians(dec)), rise)
        known = np.isfinite(distance)
        if not known.any() or np.nanmin(distance) > radius:
            least = f"; the nearest is {np.nanmin(distance):.1f} away" if known.any() else ""
            raise KeyError(f"no target within {radius:g} arcsec of {ra:g} {dec:g}{least}")
        return self[int(np.nanargmin(distance))]

    def to_specutils(self) -> SpectrumList:
        """Return them as a specutils ``SpectrumList`` (needs ``kspecpipe[specutils]``)."""
        from kspecpipe.formats.specutils_loaders import to_spectrum_list

        return to_spectrum_list(self)

    def _some(self, key: Any) -> FibreSpectra:
        rows = {name: getattr(self, name)[key] for name in _PLANES}
        if self.wavelength.ndim == 2:
            rows["wavelength"] = self.wavelength[key]
        return replace(self, **rows, fibres=self.fibres[key])

    def _number_of(self, name: str) -> int:
        names = [str(known) for known in self.fibres["NAME"]]
        found = [i for i, known in enumerate(names) if known.casefold() == name.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            ids = [int(self.fibres["FIBRE_ID"][i]) for i in found]
            raise KeyError(f"{name!r} is the name of {len(found)} fibres: {ids}; use .fibre(id)")
        raise KeyError(f"no target {name!r}; {nearest(name, names)}")


_PLANES = ("flux", "uncertainty", "mask", "dq")


def read_spectra(path: str | Path) -> FibreSpectra:
    """Read the spectra of EXTRACTED, REDUCED, CALIBRATED, COADDED or SPLICED.

    Parameters
    ----------
    path : path
        The product.

    Raises
    ------
    InputError
        If the file is no product, or one without spectra.
    """
    product = read_product(Path(path))
    if not isinstance(product, Extracted | Reduced | Calibrated | Coadded | Spliced):
        raise InputError(
            f"{Path(path).name}: is a {product.catg}; spectra are in {', '.join(CATEGORIES)}"
        )
    signal = product.spectra
    with np.errstate(invalid="ignore"):
        uncertainty = np.sqrt(signal.variance)
    if isinstance(product, Extracted):
        wavelength, unit = product.wavelength, product.hdus()["spectra"].unit
    else:
        wavelength = axis_wavelength(dict(product.axis), signal.shape[-1])
        unit = unit_of(product)
    return FibreSpectra(
        wavelength=wavelength,
        flux=signal.value,
        uncertainty=uncertainty,
        mask=~signal.good | ((signal.dq & np.uint16(UNUSABLE)) > 0),
        dq=signal.dq,
        fibres=product.fibres,
        unit=unit,
        meta=product.header,
    )
