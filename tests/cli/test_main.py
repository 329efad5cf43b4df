"""The entry point: help, usage errors, unexpected errors, and that it starts quickly."""

import os
import subprocess
import sys

import pytest

from kspecpipe.cli import main
from kspecpipe.cli.main import COMMANDS
from kspecpipe.framework.registry import recipe_names

OBJECT_KEYS = ["recipe", "status", "exit_code", "products", "qc", "warnings", "errors", "timing"]


def test_help_lists_all_recipes_commands_and_exit_codes(kspec):
    result = kspec("--help")
    assert result.code == 0
    assert len(recipe_names()) >= 6
    for word in [*recipe_names(), *COMMANDS, "calibration is missing"]:
        assert word in result.out


def test_no_words_at_all_print_the_help_but_are_a_usage_error(kspec):
    assert kspec().code == 2
    assert "usage: kspec" in kspec().out


def test_version_is_printed(kspec):
    assert kspec("--version").out.startswith("kspecpipe 0.")


@pytest.mark.parametrize("name", [*COMMANDS, "mbias"])
def test_every_command_explains_itself(kspec, name):
    result = kspec(name, "--help")
    assert result.code == 0
    assert f"usage: kspec {name}" in result.out
    assert "--debug" in result.out


def test_help_imports_nothing_heavy_and_linear_algebra_stays_on_one_thread():
    code = (
        "import sys, kspecpipe.cli\n"
        "kspecpipe.cli.main(['--help'])\n"
        "heavy = {'numpy', 'scipy', 'astropy', 'matplotlib', 'rich', 'yaml', 'fundamentals'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import os; assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n"
    )
    free = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=free
    )
    assert done.returncode == 0, done.stderr
    assert "usage: kspec" in done.stdout


@pytest.mark.parametrize(
    ("recipes", "late"),
    [
        ("mbias", {"scipy.ndimage", "scipy.sparse"}),
        ("mflat, kspecpipe.recipes.marc", {"scipy.interpolate"}),
    ],
    ids=["mbias", "mflat and marc"],
)
def test_recipes_load_nothing_that_they_never_use(recipes, late):
    code = (
        f"import sys, kspecpipe.cli.recipe, kspecpipe.recipes.{recipes}\n"
        f"late = {late | {'scipy.optimize', 'astropy.coordinates', 'matplotlib'}}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    code = "import sys, kspecpipe.cli; sys.exit(kspecpipe.cli.main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert message == ""


@pytest.mark.parametrize(("word", "meant"), [("mbais", "mbias"), ("simulat", "simulate")])
def test_unknown_command_is_answered_with_the_nearest(kspec, word, meant):
    result = kspec(word, "x.sof")
    assert result.code == 2
    assert result.err == f"kspec: unknown command {word!r}; did you mean {meant!r}?\n"


@pytest.mark.parametrize(
    "words",
    [
        ("mbais", "--json"),
        ("--json",),
        ("mbias", "--json"),
        ("mbias", "in.sof", "--plots", "all", "--json"),
        ("mbias", "in.sof", "--jsn", "--json"),
        ("man", "--json"),
        ("show", "--json"),
        ("simulate", "--json"),
        ("demo", "--until", "nothing", "--json"),
        ("params", "--json"),
        ("params", "mflatt", "--json"),
        ("params", "mbias", "--mode", "blue", "--json"),
        ("check", "--json"),
        ("check", "in.sof", "--json"),
        ("check", "--instrument", "nowhere.yaml", "--json"),
    ],
)
def test_usage_errors_are_one_json_object_when_json_is_asked_for(kspec, words):
    result = kspec(*words)
    assert result.code == 2
    assert list(result.object)[:8] == OBJECT_KEYS
    assert result.object["exit_code"] == 2
    assert result.object["status"] == "usage"
    assert result.object["errors"]
    assert result.object["errors"][-1] in result.err


def test_options_may_not_be_abbreviated(kspec):
    assert kspec("mbias", "in.sof", "--over").code == 2


def boom(error):
    def run(*_: object, **__: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted; nothing half-written is left"),
        (OSError(28, "No space left on device", "a.fits"), "a.fits: No space left on device"),
        (RuntimeError("odd"), "internal error: RuntimeError: odd; --debug shows where"),
        (MemoryError(), "internal error: MemoryError"),
    ],
)
@pytest.mark.parametrize("name", ["recipes", "man", "params", "check", "show", "simulate", "demo"])
def test_whatever_happens_is_one_message_and_no_traceback(kspec, monkeypatch, name, error, message):
    from importlib import import_module

    monkeypatch.setattr(import_module(COMMANDS[name][0]), "run", boom(error))
    words = {"man": ["mbias"], "params": ["mbias"], "show": ["x.fits"], "simulate": ["out"]}
    result = kspec(name, *words.get(name, []))
    assert result.code == 1
    assert message in result.err


def test_interrupted_recipe_is_json_too(kspec, monkeypatch):
    from kspecpipe.base_recipe import BaseRecipe

    monkeypatch.setattr(BaseRecipe, "execute", boom(KeyboardInterrupt()))
    result = kspec("mbias", "in.sof", "--json")
    assert result.code == 1
    assert result.object["recipe"] == "mbias"
    assert result.object["status"] == "no product"


def test_debug_shows_the_traceback(monkeypatch):
    from kspecpipe.cli import listing

    monkeypatch.setattr(listing, "run", boom(RuntimeError("odd")))
    with pytest.raises(RuntimeError, match="odd"):
        main(["recipes", "--debug"])
