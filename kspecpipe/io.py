"""The only module that opens FITS files: raw frames and products, read and written."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import Table

from kspecpipe import spectra  # noqa: F401 - registers what can be read
from kspecpipe.atomic import Writer, write_files
from kspecpipe.configuration.instrument_schema import Section
from kspecpipe.errors import InputError, ProductError, RecipeError
from kspecpipe.fits_cards import BLOCK, data_size, header_length, some_cards
from kspecpipe.frame import FrameInfo, RawFrame, ReadSection
from kspecpipe.instrument import Instrument
from kspecpipe.products import (  # noqa: F401 - registers what can be read
    combined,
    flux,
    images,
)
from kspecpipe.products.hdus import (
    fits_value,
    read_field,
    refuse_other_shapes,
    refuse_other_units,
    table_of,
)
from kspecpipe.products.product import Product
from kspecpipe.signal import FloatArray

_PIXEL_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_MOST_ADU = 1e12  # more is no number of a detector, and its square no float
_ROWS = 64  # of a raw frame that are summed at a time
_MOST_CARDS = 40  # NAXIS stands among the first
_UNREADABLE = (
    OSError,
    EOFError,
    ArithmeticError,
    zlib.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    fits.VerifyError,
)


@dataclass(frozen=True)
class RawFile:
    """A raw file that was opened once: its header values and where its pixels lie."""

    path: Path
    header: Mapping[str, Any]
    planes: int
    shape: tuple[int, int]
    hdu: int
    offset: int
    bitpix: int
    scale: float
    zero: float
    blank: int | None = None


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[fits.HDUList]:
    """Open a file, tolerant of broken cards, and turn failure into an input error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Astropy leaves a file open that it cannot read; our own handle is closed.
            with path.open("rb") as stream:
                _refuse_endless(stream)
            with (
                path.open("rb") as stream,
                fits.open(stream, memmap=False, lazy_load_hdus=True) as hdus,
            ):
                yield hdus
        except _UNREADABLE as error:
            # The first sentence says what is wrong; the others are advice to callers of astropy.
            reason = re.split(r"\.\s", str(error))[0].rstrip(".") or type(error).__name__
            raise InputError(f"{path.name}: not a readable FITS file: {reason}") from None


def open_raw(path: Path) -> RawFile:
    """Read header and layout of a raw file; its pixels are read later, when needed.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, not FITS, or holds no image.
    """
    _refuse_missing(path)
    with _quietly(path) as hdus:
        number = _image_hdu(hdus, path)
        hdu = hdus[number]
        own = header_values(hdu.header)
        axes = [int(own[f"NAXIS{i}"]) for i in range(1, int(own["NAXIS"]) + 1)]
        blank = own.get("BLANK")
        if min(axes) < 1 or own["BITPIX"] not in _PIXEL_TYPES:
            raise InputError(f"{path.name}: holds no image that can be read")
        return RawFile(
            path=path,
            header={**header_values(hdus[0].header), **own} if number else own,
            planes=axes[2] if len(axes) == 3 else 1,
            shape=(axes[1], axes[0]),
            hdu=number,
            offset=_offset(path, hdu, axes),
            bitpix=int(own["BITPIX"]),
            scale=float(own.get("BSCALE", 1.0)),
            zero=float(own.get("BZERO", 0.0)),
            blank=int(blank) if blank is not None and own["BITPIX"] > 0 else None,
        )


def scan_file(
    path: Path, wanted: Callable[[str], bool]
) -> tuple[Mapping[str, Any], int, tuple[int, int]]:
    """Return some header values, the number of planes and their shape, as fast as possible.

    Parameters
    ----------
    path : Path
        A raw file or a product.
    wanted : callable
        Tells which keywords are needed.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated or not FITS; without image there are 0 planes.
    """
    _refuse_missing(path)
    with path.open("rb") as stream:
        content = stream.read(8 * BLOCK)
        length = header_length(content) if content[:6] == b"SIMPLE" else None
    values = some_cards(content[:length], wanted) if length else {}
    axes = values.get("NAXIS")
    if axes not in (2, 3) or any(not values.get(f"NAXIS{i + 1}") for i in range(axes)):
        try:
            raw = open_raw(path)  # compressed, in an extension, an endless header, or no image
        except InputError:
            if axes != 0:
                raise
            return values, 0, (0, 0)
        return {k: v for k, v in raw.header.items() if wanted(k.upper())}, raw.planes, raw.shape
    expected, size = int(length or 0) + data_size(values), path.stat().st_size
    if expected > size:
        raise InputError(f"{path.name}: truncated: {size} bytes found, {expected} expected")
    planes = int(values["NAXIS3"]) if axes == 3 else 1
    return values, planes, (int(values["NAXIS2"]), int(values["NAXIS1"]))


