"""The assignment of another tile is recognised by its name."""

from __future__ import annotations

import pytest

from kspecpipe.frame import FrameInfo
from kspecpipe.framework.assignment import wrong_assignment

PATTERN = "{target}.assign.txt"


def frame(**keywords: str) -> FrameInfo:
    return FrameInfo("tile_046 1.fits", keywords=keywords)


@pytest.mark.parametrize(
    "name", ["tile_046.assign.txt", "TILE_046.assign.txt", "my.assign.txt", "my fibres.txt"]
)
def test_its_own_and_files_with_other_names_are_taken(name):
    assert wrong_assignment(name, PATTERN, [frame(target="tile_046")]) is None


def test_that_of_another_tile_is_named_with_both_tiles():
    frames = [frame(target="tile_046"), frame(target="tile_047")]
    text = wrong_assignment("tile_046.assign.txt", PATTERN, frames)
    assert text is not None
    assert "is the assignment of tile_046, but tile_046 1.fits is of tile_047" in text


def test_frames_without_target_and_patterns_without_keyword_say_nothing():
    assert wrong_assignment("tile_046.assign.txt", PATTERN, [frame()]) is None
    assert wrong_assignment("a.txt", "fibres.txt", [frame(target="b")]) is None
    assert wrong_assignment("a.txt", "", [frame(target="b")]) is None
