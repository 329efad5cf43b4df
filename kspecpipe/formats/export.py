"""Spectra as single files: binary tables for the Virtual Observatory, CSV, a list of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.table import Table

from kspecpipe import io
from kspecpipe.atomic import Writer, write_files
from kspecpipe.errors import InputError, ProductError
from kspecpipe.formats.fibre_spectra import FibreSpectra, Spectrum
from kspecpipe.formats.names import unique_names

Form = Literal["fits", "csv"]
#: Column -> UCD and utype of ESO's science data products standard (ESO-044286, issue 6) and of
#: IVOA's Spectrum data model 1.1. The wavelengths are in air.
_WAVE_UCD = "em.wl;obs.atmos"
_FLUX_UCDS = {True: "phot.flux.density;em.wl", False: "phot.count;em.wl"}
_UTYPES = {
    "WAVE": "spec:Data.SpectralAxis.Value",
    "FLUX": "spec:Data.FluxAxis.Value",
    "ERR": "spec:Data.FluxAxis.Accuracy.StatError",
    "QUAL": "spec:Data.FluxAxis.Accuracy.QualityStatus",
}
_COPIED = ("INSTRUME", "INSMODE", "READMODE", "DATE-OBS", "MJD-OBS", "MJD-END", "EXPTIME")


def export(spectra: FibreSpectra, folder: Path, stem: str, form: Form) -> list[Path]:
    """Write one file per fibre with data, and the list of targets.

    Parameters
    ----------
    spectra : FibreSpectra
        The spectra.
    folder : Path
        Where to.
    stem : str
        Start of all file names.
    form : {"fits", "csv"}
        ``fits``: a binary table with one row, as the archives of ESO want it; ``csv``: one line per
        sample.

    Returns
    -------
    list of Path
        The files, the list of targets last.

    Raises
    ------
    InputError
        If no fibre has data.
    ProductError
        If the files cannot be written; then none is.
    """
    kept = [one for one in spectra if not one.mask.all() and np.isfinite(one.wavelength).all()]
    if not kept:
        raise InputError("no fibre has data to export")
    names = unique_names([one.name for one in kept], [_number(one) for one in kept])
    files = [folder / f"{stem}_{name}.{form}" for name in names]
    targets = folder / f"{stem}_targets.csv"
    listing = target_list(kept, [path.name for path in files])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writers = [(path, _writer(one, form)) for path, one in zip(files, kept, strict=True)]
        write_files([*writers, (targets, _csv_writer(listing))])
    except OSError as error:
        raise ProductError(f"cannot write to {folder}: {error.strerror or error}") from None
    return [*files, targets]


def target_list(spectra: Sequence[Spectrum], files: Sequence[str]) -> Table:
    """Return one row per spectrum: file, target, place, signal-to-noise ratio."""
    table = Table()
    table["file"] = list(files)
    for column, key in (
        ("fibre_id", "FIBRE_ID"),
        ("name", "NAME"),
        ("type", "TYPE"),
        ("class", "CLASS"),
        ("ra", "RA"),
        ("dec", "DEC"),
    ):
        table[column] = [one.fibre.get(key, "") for one in spectra]
    table["snr"] = [round(one.snr, 3) for one in spectra]
    return table


def vo_table(spectrum: Spectrum) -> tuple[Table, dict[str, Any]]:
    """Return the one-row table of a spectrum and the cards of its columns."""
    absolute = "Angstrom" in spectrum.unit
    quality = np.where(spectrum.mask, np.maximum(spectrum.dq, 1), 0)  # 0 is good
    columns = {
        "WAVE": (np.asarray(spectrum.wavelength, "f8"), "Angstrom", _WAVE_UCD),
        "FLUX": (np.asarray(spectrum.flux, "f4"), spectrum.unit, _FLUX_UCDS[absolute]),
        "ERR": (
            np.asarray(spectrum.uncertainty, "f4"),
            spectrum.unit,
            f"stat.error;{_FLUX_UCDS[absolute]}",
        ),
        "QUAL": (np.asarray(quality, "i4"), "", "meta.code.qual"),
    }
    table = Table()
    cards: dict[str, Any] = {}
    for i, (name, (values, unit, ucd)) in enumerate(columns.items(), start=1):
        table[name] = values[None]
        cards |= {f"TUCD{i}": ucd, f"TUTYP{i}": _UTYPES[name]}
        if unit:
            cards[f"TUNIT{i}"] = unit
    known = spectrum.wavelength[~spectrum.mask]
    cards |= {
        "VOCLASS": "SPECTRUM v2.0",
        "VOPUB": "ESO/SAF",
        "TITLE": _ascii(spectrum.name),
        "NELEM": len(spectrum.wavelength),
        "TELAPSE": _elapsed(spectrum.meta),
        "TDMIN1": float(known.min()),
        "TDMAX1": float(known.max()),
        "SPEC_VAL": float((known.min() + known.max()) / 2),
        "SPEC_BW": float(known.max() - known.min()),
    }
    return table, cards


def primary_cards(spectrum: Spectrum) -> dict[str, Any]:
    """Return the primary header of a single spectrum, in ESO's science data product keywords."""
    meta, known = spectrum.meta, spectrum.wavelength[~spectrum.mask]
    absolute = "erg" in spectrum.unit
    cards: dict[str, Any] = {name: meta[name] for name in _COPIED if name in meta}
    cards |= {
        "ORIGIN": "kspecpipe",
        "OBJECT": _ascii(spectrum.name),
        "PRODCATG": "SCIENCE.SPECTRUM",
        "OBSTECH": "MOS",
        "FLUXCAL": "ABSOLUTE" if absolute else "UNCALIBRATED",
        "CONTNORM": False,
        "TOTFLUX": False,
        "SPECSYS": meta.get("SPECSYS", "TOPOCENT"),
        "TEXPTIME": meta.get("TEXPTIME", meta.get("EXPTIME", 0.0)),
        "NCOMBINE": meta.get("NCOMBINE", 1),
        "WAVELMIN": float(known.min()) / 10,
        "WAVELMAX": float(known.max()) / 10,
        "SPEC_BIN": float(np.median(np.diff(spectrum.wavelength))) / 10,
        "SNR": round(spectrum.snr, 4),
        "FIBRE_ID": _number(spectrum),
        "PROV1": meta.get("FILENAME", ""),
        "PROCSOFT": meta.get("ESO PRO REC1 PIPE ID", ""),
    }
    for name in ("RA", "DEC"):
        value = float(spectrum.fibre.get(name, np.nan))
        if np.isfinite(value):
            cards[name] = value
    return cards


def _elapsed(meta: Mapping[str, Any]) -> float:
    """Return the time from the start of the first exposure to the end of the last [s]."""
    if "MJD-END" in meta and "MJD-OBS" in meta:
        return 86400.0 * (float(meta["MJD-END"]) - float(meta["MJD-OBS"]))
    return float(meta.get("EXPTIME", 0.0))


def _number(spectrum: Spectrum) -> int:
    return int(spectrum.fibre["FIBRE_ID"])


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _writer(spectrum: Spectrum, form: Form) -> Writer:
    if form == "csv":
        return _csv_writer(_samples(spectrum))
    table, cards = vo_table(spectrum)
    return io.table_writer(table, primary_cards(spectrum), cards)


def _samples(spectrum: Spectrum) -> Table:
    table = Table()
    table["wavelength"] = np.asarray(spectrum.wavelength, float)
    table["flux"] = spectrum.flux
    table["uncertainty"] = spectrum.uncertainty
    table["dq"] = spectrum.dq
    return table


def _csv_writer(table: Table) -> Writer:
    text = StringIO()
    table.write(text, format="ascii.csv")
    return lambda stream: stream.write(text.getvalue().encode())
