"""The house: who may import whom, and who opens files."""

import ast
from pathlib import Path

import pytest

import kspecpipe

ROOT = Path(kspecpipe.__file__).parent
NUMERICS = ("combine", "detector", "extraction", "fluxcal", "sky", "trace", "wavelength")

#: What numerics may use besides each other: values, reasons, splines, the text of small tables.
VALUES = {"signal", "errors", "regions", "bsplines", "ecsv"}

#: Exceptions, each with its reason.
ALLOWED = {
    # names of the plan for notebooks, which load what the package ships
    "fluxcal/__init__.py": {"ancillary"},
    "fluxcal/masks.py": {"ancillary"},
    "fluxcal/figures.py": {"figures"},
    # works on whole products, factor by factor
    "combine": {"products", "spectra"},
}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports when it is run, not only for its types."""
    names: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        pending += ast.iter_child_nodes(node)
    return names


def parts(path: Path) -> set[str]:
    """Return the modules and packages directly below ``kspecpipe`` that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("kspecpipe.")}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(*NUMERICS), ids=short)
def test_numerics_know_nothing_of_the_framework(path):
    name = short(path)
    allowed = VALUES | set(NUMERICS) | ALLOWED.get(name, set())
    allowed |= ALLOWED.get(name.split("/")[0], set())
    assert parts(path) <= allowed


def test_fits_is_opened_in_one_place():
    found = {short(path) for path in modules(".") if "astropy.io.fits" in imported(path)}
    found = {name for name in found if not name.startswith("simulate/")}
    # hdus.py builds and reads HDUs in memory, fits_cards.py parses bytes
    assert found <= {"io.py", "fits_cards.py", "products/hdus.py"}
    assert "io.py" in found


def test_recipes_are_found_by_name_and_never_imported():
    assert not [short(path) for path in modules(".") if "recipes" in parts(path)]
