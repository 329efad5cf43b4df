"""One job of a night: a recipe, its frames, what it will make, and its set-of-files list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kspecpipe.base_recipe import BaseRecipe
from kspecpipe.frame import FrameInfo
from kspecpipe.framework.writing import file_stem
from kspecpipe.instrument import Instrument
from kspecpipe.night.associate import Candidate, Choice, Slot, Wish
from kspecpipe.night.frames import NightFrame
from kspecpipe.provenance import exposure_qualifier, sanitise
from kspecpipe.sof import format_entry

#: Folder below the output for the lists, logs and records of the jobs.
JOBS = "jobs"
# By hand: type checkers do not take a class with an instance's __hash__ for a key of `cache`.
_SILENT: dict[type[BaseRecipe], BaseRecipe] = {}


@dataclass(frozen=True)
class Job:
    """One run of a recipe, not yet tied to calibrations.

    Parameters
    ----------
    name : str
        Unique name; its list, log and record are called so.
    recipe : type of BaseRecipe
        The recipe.
    wish : Wish
        What its first frame asks of calibrations.
    frames : tuple of NightFrame
        Raw frames of all tags.
    members : tuple of Candidate
        Products that are the main input, for recipes without raw frames.
    user : mapping
        The user's own files by tag.
    slots : tuple of Slot
        Candidates for each calibration.
    products : tuple of Candidate
        What it will make.
    qualifier : str
        Kept in the product names, where they would be those of another job.
    notes : tuple of str
        What the user should know before it runs.
    """

    name: str
    recipe: type[BaseRecipe]
    wish: Wish
    frames: tuple[NightFrame, ...] = ()
    members: tuple[Candidate, ...] = ()
    user: Mapping[str, Path] = field(default_factory=dict)
    slots: tuple[Slot, ...] = ()
    products: tuple[Candidate, ...] = ()
    qualifier: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def main_tag(self) -> str:
        """Tag of the input that dates the products."""
        spec = self.recipe.find_main_input()
        return self.members[0].catg if self.members else spec.tag if spec else ""

    @cached_property
    def main_frames(self) -> list[NightFrame]:
        """Raw frames of the main input."""
        return [frame for frame in self.frames if frame.tag == self.main_tag]

    @property
    def depends(self) -> set[str]:
        """Names of the jobs whose end it may wait for."""
        found = {member.job for member in self.members}
        found |= {choice.candidate.job for slot in self.slots for choice in slot.ranked}
        return found - {""}

    @property
    def mode(self) -> str:
        """Instrument mode, or read-out mode where that is what counts."""
        return str(self.wish.values["readmode" if self.recipe.by_readmode else "mode"])

    @property
    def memory(self) -> float:
        """Memory that the run needs beyond the interpreter [byte]."""
        shape = str(self.wish.values.get("shape") or "0x0").split("x")
        return self.recipe.bytes_per_pixel * int(shape[0]) * int(shape[-1])

    def sof(self, chosen: Sequence[Choice], folder: Path) -> str:
        """Return the set-of-files list for calibrations that were chosen."""
        lines = [f"# {self.recipe.name}: {self.name}"]
        lines += [format_entry(frame.path, frame.tag, folder) for frame in self.frames]
        lines += [format_entry(one.path, one.catg, folder) for one in self.members]
        for choice in chosen:
            lines.append(f"# {choice.reason}")
            lines.append(format_entry(choice.candidate.path, choice.candidate.catg, folder))
        lines += [format_entry(path, tag, folder) for tag, path in sorted(self.user.items())]
        return "\n".join(lines) + "\n"


def wish_of(frame: NightFrame) -> Wish:
    """Return what a raw frame asks of its calibrations."""
    names = ("mode", "readmode", "shape", "layout", "exptime", "target")
    values = {name: frame.value(name) or "" for name in names}
    return Wish(values | {"instrument": frame.instrument}, frame.mjd, frame.night)


def frame_infos(frames: Sequence[NightFrame]) -> list[FrameInfo]:
    """Return one info for each plane of the frames, named as the recipes name them."""
    infos = []
    for frame in frames:
        if frame.planes == 1:
            infos.append(frame.info)
            continue
        names = (f"{frame.info.name}[{i + 1}]" for i in range(frame.planes))
        infos += [replace(frame.info, name=name) for name in names]
    return infos


def product_infos(members: Sequence[Candidate]) -> list[FrameInfo]:
    """Return the infos of products that are a recipe's main input."""
    return [
        FrameInfo(
            name=one.path.name,
            tag=one.catg,
            mode=str(one.values.get("mode", "")),
            readmode=str(one.values.get("readmode", "")),
            date_obs=str(one.values.get("date_obs", "")),
            mjd=one.mjd,
            exptime=float(one.values.get("exptime") or 0.0),
            keywords={"target": one.values.get("target"), "shape": one.values.get("shape")},
            layout=str(one.values.get("layout", "")),
        )
        for one in members
    ]


