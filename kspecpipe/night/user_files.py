"""The user's own files of a night: named by the user, or found among the raw frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kspecpipe.configuration.yaml_source import nearest
from kspecpipe.errors import InputError, SettingsError
from kspecpipe.night.frames import FoundProduct
from kspecpipe.night.index import Memory, Rules, scan, scan_file
from kspecpipe.sof import CALIBRATION_TAGS, USER_TAGS

#: How files are called that are found without being named, in lower case.
_FOUND_AS = {
    "STD_CATALOG": re.compile(r"(std_?cat.*|.*refcat.*)\.csv"),
    "TEMPLATES": re.compile(r"templates|bosz.*"),
    "ARC_LINES": re.compile(r"arc_?lines.*\.(arc|ecsv)"),
}


@dataclass(frozen=True)
class Given:
    """What the user named with ``--with``: files of their own, and calibrations."""

    files: Mapping[str, Path] = field(default_factory=dict)
    products: tuple[FoundProduct, ...] = ()


def read_given(words: Sequence[str], rules: Rules, memory: Memory) -> Given:
    """Understand ``TAG=PATH`` words; a folder stands for all products of the tag in it.

    Raises
    ------
    SettingsError
        If a word or a tag is wrong.
    InputError
        If a file is missing, or not what its tag says.
    """
    files: dict[str, Path] = {}
    products: list[FoundProduct] = []
    for word in words:
        tag, equals, name = word.partition("=")
        if not (equals and name):
            raise SettingsError(f"--with {word}: TAG=PATH is expected")
        path = Path(name).expanduser().absolute()
        known = (*USER_TAGS, *CALIBRATION_TAGS)
        if tag not in known:
            raise SettingsError(f"--with {word}: unknown tag {tag!r}; {nearest(tag, known)}")
        if not path.exists():
            raise InputError(f"--with {word}: no such file or folder ({path})")
        if tag in USER_TAGS:
            files[tag] = path
        elif path.is_dir():
            listing = scan(path, rules, memory, deep=False)
            products += [one for one in listing.products if one.catg == tag]
        else:
            products.append(_product(word, tag, path, rules))
    return Given(files, tuple(products))


def found_files(texts: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """Return the user's files that are recognised by their names; of several the first."""
    found: dict[str, Path] = {}
    for tag, pattern in _FOUND_AS.items():
        paths = [path for name, paths in texts.items() if pattern.fullmatch(name) for path in paths]
        if paths:
            found[tag] = min(paths)
    return found


def _product(word: str, tag: str, path: Path, rules: Rules) -> FoundProduct:
    item = scan_file(path, rules)
    if not isinstance(item, FoundProduct) or item.catg != tag:
        found = f"PRO.CATG is {item.catg}" if isinstance(item, FoundProduct) else "it is no product"
        raise InputError(f"--with {word}: {path.name} is no {tag}: {found}")
    return item
