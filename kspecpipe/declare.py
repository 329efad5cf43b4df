"""What a recipe declares: inputs, parameters, products and metrics.

From these declarations alone come the command-line options, the manual page, the settings template
and its validation, the input check, the QC table and the edges of the night's graph.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, dataclass_transform

from kspecpipe.configuration.schema import Rule
from kspecpipe.products.product import Product

REQUIRED: Any = object()
Scope = Literal["frame", "exposure", "fibre"]


@dataclass(frozen=True)
class InputSpec:
    """One input of a recipe.

    Parameters
    ----------
    tag : str
        Raw tag, calibration tag (PRO.CATG) or a tag of the user's own files.
    kind : str
        ``raw``, ``calibration``, ``user``, or ``static`` for what the package ships.
    alternatives : tuple of str
        Tags that may stand in place of ``tag``, all files of one tag: REDUCED or CALIBRATED.
    on_demand : bool
        A calibration that is read whenever it is asked for, and not kept: it is as large as the
        frames, and most recipes need it once.
    at_least, recommended, at_most : int or None
        Number of frames.
    match : tuple of str
        Attributes of the frames (``mode``, ``readmode``, ``shape``, ``exptime``, ...) that must
        agree: within the raw frames of one tag, and between a calibration and the raw frames.
    tolerance : dict
        Relative tolerance of numeric attributes in ``match``.
    maximum_age : float or None
        Days between calibration and raw frame beyond which a warning is given.
    required : bool
        Whether the recipe cannot run without it.
    several : str
        What to do with several calibrations of the tag: ``error``, ``list`` or
        ``nearest_exptime``.
    doc : str
        One line.
    """

    tag: str
    kind: Literal["raw", "calibration", "user", "static"]
    at_least: int = 0
    recommended: int = 0
    at_most: int | None = None
    match: tuple[str, ...] = ()
    tolerance: dict[str, float] = field(default_factory=dict)
    maximum_age: float | None = None
    required: bool = True
    several: Literal["error", "list", "nearest_exptime"] = "error"
    alternatives: tuple[str, ...] = ()
    on_demand: bool = False
    doc: str = ""
    name: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tag and those that may stand in its place."""
        return (self.tag, *self.alternatives)

    @property
    def label(self) -> str:
        """The tags in words."""
        return " or ".join(self.tags)


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a recipe."""

    default: Any
    rule: Rule
    affects_result: bool = True
    name: str = ""
    type: Any = None

    @property
    def doc(self) -> str:
        """One line of documentation."""
        return self.rule.doc


@dataclass(frozen=True)
class ProductSpec:
    """One product of a recipe."""

    catg: str
    pro_type: str = "REDUCED"
    tech: str = "IMAGE"
    qualifier: str = ""
    per_exposure: bool = False
    required: bool = True
    doc: str = ""
    name: str = ""

    @property
    def product_class(self) -> type[Product]:
        """The dataclass of the product."""
        return Product.known[self.catg]


@dataclass(frozen=True)
class MetricSpec:
    """One number by which a product is judged.

    Parameters
    ----------
    label : str
        Name in the QC table and header, at most 28 characters.
    unit : str
        Unit.
    scope : str
        ``frame`` (one value), ``exposure`` (one per raw frame) or ``fibre`` (one per fibre).
    doc : str
        One line, with the sign convention where there is one.
    needs : str
        Precondition in words; a value of None then means that it does not hold (flag ``na``).
    """

    label: str
    unit: str = ""
    scope: Scope = "frame"
    doc: str = ""
    needs: str = ""
    name: str = ""


def raw(tag: str, *, at_least: int = 1, **options: Any) -> Any:
    """Declare raw frames of one tag; they arrive as a `FrameStack`."""
    options.setdefault("match", ("shape", "readmode"))
    options.setdefault("recommended", at_least)
    return InputSpec(tag, "raw", at_least=at_least, required=at_least > 0, **options)


def calibration(tag: str, *alternatives: str, default: Any = REQUIRED, **options: Any) -> Any:
    """Declare a calibration product, of one of the tags; required unless a default is given."""
    required = default is REQUIRED
    return InputSpec(tag, "calibration", required=required, alternatives=alternatives, **options)


def user_file(tag: str, *, default: Any = REQUIRED, **options: Any) -> Any:
    """Declare a file of the user's own (ASSIGN, ARC_LINES); it arrives as a path."""
    return InputSpec(tag, "user", required=default is REQUIRED, **options)


def static(tag: str, **options: Any) -> Any:
    """Declare a static calibration of the package, such as ``arc_lines``."""
    return InputSpec(tag, "static", required=False, **options)


def parameter(default: Any, *, affects_result: bool = True, **rule: Any) -> Any:
    """Declare a parameter: default, unit, limits (above, at_least, at_most) and doc."""
    return ParameterSpec(default, Rule(**rule), affects_result)


def product(catg: str, **options: Any) -> Any:
    """Declare a product by its PRO.CATG."""
    return ProductSpec(catg, **options)


def metric(label: str, **options: Any) -> Any:
    """Declare a metric by its name in the QC table."""
    if len(label) > 28:
        raise ValueError(f"the metric name {label!r} is longer than 28 characters")
    return MetricSpec(label, **options)


Spec = InputSpec | ParameterSpec | ProductSpec | MetricSpec


@dataclass(frozen=True)
class OnDemand:
    """A value that is read when it is asked for, each time anew."""

    read: Callable[[], Any]


@dataclass_transform(
    kw_only_default=True,
    field_specifiers=(raw, calibration, user_file, static, parameter, product, metric),
)
class Declared:
    """Base of the nested declarations; an instance holds the values.

    Raises
    ------
    ValueError
        If a value is given that was not declared, or one without default is missing.
    """

    specs: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        """Collect the declared fields, those of the base class first."""
        own = {
            name: _named(spec, name) for name, spec in vars(cls).items() if isinstance(spec, Spec)
        }
        cls.specs = {**cls.specs, **own}

    def __init__(self, **values: Any) -> None:
        """Take the values of the declared fields."""
        unknown = set(values) - set(self.specs)
        if unknown:
            raise ValueError(f"{type(self).__qualname__} declares no {', '.join(sorted(unknown))}")
        for name, spec in self.specs.items():
            if name not in values and not _has_default(spec):
                raise ValueError(f"{type(self).__qualname__} needs a value for {name!r}")
            setattr(self, name, values.get(name, _default(spec)))

    def __getattribute__(self, name: str) -> Any:
        """Return a value; one on demand is read now."""
        value = super().__getattribute__(name)
        return value.read() if isinstance(value, OnDemand) else value

    def __repr__(self) -> str:
        """Show the values."""
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.specs)
        return f"{type(self).__qualname__}({values})"

    @classmethod
    def type_of(cls, name: str) -> Any:
        """Return the annotated type of a field."""
        return typing.get_type_hints(cls)[name]


def _named(spec: Any, name: str) -> Any:
    values = {**vars(spec), "name": name}
    return type(spec)(**values)


def _has_default(spec: Any) -> bool:
    if isinstance(spec, ParameterSpec):
        return True
    if isinstance(spec, InputSpec | ProductSpec):
        return not spec.required
    return bool(spec.needs)


def _default(spec: Any) -> Any:
    if isinstance(spec, InputSpec) and spec.several == "list":
        return []
    return spec.default if isinstance(spec, ParameterSpec) else None
