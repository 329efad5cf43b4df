"""Check the input frames of a recipe and load them; all problems are reported together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from kspecpipe import ancillary, io
from kspecpipe.assignment import wrong_assignment
from kspecpipe.declare import Declared, InputSpec
from kspecpipe.errors import CalibrationMissingError, InputError, SettingsError
from kspecpipe.frame import FrameInfo, FrameStack, RawFrame
from kspecpipe.instrument import Instrument, shipped_instruments
from kspecpipe.problems import Problems
from kspecpipe.qc import BAD_FLAGS
from kspecpipe.quality.store import Verdict
from kspecpipe.sky.telluric import parse_telluric_regions
from kspecpipe.sof import CALIBRATION_TAGS, RAW_TAGS, SofEntry

#: Frames that the rules of an instrument may call FLAT while the user knows better.
_FLAT_FAMILY = ("FLATOFF", "LFLAT", "SKYFLAT")
_ATTRIBUTE_CARDS = {"mode": "INSMODE", "readmode": "READMODE", "target": "OBJECT"}


class CalibrationFile(NamedTuple):
    """A calibration product among the inputs."""

    tag: str
    path: Path
    header: Mapping[str, Any]


@dataclass(frozen=True)
class GatheredInputs:
    """The files of a recipe after verification, before calibrations are loaded.

    Parameters
    ----------
    instrument : Instrument
        Instrument of all of them.
    raw : dict
        Frames by tag.
    calibrations : dict
        Path and primary header by tag.
    user : dict
        Path by tag.
    """

    instrument: Instrument
    raw: dict[str, list[RawFrame]]
    calibrations: dict[str, list[tuple[Path, Mapping[str, Any]]]]
    user: dict[str, Path]
    warnings: tuple[str, ...] = ()

    @property
    def tags(self) -> frozenset[str]:
        """Tags of which there is a file."""
        return frozenset({*self.raw, *self.calibrations, *self.user})

    @property
    def frames(self) -> list[RawFrame]:
        """All raw frames in their order."""
        return [frame for frames in self.raw.values() for frame in frames]

    def products(self, spec: InputSpec) -> list[CalibrationFile]:
        """Return the products that an input takes, of whichever of its tags."""
        return [
            CalibrationFile(tag, *found)
            for tag in spec.tags
            for found in self.calibrations.get(tag, [])
        ]


@dataclass(frozen=True)
class InputPolicy:
    """How strictly inputs are taken; ``verdicts`` are what people decided, by DATAMD5."""

    ignore_input_qc: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


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
    _check(gathered, dynamic, policy, problems)
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


def _check(
    gathered: GatheredInputs,
    specs: Sequence[InputSpec],
    policy: InputPolicy,
    problems: Problems,
) -> None:
    _check_copies(gathered.frames, problems)
    if "ASSIGN" in gathered.user:
        pattern = gathered.instrument.facts.assignment.file
        infos = [frame.info for frame in gathered.raw.get("OBJECT", [])]
        wrong = wrong_assignment(gathered.user["ASSIGN"].name, pattern, infos)
        if wrong:
            problems.add(wrong)
    main = next((gathered.raw.get(spec.tag, []) for spec in specs if spec.kind == "raw"), [])
    for spec in specs:
        if spec.kind == "raw":
            own = gathered.raw.get(spec.tag, [])
            _check_count(spec, len(own), problems)
            _check_raw_match(own, spec, problems)
            if main and own and own != main:
                # Flats with the lamp off, or of the sky, must suit the frames that they are for.
                common = tuple(name for name in spec.match if name in ("shape", "mode"))
                _check_raw_match([main[0], own[0]], replace(spec, match=common), problems)
        elif spec.kind == "calibration":
            _check_calibrations(spec, gathered, policy, problems)
        elif spec.required and spec.tag not in gathered.user:
            problems.add(f"no {spec.tag}; one is needed ({spec.doc})")


def _check_copies(frames: Sequence[RawFrame], problems: Problems) -> None:
    """Refuse files with the pixels and keywords of another: they would count twice."""
    first: dict[str, RawFrame] = {}
    copies: dict[str, str] = {}
    for frame in frames:
        original, place = first.setdefault(frame.info.md5, frame), frame.info.keywords["place"]
        if original.info.keywords["place"] != place:
            copies.setdefault(place, original.info.name)
    for place, name in copies.items():
        problems.add(f"{place}: is a copy of {name} (equal pixels and keywords)")


def _check_count(spec: InputSpec, count: int, problems: Problems) -> None:
    frames = f"{count} {spec.label} frames"
    if count < spec.at_least:
        problems.add(f"{frames}; at least {spec.at_least} needed ({spec.doc})")
    elif spec.at_most is not None and count > spec.at_most:
        problems.add(f"{frames}; at most {spec.at_most} can be used ({spec.doc})")
    elif 0 < count < spec.recommended:
        problems.warnings.append(f"{frames}; {spec.recommended} are recommended")


def _check_raw_match(frames: Sequence[RawFrame], spec: InputSpec, problems: Problems) -> None:
    for attribute in spec.match:
        first: dict[Any, RawFrame] = {}
        for frame in frames:
            group = frame.info.keywords.get("lamp") if attribute == "exptime" else None
            reference = first.setdefault(group, frame)
            expected, found = (_attribute(f, attribute) for f in (reference, frame))
            if not _agree(expected, found, spec.tolerance.get(attribute, 0.0)):
                problems.add(
                    f"{frame.info.keywords['place']}: {attribute} is {found}, "
                    f"but {expected} in {reference.info.name}; they cannot be combined"
                )


def _attribute(frame: RawFrame, attribute: str) -> Any:
    if attribute == "shape":
        return "x".join(map(str, frame.shape))
    if attribute == "layout":
        return frame.info.layout
    return getattr(frame.info, attribute)


def _agree(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return abs(expected - found) <= max(tolerance, 1e-3) * max(abs(expected), abs(found))
    return bool(expected == found)


def _check_calibrations(
    spec: InputSpec,
    gathered: GatheredInputs,
    policy: InputPolicy,
    problems: Problems,
) -> None:
    found = gathered.products(spec)
    if found:
        _check_count(spec, len(found), problems)
    elif spec.required:
        problems.add(f"no {spec.label}, which is needed ({spec.doc})", CalibrationMissingError)
    names = ", ".join(one.path.name for one in found)
    if len(found) > 1 and spec.several == "error":
        problems.add(f"{len(found)} files of {spec.label} ({names}); one is expected")
    first: dict[Any, Path] = {}
    for one in found:
        original = first.setdefault(one.header.get("DATAMD5", one.path), one.path)
        if original != one.path:
            problems.add(f"{one.path.name}: is a copy of {original.name} (equal data)")
    if len({one.tag for one in found}) > 1:
        problems.add(f"{spec.label} cannot be mixed ({names}); give files of one of these tags")
    for _, path, header in found:
        _check_calibration(path, header, spec, gathered, problems)
        _check_quality(path, header, policy, problems)


def _check_quality(
    path: Path, header: Mapping[str, Any], policy: InputPolicy, problems: Problems
) -> None:
    """Refuse what a person rejected, and what failed unless a person certified it."""
    verdict = policy.verdicts.get(str(header.get("DATAMD5")))
    bad = ", ".join(_failed_metrics(header))
    if verdict and verdict.verdict == "rejected":
        problems.add(f"{path.name}: was {verdict}; `kspec qc certify` takes that back")
    elif verdict and bad:
        problems.warnings.append(f"{path.name}: {bad} failed, but it was {verdict}")
    elif bad and not policy.ignore_input_qc:
        problems.add(
            f"{path.name}: its quality control failed ({bad}); "
            "--ignore-input-qc takes it all the same"
        )


def _check_calibration(
    path: Path,
    header: Mapping[str, Any],
    spec: InputSpec,
    gathered: GatheredInputs,
    problems: Problems,
) -> None:
    name = gathered.instrument.facts.name
    if header.get("INSTRUME") != name:
        problems.add(f"{path.name}: is of the instrument {header.get('INSTRUME')}, not {name}")
        return
    for attribute, (reference, expected) in _expected(spec, gathered).items():
        found = header.get(_card(attribute))
        if expected != found:
            problems.add(
                f"{path.name} ({spec.tag}): {attribute} is {found}, but {expected} in {reference}"
            )
    for frame in gathered.frames[:1]:
        date = problems.attempt(lambda: header_number(path, header, "MJD-OBS"))
        age = 0.0 if date is None else abs(frame.info.mjd - date)
        if spec.maximum_age is not None and age > spec.maximum_age:
            problems.warnings.append(
                f"{path.name}: {age:.1f} days from {frame.info.name}; "
                f"at most {spec.maximum_age:g} are recommended"
            )


def _expected(spec: InputSpec, gathered: GatheredInputs) -> dict[str, tuple[str, Any]]:
    """Return name and value of what must match: of the first raw frame, else the first product."""
    for frame in gathered.frames[:1]:
        return {name: (frame.info.name, _attribute(frame, name)) for name in spec.match}
    path, header = next(iter(gathered.calibrations.values()))[0]
    return {name: (path.name, header.get(_card(name))) for name in spec.match}


def _card(attribute: str) -> str:
    return _ATTRIBUTE_CARDS.get(attribute, f"ESO PRO {attribute.upper()}")


def _failed_metrics(header: Mapping[str, Any]) -> list[str]:
    return [
        card.removeprefix("ESO QC ").removesuffix(" FLAG")
        for card, value in header.items()
        if card.startswith("ESO QC ") and card.endswith(" FLAG") and value in BAD_FLAGS
    ]


def _choose(
    found: Sequence[CalibrationFile], spec: InputSpec, gathered: GatheredInputs
) -> list[CalibrationFile]:
    if spec.several != "nearest_exptime" or len(found) == 1:
        return list(found)
    wanted = gathered.frames[0].info.exptime if gathered.frames else 0.0
    return [
        min(found, key=lambda one: abs(header_number(one.path, one.header, "EXPTIME") - wanted))
    ]


def header_number(path: Path, header: Mapping[str, Any], card: str) -> float:
    """Return a number from the header of a product."""
    value = header.get(card)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{path.name}: {card} is {value!r}; a number was expected")
    return float(value)


def _user_file(path: Path, spec: InputSpec, instrument: Instrument) -> Any:
    if spec.tag == "ASSIGN":
        text = ancillary.read_text(path)
        return ancillary.parse_assignment(text, instrument.facts.assignment, path.name)
    if spec.tag == "ARC_LINES":
        return ancillary.read_line_list(path)
    if spec.tag == "TELLURIC":
        return ancillary.read_transmission(path)
    if spec.tag == "STD_CATALOG":
        return ancillary.read_catalogue(path)
    if spec.tag == "TEMPLATES":
        return ancillary.read_templates(path)
    return path


def _static(spec: InputSpec, instrument: Instrument) -> Any:
    if spec.tag == "arc_lines":
        return ancillary.static_line_list(instrument.facts.lamps.line_list)
    if spec.tag == "sky_lines":
        return ancillary.static_line_list("sky_lines.ecsv")
    if spec.tag == "telluric_regions":
        return parse_telluric_regions(ancillary.static_text("telluric_regions.ecsv"))
    if spec.tag == "extinction":
        return ancillary.static_extinction()
    if spec.tag in ("telluric_masks", "stellar_masks"):
        names = {"telluric_masks": "telluric_regions.ecsv", "stellar_masks": "stellar_lines.ecsv"}
        return ancillary.static_regions(names[spec.tag])
    raise SettingsError(f"unknown static calibration {spec.tag!r}")
