"""The verdict beside a picture: the worst first, limits drawn, nothing green that is not judged."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kspecpipe.figures.house_style import COLOURS, FLAG_MARKS, LIMIT_LINES, draw_limits, house_style
from kspecpipe.figures.verdict_panel import add_verdict
from kspecpipe.qc import Flag, Limits, QCRow

LIMITS = Limits(warn=(1.0, 2.0), fail=(0.0, 4.0))


def row(name, value, limits=LIMITS, **more):
    flag = more.pop("flag", None) or limits.judge(value)
    given = {"unit": "pixel", "scope": "frame", "exposure": "", "fibre": 0, "doc": ""} | more
    return QCRow(name=name, value=value, limits=limits, flag=flag, **given)


def panel(*rows, gid=None):
    with house_style():
        figure = Figure()
        axis = figure.subplots()
    axis.plot([0, 1], [0, 3])
    axis.set_gid(gid)
    add_verdict(figure, rows)
    FigureCanvasAgg(figure).draw()
    texts = [text.get_text() for text in figure.axes[-1].texts]
    return figure, texts


def test_without_metrics_the_picture_stays_as_it_is():
    figure, _ = panel()
    assert len(figure.axes) == 1
    assert tuple(figure.get_size_inches()) == (11.0, 6.5)


@pytest.mark.parametrize(
    ("value", "word"),
    [(1.5, "GOOD"), (3.0, "LOOK AT IT"), (5.0, "NOT GOOD"), (math.nan, "NOT GOOD")],
)
def test_the_worst_metric_makes_the_headline(value, word):
    assert panel(row("A", 1.5), row("B", value))[1][0] == word


def test_a_product_without_limits_is_not_called_good():
    unjudged, na = row("A", 1.5, Limits()), row("B", math.nan, flag=Flag.NA)
    assert panel(unjudged, na)[1][0] == "NOT JUDGED"


def test_the_worst_metrics_come_first_and_each_stands_once():
    many = [row("PER FIBRE", value, fibre=i) for i, value in enumerate((1.5, 9.0, 1.2), 1)]
    _, texts = panel(row("GOOD ONE", 1.5), row("ODD ONE", 3.0), *many)
    names = [text for text in texts if text in ("PER FIBRE", "ODD ONE", "GOOD ONE")]
    assert names == ["PER FIBRE", "ODD ONE", "GOOD ONE"]
    assert "fibre 2: 9 pixel" in texts
    assert texts[1] == "metrics: 1 ok, 1 warn, 1 fail"


def test_what_has_no_room_is_counted():
    _, texts = panel(*[row(f"M {i}", 1.5) for i in range(50)])
    left = 50 - sum(text.startswith("M ") for text in texts)
    assert texts[-1] == f"and {left} ok"
    assert left > 0


def test_the_picture_keeps_its_size_and_the_panel_lies_beside_it():
    figure, _ = panel(row("A", 1.5))
    picture, verdict = (axis.get_position() for axis in figure.axes)
    assert picture.x1 < verdict.x0
    assert figure.get_size_inches()[0] > 11


def test_limits_are_drawn_where_the_metric_itself_is_drawn():
    figure, _ = panel(row("A", 1.5), gid="A")
    drawn = {line.get_ydata()[0]: line for line in figure.axes[0].lines[1:]}
    assert {0.0, 1.0, 2.0, 4.0} == set(drawn)
    assert drawn[1.0].get_linestyle() == "--"
    assert drawn[4.0].get_color() == LIMIT_LINES["fail"][0]
    assert figure.axes[0].get_legend() is not None


def test_far_and_infinite_limits_do_not_shrink_the_data():
    axis = Figure().subplots()
    axis.plot([0, 1], [0, 1])
    draw_limits(axis, Limits(warn=(-np.inf, 1e6), fail=(0.5, 1e9)))
    assert axis.get_ylim()[1] < 2
    assert len(axis.lines) == 2


@pytest.mark.parametrize(
    "limits",
    [
        Limits(warn=(0.0, 0.0), fail=(0.0, 99.0)),
        Limits(warn=(2.0, math.inf)),
        Limits(fail=(-math.inf, 3.0)),
        Limits(warn=(-1e-9, 1e-9)),
        Limits(warn=(3.0, 1.0)),
    ],
)
@pytest.mark.parametrize("value", [0.0, 1e30, -5.0, math.nan])
def test_any_limits_can_be_drawn(limits, value):
    assert len(panel(row("A", value, limits))[0].axes) == 2


def test_each_flag_has_a_marker_of_its_own():
    markers = [marker for _, marker in FLAG_MARKS.values()]
    assert set(FLAG_MARKS) == set(Flag)
    assert len(set(markers)) == len(markers)


def test_the_colours_come_from_the_style_file():
    with house_style():
        axis = Figure().subplots()
        assert axis.plot([0, 1])[0].get_color().lower() == COLOURS[0].lower()
    assert Figure().subplots().plot([0, 1])[0].get_color() != COLOURS[0]
