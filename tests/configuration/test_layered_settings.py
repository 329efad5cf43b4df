from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspecpipe.configuration.layered_settings import (
    Layer,
    Overrides,
    Recipe,
    instrument_mode_layer,
    mode_layer,
    resolve,
    user_layers,
)
from kspecpipe.configuration.yaml_source import load_yaml
from kspecpipe.declare import Declared, metric, parameter
from kspecpipe.errors import SettingsError
from kspecpipe.qc import Limits

NAMES = ["mflat", "mbias"]


class Parameters(Declared):
    clip: float = parameter(5.0, unit="sigma", above=0)
    order: int = parameter(3, at_least=1, at_most=9)
    grid: tuple[float, float] | None = parameter(None)
    name: str = parameter("x")


class Metrics(Declared):
    rms: float = metric("TRACE RMS", unit="pixel")


MFLAT = Recipe("mflat", Parameters, Metrics)


def layer(name: str, text: str) -> Layer:
    return Layer(name, load_yaml(text, name).mapping("settings"))


def from_user(**options):
    return resolve(MFLAT, user_layers(Overrides(**options), NAMES))


def test_defaults_hold_when_no_layer_says_otherwise():
    found = resolve(MFLAT, [])
    assert (found.parameters.clip, found.parameters.order) == (5.0, 3)
    assert set(found.sources.values()) == {"default"}
    assert found.limits == {}


def test_later_layers_win_value_by_value_and_are_named():
    found = resolve(
        MFLAT,
        [
            layer("a.yaml", "mflat: {parameters: {clip: 4, order: 2}}"),
            layer("b.yaml", "mflat: {parameters: {clip: 3}}\nmbias: {parameters: {clip: 9}}"),
        ],
    )
    assert (found.parameters.clip, found.parameters.order) == (3.0, 2)
    assert found.sources == {
        "clip": "b.yaml",
        "order": "a.yaml",
        "grid": "default",
        "name": "default",
    }


def test_limits_merge_pair_by_pair():
    found = resolve(
        MFLAT,
        [
            layer("a", "mflat: {qc: {TRACE RMS: {warn: [0, 0.03], fail: [0, 0.1]}}}"),
            layer("b", "mflat: {qc: {TRACE RMS: {fail: [0, .inf]}}}"),
        ],
    )
    assert found.limits == {"TRACE RMS": Limits(warn=(0.0, 0.03), fail=(0.0, float("inf")))}


