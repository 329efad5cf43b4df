"""``kspec qc``: the history of quality control."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from kspecpipe.errors import SettingsError
from kspecpipe.quality.store import STORE_NAME

#: Action -> (module with `configure` and `run`, help).
ACTIONS = {
    "table": ("kspecpipe.cli.qc_table", "metrics by night, mode, metric or flag"),
    "trend": (
        "kspecpipe.cli.qc_trend",
        "a metric from night to night, its drift and future",
    ),
    "report": ("kspecpipe.cli.qc_report", "pages of a night for the browser"),
    "certify": ("kspecpipe.cli.qc_verdict", "say that a product is good"),
    "reject": ("kspecpipe.cli.qc_verdict", "say that a product must not be used"),
    "rescore": ("kspecpipe.cli.qc_rescore", "apply the limits of today to stored values"),
    "rebuild": ("kspecpipe.cli.qc_rebuild", "make the history again from products"),
}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the actions, each with its options."""
    del name
    parser.description = (
        "Every run of a recipe leaves its metrics in a history (qc.sqlite beside the products, or "
        "where --qc-store says, so that nights and years can share one)."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, (module, text) in ACTIONS.items():
        below = actions.add_parser(action, help=text, allow_abbrev=False)
        below.description = f"{text[0].upper()}{text[1:]}."
        import_module(module).configure(below, action)
        below.add_argument(
            "--qc-store", type=Path, metavar="F", help="the history, or the folder that holds it"
        )
        below.add_argument("--debug", action="store_true", help="show tracebacks")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Run the action."""
    del name
    code: int = import_module(ACTIONS[arguments.action][0]).run(arguments, arguments.action)
    return code


def store_path(given: Path | None, *beside: Path) -> Path:
    """Return the history that is meant.

    Parameters
    ----------
    given : Path or None
        What the user named: the file, or its folder.
    *beside : Path
        Further folders in which it may be, the likeliest first.

    Raises
    ------
    SettingsError
        If there are no two ways to find it, and it is not there.
    """
    if given is not None:
        return given / STORE_NAME if given.is_dir() else given
    places = [folder / STORE_NAME for folder in (*beside, Path("products"), Path())]
    for place in places:
        if place.is_file():
            return place
    raise SettingsError(
        f"no QC history: {', '.join(dict.fromkeys(map(str, places)))} "
        "does not exist; name it with --qc-store"
    )
