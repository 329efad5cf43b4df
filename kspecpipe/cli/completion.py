"""``kspec completion``: a static script by which the shell completes commands and options."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from kspecpipe.cli.main import COMMANDS, parser_of
from kspecpipe.cli.manual import TOPICS
from kspecpipe.cli.qc import ACTIONS
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.framework.registry import recipe_names

_BASH = """\
# completion of kspec for bash; save it as ~/.local/share/bash-completion/completions/kspec
_kspec() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    esac
    if [ "${{#COMPREPLY[@]}}" -eq 0 ]; then
        case "$COMP_CWORD ${{COMP_WORDS[1]}}" in
{words}
        esac
    fi
    case "${{COMP_WORDS[COMP_CWORD-1]}}" in
        --recipe) COMPREPLY=($(compgen -W "{recipes}" -- "$word")) ;;
    esac
}}
complete -o default -o bashdefault -F _kspec kspec
"""
_ZSH = """\
#compdef kspec
# completion of kspec for zsh: kspec completion zsh > a folder of $fpath, as _kspec
_kspec() {{
    local -a options
    if (( CURRENT == 2 )); then
        compadd -- {commands}
        return
    fi
    case "$words[2]" in
{cases}
    esac
    case "$words[CURRENT-1]" in
        --recipe) compadd -- {recipes}; return ;;
    esac
    if [[ "$words[CURRENT]" == -* ]]; then
        compadd -- $options
        return
    fi
    case "$CURRENT $words[2]" in
{words}
    esac
    _files
}}
if [ "$funcstack[1]" = _kspec ]; then _kspec "$@"; else compdef _kspec kspec; fi
"""
_FISH = """\
# completion of kspec for fish; save it as ~/.config/fish/completions/kspec.fish
function __kspec_of
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end
function __kspec_at
    set -l words (commandline -opc)
    test (count $words) -eq $argv[1]; and begin
        test $argv[1] -eq 1; or test $words[2] = $argv[2]
    end
end
complete -c kspec -n "__kspec_at 1" -f -a "{commands}"
{cases}
{words}
complete -c kspec -l recipe -x -a "{recipes}"
"""


@dataclass(frozen=True)
class Shell:
    """How a shell completes: the script, the forms of its cases, and what parts commands."""

    script: str
    case: str
    word: str
    separator: str = "|"


SHELLS = {
    "bash": Shell(
        _BASH,
        '        {}) options="{}" ;;',
        '            "2 {}") COMPREPLY=($(compgen -W "{}" -- "$word")) ;;',
    ),
    "zsh": Shell(
        _ZSH,
        "        {}) options=({}) ;;",
        '        "3 {}") compadd -- {}; return ;;',
    ),
    "fish": Shell(
        _FISH,
        'complete -c kspec -n "__kspec_of {}" -a "{}"',
        'complete -c kspec -n "__kspec_at 2 {}" -f -a "{}"',
        " ",
    ),
}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Print a completion script. To try it in bash: source <(kspec completion bash)"
    )
    parser.add_argument("shell", choices=tuple(SHELLS))


def run(arguments: argparse.Namespace, name: str) -> int:
    """Print the script."""
    del name
    sys.stdout.write(script(arguments.shell))
    return int(ExitCode.OK)


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    recipes = recipe_names()
    names = [*recipes, *COMMANDS]
    alike: dict[str, list[str]] = {}  # all recipes share their options
    for name in names:
        alike.setdefault(" ".join(options_of(name)), []).append(name)
    firsts = {
        "man": [*recipes, *TOPICS],
        "params": recipes,
        "completion": list(SHELLS),
        "qc": list(ACTIONS),
    }
    own = SHELLS[shell]
    return own.script.format(
        commands=" ".join(names),
        recipes=" ".join(recipes),
        cases="\n".join(
            own.case.format(own.separator.join(group), text) for text, group in alike.items()
        ),
        words="\n".join(own.word.format(name, " ".join(of)) for name, of in firsts.items()),
    )


def options_of(name: str) -> list[str]:
    """Return the long options of a command; a recipe that cannot be loaded has none."""
    try:
        parser, _ = parser_of(name)
    except SettingsError:
        return []
    words = [word for action in parser._actions for word in action.option_strings]
    return [word for word in words if word.startswith("--")]
