"""Products as HDUs and back: what each field of a product looks like in a FITS file."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from kspecpipe.errors import InputError
from kspecpipe.products.product import PRIMARY, HduSpec, Product, squared_unit
from kspecpipe.signal import DQ, UNUSABLE, Signal

HeaderCards = Mapping[str, tuple[Any, str]]


def build_hdus(product: Product, header: HeaderCards, tables: Mapping[str, Table]) -> Any:
    """Build the HDU list of a product.

    Parameters
    ----------
    product : Product
        The product.
    header : mapping
        Cards of the primary header: keyword -> (value, comment).
    tables : mapping
        Further table HDUs by name (QC, SETTINGS).
    """
    hdus = [fits.PrimaryHDU()]
    for name, spec in product.hdus().items():
        value = getattr(product, name)
        if value is None or spec.kind == "cards":
            continue
        _append(hdus, spec, value)
    hdus += [fits.BinTableHDU(_ascii(table), name=name) for name, table in tables.items()]
    for keyword, (value, comment) in header.items():
        hdus[0].header[_fits_keyword(keyword)] = _fits_card(keyword, value, comment)
    for name, spec in product.hdus().items():
        if spec.kind == "cards":
            _write_cards(hdus, spec, getattr(product, name))
    hdus[0].header["DATAMD5"] = (_hdus_md5(hdus), "checksum of all data")
    return fits.HDUList(hdus)


def refuse_other_units(hdus: fits.HDUList, product: type[Product], name: str) -> None:
    """Refuse data whose header says another unit than the product has.

    Raises
    ------
    InputError
        If an HDU names another unit; one that names none is believed.
    """
    specs = product.hdus().values()
    free = {hdu for spec in specs if "BUNIT" in spec.keys for hdu in spec.hdu.split(",")}
    for spec in specs:
        if spec.kind in ("signal", "image") and spec.hdu in hdus and spec.hdu not in free:
            unit = str(hdus[spec.hdu].header.get("BUNIT", spec.unit)).strip()
            if unit != spec.unit:
                raise InputError(f"{name}: {spec.hdu} is in {unit!r}; {spec.unit!r} is expected")


def refuse_other_shapes(hdus: fits.HDUList, name: str) -> None:
    """Refuse an image of another shape than its header says, or than its variance or quality.

    Raises
    ------
    InputError
        If a file was cut or put together by hand; products of this pipeline always agree.
    """
    found = {hdu.name: hdu.shape for hdu in hdus if hdu.name in ("PRIMARY", "VARIANCE", "DQ")}
    shape = found["PRIMARY"]
    for hdu, other in found.items():
        if other != shape:
            raise InputError(f"{name}: {hdu} has the shape {_by(other)}, PRIMARY {_by(shape)}")
    header = hdus[0].header
    expected = header.get("ESO PRO SHAPE")
    of_detector = header.get("ESO PRO TECH") == "IMAGE" and shape
    if of_detector and expected and _by(shape) != expected:
        raise InputError(f"{name}: PRIMARY has the shape {_by(shape)}; its header says {expected}")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "nothing"


def read_field(hdus: fits.HDUList, spec: HduSpec, name: str) -> Any:
    """Return the content of one field of a product; None or no cards where it may be absent.

    Parameters
    ----------
    hdus : HDUList
        The open file.
    spec : HduSpec
        Where the field is stored.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If its HDU is missing or holds no data.
    """
    first = spec.hdu.split(",")[0]
    needed = [first, "VARIANCE", "DQ"] if spec.kind == "signal" else [first]
    missing = [hdu for hdu in needed if hdu not in hdus]
    if missing:
        if spec.optional:
            return None
        if spec.kind == "cards":
            return {}
        raise InputError(f"{name}: lacks the HDU {', '.join(missing)}")
    if spec.kind == "cards":
        header = hdus[first].header
        return {
            key: list(header[key]) if key == "HISTORY" else header[key]
            for key in spec.keys
            if key in header
        }
    empty = [hdu for hdu in needed if hdus[hdu].data is None]
    if empty:
        raise InputError(f"{name}: the HDU {', '.join(empty)} holds no data")
    if spec.kind == "table":
        return table_of(hdus[first])
    if spec.kind == "image":
        return _native(hdus[first])
    return Signal(_native(hdus[first]), _native(hdus["VARIANCE"]), _native(hdus["DQ"]))


def _native(hdu: Any) -> Any:
    native = np.array(hdu.data, dtype=hdu.data.dtype.newbyteorder("="))
    del hdu.data  # else all that was read is in memory twice until the file is closed
    return native


def table_of(hdu: Any) -> Table:
    """Return the table of an HDU with text as text, numbers in the byte order of the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        # Named, or astropy asks all that it knows whether the HDU is theirs, and loads some of it.
        table = Table.read(hdu, format="fits", mask_invalid=False)
    table.convert_bytestring_to_unicode()
    for name in table.colnames:
        table[name] = table[name].astype(table[name].dtype.newbyteorder("="))
    return table


