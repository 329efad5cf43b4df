"""Image products: master bias, master dark, bad pixels, pixel flat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kspecpipe.products.product import Product, image_hdu, signal_hdu
from kspecpipe.signal import DQArray, FloatArray, Signal


@dataclass(frozen=True, kw_only=True)
class MasterBias(Product):
    """Bias level of one read-out mode, overscan-subtracted if there is one."""

    catg: ClassVar[str] = "MASTER_BIAS"
    image: Signal = signal_hdu(unit="adu", doc="bias level")


@dataclass(frozen=True, kw_only=True)
class MasterDark(Product):
    """Dark current of one exposure time."""

    catg: ClassVar[str] = "MASTER_DARK"
    image: Signal = signal_hdu(unit="electron/s", doc="dark rate")
    glow: FloatArray | None = image_hdu(
        "GLOW", unit="electron", optional=True, doc="components of the varying glow"
    )


@dataclass(frozen=True, kw_only=True)
class BadPixelMap(Product):
    """Data-quality bits that belong to the detector."""

    catg: ClassVar[str] = "BAD_PIXEL_MAP"
    dq: DQArray = image_hdu("PRIMARY", unit="", dtype="u2", doc="DQ bits of each pixel")


@dataclass(frozen=True, kw_only=True)
class PixelFlat(Product):
    """Pixel-to-pixel response, 1 = typical."""

    catg: ClassVar[str] = "PIXEL_FLAT"
    image: Signal = signal_hdu(unit="", doc="response of each pixel")


@dataclass(frozen=True, kw_only=True)
class Preprocessed(Product):
    """A frame in electrons, without bias, dark and glow (kept on request)."""

    catg: ClassVar[str] = "PREPROCESSED"
    image: Signal = signal_hdu(unit="electron", doc="calibrated frame")


@dataclass(frozen=True, kw_only=True)
class Background(Product):
    """Scattered light that was subtracted from a frame (kept on request)."""

    catg: ClassVar[str] = "BACKGROUND"
    image: FloatArray = image_hdu("PRIMARY", unit="electron", doc="scattered light")


@dataclass(frozen=True, kw_only=True)
class ModelImage(Product):
    """The frame that the extracted spectra explain (kept on request)."""

    catg: ClassVar[str] = "MODEL"
    image: FloatArray = image_hdu("PRIMARY", unit="electron", doc="spectra times profiles")
