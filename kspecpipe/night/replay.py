"""Rebuild a product from its own header, and compare."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kspecpipe import io
from kspecpipe._version import __version__
from kspecpipe.base_recipe import BaseRecipe, find_recipe
from kspecpipe.errors import InputError, RecipeError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.instrument import Instrument, load_instrument, shipped_instruments
from kspecpipe.night.work import quiet_log
from kspecpipe.provenance import PIPE_ID, file_digest
from kspecpipe.sof import FITS_NAME, format_entry


@dataclass(frozen=True)
class Needed:
    """One input that a header names."""

    kind: str  # RAW or CAL
    name: str
    tag: str
    md5: str
    lamp: str = ""


@dataclass(frozen=True)
class Replayed:
    """What came of a replay.

    Parameters
    ----------
    differences : tuple of str
        Parts of the product that came out otherwise; empty when it is identical.
    notes : tuple of str
        What may explain a difference.
    """

    differences: tuple[str, ...]
    notes: tuple[str, ...]


def replay(product: Path, raw: Sequence[Path], instrument: str | None) -> Replayed:
    """Make a product again from the inputs that its header names, and compare the data.

    Parameters
    ----------
    product : Path
        The product.
    raw : sequence of Path
        Folders in which inputs are looked for, besides that of the product.
    instrument : str or None
        Name or file of the instrument; None: by INSTRUME.

    Raises
    ------
    InputError
        If it is no product, or inputs are not found.
    RecipeError
        If the recipe makes no product of that name any more.
    """
    header = io.read_header(product)
    if "ESO PRO REC1 ID" not in header:
        raise InputError(f"{product.name}: is no product of this pipeline (no PRO.REC1.ID)")
    named = instrument or _instrument_of(header)
    places = [product.resolve().parent, *(place.resolve() for place in raw)]
    found = _find_all(list(needed_inputs(header)), places, load_instrument(named))
    recipe = find_recipe(str(header["ESO PRO REC1 ID"]))
    with tempfile.TemporaryDirectory(prefix="kspec_replay_") as scratch:
        folder = Path(scratch)
        sof = folder / "replay.sof"
        sof.write_text("".join(_line(one, path, folder) for one, path in found), encoding="utf-8")
        options = RunOptions(
            output=folder / "products",
            instrument=named,
            settings={recipe.name: {"parameters": _parameters(header, recipe)}},
            plots="none",
            ignore_input_qc=True,
            record=False,
        )
        outcome = recipe(log=quiet_log(), inputFrames=[sof], options=options).execute()
        made = {path.name: path for path, _ in outcome.products}
        # The name may tell of other products of its night; then its category alone counts.
        catg = header.get("ESO PRO CATG")
        same = [path for path, tag in outcome.products if tag == catg]
        again = made.get(product.name) or (same[0] if len(same) == 1 else None)
        if again is None:
            reason = "; ".join(outcome.errors) or f"it made {', '.join(made) or 'nothing'}"
            raise RecipeError(f"{product.name} cannot be made again by {recipe.name}: {reason}")
        differences = tuple(compare(product, again))
    return Replayed(differences, tuple(_notes(header)))


def needed_inputs(header: Mapping[str, Any]) -> Iterator[Needed]:
    """Yield the inputs that a header names."""
    for kind in ("RAW", "CAL"):
        number = 1
        while f"ESO PRO REC1 {kind}{number} NAME" in header:
            card = f"ESO PRO REC1 {kind}{number}"
            keys = ("NAME", "CATG", "DATAMD5", "LAMP")
            name, tag, md5, lamp = (str(header.get(f"{card} {key}", "")) for key in keys)
            yield Needed(kind, name, tag, md5, lamp)
            number += 1


def compare(product: Path, other: Path) -> Iterator[str]:
    """Yield the parts whose data differ; settings tell their source, which may be another."""
    ours, theirs = io.read_arrays(product), io.read_arrays(other)
    for name in dict.fromkeys([*ours, *theirs]):
        if name in ("SETTINGS", "QC"):
            continue
        if name not in ours or name not in theirs:
            yield f"{name}: only in {'the product' if name in ours else 'the replay'}"
            continue
        one, two = ours[name], theirs[name]
        if one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes():
            continue
        yield f"{name}: {_distance(one, two)}"


def _distance(one: Any, two: Any) -> str:
    """Say how far two arrays are from each other."""
    if one.shape != two.shape:
        return f"shape {one.shape}, {two.shape} in the replay"
    if one.dtype.names or one.dtype.kind not in "fiu":
        return "the table differs"
    both = np.isfinite(one) & np.isfinite(two)
    far = float(np.max(np.abs(one[both].astype(float) - two[both].astype(float)), initial=0.0))
    other = int(np.sum(np.isfinite(one) != np.isfinite(two)))
    return f"differs by up to {far:.3g}, {other} samples are NaN in only one"


def _find_all(
    needed: Sequence[Needed], places: Sequence[Path], instrument: Instrument
) -> list[tuple[Needed, Path]]:
    """Find every input by its checksum; files of the same name are tried first."""
    files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
    folders = [path for place in places for path in sorted(place.rglob("*")) if path.is_dir()]
    found: dict[tuple[str, str], tuple[Needed, Path]] = {}
    missing = []
    for one in needed:
        name = one.name.partition("[")[0]
        by_name = sorted([*files, *folders], key=lambda path, n=name: path.name != n)  # type: ignore[misc]
        path = next((path for path in by_name if _is(path, one, instrument, name)), None)
        if path is None:
            missing.append(f"{one.tag} {one.name} (checksum {one.md5})")
        else:
            found.setdefault((one.tag, str(path)), (one, path))
    if missing:
        shown = ", ".join(map(str, places))
        lines = [f"{text}: is not in {shown}; name its folder with --raw" for text in missing]
        raise InputError("\n".join(lines))
    return list(found.values())


def _is(path: Path, wanted: Needed, instrument: Instrument, name: str) -> bool:
    """Return whether a file is the one with the checksum."""
    fits = bool(FITS_NAME.search(path.name))
    try:
        if wanted.kind == "RAW":
            plausible = fits and path.is_file()
            return plausible and wanted.md5 in io.frame_md5s(path, instrument)
        if fits and path.is_file():
            return io.data_md5(path) == wanted.md5
        return path.name == name and file_digest(path) == wanted.md5
    except InputError:
        return False


def _line(needed: Needed, path: Path, folder: Path) -> str:
    tag = f"{needed.tag}:{needed.lamp.upper()}" if needed.lamp else needed.tag
    return format_entry(path, tag, folder) + "\n"


def _parameters(header: Mapping[str, Any], recipe: type[BaseRecipe]) -> dict[str, Any]:
    """Return the parameters that a header names and the recipe still has."""
    values: dict[str, Any] = {}
    number = 1
    while f"ESO PRO REC1 PARAM{number} NAME" in header:
        card = f"ESO PRO REC1 PARAM{number}"
        name, value = str(header[f"{card} NAME"]), header.get(f"{card} VALUE")
        if name in recipe.Parameters.specs:
            values[name] = _plain(value)
        number += 1
    return values


def _plain(value: Any) -> Any:
    """Return a value as a settings file would have it: None and lists were written as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.replace("None", "null").replace("'", '"'))
    except ValueError:
        return value


def _instrument_of(header: Mapping[str, Any]) -> str:
    for name, one in shipped_instruments().items():
        if one.facts.name == header.get("INSTRUME"):
            return name
    raise InputError(
        f"the instrument {header.get('INSTRUME')!r} is not known; name its file with --instrument"
    )


def _notes(header: Mapping[str, Any]) -> Iterator[str]:
    made = header.get("ESO PRO REC1 PIPE ID")
    if made != PIPE_ID:
        yield f"it was made by {made}, this is kspecpipe/{__version__}"
