"""Build the documentation; everything that the code already says is generated from the code."""

from __future__ import annotations

import pkgutil
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import kspecpipe
from kspecpipe.base_recipe import find_recipe
from kspecpipe.cli.document import Document, Table
from kspecpipe.cli.listing import in_order
from kspecpipe.cli.main import EXIT_CODES
from kspecpipe.cli.manual import one_line, page_of
from kspecpipe.framework.registry import recipe_names

HERE = Path(__file__).parent
#: Fragments that other pages include; outside the sources, so that they are no pages themselves.
FRAGMENTS = HERE / "_build" / "generated"
DEMO = HERE.parent / "demo" / "products"

project = "kspecpipe"
author = "The kspecpipe developers"
project_copyright = f"2026, {author}"
version = release = kspecpipe.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build", "changes", "notebooks"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "kspecpipe"
autodoc_typehints = "none"  # numpydoc names the types; the signatures stay short
autodoc_default_options = {"members": True, "ignore-module-all": True}
numpydoc_show_class_members = False


def setup(app: Any) -> None:
    """Generate pages before the sources are read."""
    app.connect("builder-inited", lambda _: generate())


def generate() -> None:
    """Write the manual pages, the references, the API pages and the pictures of the demo."""
    FRAGMENTS.mkdir(parents=True, exist_ok=True)
    for topic in ("instrument", "products"):
        write(FRAGMENTS / f"{topic}.md", page_of(topic).body)
    codes = [(str(code), text) for code, text in EXIT_CODES.items()]
    write(FRAGMENTS / "exit_codes.md", Document("", [Table(("code", "meaning"), codes)]).body)
    write(FRAGMENTS / "gallery.md", gallery())
    manual_pages()
    api_pages()


def manual_pages() -> None:
    """Write one page per recipe and their index."""
    folder = fresh(HERE / "recipes")
    names = in_order(recipe_names())
    lines = ["# Recipes", "", "| recipe | what it does |", "| --- | --- |"]
    for name in names:
        write(folder / f"{name}.md", page_of(name).markdown())
        lines.append(f"| [{name}]({name}.md) | {one_line(find_recipe(name))} |")
    write(folder / "index.md", "\n".join(lines) + toctree(names))


def api_pages() -> None:
    """Write one page per package with the documentation of its modules."""
    folder = fresh(HERE / "api")
    pages: dict[str, list[str]] = {"framework": []}
    for module in pkgutil.iter_modules(kspecpipe.__path__):
        name = f"kspecpipe.{module.name}"
        if not module.ispkg:
            pages["framework"].append(name)
        elif module.name not in ("cli", "recipes", "settings", "static_calibrations"):
            found = pkgutil.iter_modules(import_module(name).__path__)
            pages[module.name] = [f"{name}.{below.name}" for below in found]
    for page, modules in pages.items():
        parts = [f"# {page.capitalize()}", *map(module_section, modules)]
        write(folder / f"{page}.md", "\n\n".join(parts) + "\n")
    intro = "# API\n\nThe functions that are meant for notebooks: {py:mod}`kspecpipe`.\n"
    write(folder / "index.md", intro + toctree(pages))


def module_section(name: str) -> str:
    """Return the section of one module."""
    return f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```"


def gallery() -> str:
    """Return the pictures of the demo's night, if there is one."""
    pictures = sorted(DEMO.glob("*.png"))
    if not pictures:
        return "*Pictures appear here when `make demo` was run before `make docs`.*\n"
    folder = fresh(FRAGMENTS / "pictures")
    lines = []
    for path in pictures:
        shutil.copy(path, folder / path.name)
        lines += [f"```{{figure}} _build/generated/pictures/{path.name}", f"{path.stem}", "```", ""]
    return "\n".join(lines)


def toctree(names: Any) -> str:
    """Return a hidden table of contents."""
    listed = "\n".join(names)
    return f"\n\n```{{toctree}}\n:maxdepth: 1\n:hidden:\n\n{listed}\n```\n"


def fresh(folder: Path) -> Path:
    """Return an empty folder: pages of recipes that are gone must go."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write(path: Path, text: str) -> None:
    """Write a generated page."""
    path.write_text(text, encoding="utf-8")
