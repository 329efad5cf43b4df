"""Give specutils the readers of products, whichever of the two packages is imported first.

specutils finds readers only by their being imported and takes about a second to import itself, so
``import kspecpipe`` neither waits for it nor asks its users to import the readers by name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_LOADERS = "kspecpipe.formats.specutils_loaders"


class _SpecutilsFinder:
    """Waits for the import of specutils, hands it to the usual finders, and adds the readers."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of specutils, and None for all other modules."""
        if name != "specutils":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                import_module(_LOADERS)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_loaders() -> None:
    """Register the readers now if specutils is there, else as soon as it is imported."""
    if "specutils" in sys.modules:
        import_module(_LOADERS)
    else:
        sys.meta_path.insert(0, _SpecutilsFinder())
