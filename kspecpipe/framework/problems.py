"""Collect what is wrong with the inputs of a recipe, so that a user hears of all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kspecpipe.errors import CalibrationMissingError, InputError


@dataclass
class Problems:
    """Problems found so far, each with the error class that it amounts to.

    Parameters
    ----------
    found : list of (type, str)
        Error class and text of each problem.
    warnings : list of str
        What the user should know.
    unused : dict of list
        Places of the files that are not used, by tag.
    """

    found: list[tuple[type[InputError], str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, kind: type[InputError] = InputError) -> None:
        """Note a problem."""
        self.found.append((kind, text))

    def leave_out(self, label: str, tag: str) -> None:
        """Note a file of a tag that the recipe does not use."""
        self.unused.setdefault(tag, []).append(label)

    @property
    def left_out(self) -> list[str]:
        """One warning for each tag that is not used, however many files have it."""
        return [
            f"{labels[0]}: {tag} is not used by this recipe"
            + (f" (and {len(labels) - 1} more)" if len(labels) > 1 else "")
            for tag, labels in self.unused.items()
        ]

    def attempt(self, action: Callable[[], Any], place: str = "") -> Any:
        """Run an action and note its input error; returns None then."""
        try:
            return action()
        except InputError as error:
            self.add(f"{place}: {error}" if place else str(error), type(error))
        return None

    def raise_all(self) -> None:
        """Raise all problems as one error; wrong inputs weigh more than missing calibrations."""
        if not self.found:
            return
        kinds = {kind for kind, _ in self.found}
        missing = kinds == {CalibrationMissingError}
        text = "\n".join(text for _, text in self.found)
        raise CalibrationMissingError(text) if missing else InputError(text)
