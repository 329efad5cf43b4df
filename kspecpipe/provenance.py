"""Where a product comes from: header cards, content key and file names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kspecpipe._version import __version__
from kspecpipe.declare import Declared, ProductSpec
from kspecpipe.frame import FrameInfo
from kspecpipe.qc import BAD_FLAGS, Flag, QCRow

PIPE_ID = f"kspecpipe/{__version__}"
Cards = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class Origin:
    """Everything a product was made from.

    Parameters
    ----------
    recipe : str
        Name of the recipe.
    instrument : str
        Name of the instrument.
    facts_digest : str
        Digest of the instrument file and the static calibrations.
    raw : sequence of FrameInfo
        Raw frames.
    calibrations : sequence of (tag, path, header)
        Calibrations that were used.
    user : mapping of tag to path
        The user's own files.
    parameters : Declared
        Parameters.
    levels : mapping
        By file name how near in time a calibration is, if a plan has chosen it. Not of the key:
        the same files give the same product, whoever chose them.
    """

    recipe: str
    instrument: str
    facts_digest: str
    raw: Sequence[FrameInfo]
    calibrations: Sequence[tuple[str, Path, Mapping[str, Any]]]
    user: Mapping[str, Path]
    parameters: Declared
    levels: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Content key: equal for equal inputs, parameters and version."""
        parts = {
            "recipe": self.recipe,
            "version": __version__,
            "instrument": self.facts_digest,
            "raw": [(info.tag, info.name, info.md5) for info in self.raw],
            "calibrations": sorted(
                (tag, str(header.get("DATAMD5", ""))) for tag, _, header in self.calibrations
            ),
            "user": sorted((tag, file_digest(path)) for tag, path in self.user.items()),
            "parameters": {
                name: repr(getattr(self.parameters, name))
                for name, spec in self.parameters.specs.items()
                if spec.affects_result
            },
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def header_cards(
    origin: Origin, spec: ProductSpec, info: FrameInfo, rows: Sequence[QCRow], shape: str
) -> Cards:
    """Return the primary header of a product.

    Parameters
    ----------
    origin : Origin
        What it was made from.
    spec : ProductSpec
        Its declaration.
    info : FrameInfo
        The raw frame that dates it.
    rows : sequence of QCRow
        Its metrics; those of single fibres stay in the QC table.
    shape : str
        Shape ``nyxnx`` of the normalised frame.
    """
    cards: Cards = {
        "ORIGIN": ("kspecpipe", "written by"),
        "INSTRUME": (origin.instrument, "instrument"),
        "INSMODE": (info.mode, "instrument mode"),
        "READMODE": (info.readmode, "read-out mode"),
        "DATE-OBS": (info.date_obs, "[UTC] start of the first exposure"),
        "MJD-OBS": (info.mjd, "[d] the same as modified Julian date"),
        "EXPTIME": (info.exptime, "[s] exposure time"),
    }
    if info.keywords.get("target"):
        cards["OBJECT"] = (str(info.keywords["target"]), "target")
    cards |= {
        "ESO PRO CATG": (spec.catg, "category of the product"),
        "ESO PRO TYPE": (spec.pro_type, "type of the product"),
        "ESO PRO TECH": (spec.tech, "observing technique"),
        "ESO PRO SCIENCE": (spec.catg in SCIENCE, "scientific product?"),
        "ESO PRO DATANCOM": (len(origin.raw) or 1, "number of raw frames combined"),
        "ESO PRO KEY": (origin.key, "content key of inputs and parameters"),
        "ESO PRO SHAPE": (shape, "shape of the normalised frame"),
        "ESO PRO LAYOUT": (info.layout, "shape of the raw frame"),
        "ESO PRO REC1 ID": (origin.recipe, "recipe"),
        "ESO PRO REC1 DRS ID": (PIPE_ID, "pipeline"),
        "ESO PRO REC1 PIPE ID": (PIPE_ID, "pipeline"),
    }
    return cards | _input_cards(origin) | _parameter_cards(origin) | _qc_cards(rows)


SCIENCE = frozenset({"EXTRACTED", "REDUCED", "CALIBRATED", "COADDED", "SPLICED"})


def product_stem(spec: ProductSpec, date_obs: str, mode: str, qualifier: str) -> str:
    """Return the file name of a product without extension.

    Parameters
    ----------
    spec : ProductSpec
        Its declaration.
    date_obs : str
        UTC date of the first raw frame, ISO.
    mode : str
        Instrument mode; for bias and dark the read-out mode.
    qualifier : str
        Keeps lamps, exposures and recipes apart.
    """
    parts = [date_obs[:10].replace("-", ""), mode, spec.catg.lower()]
    # The time of an exposure stands at the end of the qualifier: it must not be cut off.
    parts = [*map(sanitise, parts), sanitise(qualifier, 120)]
    return "_".join(part for part in parts if part)


def exposure_qualifier(info: FrameInfo, lead: str = "") -> str:
    """Return target, time of day and plane of an exposure."""
    plane = re.search(r"\[(\d+)\]$", info.name)
    target = str(info.keywords.get("target") or Path(info.name.split("[")[0]).stem)
    parts = [
        lead[:40],
        sanitise(target, 40),
        info.date_obs[11:19].replace(":", ""),
        f"p{plane[1]}" if plane else "",
    ]
    return "_".join(part for part in parts if part)


def sanitise(text: str, most: int = 60) -> str:
    """Keep letters, digits, points and minus signs of a part of a file name."""
    return re.sub(r"[^a-z0-9.-]+", "_", text.lower()).strip("_.")[:most].rstrip("_.")


def _input_cards(origin: Origin) -> Cards:
    cards: Cards = {}
    for i, info in enumerate(origin.raw, start=1):
        cards[f"ESO PRO REC1 RAW{i} NAME"] = (info.name, "raw frame")
        cards[f"ESO PRO REC1 RAW{i} CATG"] = (info.tag, "its tag")
        cards[f"ESO PRO REC1 RAW{i} DATAMD5"] = (info.md5, "its checksum")
        if info.keywords.get("lamp"):
            cards[f"ESO PRO REC1 RAW{i} LAMP"] = (str(info.keywords["lamp"]), "its lamp")
    for i, (tag, path, header) in enumerate(origin.calibrations, start=1):
        cards[f"ESO PRO REC1 CAL{i} NAME"] = (path.name, "calibration")
        cards[f"ESO PRO REC1 CAL{i} CATG"] = (tag, "its category")
        cards[f"ESO PRO REC1 CAL{i} DATAMD5"] = (header.get("DATAMD5", ""), "its checksum")
        if path.name in origin.levels:
            level = int(origin.levels[path.name])
            cards[f"ESO PRO REC1 CAL{i} LEVEL"] = (level, "0 same night, 1 3 d, 2 30 d, 3 any")
    count = len(origin.calibrations)
    for i, (tag, path) in enumerate(origin.user.items(), start=count + 1):
        cards[f"ESO PRO REC1 CAL{i} NAME"] = (path.name, "file of the user")
        cards[f"ESO PRO REC1 CAL{i} CATG"] = (tag, "its tag")
        cards[f"ESO PRO REC1 CAL{i} DATAMD5"] = (file_digest(path), "its checksum")
    return cards


def _parameter_cards(origin: Origin) -> Cards:
    cards: Cards = {}
    for i, (name, spec) in enumerate(origin.parameters.specs.items(), start=1):
        value = getattr(origin.parameters, name)
        shown = value if isinstance(value, bool | int | float | str) else repr(value)
        cards[f"ESO PRO REC1 PARAM{i} NAME"] = (name, "parameter")
        cards[f"ESO PRO REC1 PARAM{i} VALUE"] = (shown, spec.rule.unit or "its value")
    return cards


def _qc_cards(rows: Sequence[QCRow]) -> Cards:
    cards: Cards = {}
    order = list(Flag)
    worst: dict[str, QCRow] = {}
    for row in rows:
        known = worst.setdefault(row.name, row)
        if order.index(row.flag) > order.index(known.flag):
            worst[row.name] = row
    for row in worst.values():
        if row.scope == "fibre":
            continue
        name = f"ESO QC {row.name}"
        if row.value == row.value:
            cards[name] = (row.value, f"[{row.unit}]" if row.unit else "")
        lo, hi = row.limits.fail or row.limits.warn or (float("nan"), float("nan"))
        for suffix, limit in (("LO", lo), ("HI", hi)):
            if abs(limit) < float("inf"):
                cards[f"{name} {suffix}"] = (limit, "limit")
        cards[f"{name} FLAG"] = (str(row.flag), "verdict")
    failed = [row for row in rows if row.scope == "fibre" and row.flag in BAD_FLAGS]
    if failed:
        names = sorted({row.name for row in failed})
        cards["ESO QC FIBRES FLAG"] = ("fail", f"fibres: {', '.join(names)}"[:40])
    return cards


def file_digest(path: Path) -> str:
    """Return the checksum of a file of the user's, or of the names in a folder."""
    if path.is_dir():
        # Parsed models are kept beside the templates when they are first used: no other content.
        files = (child for child in path.rglob("*") if child.is_file())
        names = sorted(
            f"{child.relative_to(path)} {child.stat().st_size}"
            for child in files
            if not child.name.startswith((".", "cache_"))
        )
        return hashlib.md5("\n".join(names).encode(), usedforsecurity=False).hexdigest()
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