def _append(hdus: list[Any], spec: HduSpec, value: Any) -> None:
    if spec.kind == "table":
        hdus.append(fits.BinTableHDU(_ascii(value), name=spec.hdu))
    elif spec.kind == "image":
        _append_image(hdus, spec.hdu, value, spec.dtype, spec.unit)
    else:
        value = _storable(value, spec.dtype)
        _append_image(hdus, spec.hdu, value.value, spec.dtype, spec.unit)
        _append_image(hdus, "VARIANCE", value.variance, spec.dtype, squared_unit(spec.unit))
        _append_image(hdus, "DQ", value.dq, "u2", "")


def _ascii(table: Table) -> Table:
    """Replace what FITS has no letters for: a target may have any name."""
    plain = table.copy(copy_data=False)
    for name in plain.colnames:
        if plain[name].dtype.kind == "U":
            values = [str(value).encode("ascii", "replace").decode() for value in plain[name]]
            plain[name] = np.array(values, dtype=plain[name].dtype)
    return plain


def _storable(signal: Signal, dtype: str) -> Signal:
    """Convert to the type on disk; what is no number there is NaN and ``NO_DATA``."""
    with np.errstate(over="ignore", invalid="ignore"):
        value, variance = signal.value.astype(dtype), signal.variance.astype(dtype)
    lost = ~(np.isfinite(value) & np.isfinite(variance))
    flagged = (signal.dq & np.uint16(UNUSABLE)) > 0
    value[lost & ~flagged] = variance[lost & ~flagged] = np.nan
    return Signal(value, variance, signal.dq).flag(lost & ~flagged, DQ.NO_DATA)


def _append_image(hdus: list[Any], name: str, value: Any, dtype: str, unit: str) -> None:
    data = np.ascontiguousarray(value, dtype=dtype)
    if name == PRIMARY:
        hdus[0].data = data
        hdu = hdus[0]
    else:
        hdu = fits.ImageHDU(data, name=name)
        hdus.append(hdu)
    hdu.header["BUNIT"] = (unit, "unit of the data")


def _write_cards(hdus: list[Any], spec: HduSpec, values: Mapping[str, Any]) -> None:
    for hdu in hdus:
        if hdu.name in spec.hdu.split(","):
            for key in spec.keys:
                if key == "HISTORY":
                    for line in values.get(key, ()):
                        hdu.header.add_history(fits_value(line))
                elif key in values:
                    card = _fits_card(key, values[key], spec.comments.get(key, ""))
                    hdu.header[_fits_keyword(key)] = card


def _fits_keyword(keyword: str) -> str:
    return keyword if len(keyword) <= 8 and " " not in keyword else f"HIERARCH {keyword}"


def _fits_card(keyword: str, value: Any, comment: str) -> tuple[Any, str]:
    """Return value and comment; the comment is left out where a card has no room for it."""
    plain = fits_value(value)
    used = len(_fits_keyword(keyword)) + len(" = ") + max(20, len(str(plain)) + 2) + len(" / ")
    return plain, comment if used + len(comment) <= fits.Card.length else ""


def fits_value(value: Any) -> Any:
    """Return a value as a FITS card can hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.encode("ascii", "replace").decode().translate(dict.fromkeys(range(32), "?"))
    return value


def _hdus_md5(hdus: Sequence[Any]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for hdu in hdus:
        if hdu.data is not None:
            digest.update(np.ascontiguousarray(hdu.data).tobytes())
    return digest.hexdigest()
