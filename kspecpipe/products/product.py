"""Products: dataclasses whose field metadata say which HDU, unit and type each part has.

One builder and one reader of HDUs (`kspecpipe.products.hdus`) serve them all; files are opened by
`kspecpipe.io`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

PRIMARY = "PRIMARY"


@dataclass(frozen=True)
class HduSpec:
    """Where one field of a product is stored.

    Parameters
    ----------
    kind : str
        ``signal`` (value, VARIANCE and DQ), ``image``, ``table`` or ``cards``.
    hdu : str
        Name of the HDU; for cards the HDU whose header holds them.
    unit : str
        BUNIT.
    dtype : str
        Numpy type on disk.
    optional : bool
        The field may be None and its HDU absent.
    keys : tuple of str
        Header keywords of a ``cards`` field.
    comments : mapping of str to str
        What stands behind the value of a keyword.
    doc : str
        One line.
    """

    kind: str
    hdu: str = PRIMARY
    unit: str = ""
    dtype: str = "f4"
    optional: bool = False
    keys: tuple[str, ...] = ()
    doc: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)


def signal_hdu(*, unit: str, dtype: str = "f4", doc: str = "") -> Any:
    """Declare the main signal: PRIMARY, VARIANCE and DQ."""
    return field(metadata={"hdu": HduSpec("signal", PRIMARY, unit, dtype, doc=doc)})


def image_hdu(
    hdu: str, *, unit: str, dtype: str = "f4", optional: bool = False, doc: str = ""
) -> Any:
    """Declare an array stored in an image HDU of its own."""
    spec = HduSpec("image", hdu, unit, dtype, optional, doc=doc)
    return _field(spec)


def table_hdu(hdu: str, *, optional: bool = False, doc: str = "") -> Any:
    """Declare an astropy table stored in a binary table HDU."""
    return _field(HduSpec("table", hdu, optional=optional, doc=doc))


def cards(hdu: str, *keys: str, doc: str = "", comments: Mapping[str, str] | None = None) -> Any:
    """Declare a mapping of header cards of an HDU (comma-separated names for several HDUs)."""
    spec = HduSpec("cards", hdu, keys=keys, doc=doc, comments=comments or {})
    return field(default_factory=dict, metadata={"hdu": spec})


@dataclass(frozen=True, kw_only=True)
class Product:
    """Base of all products; ``header`` holds the primary header of a product that was read."""

    catg: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Product]]] = {}

    header: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class by its PRO.CATG."""
        super().__init_subclass__(**kwargs)
        if cls.catg:
            Product.known[cls.catg] = cls

    @classmethod
    def hdus(cls) -> dict[str, HduSpec]:
        """Return the storage of each field by field name."""
        return {f.name: f.metadata["hdu"] for f in dataclasses.fields(cls) if "hdu" in f.metadata}

    @property
    def name(self) -> str:
        """File name from which the product was read, or its category."""
        return str(self.header.get("FILENAME", self.catg))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)


def squared_unit(unit: str) -> str:
    """Return the unit of a variance: every factor of ``unit`` squared."""

    def square(factor: str) -> str:
        name = factor.rstrip("0123456789")
        return f"{name}{2 * int(factor[len(name) :] or 1)}"

    return "/".join(square(factor) for factor in unit.split("/")) if unit else ""


def optional_array(value: Any, shape: tuple[int, ...], fill: float = np.nan) -> Any:
    """Return an array, or one filled with ``fill`` when it is None."""
    return np.full(shape, fill) if value is None else value


def _field(spec: HduSpec) -> Any:
    if spec.optional:
        return field(default=None, metadata={"hdu": spec})
    return field(metadata={"hdu": spec})
