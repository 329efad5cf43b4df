"""Truth beside the raw frames: what a perfect reduction would find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from kspecpipe.simulate.arrays import BoolArray, FloatArray, IntArray
from kspecpipe.simulate.bench import Bench
from kspecpipe.simulate.exposure import Dome, Exposure, FrameTruth
from kspecpipe.simulate.fibres import GALAXY, transmission
from kspecpipe.simulate.light import efficiency, target_flux
from kspecpipe.simulate.sources import sky_continuum

_GRID = np.arange(3500.0, 9500.0, 1.0)


def write_frame_truth(path: Path, dome: Dome, taken: Exposure, raw_name: str) -> None:
    """Write the truth of one raw file.

    HDUs: TRACE, WAVELENGTH, ELECTRON (nfib, nx), in science exposures also SKY and TARGET, whose
    sum is ELECTRON; of exposures masks COSMIC and SATURATED (ny, nx) or (nframes, ny, nx).
    """
    seen = taken.seen
    primary = fits.PrimaryHDU()
    primary.header["RAWFILE"] = raw_name
    primary.header["TAG"] = seen.tag
    primary.header["INSTRUME"] = dome.instrument.name
    primary.header["INSMODE"] = seen.mode.name if seen.mode else ""
    primary.header["EXPTIME"] = seen.exptime
    primary.header["AIRMASS"] = dome.airmass(seen)
    primary.header["LAMPS"] = " ".join(seen.lamps)
    primary.header["DROW"] = (taken.shift.rows, "[pixel] shift of the traces")
    primary.header["DCOLUMN"] = (taken.shift.columns, "[pixel] shift of the lines")
    hdus = [primary, *_spectra(taken.truth)]
    if seen.exptime:
        hdus.append(_mask("COSMIC", np.stack([plane.cosmic for plane in taken.planes])))
        hdus.append(_mask("SATURATED", np.stack([plane.saturated for plane in taken.planes])))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def write_fibre_truth(path: Path, bench: Bench) -> None:
    """Write what does not change from frame to frame.

    HDUs: FIBRES (table), TRANSMISSION (nfib, nx), LSF and PROFILE (nfib, nx) = FWHM of the spread
    functions before pixels integrate them, SPECTRA (true sky, efficiency and targets on a grid).
    """
    fibres, optics = bench.fibres, bench.optics
    count = fibres.throughput.size
    columns = [
        fits.Column("FIBRE_ID", "J", array=np.arange(1, count + 1)),
        fits.Column("STATUS", "4A", array=fibres.status),
        fits.Column("CLASS", "J", array=fibres.target_class),
        fits.Column("THROUGHPUT", "D", array=fibres.relative_throughput()),
        fits.Column("REDSHIFT", "D", array=_of_galaxies(fibres.target_class, fibres.redshift)),
    ]
    x = np.arange(optics.n_columns, dtype=float)
    mix = optics.mix(x)
    hdus = [
        fits.PrimaryHDU(),
        fits.BinTableHDU.from_columns(columns, name="FIBRES"),
        _image("TRANSMISSION", transmission(optics, fibres), ""),
        _image(
            "LSF", optics.lsf_scale(x, optics.height()[:, None]) * optics.lsf.width(mix), "pixel"
        ),
        _image("PROFILE", optics.profile_scale() * optics.profile.width(mix), "pixel"),
        _true_spectra(bench),
    ]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _true_spectra(bench: Bench) -> fits.BinTableHDU:
    """Return sky, efficiency and targets above the air on a grid of wavelengths."""
    count = bench.fibres.throughput.size
    targets = np.array([target_flux(bench.fibres, f, _GRID) for f in range(count)])
    columns = [
        fits.Column("WAVELENGTH", "D", unit="Angstrom", array=_GRID),
        fits.Column("SKY", "D", unit="erg/s/cm2/Angstrom", array=sky_continuum(_GRID)),
        fits.Column("EFFICIENCY", "D", unit="electron cm2/erg", array=efficiency(_GRID)),
        fits.Column("FLUX", f"{count}D", unit="erg/s/cm2/Angstrom", array=targets.T),
    ]
    return fits.BinTableHDU.from_columns(columns, name="SPECTRA")


def _spectra(truth: FrameTruth | None) -> list[fits.ImageHDU]:
    """Return the HDUs of traces, wavelengths and light."""
    if truth is None:
        return []
    parts = [
        _image("TRACE", truth.trace, "pixel"),
        _image("WAVELENGTH", truth.wavelength, "Angstrom"),
        _image("ELECTRON", truth.electron, "electron"),
    ]
    for name, part in (("SKY", truth.sky), ("TARGET", truth.target)):
        if part is not None:
            parts.append(_image(name, part, "electron"))
    return parts


def _image(name: str, data: FloatArray, unit: str) -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.asarray(data, dtype=np.float64), name=name)
    hdu.header["BUNIT"] = unit
    return hdu


def _mask(name: str, mask: BoolArray) -> fits.ImageHDU:
    plane = mask[0] if mask.shape[0] == 1 else mask
    return fits.ImageHDU(plane.astype(np.uint8), name=name)


def _of_galaxies(target_class: IntArray, redshift: FloatArray) -> FloatArray:
    """Return the redshifts of galaxies; NaN for everything else."""
    return np.where(target_class == GALAXY, redshift, np.nan)
