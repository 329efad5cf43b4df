"""From a folder of raw frames and the words of the user to a plan, and to its execution."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kspecpipe.configuration import layered_settings as layered
from kspecpipe.errors import InputError, ProductError, SettingsError
from kspecpipe.framework import writing
from kspecpipe.framework.execution import shipped_layers
from kspecpipe.framework.outcome import Outcome, RunOptions
from kspecpipe.framework.registry import recipe_names
from kspecpipe.instrument import Instrument
from kspecpipe.night.chain import load_chain, only, until
from kspecpipe.night.execute import Coordinator, Reporter, Result, Services
from kspecpipe.night.frames import FoundProduct, Listing
from kspecpipe.night.index import Memory, Rules, cache_file, scan, scan_file
from kspecpipe.night.ledger import Settings, stamp_of
from kspecpipe.night.plan import Plan, Request, make_plan
from kspecpipe.night.pool import Pool
from kspecpipe.night.user_files import found_files, read_given
from kspecpipe.quality.store import STORE_NAME, StoreError, knows, record_run, verdicts

_LOCK = ".kspec_reduce.lock"
_PATIENCE = 0.5  # [s] between looks at a lock


@dataclass(frozen=True)
class Selection:
    """What part of a night is wanted, and what the user gives.

    Parameters
    ----------
    given : sequence of str
        ``TAG=PATH`` words.
    until : str or None
        Last recipe.
    only : sequence of str
        These recipes and no others.
    modes : sequence of str
        These instrument modes and no others.
    """

    given: Sequence[str] = ()
    until: str | None = None
    only: Sequence[str] = ()
    modes: Sequence[str] = ()


@dataclass
class Session:
    """One command on one folder of raw frames.

    Parameters
    ----------
    raw : Path
        Folder of raw frames.
    options : RunOptions
        How every recipe is run.
    selection : Selection
        What is wanted.
    cache : Path or None
        Where headers are remembered.
    warn : callable
        Is told what is wrong and stops nothing.
    """

    raw: Path
    options: RunOptions
    selection: Selection = field(default_factory=Selection)
    cache: Path | None = field(default_factory=cache_file)
    warn: Callable[[str], None] = logging.getLogger("kspecpipe").warning
    _verdicts: Mapping[str, tuple[str, str]] = field(default_factory=dict, init=False)
    _warned: set[str] = field(default_factory=set, init=False)
    _products: dict[Path, FoundProduct] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Load instruments and recipes; wrong settings are found before anything is read."""
        self.rules = Rules.of(self.options.instrument)
        self.memory = Memory(self.cache)
        self.whole, self.broken = load_chain()
        for name in (self.selection.until, *self.selection.only):
            if name and name in self.broken:
                raise SettingsError(self.broken[name])
        chain = list(self.whole)
        if self.selection.until:
            chain = until(chain, self.selection.until)
        if self.selection.only:
            chain = only(chain, self.selection.only)
        self.chain = chain
        self.instruments = {one.facts.name: one for one in self.rules.instruments.values()}
        self._check_settings()

    def _check_settings(self) -> None:
        """Refuse wrong settings before anything is read; they also name the history."""
        options = self.options
        overrides = layered.Overrides(options.settings_files, options.assignments, options.settings)
        user = layered.user_layers(overrides, recipe_names())
        named = layered.qc_settings(user).store
        own = self.options.output / STORE_NAME
        self.store = self.options.qc_store or (Path(named).expanduser() if named else own)
        for instrument in self.instruments.values():
            layers = shipped_layers(instrument, "", options.instrument or "")
            for recipe in self.whole:
                layered.resolve(recipe.describe(), [*layers, *user])

    def look(self) -> Listing:
        """Scan the raw frames.

        Raises
        ------
        InputError
            If there is no such folder, or nothing in it that can be reduced.
        """
        listing = scan(self.raw, self.rules, self.memory, skip=[self.options.output])
        if not listing.frames:
            raise InputError(_nothing(self.raw, listing, self.instruments))
        return listing

    def plan(self, listing: Listing | None = None) -> Plan:
        """Plan what is to be done."""
        listing = listing or self.look()
        given = read_given(self.selection.given, self.rules, self.memory)
        request = Request(
            output=self.options.output.resolve(),
            chain=self.chain,
            whole=self.whole,
            instruments=self.instruments,
            modes=self.selection.modes,
            files=found_files(listing.texts) | dict(given.files),
            given=given.products,
            known=self._known(),
            verdicts=self.verdicts(),
            broken=self.broken,
        )
        return make_plan(listing, request)

    def _known(self) -> Sequence[FoundProduct]:
        """Return the products that are in the output already."""
        if not self.options.output.is_dir():
            return ()
        found = scan(self.options.output, self.rules, self.memory, deep=False).products
        self._products = {one.path: one for one in found}
        return found

    def verdicts(self) -> Mapping[str, tuple[str, str]]:
        """Return what people decided on products, by DATAMD5; if unreadable, what was known."""
        try:
            found = verdicts(self.store)
        except StoreError as error:
            self._warn_once(f"it is not known which calibrations were rejected: {error}")
        else:
            self._verdicts = {md5: (v.verdict, f"{v.who}, {v.why}") for md5, v in found.items()}
        return self._verdicts

    def execute(
        self, plan: Plan, pool: Callable[[], Pool], reporter: Reporter
    ) -> dict[str, Result]:
        """Run a plan; returns what came of each job."""
        self.warn = reporter.note
        services = Services(
            settings=Settings(self.instruments, self.options),
            pool=pool,
            reporter=reporter,
            record=self._record,
            fault_of=self._fault_of,
        )
        return Coordinator(plan, services).run()

    def _record(self, outcome: Outcome) -> None:
        try:
            if outcome.record is None or (outcome.unchanged and knows(self.store, outcome.record)):
                return
            # What was made by a run that was killed before it could tell is told now.
            record_run(self.store, outcome.record)
        except StoreError as error:
            self._warn_once(f"the QC history was not written: {error}")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def _fault_of(self, path: Path) -> str:
        """Say why a product may not be used: people's verdict outweighs the limits."""
        known = self._products.get(path.resolve())
        if known is not None and known.stamp != stamp_of(path):
            known = None
        found = known or scan_file(path, self.rules)
        if not isinstance(found, FoundProduct):
            return found.reason if hasattr(found, "reason") else "it is no product"
        word, why = self.verdicts().get(found.md5, ("", ""))
        if word == "rejected":
            return f"rejected: {why}"
        if found.failed and word != "certified" and not self.options.ignore_input_qc:
            return f"its quality control failed ({', '.join(found.failed)})"
        return ""


