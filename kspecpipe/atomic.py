"""Files that appear wholly or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

Writer = Callable[[BinaryIO], object]
_PREFIX = f".kspec_{re.sub(r'[^A-Za-z0-9.-]', '-', platform.node())}_"


def write_files(files: Sequence[tuple[Path, Writer]]) -> None:
    """Write several files under temporary names, then rename them all.

    What a killed process left in the same folders is removed on the way.

    Parameters
    ----------
    files : sequence of (path, writer)
        The writer is called with a binary stream.

    Raises
    ------
    OSError
        If one could not be written; nothing is left behind, and older files are untouched.
    """
    _refuse_impossible([path for path, _ in files])
    scratch: list[tuple[Path, Path]] = []
    try:
        for path, write in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(path.parent)
            prefix = f"{_PREFIX}{os.getpid()}_"
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=path.parent)
            scratch.append((Path(name), path))
            with os.fdopen(descriptor, "wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
        for name_now, path in scratch:
            name_now.replace(path)
    finally:
        for name_now, _ in scratch:
            name_now.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; raises OSError when that is not possible."""
    write_files([(path, lambda stream: stream.write(text.encode("utf-8")))])


def _refuse_impossible(paths: Sequence[Path]) -> None:
    """Refuse what would fail only when some files have been renamed already."""
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise OSError(f"{path.name} would be written twice")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")


def _remove_stale(folder: Path) -> None:
    """Remove the scratch files of processes of this computer that are no more."""
    for path in folder.glob(f"{_PREFIX}*.part"):
        pid = path.name.removeprefix(_PREFIX).split("_")[0]
        if pid.isdigit() and not _alive(int(pid)):
            with contextlib.suppress(OSError):  # another process may have been faster
                path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
