"""What is installed: the wheel holds all that the source tree has, and nothing else is imported."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Folders of the source tree and the packages as which they are installed.
PACKAGES = {
    "kspecpipe": "kspecpipe",
    "recipes": "kspecpipe/recipes",
    "settings": "kspecpipe/settings",
    "static_calibrations": "kspecpipe/static_calibrations",
}
#: Declared for a reason other than an import: what fundamentals needs without saying so, and the
#: library beside which stacking is measured and tested.
NOT_IMPORTED = {"six", "ccdproc"}
#: Loaded by the library that they serve, and only when it is there.
PLUG_INS = ["kspecpipe/formats/specutils_loaders.py"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel of a copy of the source tree, as without a network."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = "import setuptools.build_meta as b; b.build_wheel('dist')"
    (folder / "dist").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:setuptools", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("kspecpipe-*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def source_files() -> Iterator[tuple[Path, str]]:
    """Yield the files that belong into the wheel and their names there."""
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT / folder)
            if path.is_file() and "__pycache__" not in relative.parts:
                yield path, f"{package}/{relative.as_posix()}"


def test_the_wheel_holds_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == {name for _, name in source_files()}
    assert "kspecpipe/py.typed" in inside
    assert any(name.endswith("settings/isoplane.yaml") for name in inside)
    assert any(name.endswith("arc_lines.ecsv") for name in inside)


def test_files_come_unchanged(wheel: zipfile.ZipFile) -> None:
    for path, name in source_files():
        assert wheel.read(name) == path.read_bytes(), name


def test_every_recipe_is_announced(wheel: zipfile.ZipFile) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    found = configparser.ConfigParser(delimiters="=")
    found.read_string(wheel.read(name).decode())
    modules = {value.partition(":")[0] for value in found["kspecpipe.recipes"].values()}
    classes = {
        f"kspecpipe.recipes.{path.stem}"
        for path in (ROOT / "recipes").glob("*.py")
        if "(BaseRecipe)" in path.read_text()
    }
    assert modules == classes
    assert found["console_scripts"]["kspec"] == "kspecpipe.cli:main"


def test_the_licence_comes_along(wheel: zipfile.ZipFile) -> None:
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def imported(*, at_once: bool = False) -> dict[str, str]:
    """Return the packages that the installed code imports, each with a file that does.

    Parameters
    ----------
    at_once : bool
        Only what is imported when a module is, not what a function imports when it is called.
    """
    found: dict[str, str] = {}
    for path, name in source_files():
        if path.suffix != ".py" or (at_once and name in PLUG_INS):
            continue
        tree = ast.parse(path.read_text())
        for node in tree.body if at_once else ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for module in names:
                found.setdefault(module.partition(".")[0], name)
    known = {*sys.stdlib_module_names, "kspecpipe"}
    return {name: where for name, where in found.items() if name not in known}


def normal(name: str) -> str:
    """Return the name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[ <>=!~\[;]", name)[0]).lower()


def declared(extra: str | None = None) -> set[str]:
    """Return the distributions that an installation brings, with those of an extra."""
    listed = PROJECT["dependencies"]
    listed = listed + PROJECT["optional-dependencies"][extra] if extra else listed
    return {normal(name) for name in listed}


@pytest.mark.parametrize("at_once", [True, False])
def test_nothing_is_imported_that_is_not_declared(at_once: bool) -> None:
    """What only some commands need may be an extra; it is imported where it is needed."""
    extras = [] if at_once else PROJECT["optional-dependencies"]
    brought = declared().union(*(declared(extra) for extra in extras))
    owners = packages_distributions()
    for name, where in imported(at_once=at_once).items():
        distributions = {normal(owner) for owner in owners.get(name, [name])}
        assert distributions & brought, f"{name} is imported by {where}, but not declared"


def test_nothing_is_declared_that_is_not_imported() -> None:
    owners = packages_distributions()
    used = {normal(owner) for name in imported() for owner in owners.get(name, [name])}
    assert declared() - used == NOT_IMPORTED