def with_products(job: Job, output: Path) -> Job:
    """Return the job with the products that it will make."""
    infos = frame_infos(job.main_frames) or product_infos(job.members)
    recipe = _silent(job.recipe)
    qualifier = "_".join(part for part in (_own_qualifier(recipe, job), job.qualifier) if part)
    spec = recipe.main_input
    lacking = max(0, (spec.recommended if spec else 0) - len(infos))
    products = []
    for made in recipe.Products.specs.values():
        for exposure in range(len(infos)) if made.per_exposure else [None]:
            info = recipe.representative(infos) if exposure is None else infos[exposure]
            values = dict(job.wish.values) | {
                "mode": info.mode,
                "exptime": info.exptime,
                "target": info.keywords.get("target") or "",
                "date_obs": info.date_obs,
            }
            products.append(
                Candidate(
                    catg=made.catg,
                    path=output / f"{file_stem(recipe, made, infos, qualifier, exposure)}.fits",
                    recipe=recipe.name,
                    values=values,
                    mjd=info.mjd,
                    night=job.wish.night,
                    job=job.name,
                    lacking=lacking,
                )
            )
    return replace(job, products=tuple(products))


def _silent(recipe: type[BaseRecipe]) -> BaseRecipe:
    """Return a recipe to ask, not to run: one for all jobs, as each would have a log of its own."""
    if recipe not in _SILENT:
        _SILENT[recipe] = recipe(log=False)
    return _SILENT[recipe]


def _own_qualifier(recipe: BaseRecipe, job: Job) -> str:
    """Ask the recipe for its qualifier with inputs of which only the headers are known."""
    known: dict[str, Any] = dict.fromkeys(recipe.Inputs.specs)
    for name, spec in recipe.Inputs.specs.items():
        infos = frame_infos([frame for frame in job.frames if frame.tag == spec.tag])
        if spec.kind == "raw" and infos:
            known[name] = SimpleNamespace(infos=infos)
        if spec.kind == "calibration" and job.main_tag in spec.tags:
            known[name] = [SimpleNamespace(header=_header(one)) for one in job.members]
    return recipe.qualifier(SimpleNamespace(**known))


def _header(candidate: Candidate) -> dict[str, Any]:
    """Return the cards of a product that is yet to be made, as far as they are known."""
    values = candidate.values
    return {
        "OBJECT": values.get("target", ""),
        "INSMODE": values.get("mode", ""),
        "EXPTIME": values.get("exptime", 0.0),
        "MJD-OBS": candidate.mjd,
    }


def job_name(recipe: type[BaseRecipe], wish: Wish, infos: Sequence[FrameInfo], alone: bool) -> str:
    """Return a name for a job: night, mode, recipe, and the exposure where there is one."""
    mode = wish.values["readmode" if recipe.by_readmode else "mode"]
    exposure = exposure_qualifier(infos[0]) if alone else ""
    parts = [wish.night.replace("-", ""), str(mode), recipe.name, exposure]
    return "_".join(part for part in (sanitise(part) for part in parts) if part)


def assignment_of(
    job: Job, instrument: Instrument, texts: Mapping[str, Sequence[Path]]
) -> tuple[str, Path | None]:
    """Return the name of the assignment of a job's target, and the nearest file of that name."""
    keywords: Mapping[str, Any] = {"target": job.wish.values.get("target") or None}
    if job.main_frames:
        keywords = job.main_frames[0].info.keywords
    name = Path(instrument.assignment_name(keywords)).name
    found = list(texts.get(name.lower(), ())) if name else []
    if not found:
        return name, None
    place = job.frames[0].path.parent if job.frames else Path()
    return name, max(found, key=lambda path: (_common(path, place), str(path)))


def _common(path: Path, place: Path) -> int:
    """Return how many leading folders two paths share."""
    pairs = zip(path.parent.parts, place.parts, strict=False)
    shared = 0
    for one, other in pairs:
        if one != other:
            break
        shared += 1
    return shared
