"""Pictures beside the products, drawn in this process or in copies of it."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from kspecpipe import io, plots
from kspecpipe.figures.pictures import Painter, PainterBeside, painting
from kspecpipe.framework.logs import run_logger
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.framework.runtime import silent_logger
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.images import MasterBias
from kspecpipe.signal import Signal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux only")

#: A process that is killed while one of its copies draws: it says who they are, and waits.
KILLED = """
import sys, time
from pathlib import Path
from kspecpipe import plots
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.figures.pictures import PainterBeside
def slow(figure, stream):
    stream.write(b"half a picture")
    stream.flush()
    time.sleep(1)
plots.save = slow
idle, busy = PainterBeside(RunOptions(), 2), PainterBeside(RunOptions(), 2)
busy.begin([Path(sys.argv[1])])
print(idle._pid, busy._pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def products(tmp_path):
    """Return the paths of three written products; the second cannot be read."""
    paths = [tmp_path / f"{name}.fits" for name in "abc"]
    for path in paths:
        product = MasterBias(image=Signal.of(np.full((20, 30), 7.0, dtype=np.float32), 1.0))
        cards = {"ESO PRO CATG": ("MASTER_BIAS", "")}
        io.write_products([(path, build_hdus(product, cards, {}))])
    paths[1].write_bytes(b"no product")
    return paths


@pytest.fixture
def log():
    logger, _ = run_logger("test", -1, silent_logger())
    return logger


def drawn(painter, products, log):
    painter.begin(products)
    return painter.finish(log)


def scratch(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Return whether a process ends; one that waits for its parent to notice has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_copies_draw_what_the_process_itself_would_draw(products, log):
    expected = drawn(Painter(RunOptions()), products, log)
    assert [path.name for path in expected] == ["a.png", "c.png"]
    content = [path.read_bytes() for path in expected]
    said = list(log.handlers[0].warnings)
    assert len(said) == 1
    assert said[0].startswith("b.fits: no picture: ")
    for path in expected:
        path.unlink()
    with painting(RunOptions(cores=3)) as painter:
        assert isinstance(painter, PainterBeside)
        assert drawn(painter, products, log) == expected
    assert [path.read_bytes() for path in expected] == content
    assert log.handlers[0].warnings == 2 * said
    assert not scratch(products[0].parent)


def test_what_python_warns_of_in_a_copy_is_logged_here(products, log, monkeypatch):
    def doubtful(*_):
        warnings.simplefilter("always")
        warnings.warn("very odd", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(plots, "draw", doubtful)
    with pytest.MonkeyPatch.context() as patch, painting(RunOptions(cores=2)) as painter:
        patch.setattr("kspecpipe.figures.pictures._draw_one", None)  # the copy has the true one
        assert drawn(painter, [products[0]], log) == ()
    assert any("very odd" in line for line in log.handlers[0].lines)


@pytest.mark.parametrize(
    "options",
    [{"cores": 1}, {"plots": "none"}, {"plots": "show"}, {"save": False}],
    ids=lambda options: next(iter(options)),
)
def test_no_copy_is_made_that_could_not_help(options):
    with painting(RunOptions(**{"cores": 2, **options})) as painter:
        assert type(painter) is Painter


def test_where_no_process_is_allowed_pictures_are_drawn_here(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with painting(RunOptions(cores=2)) as painter:
        assert type(painter) is Painter


def test_what_a_dead_copy_owes_is_drawn_here(products, log):
    with painting(RunOptions(cores=2)) as painter:
        os.kill(painter._pid, signal.SIGKILL)
        assert gone(painter._pid)
        assert len(drawn(painter, products[2:], log)) == 1


def test_what_a_copy_that_hangs_owes_is_drawn_here(products, log, monkeypatch):
    monkeypatch.setattr("kspecpipe.figures.pictures.PATIENCE", 0.5)
    with painting(RunOptions(cores=2)) as painter:
        os.kill(painter._pid, signal.SIGSTOP)  # deaf to any signal but the last
        assert len(drawn(painter, products[2:], log)) == 1
    assert gone(painter._pid)


def test_an_error_that_nobody_expects_is_met_here(products, log, monkeypatch):
    def broken(*_):
        raise TypeError("odd")

    monkeypatch.setattr(plots, "draw", broken)
    with painting(RunOptions(cores=3)) as painter, pytest.raises(TypeError, match="odd"):
        drawn(painter, products, log)


def test_a_copy_without_work_ends_at_once():
    start = time.perf_counter()
    with painting(RunOptions(cores=2)) as painter:
        pid = painter._pid
    assert time.perf_counter() - start < 5
    assert not Path(f"/proc/{pid}").exists()


def test_copies_that_are_broken_off_leave_no_half_picture(products, monkeypatch):
    def endless(_, stream):
        stream.write(b"half a picture")
        time.sleep(60)

    monkeypatch.setattr(plots, "save", endless)
    folder = products[0].parent
    with painting(RunOptions(cores=2)) as painter:
        painter.begin([products[0], products[2]])
        end = time.monotonic() + 10
        while len(scratch(folder)) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(scratch(folder)) == 2  # the copy and its own copy both draw
    assert not scratch(folder)
    assert not list(folder.glob("*.png"))


def test_copies_do_not_outlive_a_killed_process_and_leave_whole_pictures(products):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(products[0])], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    copies = [int(word) for word in process.stdout.readline().split()]
    folder = products[0].parent
    end = time.monotonic() + 20
    while not scratch(folder) and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)
    assert len(copies) == 2
    assert all(gone(copy) for copy in copies)
    assert not scratch(folder)
    assert [path.read_bytes() for path in folder.glob("*.png")] == [b"half a picture"]
