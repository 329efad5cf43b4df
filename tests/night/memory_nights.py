"""Nights without files: frames and products in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from astropy.io import fits

from kspecpipe.frame import FrameInfo
from kspecpipe.night.frames import FoundProduct, NightFrame
from kspecpipe.night.plan import Plan

EVENING = datetime(2026, 1, 29, 20, 0, 0)
EPOCH = datetime(1858, 11, 17)
OUTPUT = Path("/night/products")


def mjd(hours: float, days: int = 0) -> float:
    """Return the time so long after the evening of the first night."""
    time = EVENING + timedelta(hours=hours, days=days) - EPOCH
    return time.total_seconds() / 86400


def frame(tag: str, hours: float, days: int = 0, **given: Any) -> NightFrame:
    """Return one raw frame of ISOPLANE."""
    mode = given.get("mode", "150_620")
    start = EVENING + timedelta(hours=hours, days=days)
    keywords = {
        "target": given.get("target", "tile_046" if tag == "OBJECT" else None),
        "lamp": given.get("lamp"),
    }
    name = given.get("name", f"{tag} {mode} {start:%Y%m%d %H%M%S}.fits")
    info = FrameInfo(
        name=name,
        tag=tag,
        mode=mode,
        readmode=given.get("readmode", "slow"),
        date_obs=start.isoformat(timespec="milliseconds"),
        mjd=mjd(hours, days),
        exptime=given.get("exptime", 20.0),
        keywords={name: value for name, value in keywords.items() if value},
        layout=given.get("layout", "1300x1340"),
    )
    planes = given.get("planes", 1)
    return NightFrame(Path("/night/raw") / name, info, "1300x1340", planes, "ISOPLANE")


def night(days: int = 0, modes: Sequence[str] = ("150_620",), objects: int = 2) -> list[NightFrame]:
    """Return the frames of a usual night."""
    frames = [frame("BIAS", i / 60, days, exptime=0.0) for i in range(10)]
    frames += [frame("DARK", 14 + i, days, exptime=2400.0) for i in range(5)]
    for number, mode in enumerate(modes):
        hours = 1.0 + 3 * number
        frames += [frame("FLAT", hours + i / 60, days, mode=mode) for i in range(5)]
        frames += [frame("ARC", hours + 0.2 + i / 60, days, mode=mode) for i in range(2)]
        frames += [
            frame("OBJECT", hours + 0.5 + i, days, mode=mode, exptime=1200.0)
            for i in range(objects)
        ]
    return frames


def product(catg: str, hours: float, days: int = 0, **given: Any) -> FoundProduct:
    """Return a product that exists."""
    values = {
        "instrument": "ISOPLANE",
        "mode": "150_620",
        "readmode": "slow",
        "shape": "1300x1340",
        "layout": "1300x1340",
        "exptime": 20.0,
        "target": "",
    }
    values |= {name: value for name, value in given.items() if name in values}
    name = given.get("name", f"old_{catg.lower()}_{days}.fits")
    return FoundProduct(
        path=OUTPUT / name,
        catg=catg,
        recipe=given.get("recipe", "byhand"),
        values=values,
        mjd=mjd(hours, days),
        md5=given.get("md5", name),
        failed=given.get("failed", ()),
    )


def images_of(folder: Path) -> dict[str, list[bytes]]:
    """Return the bytes of all images of all products of a folder."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            found[path.name] = [hdu.data.tobytes() for hdu in hdus if hdu.is_image]
    return found


def best(plan: Plan, recipe: str, tag: str, number: int = 0) -> list[str]:
    """Return the first choices of an input of a recipe's job."""
    job = [job for job in plan.jobs if job.recipe.name == recipe][number]
    return [s.ranked[0].candidate.path.name for s in job.slots if s.spec.tag == tag and s.ranked]
