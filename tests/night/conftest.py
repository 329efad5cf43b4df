"""Plans of nights that are nowhere on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from memory_nights import OUTPUT, images_of

from kspecpipe.cli import main
from kspecpipe.instrument import shipped_instruments
from kspecpipe.night.chain import load_chain
from kspecpipe.night.frames import Listing, NightFrame
from kspecpipe.night.plan import Plan, Request, make_plan


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the memory of headers out of the user's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def inlined(inline: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Let `kspec reduce` work in this process."""
    with inline():
        yield


@pytest.fixture
def quiet(camera: Any, inline: Callable[[], AbstractContextManager[None]]) -> dict[str, Any]:
    """Return the data of a small night that nothing disturbs: two read-out modes, four jobs."""
    raw = camera.folder / "raw"
    raw.mkdir()
    for speed in ("slow", "fast"):
        for path in (*camera.biases(3, SPEED=speed), camera.dark(SPEED=speed)):
            path.rename(raw / path.name)
    words = ["reduce", raw, "-o", camera.folder / "quiet", "--instrument", camera.instrument]
    with inline():
        assert main([str(word) for word in (*words, "--plots", "none", "-q")]) == 0
    found = images_of(camera.folder / "quiet")
    assert len(found) == 6
    return found


@pytest.fixture(scope="session")
def instruments() -> dict[str, Any]:
    return {one.facts.name: one for one in shipped_instruments().values()}


@pytest.fixture
def planned(instruments: dict[str, Any]) -> Callable[..., Plan]:
    """Return a function that plans frames which are nowhere on disk."""
    chain = load_chain().recipes

    def plan(frames: Sequence[NightFrame], texts: Any = None, **request: Any) -> Plan:
        texts = {"tile_046.assign.txt": (Path("/night/raw/tile_046.assign.txt"),)} | (texts or {})
        listing = Listing(Path("/night/raw"), frames=tuple(frames), texts=texts)
        options = {"chain": chain, "whole": chain, "instruments": instruments} | request
        return make_plan(listing, Request(OUTPUT, **options))

    return plan
