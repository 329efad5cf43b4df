"""Whether the inputs of a run fit their declarations, each other and the frames they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kspecpipe.declare import InputSpec
from kspecpipe.errors import CalibrationMissingError
from kspecpipe.frame import RawFrame
from kspecpipe.framework.assignment import wrong_assignment
from kspecpipe.framework.gathered import GatheredInputs, InputPolicy, header_number
from kspecpipe.framework.problems import Problems
from kspecpipe.qc import BAD_FLAGS

_ATTRIBUTE_CARDS = {"mode": "INSMODE", "readmode": "READMODE", "target": "OBJECT"}


def check_inputs(
    gathered: GatheredInputs,
    specs: Sequence[InputSpec],
    policy: InputPolicy,
    problems: Problems,
) -> None:
    """Check numbers, agreement, quality and age of all inputs against their declarations.

    Parameters
    ----------
    gathered : GatheredInputs
        The files.
    specs : sequence of InputSpec
        What the recipe declares, without its static calibrations.
    policy : InputPolicy
        How strictly inputs are taken.
    problems : Problems
        Collects what is wrong; nothing is raised.
    """
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
