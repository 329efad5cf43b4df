"""``kspec simulate``: a night of raw frames with known truth."""

from __future__ import annotations

import argparse
import sys
import typing
from collections import Counter
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import ExitCode, ProductError, SettingsError
from kspecpipe.framework.terminal import short_path
from kspecpipe.simulate import FrameCounts, Night, NightPlan, Traps, simulate_night
from kspecpipe.simulate.standards import LibraryPlan

_CLASSES = [item.name for item in fields(FrameCounts)]
_TRAPS = [item.name for item in fields(Traps)]


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options; what they offer comes from the simulator's own plan."""
    del name
    kinds = typing.get_type_hints(NightPlan)
    parser.description = (
        "Write raw frames, set-of-files lists, a fibre assignment, catalogue and templates of the "
        "standard stars into OUT, and the truth into OUT/truth. Equal seeds and options give equal "
        "files."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder")
    parser.add_argument(
        "--instrument", choices=typing.get_args(kinds["instrument"]), default=NightPlan().instrument
    )
    parser.add_argument(
        "--mode", action="append", default=[], metavar="M", help="may be repeated [the first mode]"
    )
    parser.add_argument("--seed", type=count, default=1, metavar="N")
    for frame in _CLASSES:
        parser.add_argument(f"--{frame}", type=count, metavar="N", help=f"{frame} frames")
    parser.add_argument(
        "--size", choices=typing.get_args(kinds["size"]), default="full", help="chip, or a corner"
    )
    parser.add_argument("--fibres", type=_number, metavar="N", help="number of fibres")
    parser.add_argument(
        "--dead", type=_number, nargs="+", metavar="ID", help="FIBRE_IDs without light"
    )
    parser.add_argument("--layout", choices=("1300x1340", "1330x1340"), help="raw ISOPLANE frame")
    parser.add_argument("--names", choices=typing.get_args(kinds["names"]), help="style of names")
    parser.add_argument("--separate-lamps", action="store_true", help="one arc lamp a file")
    parser.add_argument("--cube", action="store_true", help="all biases in one file")
    parser.add_argument("--tile", type=count, metavar="N", help="number of the science tile")
    parser.add_argument(
        "--without", action="append", default=[], metavar="TRAP", help=f"of {', '.join(_TRAPS)}"
    )
    parser.add_argument("--no-traps", action="store_true", help="perfect optics, no noise")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder with files")


def run(arguments: argparse.Namespace, name: str) -> int:
    """Simulate and say what was written."""
    del name
    _refuse_full(arguments.out, overwrite=arguments.overwrite)
    plan = plan_of(arguments)
    night = simulate(arguments.out, plan, arguments.seed)
    counts = Counter(file.tag for file in night.files)
    lines = [
        f"{short_path(night.folder)}: {', '.join(f'{n} {tag}' for tag, n in counts.items())} files",
        f"assignment {night.assignment.name}, truth in truth/",
        *(f"{step:<10} {short_path(sof)}" for step, sof in night.sofs.items()),
    ]
    if plan.size != "full" or plan.n_fibres is not None:
        lines.append(f"of no shipped instrument: --instrument {short_path(night.instrument)}")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(ExitCode.OK)


def simulate(out: Path, plan: NightPlan, seed: int) -> Night:
    """Simulate a night; what the simulator refuses is an error of usage.

    Raises
    ------
    SettingsError
        If the instrument has no such mode, fibre or read-out.
    ProductError
        If the files cannot be written.
    """
    try:
        return simulate_night(out, plan, seed)
    except (ValueError, KeyError) as error:
        raise SettingsError(str(error.args[0] if error.args else error)) from None
    except OSError as error:
        raise ProductError(f"{out}: cannot be written: {error.strerror}") from None


def plan_of(arguments: argparse.Namespace) -> NightPlan:
    """Return the plan of a night from the options."""
    given = {name: getattr(arguments, name) for name in _CLASSES}
    for trap in arguments.without:
        if trap not in _TRAPS:
            raise SettingsError(f"--without {trap}: {nearest(trap, _TRAPS)}")
    traps = Traps.none() if arguments.no_traps else Traps()
    counts = FrameCounts(**{name: n for name, n in given.items() if n is not None})
    if not any(astuple(counts)):
        raise SettingsError("no frame of any class is asked for: nothing to simulate")
    _refuse_elsewhere(arguments)
    chosen: dict[str, Any] = {
        "instrument": arguments.instrument,
        "modes": tuple(arguments.mode),
        "counts": counts,
        "traps": traps.but(**dict.fromkeys(arguments.without, False)),
        "size": arguments.size,
        "n_fibres": arguments.fibres,
        "dead": tuple(arguments.dead) if arguments.dead else None,
        "separate_lamps": arguments.separate_lamps,
        "cube": arguments.cube,
        "library": LibraryPlan(),
    }
    for option in ("layout", "names", "tile"):
        if getattr(arguments, option) is not None:
            chosen[option] = getattr(arguments, option)
    return NightPlan(**chosen)


def _refuse_elsewhere(arguments: argparse.Namespace) -> None:
    """Refuse options of ISOPLANE's files for another instrument, where they would do nothing."""
    if arguments.instrument == "isoplane":
        return
    for option in ("layout", "names", "cube"):
        if getattr(arguments, option):
            raise SettingsError(
                f"--{option} belongs to ISOPLANE's raw files; --instrument {arguments.instrument} "
                "has no such choice"
            )


def count(text: str) -> int:
    """Read a whole number that is not negative."""
    return _at_least(text, 0)


def _number(text: str) -> int:
    return _at_least(text, 1)


def _at_least(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < lowest:
        raise argparse.ArgumentTypeError(f"{text} is below {lowest}")
    return number


def _refuse_full(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; a folder is expected")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise SettingsError(f"{folder}: holds files; name another folder, or give --overwrite")
