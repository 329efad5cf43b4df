"""`kspec simulate`: options become the plan of a night."""

import pytest

from kspecpipe.cli.main import parser_of
from kspecpipe.cli.simulate import plan_of
from kspecpipe.simulate import NightPlan
from kspecpipe.simulate.standards import LibraryPlan

TINY = ["--size=small", "--bias=3", "--dark=1", "--flat=0", "--arc=0", "--object=0"]


def plan(*words):
    parser, _ = parser_of("simulate")
    return plan_of(parser.parse_args(["out", *words]))


def test_no_options_give_the_plan_of_the_simulator():
    assert plan() == NightPlan(library=LibraryPlan())


def test_options_reach_the_plan():
    words = """
        --mode 600_430 --mode 150_620 --bias 7 --object 0 --size small
        --fibres 9 --dead 2 3 --layout 1330x1340 --names old --separate-lamps --cube
        --tile 8 --without ghosts --without fringes
    """
    found = plan(*words.split())
    assert found.modes == ("600_430", "150_620")
    assert (found.counts.bias, found.counts.object) == (7, 0)
    assert found.counts.flat == NightPlan().counts.flat
    assert (found.size, found.n_fibres, found.dead) == ("small", 9, (2, 3))
    assert (found.layout, found.names, found.tile) == ("1330x1340", "old", 8)
    assert found.separate_lamps
    assert found.cube
    assert (found.traps.ghosts, found.traps.fringes, found.traps.noise) == (False, False, True)
    assert plan("--instrument", "kspec", "--mode", "VIS").instrument == "kspec"
    assert not plan("--no-traps").traps.noise


def test_night_is_written_and_named(kspec, tmp_path):
    out = tmp_path / "night"
    result = kspec("simulate", out, *TINY, "--seed", 3)
    assert result.code == 0
    assert "3 BIAS, 1 DARK files" in result.out
    assert "bias.sof" in result.out
    assert len(list(out.glob("*.fits"))) == 4
    again = tmp_path / "again"
    kspec("simulate", again, *TINY, "--seed", 3)
    for path in out.glob("*.fits"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_a_corner_of_the_chip_is_reduced_with_the_instrument_that_is_named(kspec, tmp_path):
    result = kspec("simulate", tmp_path / "night", *TINY)
    option = result.out.split("of no shipped instrument: ")[1].split()
    bias = tmp_path / "night" / "bias.sof"
    assert kspec("mbias", bias, "-o", tmp_path / "products", *option).code == 0


def test_folder_with_files_is_left_alone_unless_asked(kspec, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = kspec("simulate", tmp_path, *TINY)
    assert result.code == 2
    assert "holds files" in result.err
    assert len(list(tmp_path.iterdir())) == 1
    assert kspec("simulate", tmp_path, *TINY, "--overwrite").code == 0
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "15_620"], "15_620"),
        (["--without", "ghost"], "did you mean 'ghosts'?"),
        (["--flat", "-1"], "-1 is below 0"),
        (["--flat", "many"], "many"),
        (["--instrument", "hubble"], "hubble"),
        (["--layout", "5x5"], "5x5"),
        (["--dead", "0"], "0 is below 1"),
        (["--dead", "99"], "there is no fibre 99 to be dead: FIBRE_IDs are 1 to 14"),
        (["--dead", *map(str, range(1, 15))], "all 14 fibres would be dead"),
        (["--instrument", "kspec", "--fibres", "9", "--dead", "11"], "FIBRE_IDs are 1 to 9"),
        (["--fibres", "1"], "1 fibres are too few"),
        (["--fibres", "7"], "take 8 or more"),
        (["--fibres", "100000"], "take fewer fibres"),
        (["--fibres", "0"], "0 is below 1"),
        (["--fibres", "2.5"], "'2.5' is no whole number"),
        (["--seed", "-1"], "-1 is below 0"),
        (["--seed", "x"], "'x' is no whole number"),
        (["--tile", "-5"], "-5 is below 0"),
        (["--mode", ""], "has no mode"),
        (["--without", ""], "--without"),
        (["--size", "huge"], "huge"),
        (["--names", "odd"], "odd"),
        (["--instrument", "kspec", "--layout", "1330x1340"], "belongs to ISOPLANE"),
        (["--instrument", "kspec", "--names", "old"], "belongs to ISOPLANE"),
        (["--instrument", "kspec", "--cube"], "belongs to ISOPLANE"),
        ([f"--{name}=0" for name in ("bias", "dark", "flat", "arc", "object")], "nothing to"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(kspec, tmp_path, words, message):
    result = kspec("simulate", tmp_path / "night", "--size", "small", *words)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "night").exists()


def test_place_that_cannot_be_written_is_an_error(kspec, tmp_path):
    (tmp_path / "file").touch()
    assert kspec("simulate", tmp_path / "file", *TINY).code == 2
    result = kspec("simulate", tmp_path / "file" / "night", *TINY)
    assert result.code in (1, 2)
    assert "file" in result.err