def test_the_user_has_the_last_word(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mflat: {parameters: {clip: 4, order: 4, name: NO}}")
    found = from_user(
        files=(path,),
        mapping={"mflat": {"parameters": {"clip": 2.5}}},
        assignments=("mflat.order=7", "mflat.grid=[1, 2e1]"),
    )
    assert (found.parameters.clip, found.parameters.order, found.parameters.name) == (2.5, 7, "NO")
    assert found.parameters.grid == (1.0, 20.0)
    assert found.sources["order"] == "--set mflat.order=7"


def test_limits_can_be_set_from_the_command_line():
    found = from_user(assignments=("mflat.qc.TRACE RMS.fail=[0, 1]",))
    assert found.limits["TRACE RMS"].fail == (0.0, 1.0)


def test_instrument_facts_can_be_set_from_the_command_line():
    layers = user_layers(
        Overrides(assignments=("instrument.name=X", "instrument.detector.gain=2")), NAMES
    )
    assert [each.sections["instrument"].plain for each in layers] == [
        {"name": "X"},
        {"detector": {"gain": 2}},
    ]


@given(st.floats(1e-9, 1e9))
def test_a_number_set_on_the_command_line_arrives_exactly(value):
    assert from_user(assignments=(f"mflat.clip={value!r}",)).parameters.clip == value


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("mflat:\n  parameters: {clop: 3}", 2, ["mflat has no parameter 'clop'", "'clip'?"]),
        ("mflat:\n  parameters:\n    clip: many", 3, ["mflat.clip must be number, found 'many'"]),
        ("mflat: {parameters: {clip: 0}}", 1, ["mflat.clip: 0.0 is not above 0"]),
        ("mflat: {parameters: {clip: .nan}}", 1, ["not finite"]),
        ("mflat: {parameters: {order: 10}}", 1, ["10 is above 9"]),
        ("mflat: {parameters: {order: 2.5}}", 1, ["must be integer, found 2.5"]),
        ("mflat: {parameters: {name: 150}}", 1, ["must be text, found 150"]),
        ("mflat: {paramters: {clip: 3}}", 1, ["unknown key 'paramters'", "'parameters'?"]),
        ("mflat: 5", 1, ["mflat must be a mapping, found 5"]),
        ("mflat: {parameters: [1]}", 1, ["parameters must be a mapping"]),
        ("mflat: {qc: {TRACE RSM: {warn: [0, 1]}}}", 1, ["no metric 'TRACE RSM'", "'TRACE RMS'?"]),
        ("mflat: {qc: {TRACE RMS: {war: [0, 1]}}}", 1, ["unknown key 'war'; use warn and fail"]),
        ("mflat: {qc: {TRACE RMS: {warn: [1, 0]}}}", 1, ["1.0 is above 0.0"]),
        ("mflat: {qc: {TRACE RMS: {warn: [.nan, 0]}}}", 1, [".nan is no limit"]),
        ("mflat: {qc: {TRACE RMS: {warn: [.nan, 0]}}}", 1, ["nan"]),
        ("mflat: {qc: {TRACE RMS: {warn: [0]}}}", 1, ["needs 2 values, found 1"]),
        ("mflat: {qc: {TRACE RMS: {warn: 3}}}", 1, ["must be list of number, number, found 3"]),
        ("mfalt: {parameters: {}}", 1, ["unknown recipe 'mfalt'", "did you mean 'mflat'?"]),
        ("- 1", 1, ["must be a mapping"]),
    ],
)
def test_wrong_settings_are_refused_with_file_line_and_spelling(tmp_path, text, line, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        from_user(files=(path,))
    message = str(caught.value)
    assert message.startswith(f"mine.yaml, line {line}:")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text", ["mflat", "mflat.clip", "clip=3", "=3", "mflat.=3", ".clip=3", "mflat..clip=3", ""]
)
def test_an_assignment_of_the_wrong_form_says_the_right_one(text):
    with pytest.raises(SettingsError, match=r"write recipe\.parameter=value"):
        from_user(assignments=(text,))


@pytest.mark.parametrize(
    "text", ["mflat.clip=[1, 2", "mflat.clip=!!python/name:os", "mflat.clop=1"]
)
def test_a_wrong_assignment_is_quoted(text):
    with pytest.raises(SettingsError) as caught:
        from_user(assignments=(text,))
    assert f"--set {text}" in str(caught.value)


def test_wrong_settings_from_python_say_where_they_came_from():
    with pytest.raises(SettingsError, match=r"settings given from Python.*clop"):
        from_user(mapping={"mflat": {"parameters": {"clop": 1}}})


def test_a_missing_settings_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        from_user(files=(tmp_path / "no.yaml",))


@pytest.mark.parametrize("mode", ["", "no_such_mode", "../isoplane", "a/b", "x" * 500, "nul\0"])
def test_a_mode_without_settings_has_no_layer(mode):
    assert mode_layer("isoplane", mode) is None
    assert instrument_mode_layer(Path("/"), "isoplane", mode) is None


def test_a_mode_cannot_reach_files_of_other_folders(tmp_path):
    (tmp_path / "tiny_x").mkdir()
    (tmp_path / "secret.yaml").write_text("mflat: {}")
    assert instrument_mode_layer(tmp_path, "tiny", "x/../secret") is None


def test_mode_settings_stand_beside_the_instrument_file(tmp_path):
    (tmp_path / "tiny_blue.yaml").write_text("mflat: {parameters: {clip: 2}}")
    found = instrument_mode_layer(tmp_path, "tiny", "blue")
    assert found is not None
    assert resolve(MFLAT, [found]).parameters.clip == 2.0


def test_all_wrong_settings_of_all_layers_come_at_once():
    with pytest.raises(SettingsError) as caught:
        resolve(
            MFLAT,
            [
                layer("a.yaml", "mflat:\n  parametres: {}\n  parameters: {clop: 4, order: 0}"),
                layer("b.yaml", "mflat:\n  qc: {TRACE RMS: {warn: [2, 1]}, TRACE: {}}"),
            ],
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "a.yaml, line 2",
        "a.yaml, line 3",
        "a.yaml, line 3",
        "b.yaml, line 2",
        "b.yaml, line 2",
    ]
