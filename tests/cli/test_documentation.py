"""What the documentation and the README show works as it stands there."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.cli.main import COMMANDS, parser_of
from kspecpipe.cli.manual import recipe_page
from kspecpipe.configuration import layered_settings as layered
from kspecpipe.configuration.yaml_source import load_yaml
from kspecpipe.framework.registry import recipe_names

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands():
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            lines = [line.split("#")[0].strip() for line in block.splitlines()]
            found += [(page.name, line) for line in lines if line.startswith("kspec ")]
    return found


def test_pages_are_there():
    assert len(PAGES) > 9
    assert len(commands()) > 15


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_that_is_shown_can_be_parsed(page, line):
    words = shlex.split(line.split(">")[0])[1:]
    if words == ["--help"]:
        return
    assert words[0] in [*COMMANDS, *recipe_names()], page
    parser, _ = parser_of(words[0])
    parser.parse_args(words[1:])


@pytest.mark.parametrize("page", ["settings.md", "reading-qc.md", "quality-control.md"])
def test_settings_that_are_shown_are_valid(page):
    found = [text for text in blocks(ROOT / "docs" / page, "yaml") if "instrument:" not in text]
    found = [text for text in found if not text.startswith("- ")]  # lists are of events
    assert found
    for text in found:
        sections = load_yaml(text, page).mapping("the settings")
        for name in sections:
            layered.resolve(find_recipe(name).describe(), [layered.Layer(page, sections)])


def test_recipe_of_the_documentation_runs():
    listing, notebook = blocks(ROOT / "docs" / "write-a-recipe.md", "python")
    space: dict[str, object] = {"__name__": "mypackage.quickbias"}
    exec(compile(listing, "write-a-recipe.md", "exec"), space)
    exec(compile(notebook, "write-a-recipe.md", "exec"), space)
    metrics = space["metrics"]
    assert 1.0 < metrics.scatter < 2.0  # type: ignore[attr-defined]  # 3 adu / sqrt(4 frames)
    recipe = space["QuickBias"]
    assert isinstance(recipe, type)
    assert issubclass(recipe, BaseRecipe)
    assert "first row that is judged" in recipe_page(recipe).markdown()


def test_recipe_of_another_package_is_found_and_runs(kspec, camera, tmp_path, monkeypatch):
    package, about = tmp_path / "site" / "mypackage", tmp_path / "site" / "mypackage-1.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").touch()
    (package / "quickbias.py").write_text(blocks(ROOT / "docs" / "write-a-recipe.md", "python")[0])
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    entry = tomllib.loads(blocks(ROOT / "docs" / "write-a-recipe.md", "toml")[0])
    ((name, target),) = entry["project"]["entry-points"]["kspecpipe.recipes"].items()
    (about / "entry_points.txt").write_text(f"[kspecpipe.recipes]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "quickbias" in kspec("--help").out
    assert "quickbias" in kspec("recipes").out
    words = ["-o", camera.output, "--instrument", camera.instrument, "--plots", "none"]
    result = kspec("quickbias", camera.sof_of(camera.biases(3)), *words)
    assert result.code == 0, result.err
    assert "SCATTER" in result.out
    assert len(list(camera.output.glob("*_master_bias_quick.fits"))) == 1


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in (ROOT / "kspecpipe").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert len(found) > 7
    assert found <= listed, f"pyproject.toml: add to packages: {found - listed}"
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        assert package in listed
        assert (ROOT / folder / "__init__.py").exists()


def test_licence_is_the_gpl():
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert len(text) > 34_000


def test_citation_names_the_version_of_the_package():
    from kspecpipe import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
