"""The ways in which a reduction can end without a product, each with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    NO_PRODUCT = 1
    USAGE = 2
    INPUTS = 3
    QC_FAILED = 4
    CALIBRATION_MISSING = 5


class KspecError(Exception):
    """Base of the errors that a user can act on; printed without a traceback."""

    exit_code = ExitCode.NO_PRODUCT


class RecipeError(KspecError):
    """The data cannot give a trustworthy product."""


class IdentificationError(RecipeError):
    """Light cannot be told apart: which fibre, or which line, it is of.

    Parameters
    ----------
    message : str
        What was found and expected.
    light : sequence of float
        Light along one axis of the detector; empty when there is nothing to draw.
    places : dict
        Where fibres or lines lie by each identification, by what it is called in a picture.
    labels : tuple of str
        Names of the axes of a picture: places, and light.
    """

    def __init__(
        self,
        message: str,
        light: Sequence[float],
        places: dict[str, Sequence[float]],
        labels: tuple[str, str] = ("row [pixel]", "light near the middle column [electron]"),
    ) -> None:
        super().__init__(message)
        self.light, self.places, self.labels = light, places, labels


class ProductError(KspecError):
    """A product could not be written."""


class SettingsError(KspecError):
    """A setting, an option or an instrument file is wrong."""

    exit_code = ExitCode.USAGE


class InputError(KspecError):
    """Input frames are missing, unreadable or do not fit together."""

    exit_code = ExitCode.INPUTS


class CalibrationMissingError(InputError):
    """A required calibration is not among the inputs."""

    exit_code = ExitCode.CALIBRATION_MISSING
