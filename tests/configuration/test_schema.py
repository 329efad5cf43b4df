import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.configuration.schema import Rule, build, convert, describe_type, key
from kspecpipe.configuration.yaml_source import load_yaml
from kspecpipe.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Lens:
    focal_length: float = key(unit="mm", above=0, doc="focal length")
    name: str = key("unnamed", doc="name")


@dataclass(frozen=True, kw_only=True)
class Bench:
    lens: Lens = key(doc="a lens")
    from_: str | list[str] = key("here", doc="a word that Python reserves")
    kind: Literal["long", "short"] = key("long", doc="kind")
    window: tuple[int, int] = key((0, 1), doc="window")
    numbers: list[float] = key([], doc="numbers")
    table: dict[str, int] = key({}, doc="table")
    pattern: re.Pattern[str] | None = key(None, doc="pattern")
    spare: Lens | None = key(None, doc="another lens")
    flip: bool | str = key(False, doc="flip")


def read(text: str, schema: Any = Bench) -> Any:
    return build(schema, load_yaml(text, "bench.yaml"), "bench")


def test_a_mapping_becomes_a_dataclass_with_all_its_kinds():
    bench = read(
        "lens: {focal_length: 320}\nfrom: [a, b]\nkind: short\nwindow: [3, 5]\nnumbers: [1, 2.5]\n"
        "table: {x: 1}\npattern: 'CCD ?36'\nspare: {focal_length: 1e3, name: NO}\nflip: true\n"
    )
    assert bench.lens == Lens(focal_length=320.0)
    assert isinstance(bench.lens.focal_length, float)
    assert bench.from_ == ["a", "b"]
    assert (bench.kind, bench.window, bench.numbers) == ("short", (3, 5), [1.0, 2.5])
    assert (bench.table, bench.flip) == ({"x": 1}, True)
    assert bench.pattern.search("ccd36")
    assert bench.spare == Lens(focal_length=1000.0, name="NO")


def test_defaults_fill_what_is_not_given_and_are_not_shared():
    first, second = read("lens: {focal_length: 1}"), read("lens: {focal_length: 1}")
    assert (first.from_, first.kind, first.window, first.spare) == ("here", "long", (0, 1), None)
    assert first.table is not second.table


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kind: long\n", 1, ["lacks the key 'lens'"]),
        ("lens:\n  name: x\n", 2, ["bench.lens lacks the key 'focal_length'"]),
        ("lens: {focal_length: 1}\nlense: 2\n", 2, ["unknown key 'lense'", "did you mean 'lens'"]),
        ("lens: {focal_length: 1}\nfrom_: x\n", 2, ["unknown key 'from_'", "did you mean 'from'"]),
        ("lens: {focal_length: 0}\n", 1, ["bench.lens.focal_length", "0.0 is not above 0"]),
        ("lens: {focal_length: .nan}\n", 1, ["nan is not finite"]),
        ("lens: {focal_length: long}\n", 1, ["must be number, found 'long'"]),
        ("lens: {focal_length: true}\n", 1, ["must be number, found True"]),
        ("lens: {focal_length: 1, name: 5}\n", 1, ["must be text, found 5"]),
        ("lens: {focal_length: 1, name: true}\n", 1, ["in quotes if it is text"]),
        ("lens: 5\n", 1, ["bench.lens must be a mapping, found 5"]),
        ("lens: {focal_length: 1}\nkind: lomg\n", 2, ["long, short", "'lomg'", "'long'?"]),
        ("lens: {focal_length: 1}\nwindow: [1]\n", 2, ["needs 2 values, found 1"]),
        ("lens: {focal_length: 1}\nwindow: [1, 2.5]\n", 2, ["window[1] must be integer"]),
        ("lens: {focal_length: 1}\nnumbers: 3\n", 2, ["must be list of number, found 3"]),
        ("lens: {focal_length: 1}\nnumbers:\n  - 1\n  - x\n", 4, ["numbers[1]"]),
        ("lens: {focal_length: 1}\ntable: {x: y}\n", 2, ["bench.table.x must be integer"]),
        ("lens: {focal_length: 1}\npattern: '('\n", 2, ["not a regular expression"]),
        ("lens: {focal_length: 1}\nspare: {focal: 1}\n", 2, ["unknown key 'focal'"]),
        ("lens: {focal_length: 1}\nfrom: 5\n", 2, ["must be text or list of text, found 5"]),
    ],
)
def test_what_does_not_fit_is_refused_with_line_found_and_expected(text, line, words):
    with pytest.raises(SettingsError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"bench.yaml, line {line}:")
    for word in words:
        assert word in message


def test_all_problems_of_a_mapping_come_at_once_in_the_order_of_the_file():
    with pytest.raises(SettingsError) as caught:
        read(
            "kynd: long\nwindow: [x, y]\nnumbers: [1, a, b]\ntable: {one: 1, two: t, three: t}\n"
            "spare:\n  focal_length: 0\n  nam: x\n"
        )
    found = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert found == [f"bench.yaml, line {n}" for n in (1, 2, 2, 3, 3, 4, 4, 6, 7, 1)]
    assert str(caught.value).endswith("bench lacks the key 'lens'")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (float | None, "number or nothing"),
        (Literal["a", "b"], "a | b"),
        (tuple[float, float], "list of number, number"),
        (list[str], "list of text"),
        (dict[str, int], "mapping of integer"),
        (bool, "true or false"),
    ],
)
def test_types_are_named_as_users_write_them(kind, words):
    assert describe_type(kind) == words


@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6) | st.none(),
    st.floats(-1e6, 1e6) | st.none(),
    st.floats(-1e6, 1e6) | st.none(),
)
def test_a_rule_lets_pass_exactly_what_lies_in_its_range(value, above, at_least, at_most):
    rule = Rule(above=above, at_least=at_least, at_most=at_most)
    inside = (
        (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )
    assert (rule.check(value) is None) == inside


def test_a_rule_tells_its_range_in_words():
    assert Rule(above=0, at_most=0.5).range == "> 0, <= 0.5"
    assert Rule(at_least=3).range == ">= 3"
    assert Rule().range == ""


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_conversion(number):
    assert convert(float, load_yaml(repr(number), "f"), "x") == number


def test_a_number_that_must_be_finite_says_so_even_without_limits():
    with pytest.raises(SettingsError, match="not finite"):
        convert(float, load_yaml(".nan", "f"), "x", Rule())