def _nothing(folder: Path, listing: Listing, instruments: Mapping[str, Instrument]) -> str:
    """Say what is in a folder without any frame that can be reduced."""
    others = [*listing.broken, *listing.unknown]
    if not others:
        return f"{folder}: no FITS files; a folder of raw frames is expected"
    shown = "; ".join(f"{one.path.name}: {one.reason}" for one in others[:3])
    return (
        f"{folder}: none of its {len(others)} FITS files is a raw frame of "
        f"{', '.join(instruments)} that can be read ({shown}); "
        "name the instrument with --instrument NAME or FILE"
    )


@contextlib.contextmanager
def alone_in(output: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Let one run at a time work in a folder; a second one waits until the first has ended.

    Raises
    ------
    ProductError
        If the folder cannot be written.
    """
    writing.refuse_unwritable(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        stream = (output / _LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ProductError(f"the output {output} cannot be written: {error.strerror}") from None
    with stream:
        if _lock(stream.fileno()):
            stream.seek(0)
            tell(f"another run works in {output} ({stream.read().strip()}); waiting for its end")
            while _lock(stream.fileno()):
                time.sleep(_PATIENCE)
        with contextlib.suppress(OSError):  # a full disk: who holds the lock is only for people
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
        yield


def _lock(descriptor: int) -> bool:
    """Try to take a lock, which ends with the process; returns whether another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: products are atomic all the same
        return False
    return False
