"""Check the input frames of a recipe and load them; all problems are reported together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kspecpipe import ancillary, io
from kspecpipe.declare import Declared, InputSpec, OnDemand
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.frame import FrameInfo, FrameStack, RawFrame
from kspecpipe.framework.gathered import CalibrationFile, GatheredInputs, InputPolicy, header_number
from kspecpipe.framework.input_checks import check_inputs
from kspecpipe.framework.problems import Problems
from kspecpipe.instrument import Instrument, shipped_instruments
from kspecpipe.sof import CALIBRATION_TAGS, RAW_TAGS, SofEntry

#: Frames that the rules of an instrument may call FLAT while the user knows better.
_FLAT_FAMILY = ("FLATOFF", "LFLAT", "SKYFLAT")


def gather(
    entries: Sequence[SofEntry],
    declared: type[Declared],
    instrument: Instrument | None,
    adapt: Callable[[Instrument], Instrument],
    policy: InputPolicy,
) -> GatheredInputs:
    """Sort files by tag, open raw frames and check everything against the declarations.

    Parameters
    ----------
    entries : sequence of SofEntry
        The files.
    declared : type of Declared
        Inputs of the recipe.
    instrument : Instrument or None
        Instrument that the user named; None to recognise it from the headers.
    adapt : callable
        Applies the user's overrides to the recognised instrument.
    policy : InputPolicy
        How strictly inputs are taken.

    Raises
    ------
    InputError
        With every problem of every file.
    CalibrationMissingError
        If a required calibration is missing and nothing else is wrong.
    """
    problems = Problems()
    dynamic = [spec for spec in declared.specs.values() if spec.kind != "static"]
    specs = {tag: spec for spec in dynamic for tag in spec.tags}
    raw_files: list[tuple[SofEntry, io.RawFile]] = []
    calibrations: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    user: dict[str, Path] = {}
    for entry in entries:
        if entry.tag is not None and entry.tag not in specs:
            problems.leave_out(entry.label, entry.tag)
            _check_unused(entry, problems)
        elif entry.tag in RAW_TAGS:
            raw = problems.attempt(lambda e=entry: io.open_raw(e.path), entry.place)  # type: ignore[misc]
            if raw and _is_raw(raw.header, entry, problems):
                raw_files.append((entry, raw))
        elif entry.tag in CALIBRATION_TAGS:
            _add_calibration(entry, calibrations, problems)
        elif entry.tag is None:
            _add_untagged(entry, raw_files, calibrations, specs, problems)
        else:
            _add_user_file(entry, user, problems)
    known = adapt(instrument or _recognise(raw_files, calibrations, dynamic, problems))
    raw_frames = _load_raw(raw_files, known, specs, problems)
    gathered = GatheredInputs(known, raw_frames, calibrations, user)
    check_inputs(gathered, dynamic, policy, problems)
    problems.raise_all()
    return replace(gathered, warnings=(*problems.left_out, *problems.warnings))


def load(
    gathered: GatheredInputs, declared: type[Declared]
) -> tuple[Declared, list[CalibrationFile]]:
    """Load what was gathered into the recipe's inputs.

    Returns
    -------
    inputs : Declared
        Stacks, products and parsed text files.
    used : list of CalibrationFile
        The calibrations that were taken, for provenance.
    """
    values: dict[str, Any] = {}
    used: list[CalibrationFile] = []
    for name, spec in declared.specs.items():
        if spec.kind == "static":
            values[name] = _static(spec, gathered.instrument)
        elif spec.kind == "raw" and gathered.raw.get(spec.tag):
            values[name] = FrameStack(tuple(gathered.raw[spec.tag]))
        elif spec.kind == "user" and spec.tag in gathered.user:
            values[name] = _user_file(gathered.user[spec.tag], spec, gathered.instrument)
        elif spec.kind == "calibration" and gathered.products(spec):
            chosen = _choose(gathered.products(spec), spec, gathered)
            used += chosen
            if spec.on_demand:
                values[name] = OnDemand(partial(io.read_product, chosen[0].path))
                continue
            products = [io.read_product(found.path) for found in chosen]
            values[name] = products if spec.several == "list" else products[0]
    return declared(**values), used


def _check_unused(entry: SofEntry, problems: Problems) -> None:
    """Look at a file that the recipe does not need: a wrong line is wrong all the same."""
    if entry.tag in CALIBRATION_TAGS:
        _add_calibration(entry, {}, problems)
    elif entry.tag in RAW_TAGS:
        raw = problems.attempt(lambda: io.open_raw(entry.path), entry.place)
        if raw:
            _is_raw(raw.header, entry, problems)
    else:
        _add_user_file(entry, {}, problems)


def _is_raw(header: Mapping[str, Any], entry: SofEntry, problems: Problems) -> bool:
    catg = header.get("ESO PRO CATG")
    if catg:
        problems.add(f"{entry.label}: tagged {entry.tag}, but its PRO.CATG is {catg}")
    return not catg


def _add_calibration(
    entry: SofEntry,
    calibrations: dict[str, list[tuple[Path, Mapping[str, Any]]]],
    problems: Problems,
) -> None:
    header = problems.attempt(lambda: io.read_header(entry.path), entry.place)
    if header is None:
        return
    catg = header.get("ESO PRO CATG")
    if catg != entry.tag:
        found = f"PRO.CATG is {catg}" if catg else "it is no product (no PRO.CATG)"
        problems.add(f"{entry.label}: tagged {entry.tag}, but {found}")
        return
    calibrations.setdefault(str(entry.tag), []).append((entry.path, header))


def _add_untagged(
    entry: SofEntry,
    raw_files: list[tuple[SofEntry, io.RawFile]],
    calibrations: dict[str, list[tuple[Path, Mapping[str, Any]]]],
    specs: Mapping[str, InputSpec],
    problems: Problems,
) -> None:
    header = problems.attempt(lambda: io.read_header(entry.path), entry.place)
    if header is None:
        return
    catg = header.get("ESO PRO CATG")
    if catg:
        if catg in specs:
            calibrations.setdefault(str(catg), []).append((entry.path, header))
        else:
            problems.leave_out(entry.label, str(catg))
        return
    raw = problems.attempt(lambda: io.open_raw(entry.path), entry.place)
    if raw:
        raw_files.append((entry, raw))


def _add_user_file(entry: SofEntry, user: dict[str, Path], problems: Problems) -> None:
    tag = str(entry.tag)
    if not entry.path.exists():
        problems.add(f"{entry.label}: no such file ({entry.path})")
    elif tag in user:
        problems.add(f"{entry.label}: a second {tag}; one is expected")
    else:
        problems.attempt(lambda: ancillary.check_user_file(entry.path, tag), entry.place)
    user[tag] = entry.path


def _recognise(
    raw_files: Sequence[tuple[SofEntry, io.RawFile]],
    calibrations: Mapping[str, list[tuple[Path, Mapping[str, Any]]]],
    specs: Sequence[InputSpec],
    problems: Problems,
) -> Instrument:
    shipped = shipped_instruments()
    for _, raw in raw_files:
        for instrument in shipped.values():
            if instrument.recognises(raw.header):
                return instrument
    names = {header.get("INSTRUME") for found in calibrations.values() for _, header in found}
    for instrument in shipped.values():
        if not raw_files and instrument.facts.name in names:
            return instrument
    problems.raise_all()
    if not raw_files and not calibrations:
        needed = " and ".join("/".join(spec.tags) for spec in specs if spec.required)
        raise InputError(
            "\n".join([*problems.left_out, f"there is nothing else; {needed} is needed"])
            if problems.left_out
            else f"there is no raw frame and no calibration among the inputs; {needed} is needed"
        )
    shown = raw_files[0][0].label if raw_files else "the inputs"
    raise InputError(
        f"{shown}: the header is of none of the known instruments ({', '.join(shipped)}); "
        "name one with --instrument NAME or FILE"
    )


def _load_raw(
    raw_files: Sequence[tuple[SofEntry, io.RawFile]],
    instrument: Instrument,
    specs: Mapping[str, InputSpec],
    problems: Problems,
) -> dict[str, list[RawFrame]]:
    frames: dict[str, list[RawFrame]] = {}
    for entry, raw in raw_files:
        if instrument.facts.recognise and not instrument.recognises(raw.header):
            problems.add(
                f"{entry.label}: the header is not of {instrument.facts.name} "
                f"(expected {', '.join(instrument.facts.recognise)})"
            )
            continue
        loaded = problems.attempt(lambda r=raw: io.load_frames(r, instrument), entry.place)  # type: ignore[misc]
        tag = _tag_of(entry, loaded[0].info, instrument, problems) if loaded else None
        if tag is None or tag not in specs:
            if loaded and tag:
                problems.leave_out(entry.label, tag)
            continue
        frames.setdefault(tag, []).extend(_tagged(frame, tag, entry) for frame in loaded)
    # In the order of the declaration: calibrations are compared with the main frames.
    return {tag: frames[tag] for tag in specs if tag in frames}


def _tagged(frame: RawFrame, tag: str, entry: SofEntry) -> RawFrame:
    keywords = dict(frame.info.keywords)
    if entry.lamp:
        keywords["lamp"] = entry.lamp.lower()
    keywords["place"] = entry.label
    return replace(frame, info=replace(frame.info, tag=tag, keywords=keywords))


def _tag_of(
    entry: SofEntry, info: FrameInfo, instrument: Instrument, problems: Problems
) -> str | None:
    ruled = {rule.tag for rule in instrument.facts.classify}
    if entry.tag is None:
        if info.tag is None:
            problems.add(f"{entry.label}: no rule tells what it is; write its tag in the SOF")
        return info.tag
    flat = entry.tag in _FLAT_FAMILY and entry.tag not in ruled and info.tag == "FLAT"
    if info.tag is not None and info.tag != entry.tag and not flat:
        problems.add(f"{entry.label}: tagged {entry.tag}, but header and file name say {info.tag}")
        return None
    return entry.tag


def _choose(
    found: Sequence[CalibrationFile], spec: InputSpec, gathered: GatheredInputs
) -> list[CalibrationFile]:
    if spec.several != "nearest_exptime" or len(found) == 1:
        return list(found)
    wanted = gathered.frames[0].info.exptime if gathered.frames else 0.0
    return [
        min(found, key=lambda one: abs(header_number(one.path, one.header, "EXPTIME") - wanted))
    ]


def _user_file(path: Path, spec: InputSpec, instrument: Instrument) -> Any:
    if spec.tag == "ASSIGN":
        text = ancillary.read_text(path)
        return ancillary.parse_assignment(text, instrument.facts.assignment, path.name)
    if spec.tag == "ARC_LINES":
        return ancillary.read_line_list(path)
    if spec.tag == "TELLURIC":
        return ancillary.read_transmission(path)
    if spec.tag == "STD_CATALOG":
        return ancillary.load_standard_star_catalog(path)
    if spec.tag == "TEMPLATES":
        return ancillary.read_templates(path)
    return path


def _static(spec: InputSpec, instrument: Instrument) -> Any:
    if spec.tag == "arc_lines":
        return ancillary.static_line_list(instrument.facts.lamps.line_list)
    if spec.tag == "sky_lines":
        return ancillary.static_line_list("sky_lines.ecsv")
    if spec.tag == "extinction":
        return ancillary.static_extinction()
    if spec.tag in ("telluric_regions", "stellar_lines"):
        return ancillary.load_mask_regions(spec.tag)
    raise SettingsError(f"unknown static calibration {spec.tag!r}")
