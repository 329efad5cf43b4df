"""Recipe-based reduction pipeline for fibre spectrographs.

The names below are loaded when they are first used, so that ``import kspecpipe`` and the command
line's help do not wait for numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kspecpipe._version import __version__
from kspecpipe.specutils_hook import register_loaders

if TYPE_CHECKING:
    from kspecpipe.base_recipe import find_recipe, run_recipe
    from kspecpipe.formats.fibre_spectra import read_spectra
    from kspecpipe.instrument import load_instrument
    from kspecpipe.io import read_product

__all__ = [
    "__version__",
    "find_recipe",
    "load_instrument",
    "read_product",
    "read_spectra",
    "run_recipe",
]

_HOMES = {
    "find_recipe": "kspecpipe.base_recipe",
    "load_instrument": "kspecpipe.instrument",
    "read_product": "kspecpipe.io",
    "read_spectra": "kspecpipe.formats.fibre_spectra",
    "run_recipe": "kspecpipe.base_recipe",
}


def __getattr__(name: str) -> Any:
    """Load one of the public names from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})


register_loaders()
