"""Pictures of products, small enough that a hundred fit into a page."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kspecpipe import io, plots
from kspecpipe.errors import KspecError
from kspecpipe.framework import writing

_QUALITY = 70
_WIDTH = 990


def embedded(product: Path) -> str:
    """Return the picture of a product as a data address; empty when there is none.

    Parameters
    ----------
    product : Path
        The product; its picture beside it is taken, or drawn when that is missing.
    """
    try:
        picture = product.with_suffix(".png")
        source: Path | BytesIO | None = picture if picture.is_file() else _drawn(product)
        return "" if source is None else _address(source)
    except (KspecError, OSError, ValueError, IndexError, KeyError, UnidentifiedImageError):
        return ""  # the page says that there is no picture


def _drawn(product: Path) -> BytesIO | None:
    figure = plots.draw(io.read_product(product), writing.read_rows(product))
    if figure is None:
        return None
    stream = BytesIO()
    plots.save(figure, stream)
    stream.seek(0)
    return stream


def _address(source: Path | BytesIO) -> str:
    with Image.open(source) as image:
        small = image.convert("RGB")
        if small.width > _WIDTH:
            small = small.resize((_WIDTH, round(small.height * _WIDTH / small.width)))
        stream = BytesIO()
        small.save(stream, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