def load_frames(raw: RawFile, instrument: Instrument) -> list[RawFrame]:
    """Return one frame per plane of a raw file.

    Raises
    ------
    InputError
        If header or shape do not suit the instrument.
    """
    try:
        info = instrument.describe(raw.header, raw.path)
    except InputError as error:
        raise InputError(f"{raw.path.name}: {error}") from None
    geometry = instrument.geometry(raw.shape, info)
    readout = instrument.readout(geometry, info)
    frames = []
    for plane in range(raw.planes):
        read = _section_reader(raw, plane)
        own = replace(
            info,
            name=_plane_name(raw, plane),
            md5=_frame_md5(raw, info, read),
            layout=f"{raw.shape[0]}x{raw.shape[1]}",
        )
        frame = RawFrame(own, geometry, readout, read)
        try:
            frames.append(frame.with_overscan())
        except RecipeError as error:
            raise InputError(f"{own.name}: {error}") from None
    return frames


def header_values(header: fits.Header) -> dict[str, Any]:
    """Return the values of all cards that can be read; broken cards are left out."""
    values: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for card in header.cards:
            try:
                keyword, value = card.keyword, card.value
            except (fits.VerifyError, ValueError, IndexError, KeyError, TypeError):
                continue
            if keyword and not isinstance(value, fits.card.Undefined):
                values.setdefault(keyword, value)
    return values


def read_header(path: Path) -> dict[str, Any]:
    """Return the primary header values of a file, with FILENAME added."""
    _refuse_missing(path)
    with _quietly(path) as hdus:
        return {**header_values(hdus[0].header), "FILENAME": path.name}


def read_product(path: str | Path) -> Product:
    """Read a product by its PRO.CATG.

    Raises
    ------
    InputError
        If the file is no product of this pipeline or lacks one of its HDUs.
    """
    path = Path(path)
    _refuse_missing(path)
    with _quietly(path) as hdus:
        header = {**header_values(hdus[0].header), "FILENAME": path.name}
        catg = header.get("ESO PRO CATG")
        if catg not in Product.known:
            raise InputError(
                f"{path.name}: PRO.CATG is {catg!r}, which is no product that can be read"
            )
        cls = Product.known[str(catg)]
        damaged = [h.name for h in hdus if "DATASUM" in h.header and not h.verify_datasum()]
        if damaged:
            raise InputError(
                f"{path.name}: damaged: the data of {', '.join(damaged)} do not match their DATASUM"
            )
        refuse_other_units(hdus, cls, path.name)
        refuse_other_shapes(hdus, path.name)
        values = {name: read_field(hdus, spec, path.name) for name, spec in cls.hdus().items()}
    return cls(header=header, **values)


def read_table(path: Path, hdu: str | int) -> Table | None:
    """Read a table HDU, or None when there is none of that name or number."""
    _refuse_missing(path)
    with _quietly(path) as hdus:
        there = hdu < len(hdus) if isinstance(hdu, int) else hdu in hdus
        return table_of(hdus[hdu]) if there and "XTENSION" in hdus[hdu].header else None


def read_header_and_table(path: Path, hdu: str) -> tuple[dict[str, Any], Table | None]:
    """Return the primary header values of a file and one of its tables, if it has that table."""
    _refuse_missing(path)
    with _quietly(path) as hdus:
        header = {**header_values(hdus[0].header), "FILENAME": path.name}
        product = "ESO PRO CATG" in header
        return header, table_of(hdus[hdu]) if product and hdu in hdus else None


def write_products(files: Sequence[tuple[Path, fits.HDUList]]) -> None:
    """Write several files so that either all of them appear or none.

    Raises
    ------
    ProductError
        If one could not be written; nothing is left behind.
    """
    for _, hdus in files:
        for hdu in hdus:
            hdu.add_checksum(when="of this HDU")  # by default the time of day: no two files equal
    try:
        write_files([(path, _writer(hdus)) for path, hdus in files])
    except (OSError, fits.VerifyError) as error:
        raise ProductError(f"cannot write products: {error}") from None


def _writer(hdus: fits.HDUList) -> Writer:
    """Write through memory: on a full disk astropy's own handling of the error fails."""

    def write(stream: BinaryIO) -> None:
        buffer = BytesIO()
        hdus.writeto(buffer)
        stream.write(buffer.getbuffer())

    return write


def table_writer(table: Table, primary: Mapping[str, Any], cards: Mapping[str, Any]) -> Writer:
    """Return what writes one table as FITS, with cards of the primary header and of the table."""
    rows = table.as_array()
    # In the byte order of FITS: astropy turns long cells round number by number.
    ordered = rows.astype(rows.dtype.newbyteorder(">")).view(fits.FITS_rec)
    first, second = fits.PrimaryHDU(), fits.BinTableHDU(ordered, name="SPECTRUM")
    for hdu, values in ((first, primary), (second, cards)):
        for keyword, value in values.items():
            hdu.header[keyword] = fits_value(value)
        hdu.add_checksum(when="of this HDU")
    return _writer(fits.HDUList([first, second]))


