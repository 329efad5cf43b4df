import pytest

from kspecpipe.declare import (
    Declared,
    InputSpec,
    OnDemand,
    calibration,
    metric,
    parameter,
    product,
    raw,
    static,
    user_file,
)
from kspecpipe.products.images import MasterBias


class Inputs(Declared):
    flats: list = raw("FLAT", at_least=2, recommended=5, doc="flats")
    bias: object = calibration("MASTER_BIAS", doc="bias")
    dark: object = calibration("MASTER_DARK", default=None)
    maps: list = calibration("BAD_PIXEL_MAP", default=None, several="list")
    assignment: object = user_file("ASSIGN", default=None)
    lines: object = static("arc_lines")


class Parameters(Declared):
    clip: float = parameter(5.0, unit="sigma", above=0, doc="limit")
    order: int = parameter(3, at_least=1, affects_result=False)


class MoreParameters(Parameters):
    extra: str = parameter("x")


class Metrics(Declared):
    level: float = metric("LEVEL", unit="adu")
    scatter: float = metric("SCATTER", needs="two stars")


class Products(Declared):
    image: MasterBias = product("MASTER_BIAS")
    spare: MasterBias = product("MASTER_BIAS", qualifier="spare", required=False)


def test_declarations_carry_what_was_said():
    spec = Inputs.specs["flats"]
    assert isinstance(spec, InputSpec)
    assert (spec.tag, spec.kind, spec.at_least, spec.recommended) == ("FLAT", "raw", 2, 5)
    assert (spec.name, spec.required) == ("flats", True)
    assert spec.match == ("shape", "readmode")
    assert not Inputs.specs["dark"].required
    assert Inputs.specs["lines"].kind == "static"
    assert Parameters.specs["clip"].rule.range == "> 0"
    assert not Parameters.specs["order"].affects_result


def test_recommended_is_at_least_the_minimum():
    assert raw("BIAS", at_least=3).recommended == 3


def test_raw_frames_of_none_are_optional():
    assert not raw("FLATOFF", at_least=0).required


def test_values_are_held_and_defaults_filled_in():
    values = Inputs(flats=[1, 2], bias="b")
    assert (values.flats, values.bias, values.dark, values.maps) == ([1, 2], "b", None, [])
    assert Parameters().clip == 5.0
    assert Parameters(clip=3.0).clip == 3.0
    assert "clip=3.0" in repr(Parameters(clip=3.0))


def test_lists_of_calibrations_are_not_shared_between_runs():
    assert Inputs(flats=[], bias=1).maps is not Inputs(flats=[], bias=1).maps


def test_a_value_on_demand_is_read_whenever_it_is_asked_for_and_not_kept():
    class Inputs(Declared):
        bias: MasterBias = calibration("MASTER_BIAS", on_demand=True)

    reads = iter(range(9))
    inputs = Inputs(bias=OnDemand(lambda: next(reads)))
    assert (inputs.bias, inputs.bias) == (0, 1)


def test_subclasses_add_to_the_declarations():
    assert list(MoreParameters.specs) == ["clip", "order", "extra"]
    assert list(Parameters.specs) == ["clip", "order"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Parameters(clop=3), "declares no clop"),
        (lambda: Inputs(flats=[1]), "needs a value for 'bias'"),
        (lambda: Inputs(bias=1), "needs a value for 'flats'"),
        (lambda: Products(), "needs a value for 'image'"),
        (lambda: Metrics(scatter=1.0), "needs a value for 'level'"),
    ],
)
def test_undeclared_and_missing_values_are_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_metric_with_a_precondition_may_be_absent():
    assert Metrics(level=1.0).scatter is None


def test_an_optional_product_may_be_absent():
    assert Products(image="i").spare is None


def test_metric_names_are_at_most_28_characters():
    assert metric("X" * 28).label == "X" * 28
    with pytest.raises(ValueError, match="longer than 28"):
        metric("X" * 29)


def test_the_product_class_is_found_by_its_category():
    assert Products.specs["image"].product_class is MasterBias


def test_annotated_types_are_known():
    assert Parameters.type_of("clip") is float
