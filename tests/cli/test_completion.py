"""`kspec completion`: the scripts do what a shell asks of them."""

import shutil
import subprocess

import pytest

from kspecpipe.cli.completion import script
from kspecpipe.cli.main import COMMANDS
from kspecpipe.framework.registry import recipe_names


def complete(*words):
    """Return what bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    lines = [
        script("bash"),
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}",
        "_kspec; printf '%s\\n' \"${COMPREPLY[@]}\"",
    ]
    done = subprocess.run(
        ["bash", "--norc"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_first_word_is_a_recipe_or_a_command():
    assert complete("kspec", "") == {*recipe_names(), *COMMANDS}
    assert complete("kspec", "sim") == {"simulate"}


def test_options_of_a_recipe_are_offered():
    found = complete("kspec", "mbias", "--")
    assert {"--output", "--set", "--products-sof", "--json"} <= found
    assert "--bias" not in found


def test_recipes_are_offered_where_one_is_expected():
    assert complete("kspec", "man", "") == {*recipe_names(), "instrument", "products"}
    assert complete("kspec", "params", "mb") == {"mbias"}
    assert complete("kspec", "check", "x.sof", "--recipe", "mb") == {"mbias"}
    assert complete("kspec", "mbias", "") == set()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script(shell), text=True, check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("kspec mb", {"mbias"}),
        ("kspec mbias --products", {"--products-sof"}),
        ("kspec man instr", {"instrument"}),
        ("kspec check x.sof --recipe mb", {"mbias"}),
    ],
)
def test_fish_offers_what_fits(line, found):
    lines = [script("fish"), f"complete -C '{line}'"]
    command = ["fish", "--no-config", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert {text.split("\t")[0] for text in done.stdout.splitlines()} == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_scripts_name_everything(shell):
    text = script(shell)
    for word in [*recipe_names(), *COMMANDS, "--products-sof", "--without"]:
        assert word in text


def test_unknown_shell_is_refused(kspec):
    assert kspec("completion", "tcsh").code == 2
    assert kspec("completion", "bash").out == script("bash")