def frame_md5s(path: Path, instrument: Instrument) -> list[str]:
    """Return the checksums by which products name the frames of a raw file.

    Raises
    ------
    InputError
        If it is no raw file of the instrument.
    """
    return [frame.info.md5 for frame in load_frames(open_raw(path), instrument)]


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the data of all HDUs by name, images as arrays, tables as records."""
    with _quietly(path) as hdus:
        return {hdu.name: np.array(hdu.data) for hdu in hdus if hdu.data is not None}


def data_md5(path: Path) -> str:
    """Return the DATAMD5 of a product as its header gives it."""
    return str(read_header(path).get("DATAMD5", ""))


def _refuse_endless(stream: BinaryIO) -> None:
    """Refuse a header whose NAXIS is absurd: astropy would count up to it, for years."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start in range(0, len(content), BLOCK):
            if start and content[start : start + 9] != b"XTENSION=":
                continue
            for at in range(start, min(start + _MOST_CARDS * 80, len(content)), 80):
                card = content[at : at + 80]
                if card.startswith(b"NAXIS   =") and len(card[9:30].split(b"/")[0].strip()) > 3:
                    raise ValueError(f"its header says {card.decode('ascii', 'replace').strip()}")
                if card.startswith(b"END     "):
                    break


def _image_hdu(hdus: fits.HDUList, path: Path) -> int:
    """Return the number of the first HDU with an image or cube."""
    for number, hdu in enumerate(hdus):
        table = isinstance(hdu, fits.BinTableHDU | fits.TableHDU)
        table &= not isinstance(hdu, fits.CompImageHDU)
        if not table and int(hdu.header.get("NAXIS", 0)) in (2, 3):
            return number
    raise InputError(f"{path.name}: holds no image")


def _offset(path: Path, hdu: Any, axes: Sequence[int]) -> int:
    """Return where the pixels of an image start in its file; -1 when they are compressed."""
    with path.open("rb") as stream:
        plain = stream.read(6) == b"SIMPLE"
    if not plain or isinstance(hdu, fits.CompImageHDU):
        return -1
    start, size = int(hdu.fileinfo()["datLoc"]), path.stat().st_size
    expected = start + abs(int(hdu.header["BITPIX"])) // 8 * math.prod(axes)
    if expected > size:
        raise InputError(f"{path.name}: truncated: {size} bytes found, {expected} expected")
    return start


def _refuse_missing(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path.name}: no such file ({path})") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: cannot be opened: {error}") from None
    if path.is_dir():
        raise InputError(f"{path.name}: is a folder, a FITS file is expected")
    if size == 0:
        raise InputError(f"{path.name}: the file is empty")


def _plane_name(raw: RawFile, plane: int) -> str:
    return raw.path.name if raw.planes == 1 else f"{raw.path.name}[{plane + 1}]"


def _pixels(raw: RawFile) -> Any:
    """Map the stored pixels of a file, shape (planes, ny, nx), without BSCALE and BZERO."""
    shape = (raw.planes, *raw.shape)
    if raw.offset < 0:
        with _quietly(raw.path) as hdus:
            return np.asarray(hdus[raw.hdu].data, dtype=np.float32).reshape(shape)
    kind = _PIXEL_TYPES[raw.bitpix]
    return np.memmap(raw.path, dtype=kind, mode="r", offset=raw.offset, shape=shape)


def _section_reader(raw: RawFile, plane: int) -> ReadSection:
    unpacked: list[Any] = []
    largest = 2.0 ** abs(raw.bitpix) * abs(raw.scale) + abs(raw.zero)
    plausible = raw.bitpix > 0 and largest < _MOST_ADU

    def read(section: Section) -> FloatArray:
        # What was mapped counts as memory of this process until the map is gone.
        pixels = unpacked[0] if unpacked else _pixels(raw)[plane]
        if raw.offset < 0 and not unpacked:
            unpacked.append(pixels)
        y0, y1, x0, x1 = section
        stored = pixels[y0:y1, x0:x1]
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = np.asarray(stored, dtype=np.float32)
            if raw.offset >= 0:
                pixels = pixels * np.float32(raw.scale) + np.float32(raw.zero)
        if raw.blank is not None and raw.offset >= 0:
            pixels = np.where(stored == raw.blank, np.float32(np.nan), pixels)
        return pixels if plausible else np.where(np.abs(pixels) < _MOST_ADU, pixels, np.nan)

    return read


def _frame_md5(raw: RawFile, info: FrameInfo, read: ReadSection) -> str:
    """Return a checksum that is the same for a file and its compressed copy."""
    digest = hashlib.md5(usedforsecurity=False)
    facts = sorted((name, repr(value)) for name, value in info.keywords.items())
    digest.update(repr((facts, info.flips, raw.shape)).encode())
    ny, nx = raw.shape
    for first in range(0, ny, _ROWS):
        digest.update(np.ascontiguousarray(read((first, min(first + _ROWS, ny), 0, nx))).data)
    return digest.hexdigest()
