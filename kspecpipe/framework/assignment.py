"""Whether a fibre assignment is that of an exposure, by its file name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kspecpipe.frame import FrameInfo


def wrong_assignment(name: str, pattern: str, frames: Sequence[FrameInfo]) -> str | None:
    """Return what is wrong when a file is named for another target than one of the frames.

    Parameters
    ----------
    name : str
        File name of the assignment.
    pattern : str
        How the instrument names them, with {keywords} of the frame; a file with a name of another
        kind is taken as it is.
    frames : sequence of FrameInfo
        Frames that it is used for.
    """
    words = re.split(r"\{(\w+)[^}]*\}", pattern)
    if len(words) < 2:
        return None
    parts = [
        f"(?P<{word}>.+)" if place % 2 else re.escape(word) for place, word in enumerate(words)
    ]
    found = re.fullmatch("".join(parts), name, re.IGNORECASE)
    named = found.groupdict() if found else {}
    for info in frames:
        for keyword, value in named.items():
            own = info.keywords.get(keyword)
            if own is not None and _differs(value.lower(), str(own).lower()):
                return (
                    f"{name}: is the assignment of {value}, but {info.name} is of {own}; give the "
                    f"assignment of {own}, or rename the file if it is right all the same"
                )
    return None


def _differs(value: str, own: str) -> bool:
    """Whether two names differ by their numbers; names of another kind are the user's own."""
    return value != own and re.sub(r"\d+", "#", value) == re.sub(r"\d+", "#", own)
