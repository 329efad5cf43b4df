from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.configuration.yaml_source import (
    Node,
    load_yaml,
    merge_nodes,
    nearest,
    parse_scalar,
    read_yaml,
)
from kspecpipe.errors import SettingsError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcxyz_ -:#", min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def value_of(text: str):
    return load_yaml(f"key: {text}", "file.yaml").plain["key"]


@pytest.mark.parametrize(
    "text",
    ["150_620", "NO", "no", "Yes", "on", "off", "y", "1:30", "12:30:45", "2026-01-29", "0x1F"],
)
def test_strings_that_yaml_would_bend_stay_strings(text):
    assert value_of(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5", -2.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("+7", 7),
        ("0", 0),
        ("010", 10),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"NO"', "NO"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number():
    assert value_of(".nan") != value_of(".nan")


@given(PLAIN)
def test_what_was_written_comes_back(content):
    text = yaml.safe_dump({"root": content}, default_flow_style=True)
    # The writer quotes by the rules of YAML 1.1, which quote all that 1.2 could bend.
    assert load_yaml(text, "file").plain["root"] == content


@given(st.text(max_size=60))
def test_any_text_gives_nodes_or_a_settings_error(text):
    try:
        node = load_yaml(text, "any.yaml")
    except SettingsError as error:
        assert str(error).startswith("any.yaml")
    else:
        assert isinstance(node, Node)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: {b: 1\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "not allowed"),
        ("a: !!python/name:os.system\n", 1, "not allowed"),
        ("a: !!python/tuple [1, 2]\n", 1, "not allowed"),
        ("a: !own 5\n", 1, "not allowed"),
        ("a: !!binary aGk=\n", 1, "not allowed"),
        ("a: !!set {x, y}\n", 1, "not allowed"),
        ("a: 1\n150: 2\n", 2, "quotes"),
        ("true: 2\n", 1, "quotes"),
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a: &x\n  b: *x\n", 1, "refers to itself"),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("? [1, 2]\n: 3\n", 1, "string"),
    ],
)
def test_wrong_yaml_is_refused_with_its_line(text, line, word):
    with pytest.raises(SettingsError, match=word) as caught:
        load_yaml(text, "wrong.yaml")
    assert f"wrong.yaml, line {line}" in str(caught.value)


@pytest.mark.parametrize("tag", ["int", "float", "bool"])
def test_a_tag_that_contradicts_its_value_is_refused(tag):
    with pytest.raises(SettingsError, match=r"w\.yaml, line 1"):
        load_yaml(f"a: !!{tag} hello", "w.yaml")


def test_python_tags_run_nothing(tmp_path):
    victim = tmp_path / "ran"
    with pytest.raises(SettingsError, match="not allowed"):
        load_yaml(f"a: !!python/object/apply:os.mkdir ['{victim}']", "w.yaml")
    assert not victim.exists()


def test_a_bomb_of_aliases_is_refused_and_not_unfolded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(SettingsError, match=r"bomb\.yaml.*values"):
        load_yaml("\n".join(lines), "bomb.yaml")


def test_deeply_nested_yaml_is_refused():
    with pytest.raises(SettingsError, match=r"deep\.yaml.*nested"):
        load_yaml("a: " + "[" * 2000 + "]" * 2000, "deep.yaml")


def test_a_number_of_too_many_digits_is_refused():
    with pytest.raises(SettingsError, match=r"n\.yaml, line 2.*digits"):
        load_yaml("a: 1\nb: " + "9" * 6000, "n.yaml")


def test_every_value_knows_its_line():
    root = load_yaml("# comment\na: 1\nb:\n  - x\n  - y\n", "lines.yaml")
    items = root.mapping("it")
    assert items["a"].place == "lines.yaml, line 2"
    assert [node.place for node in items["b"].value] == ["lines.yaml, line 4", "lines.yaml, line 5"]


def test_anchors_may_be_used_as_values():
    assert load_yaml("a: &x [1, 2]\nb: *x\n", "f").plain == {"a": [1, 2], "b": [1, 2]}


def test_an_empty_file_is_an_empty_mapping():
    assert load_yaml("# nothing\n", "f").mapping("it") == {}


def test_what_is_no_mapping_is_refused_where_one_is_needed():
    with pytest.raises(SettingsError, match=r"f, line 1: the settings must be a mapping, found 5"):
        load_yaml("5", "f").mapping("the settings")


def test_files_that_are_no_text_are_refused(tmp_path: Path):
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00a")
    for path in (binary, tmp_path / "missing.yaml", tmp_path, tmp_path / "nul\0.yaml"):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_yaml(path)


def test_crlf_and_a_byte_order_mark_do_not_matter(tmp_path: Path):
    path = tmp_path / "crlf.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: NO\r\n")
    assert read_yaml(path).plain == {"a": 1, "b": "NO"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("NO", "NO"), ("", ""), ("[1, 2]", [1, 2]), ("none", "none")],
)
def test_option_values_follow_the_same_rules(text, value):
    assert parse_scalar(text, "--set x").plain == value


def test_merging_keeps_what_is_not_replaced_and_where_it_stood():
    below = load_yaml("a: {x: 1, y: 2}\nb: [1, 2]", "below")
    merged = merge_nodes(below, load_yaml("a: {y: 3}\nb: [4]", "above"))
    assert merged.plain == {"a": {"x": 1, "y": 3}, "b": [4]}
    assert merged.value["a"].value["x"].place.startswith("below")
    assert merged.value["a"].value["y"].place.startswith("above")


@given(PLAIN, PLAIN)
def test_merging_is_idempotent(a, b):
    below, above = (load_yaml(yaml.safe_dump({"k": value}), "f") for value in (a, b))
    once = merge_nodes(below, above)
    assert merge_nodes(once, above).plain == once.plain
    assert merge_nodes(below, below).plain == below.plain


@pytest.mark.parametrize(
    ("word", "hint"), [("mbais", "did you mean 'mbias'?"), ("MDARK", "did you mean 'mdark'?")]
)
def test_the_nearest_spelling_is_offered(word, hint):
    assert nearest(word, ["mbias", "mdark", "object"]) == hint


def test_what_resembles_nothing_lists_what_is_known():
    assert nearest("qqqqq", ["b", "a"]) == "known: a, b"
    assert nearest("qqqqq", []) == "known: none"
