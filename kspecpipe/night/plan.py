"""From frames to jobs: what will be reduced, with which calibrations, and what cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.declare import InputSpec
from kspecpipe.errors import CalibrationMissingError, SettingsError
from kspecpipe.instrument import Instrument
from kspecpipe.night.associate import Candidate, Shelf, Slot, Wish
from kspecpipe.night.chain import RecipeClass, makes, needs
from kspecpipe.night.frames import FoundProduct, Listing, NightFrame, Problem
from kspecpipe.night.jobs import (
    Job,
    assignment_of,
    frame_infos,
    job_name,
    product_infos,
    wish_of,
    with_products,
)
from kspecpipe.night.organise import combinable, local_noon, night_of, night_split, nights_of
from kspecpipe.provenance import SCIENCE


@dataclass(frozen=True)
class Request:
    """What is to be planned.

    Parameters
    ----------
    output : Path
        Folder of the products.
    chain : sequence of recipes
        Recipes that may run, makers before takers.
    whole : sequence of recipes
        All recipes with which nights are reduced.
    instruments : mapping
        Instruments by name.
    modes : collection of str
        Instrument modes; empty: all.
    files : mapping
        The user's own files by tag.
    given : sequence of FoundProduct
        Calibrations that the user named.
    known : sequence of FoundProduct
        Products that are in the output already.
    verdicts : mapping
        What people decided, by DATAMD5: ``certified`` or ``rejected`` and why.
    broken : mapping
        Why recipes could not be loaded, by name.
    """

    output: Path
    chain: Sequence[RecipeClass]
    whole: Sequence[RecipeClass]
    instruments: Mapping[str, Instrument]
    modes: Collection[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    given: Sequence[FoundProduct] = ()
    known: Sequence[FoundProduct] = ()
    verdicts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """Frames that are not reduced, or a recipe that is not planned, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """All jobs, makers before takers, and what is missing."""

    jobs: tuple[Job, ...]
    gaps: tuple[Gap, ...]
    unplanned: Mapping[str, str]
    problems: tuple[Problem, ...]
    unknown: tuple[Problem, ...]
    shelf: Shelf

    def job(self, name: str) -> Job:
        """Return a job by its name."""
        return next(job for job in self.jobs if job.name == name)


def make_plan(listing: Listing, request: Request) -> Plan:
    """Plan all nights of a folder.

    Raises
    ------
    SettingsError
        If a mode was asked for of which there is no frame.
    """
    return _Planner(listing, request).plan()


