"""``kspec qc certify`` and ``kspec qc reject``: what a person decides about a product."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kspecpipe import io
from kspecpipe.cli.qc import store_path
from kspecpipe.errors import ExitCode, SettingsError
from kspecpipe.quality.history import Row, find_product, folder_of, of_runs, users_of
from kspecpipe.quality.store import (
    ProductRecord,
    Verdict,
    Word,
    new_verdict,
    person,
    record_verdict,
)

_WORDS: dict[str, Word] = {"certify": "certified", "reject": "rejected"}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    rejecting = " What was made with it is listed, with the commands that redo it."
    parser.description = (
        "Say that a product is good: its values count for statistical limits, and it may be used "
        "even if a metric failed."
        if name == "certify"
        else f"Say that a product must not be used: no recipe takes it any more.{rejecting}"
    )
    parser.add_argument(
        "product", nargs="+", metavar="PRODUCT", help="a product, or the name of one that is gone"
    )
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason")
    parser.add_argument("--who", metavar="NAME", help="who decides [the login name]")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Record the verdicts, all or none, and say what follows."""
    store = store_path(arguments.qc_store, *(Path(word).parent for word in arguments.product))
    decided: list[Verdict] = []
    for word in arguments.product:
        product = _identify(store, word)
        who = person() if arguments.who is None else arguments.who
        decided.append(new_verdict(product, _WORDS[name], who, arguments.why))
    for verdict in decided:
        record_verdict(store, verdict)
        sys.stdout.write(f"{verdict.name}: {verdict}\n")
    if name == "reject":
        sys.stdout.write(consequences(store, decided))
    return int(ExitCode.OK)


def consequences(store: Path, rejected: Sequence[Verdict]) -> str:
    """Return what was made with rejected products, and how to redo it, in words.

    Parameters
    ----------
    store : Path
        The history.
    rejected : sequence of Verdict
        The rejections.
    """
    names = {verdict.md5: f"NEW_{verdict.catg}" for verdict in rejected}
    runs = {row["run"]: row for verdict in rejected for row in users_of(store, verdict.md5)}
    if not runs:
        return "nothing in this history was made with it\n"
    products, inputs = (of_runs(store, table, runs) for table in ("products", "inputs"))
    # Products lie where the history says now: folders can have been moved since the run.
    for run, made in products.items():
        names |= {
            item["md5"]: str(folder_of(store, runs[run]) / item["name"])
            for item in made
            if item["md5"] and item["md5"] not in names
        }
    lines = ["made with it, and to be redone in this order:"]
    for run in sorted(runs):
        folder = folder_of(store, runs[run])
        lines += [f"  {folder / item['name']}" for item in products[run]]
        lines.append(f"    {_command(runs[run], inputs[run], folder, names)}")
    used = sorted({f"NEW_{verdict.catg}" for verdict in rejected if verdict.md5 in _used(inputs)})
    lines.append(
        f"{', '.join(used)}: the calibration that takes its place; with `kspec reduce` the night "
        "finds it by itself"
    )
    return "\n".join(lines) + "\n"


def _used(inputs: Mapping[int, Sequence[Row]]) -> set[str]:
    return {item["md5"] for found in inputs.values() for item in found}


def _command(run: Row, inputs: Sequence[Row], folder: Path, names: dict[str, str]) -> str:
    words = ["kspec", run["recipe"]]
    planes: dict[str, None] = {}
    for item in inputs:
        path = item["path"] or item["name"].partition("[")[0]
        planes[names.get(item["md5"], path)] = None
    return shlex.join([*words, *planes, "-o", str(folder), "--overwrite"])


def _identify(store: Path, word: str) -> ProductRecord:
    path = Path(word)
    if path.is_file():
        header = io.read_header(path)
        catg = header.get("ESO PRO CATG")
        if not catg:
            raise SettingsError(f"{path.name}: is no product (no PRO.CATG); a verdict needs one")
        return ProductRecord(path.name, str(catg), "", str(header.get("DATAMD5", "")))
    row = find_product(store, path.name)
    return ProductRecord(row["name"], row["catg"], row["content_key"], row["md5"])
