"""Raw frames, products and text files as the planner of a night sees them: no pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kspecpipe.frame import FrameInfo


@dataclass(frozen=True)
class NightFrame:
    """One raw file.

    Parameters
    ----------
    path : Path
        The file, absolute.
    info : FrameInfo
        What the instrument's rules say of it.
    shape : str
        ``nyxnx`` of the normalised frame.
    planes : int
        Number of frames in the file.
    instrument : str
        Name of the instrument, as INSTRUME has it.
    night : str
        Evening date of the night, ISO; filled when the nights are known.
    stamp : tuple of int
        Size and time of modification [ns].
    """

    path: Path
    info: FrameInfo
    shape: str
    planes: int = 1
    instrument: str = ""
    night: str = ""
    stamp: tuple[int, int] = (0, 0)

    @property
    def tag(self) -> str:
        """Raw tag; a frame without one is never planned."""
        return self.info.tag or ""

    @property
    def mjd(self) -> float:
        """Start of the exposure."""
        return self.info.mjd

    @property
    def lamp(self) -> str:
        """Lamp that the file name tells, or nothing."""
        return str(self.info.keywords.get("lamp") or "")

    @property
    def target(self) -> str:
        """Target that file name or header tell, or nothing."""
        return str(self.info.keywords.get("target") or "")

    def value(self, attribute: str) -> Any:
        """Return an attribute by which recipes match frames."""
        if attribute in ("shape", "instrument"):
            return self.shape if attribute == "shape" else self.instrument
        return getattr(self.info, attribute, None) or self.info.keywords.get(attribute)


@dataclass(frozen=True)
class FoundProduct:
    """A product on disk, by its header.

    Parameters
    ----------
    path : Path
        The file.
    catg : str
        PRO.CATG.
    recipe : str
        Recipe that made it.
    values : mapping
        Attributes by which recipes match calibrations, with ``exptime`` and ``target``.
    mjd : float
        MJD-OBS.
    md5 : str
        DATAMD5.
    failed : tuple of str
        Metrics whose quality control failed.
    """

    path: Path
    catg: str
    recipe: str
    values: Mapping[str, Any]
    mjd: float
    md5: str = ""
    failed: tuple[str, ...] = ()
    stamp: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Problem:
    """A file that is not used, and why."""

    path: Path
    reason: str
    unknown: bool = False  # it is not ours, and nothing is wrong with it


@dataclass(frozen=True)
class Listing:
    """Everything that was found in a folder."""

    folder: Path
    frames: tuple[NightFrame, ...] = ()
    products: tuple[FoundProduct, ...] = ()
    unknown: tuple[Problem, ...] = ()
    broken: tuple[Problem, ...] = ()
    texts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # by name in lower case
    read: int = 0  # files whose header was read; the others were known