class _Planner:
    """The steps of a plan, in their order."""

    def __init__(self, listing: Listing, request: Request) -> None:
        self.listing, self.request = listing, request
        self.frames = nights_of(listing.frames, request.instruments)
        self.gaps: list[Gap] = []
        self.unplanned = dict(request.broken)
        self.taken: dict[Path, str] = {}
        self.names: set[str] = set()
        self.jobs: list[Job] = []
        self.by_night: dict[tuple[str, str], list[NightFrame]] = {}
        self.splits = {
            name: night_split([f.mjd for f in self.frames if f.instrument == name], local_noon(one))
            for name, one in request.instruments.items()
        }

    def plan(self) -> Plan:
        """Find the jobs, then the candidates of each."""
        self._keep_modes()
        known = [self._candidate(one) for one in self.request.known]
        self.foreign = {one.path: one.night for one in known}
        for frame in self.frames:
            self.by_night.setdefault((frame.tag, frame.night), []).append(frame)
        for recipe in self.request.chain:
            self._plan_recipe(recipe, known)
        shelf = Shelf()
        promised = {one.path for job in self.jobs for one in job.products}
        shelf.add(replace(self._candidate(one), given=True) for one in self.request.given)
        shelf.add(one for one in known if one.path not in promised)
        shelf.add(one for job in self.jobs for one in job.products)
        jobs = tuple(self._with_calibrations(job, shelf) for job in self.jobs)
        faults = {one.path: one.fault for one in known if one.fault}
        return Plan(
            jobs=tuple(_with_faults(job, faults) for job in jobs),
            gaps=tuple(self.gaps),
            unplanned=self.unplanned,
            problems=self.listing.broken,
            unknown=self.listing.unknown,
            shelf=shelf,
        )

    def _keep_modes(self) -> None:
        """Leave out the frames of modes that were not asked for."""
        modes = self.request.modes
        if not modes:
            return
        free = {
            spec.tag
            for recipe in self.request.whole
            for spec in recipe.Inputs.specs.values()
            if recipe.by_readmode and spec.kind == "raw"
        }
        there = {frame.info.mode for frame in self.frames if frame.tag not in free}
        for mode in modes:
            if mode not in there:
                raise SettingsError(f"--mode {mode}: no frame is of it; {nearest(mode, there)}")
        self.frames = [f for f in self.frames if f.info.mode in modes or f.tag in free]

    def _plan_recipe(self, recipe: RecipeClass, known: Sequence[Candidate]) -> None:
        spec = recipe.find_main_input()
        lacking = self._lacking(recipe, known)
        if spec is None or lacking:
            self.unplanned[recipe.name] = lacking or "it declares no input"
        elif spec.kind == "raw":
            self._plan_frames(recipe, spec)
        else:
            self._plan_products(recipe, spec, known)

    def _lacking(self, recipe: RecipeClass, known: Sequence[Candidate]) -> str:
        """Return which files a recipe lacks that only the user can give; empty when none."""
        planned = {one.name for one in self.request.whole}
        tags = set(self.request.files) | {one.catg for one in self.request.given}
        tags |= {one.catg for one in known if one.recipe not in planned}
        needed = [
            spec.tag
            for spec in recipe.Inputs.specs.values()
            if spec.kind == "user" and spec.required and spec.tag not in tags
        ]
        try:
            recipe(log=False).check_tags(tags)
        except CalibrationMissingError as error:
            return f"{error} (give it by --with TAG=PATH)"
        return f"no {', '.join(needed)}: give it by --with TAG=PATH" if needed else ""

    def _plan_frames(self, recipe: RecipeClass, spec: InputSpec) -> None:
        """Plan the jobs of a recipe that starts from raw frames."""
        alone = all(made.per_exposure for made in recipe.Products.specs.values())
        by_mode = not recipe.by_readmode
        for night in sorted(night for tag, night in self.by_night if tag == spec.tag):
            sets = combinable(self.by_night[spec.tag, night], spec, by_mode=by_mode)
            sets = [[frame] for one in sets for frame in one] if alone else sets
            enough = [one for one in sets if _count(one) >= spec.recommended]
            for found in sorted(sets, key=lambda one: one[0].mjd):
                better = [] if alone else [one for one in enough if _rivals(one, found, by_mode)]
                if _count(found) < spec.at_least:
                    self._gap(found, f"at least {spec.at_least} are needed for {recipe.name}")
                elif better and found not in enough:
                    shown = f"{len(better[0])} others of the night are used for {recipe.name}"
                    self._gap(found, f"{shown} ({better[0][0].info.exptime:g} s)")
                else:
                    self._add(self._job(recipe, found, alone))

    def _job(self, recipe: RecipeClass, frames: Sequence[NightFrame], alone: bool) -> Job:
        wish = wish_of(frames[0])
        further = [
            frame
            for spec in recipe.Inputs.specs.values()
            if spec.kind == "raw" and spec.tag != frames[0].tag
            for frame in self._companions(spec, frames[0])
        ]
        name = job_name(recipe, wish, frame_infos(frames), alone)
        return Job(name=name, recipe=recipe, wish=wish, frames=(*frames, *further))

    def _companions(self, spec: InputSpec, first: NightFrame) -> list[NightFrame]:
        """Return the frames of a further raw input: of the same night, and alike."""
        names = [name for name in (*spec.match, "instrument") if name != "exptime"]
        alike = [first.value(name) for name in names]
        return [
            frame
            for frame in self.by_night.get((spec.tag, first.night), [])
            if [frame.value(name) for name in names] == alike
        ]

    def _plan_products(
        self, recipe: RecipeClass, spec: InputSpec, known: Sequence[Candidate]
    ) -> None:
        """Plan the jobs of a recipe that starts from products of others."""
        planned = [p for job in self.jobs for p in job.products if p.catg in spec.tags]
        found = planned or [p for p in known if p.catg in spec.tags and not p.fault]
        # Of several categories that will do, the one farthest along the chain.
        order = [catg for one in self.request.whole for catg in sorted(makes(one))]
        last = max((order.index(p.catg) for p in found if p.catg in order), default=-1)
        found = [p for p in found if p.catg in order and order.index(p.catg) == last]
        names = dict.fromkeys(("instrument", *spec.match))
        sets: dict[object, list[Candidate]] = {}
        for one in found:
            key: object = (one.night, *(one.values.get(name) for name in names))
            sets.setdefault(key, []).append(one)
        for members in sets.values():
            if len(members) < max(spec.at_least, 1):
                shown = f"{members[0].catg} of {members[0].path.stem}"
                self.gaps.append(Gap(shown, f"{spec.at_least} are needed for {recipe.name}"))
                continue
            wish = Wish(members[0].values, members[0].mjd, members[0].night)
            name = job_name(recipe, wish, product_infos(members), False)
            self._add(Job(name=name, recipe=recipe, wish=wish, members=tuple(members)))

    def _add(self, job: Job) -> None:
        """Add a job; where its products would be those of another, its names tell the time."""
        job = replace(self._with_user_files(job), name=self._unique(job.name))
        done = with_products(job, self.request.output)
        clash = self._clash(done)
        if clash:
            infos = frame_infos(job.main_frames) or product_infos(job.members)
            time = infos[0].date_obs[11:19].replace(":", "")
            done = with_products(replace(job, qualifier=time), self.request.output)
        if self._clash(done):
            frames = job.main_frames
            self._gap(frames, f"its products would be those of {clash}: was the clock wrong?")
            return
        self.taken |= {one.path: job.name for one in done.products}
        self.jobs.append(done)

    def _clash(self, job: Job) -> str:
        """Return whose products a job's would replace: another job's, or another night's."""
        for one in job.products:
            if one.path in self.taken:
                return self.taken[one.path]
            if self.foreign.get(one.path, one.night) != one.night:
                return f"the night {self.foreign[one.path]}"
        return ""

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self.names:
            number += 1
            unique = f"{name}_{number}"
        self.names.add(unique)
        return unique

    def _with_user_files(self, job: Job) -> Job:
        files: dict[str, Path] = {}
        notes: list[str] = []
        for spec in job.recipe.Inputs.specs.values():
            if spec.kind != "user":
                continue
            if spec.tag == "ASSIGN":
                files |= self._assignment(job, notes)
            elif spec.tag in self.request.files:
                files[spec.tag] = self.request.files[spec.tag]
        return replace(job, user=files, notes=tuple(notes))

    def _assignment(self, job: Job, notes: list[str]) -> dict[str, Path]:
        """Find the assignment of a job's target; one that the user gave serves all targets."""
        instrument = self.request.instruments[str(job.wish.values["instrument"])]
        given = self.request.files.get("ASSIGN")
        texts: Mapping[str, Sequence[Path]] = self.listing.texts
        if given is not None and given.is_dir():
            texts = {p.name.lower(): (p,) for p in given.iterdir()}
        name, found = assignment_of(job, instrument, texts)
        if given is not None and not given.is_dir() and name:
            found = given
        if found is not None:
            return {"ASSIGN": found}
        if name and job.frames and makes(job.recipe) & SCIENCE:
            notes.append(f"no {name}: all fibres count as program fibres, no sky is subtracted")
        return {}

    def _with_calibrations(self, job: Job, shelf: Shelf) -> Job:
        upstream = needs(job.recipe, self.request.whole)
        without = {one.name for one in self.request.whole if one not in upstream}
        slots: list[Slot] = []
        for spec in job.recipe.Inputs.specs.values():
            if spec.kind == "calibration" and not self._is_main(spec, job):
                slots += shelf.slots(spec, job.wish, without)
        return replace(job, slots=tuple(slots))

    @staticmethod
    def _is_main(spec: InputSpec, job: Job) -> bool:
        """Return whether an input is the main one, or one that would do in its place."""
        return bool(job.members) and spec.several == "list"

    def _candidate(self, found: FoundProduct) -> Candidate:
        """Return a product on disk as a candidate, with what people and limits say of it."""
        word, why = self.request.verdicts.get(found.md5, ("", ""))
        fault = f"rejected: {why}" if word == "rejected" else ""
        if found.failed and word != "certified":
            fault = fault or f"its quality control failed ({', '.join(found.failed)})"
        split = self.splits.get(str(found.values.get("instrument")), 0.5)
        return Candidate(
            catg=found.catg,
            path=found.path,
            recipe=found.recipe,
            values=found.values,
            mjd=found.mjd,
            night=night_of(found.mjd, split),
            fault=fault,
            certified=word == "certified",
        )

    def _gap(self, frames: Sequence[NightFrame], why: str) -> None:
        if not frames:
            return
        first = frames[0]
        tail = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
        what = f"{first.night}: {_count(frames)} {first.tag} ({first.path.name}{tail})"
        self.gaps.append(Gap(what, why))


def _with_faults(job: Job, faults: Mapping[Path, str]) -> Job:
    """Note which products of an earlier run will not be used unless they come out anew."""
    notes = tuple(
        f"{one.path.name} is there, and of no use unless it comes out anew: {faults[one.path]}"
        for one in job.products
        if one.path in faults
    )
    return replace(job, notes=job.notes + notes)


def _count(frames: Iterable[NightFrame]) -> int:
    return sum(frame.planes for frame in frames)


def _rivals(one: Sequence[NightFrame], other: Sequence[NightFrame], by_mode: bool) -> bool:
    """Return whether two sets of one night would make the same product."""
    if one is other:
        return False
    a, b = one[0], other[0]
    same = a.instrument == b.instrument and a.info.layout == b.info.layout
    name = "mode" if by_mode else "readmode"
    return same and a.value(name) == b.value(name)
