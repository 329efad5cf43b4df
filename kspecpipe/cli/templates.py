"""``kspec templates``: list, check and fetch the spectra that standard stars are compared with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kspecpipe.errors import ExitCode, InputError, KspecError, ProductError, SettingsError
from kspecpipe.framework.terminal import short_path

_SHOWN = 10
_OF_DOWNLOAD = ("dry_run", "force", "archive", "workers", "teff", "logg", "feh")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "A folder of template spectra in the layout of BOSZ 2024 is the input TEMPLATES of fluxcal."
    )
    parser.add_argument(
        "action",
        choices=("index", "check", "download"),
        help="index: read what is there and take it as the whole library; check: compare with the "
        "index; download: fetch models from the archive",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the library")
    parser.add_argument(
        "--resolution",
        type=int,
        metavar="R",
        help="resolving power [the one there is; download: 10000]",
    )
    parser.add_argument("--read", action="store_true", help="check: read every model")
    fetch = parser.add_argument_group("download")
    fetch.add_argument("--dry-run", action="store_true", help="only list what would be fetched")
    fetch.add_argument("--force", action="store_true", help="fetch what is there already")
    fetch.add_argument("--archive", metavar="URL", help="where from [the archive at MAST]")
    fetch.add_argument("--workers", type=int, metavar="N", help="files at a time [8]")
    for option, text in (("teff", "K"), ("logg", "cgs"), ("feh", "dex")):
        fetch.add_argument(
            f"--{option}", type=float, nargs="+", metavar="X", help=f"only these values [{text}]"
        )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Do what was asked."""
    del name
    given = [word for word in _OF_DOWNLOAD if getattr(arguments, word) not in (None, False)]
    if arguments.action != "download" and given:
        words = ", ".join(f"--{word.replace('_', '-')}" for word in given)
        raise SettingsError(f"{words}: of download only, not of {arguments.action}")
    if arguments.read and arguments.action != "check":
        raise SettingsError(f"--read: of check only, not of {arguments.action}")
    actions = {"index": _index, "check": _check, "download": _download}
    try:
        return actions[arguments.action](arguments)
    except OSError as error:
        raise ProductError(f"{arguments.folder}: {error.strerror or error}") from None


def _index(arguments: argparse.Namespace) -> int:
    from kspecpipe.fluxcal.templates import TemplateLibrary, write_index

    try:
        path = write_index(arguments.folder, arguments.resolution)
        # Parsed now and kept, so that no run of fluxcal has to wait for it.
        grid = TemplateLibrary(arguments.folder, arguments.resolution).grid()
    except KspecError as error:
        raise InputError(str(error)) from None
    sys.stdout.write(f"{short_path(path)}: {len(grid)} models\n")
    return int(ExitCode.OK)


def _check(arguments: argparse.Namespace) -> int:
    from kspecpipe.fluxcal.templates import TemplateLibrary, check_library

    try:
        report = check_library(arguments.folder, arguments.resolution)
        if arguments.read and report.complete:
            TemplateLibrary(arguments.folder, arguments.resolution).grid()
    except KspecError as error:
        raise InputError(str(error)) from None
    lines = [
        f"{short_path(arguments.folder)}: resolution {report.resolution}, {report.present} of "
        f"{report.indexed} models present"
    ]
    groups = (
        ("missing", report.missing),
        ("of another size", report.truncated),
        ("not in the index", report.unlisted),
    )
    for words, names in groups:
        lines += [f"  {words}: {name}" for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f"  {words}: {len(names) - _SHOWN} more")
    sys.stdout.write("\n".join(lines) + "\n")
    if report.complete:
        return int(ExitCode.OK)
    raise InputError(
        "the library is incomplete or empty; finish it with kspec templates download, or accept "
        "what is there with kspec templates index"
    )


def _download(arguments: argparse.Namespace) -> int:
    from kspecpipe.fluxcal.download import ARCHIVE, FetchOptions, Subgrid, download_templates

    if arguments.workers is not None and arguments.workers < 1:
        raise SettingsError(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.archive and not arguments.archive.startswith(("http://", "https://")):
        raise SettingsError(f"--archive {arguments.archive}: http:// or https:// is expected")
    standard, given = Subgrid(), arguments.resolution
    try:
        subgrid = Subgrid(
            teff=tuple(arguments.teff or standard.teff),
            logg=tuple(arguments.logg or standard.logg),
            feh=tuple(arguments.feh or standard.feh),
            resolution=standard.resolution if given is None else given,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from None
    options = FetchOptions(
        workers=arguments.workers or FetchOptions().workers,
        force=arguments.force,
        dry_run=arguments.dry_run,
        archive=(arguments.archive or ARCHIVE).rstrip("/"),
    )
    if arguments.folder.exists() and not arguments.folder.is_dir():
        raise SettingsError(f"{arguments.folder}: is a file; a folder is expected")
    summary = download_templates(arguments.folder, subgrid, options, _report)
    if arguments.dry_run:
        sys.stdout.write("".join(f"{options.archive}/{name}\n" for name in summary.outcomes))
    for name, words in list(summary.problems.items())[:_SHOWN]:
        sys.stderr.write(f"kspec: {name}: {words}\n")
    sys.stdout.write(f"{short_path(arguments.folder)}: {summary.text()}\n")
    failed = summary.count("error")
    if failed and summary.count("planned"):
        raise ProductError("no wavelengths, so nothing else was tried; run the same command again")
    if failed:
        raise ProductError(f"files not fetched: {failed}; run the same command again")
    return int(ExitCode.OK)


def _report(name: str, outcome: str) -> None:
    sys.stderr.write(f"{outcome:<10} {name}\n")
