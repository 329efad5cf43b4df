"""``kspec qc rescore``: new limits for old values, without reducing."""

import sqlite3

import pytest

from kspecpipe import io
from kspecpipe.quality.history import Selection, select_metrics


@pytest.fixture
def biases(camera):
    camera.run("mbias", camera.sof_of(camera.biases(3)))
    return camera


@pytest.fixture
def rescored(biases, qc):
    """Return a function that rescores the history of the biases with settings."""

    def run(*words):
        store = biases.output / "qc.sqlite"
        return qc("rescore", "--qc-store", store, "--instrument", biases.instrument, *words)

    return run


def noise(camera):
    (row,) = select_metrics(camera.output / "qc.sqlite", Selection(metric="READ NOISE"))
    return row


def test_new_limits_change_flags_and_the_old_judgement_stays(biases, rescored):
    assert noise(biases)["flag"] == "unjudged"
    product = next(biases.output.glob("*.fits"))
    before = product.read_bytes()
    result = rescored("--set", "mbias.qc.READ NOISE.fail=[0, 0.1]")
    assert result.code == 0, result.err
    assert "READ NOISE: unjudged -> fail  1" in result.out
    assert (noise(biases)["flag"], noise(biases)["fail_hi"]) == ("fail", 0.1)
    again = rescored("--set", "mbias.qc.READ NOISE.fail=[0, 100]")
    assert "READ NOISE: fail -> ok  1" in again.out
    assert noise(biases)["flag"] == "ok"
    assert product.read_bytes() == before
    with sqlite3.connect(biases.output / "qc.sqlite") as store:
        query = "SELECT flag FROM metrics WHERE name = 'READ NOISE'"
        assert store.execute(query).fetchall() == [("unjudged",)]
        assert store.execute("SELECT source FROM rescorings").fetchall() == [
            ("mbias.qc.READ NOISE.fail=[0, 0.1]",),
            ("mbias.qc.READ NOISE.fail=[0, 100]",),
        ]
    store.close()


def test_the_same_limits_change_nothing_and_leave_no_trace(rescored):
    rescored("--set", "mbias.qc.READ NOISE.fail=[0, 100]")
    result = rescored("--set", "mbias.qc.READ NOISE.fail=[0, 100]")
    assert "0 have new limits, 0 another flag" in result.out


def test_limits_that_are_taken_away_leave_values_unjudged_not_green(rescored):
    rescored("--set", "mbias.qc.READ NOISE.fail=[0, 100]")
    assert "READ NOISE: ok -> unjudged  1" in rescored().out


def test_statistical_limits_apply_to_old_values(biases, rescored, qc):
    for level in range(601, 607):
        camera_frames = [biases.frame(data=biases.noise(level=float(level))) for _ in range(3)]
        made = biases.run(
            "mbias",
            biases.sof_of(camera_frames),
            output=biases.folder / f"{level}",
            qc_store=biases.output / "qc.sqlite",
        )
        words = ("--why", "good", "--qc-store", biases.output / "qc.sqlite")
        assert qc("certify", made.products[0][0], *words).code == 0
    rule = "mbias.qc.BIAS LEVEL.warn={kind: statistical, mad: 3, last: 5}"
    assert rescored("--set", rule).code == 0
    rows = select_metrics(biases.output / "qc.sqlite", Selection(metric="BIAS LEVEL"))
    assert {row["basis"] for row in rows} == {"warn: median +- 3 MAD of the last 5 certified"}
    assert rows[0]["warn_lo"] == pytest.approx(601.0, abs=0.5)  # median 604, MAD 1
    assert rows[0]["warn_hi"] == pytest.approx(607.0, abs=0.5)
    assert rows[0]["flag"] == "warn"  # 600


def test_a_metric_that_changed_its_unit_or_is_gone_is_left_and_told(biases, rescored, row, history):
    foreign = [row("READ NOISE", 3.0, unit="volt"), row("GONE", 1.0)]
    history.path = biases.output / "qc.sqlite"
    history.run(1, foreign)
    history.run(2, [row("LEVEL", 1.0)], recipe="unheard")
    history.run(3, [row("READ NOISE", 3.0)], instrument="OTHER")
    result = rescored("--set", "mbias.qc.READ NOISE.fail=[0, 0.1]")
    assert "1 values, READ NOISE was in volt, its limits are in electron" in result.out
    assert "1 values, GONE is no metric of mbias any more" in result.out
    assert "the recipe unheard or the instrument TINY is not known here" in result.out
    flags = {r["flag"] for r in select_metrics(history.path, Selection(night="2026-01-30"))}
    assert flags == {"ok"}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("mbias.qc.READ NOSE.fail=[0, 1]", "did you mean 'READ NOISE'"),
        ("mbias.qc.READ NOISE.fail=[1, 0]", "1.0 is above 0.0"),
        ("mbais.qc.READ NOISE.fail=[0, 1]", "did you mean 'mbias'"),
    ],
)
def test_wrong_limits_are_errors_and_nothing_is_scored(biases, rescored, assignment, words):
    result = rescored("--set", assignment)
    assert result.code == 2
    assert words in result.err
    assert noise(biases)["flag"] == "unjudged"


def test_products_keep_what_was_written_into_them(biases, rescored):
    rescored("--set", "mbias.qc.READ NOISE.fail=[0, 0.1]")
    header = io.read_header(next(biases.output.glob("*.fits")))
    assert header["ESO QC READ NOISE FLAG"] == "unjudged"
