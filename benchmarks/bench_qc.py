"""The history at the size of years: table, trend, rebuild, report, and two writers at once."""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from kspecpipe import io, plots
from kspecpipe.framework.writing import qc_table
from kspecpipe.nights import night_of
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.images import PixelFlat
from kspecpipe.qc import Limits, QCRow
from kspecpipe.quality.history import Selection, select_metrics
from kspecpipe.quality.rebuild import rebuild
from kspecpipe.quality.store import InputRecord, ProductRecord, RunRecord, record_run, record_runs
from kspecpipe.quality.trend import analyse
from kspecpipe.quality.trend_figure import draw_trend
from kspecpipe.quality.trend_series import series_of
from kspecpipe.report import write_report
from kspecpipe.signal import Signal

FIBRES = 150
LIMITS = Limits(warn=(0.5, 1.5), fail=(0.1, 2.0))


def rows(rng: np.random.Generator, count: int) -> list[QCRow]:
    """Return a metric of 150 fibres, and others of the frame, ``count`` in all."""
    values = rng.normal(1.0, 0.1, count)
    found = []
    for i, value in enumerate(values):
        fibre = i + 1 if i < FIBRES else 0
        name, scope = ("THROUGHPUT", "fibre") if fibre else (f"METRIC {i}", "frame")
        flag = LIMITS.judge(float(value))
        found.append(QCRow(name, float(value), "", scope, "", fibre, LIMITS, flag, "a metric"))
    return found


def run(number: int, metrics: list[QCRow], folder: Path) -> RunRecord:
    """Return a run of one night each."""
    mjd = 61000.4 + number
    name = f"flat_{number:04d}"
    return RunRecord(
        recipe="mflat",
        started="2026-01-29T23:00:00",
        seconds=30.0,
        memory_mb=500.0,
        status="ok",
        exit_code=0,
        instrument="KSPEC",
        mode="VIS",
        night=night_of(mjd),
        mjd=mjd,
        folder=str(folder),
        products=[ProductRecord(f"{name}.fits", "FIBRE_FLAT", name, name)],
        inputs=[InputRecord("raw", f"raw_{number}.fits", "FLAT", f"raw{number}")],
        metrics=metrics,
    )


def fill(store: Path, runs: int, each: int) -> None:
    """Write a history."""
    rng = np.random.default_rng(1)
    record_runs(store, [run(i, rows(rng, each), store.parent) for i in range(runs)])


def trend(store: Path) -> None:
    """Draw the trend of the metric per fibre over all nights."""
    series = series_of(select_metrics(store, Selection(metric="THROUGHPUT", mode="VIS")))
    found = analyse(series.mjd, series.values, {"fail": series.limits.fail})
    plots.save(draw_trend(series, found, ()), store.parent / "trend.png")


def make_products(folder: Path, count: int) -> None:
    """Write products with a QC table of 200 rows."""
    rng = np.random.default_rng(2)
    settings = Table({"name": ["a"], "value": ["1"], "unit": [""], "source": ["mine.yaml"]})
    tables = {"QC": qc_table(rows(rng, 200)), "SETTINGS": settings}
    product = PixelFlat(image=Signal.of(rng.normal(1.0, 0.1, (64, 64)), 1.0))
    for i in range(count):
        cards = {
            "ESO PRO CATG": ("PIXEL_FLAT", ""),
            "ESO PRO KEY": (f"key{i}", ""),
            "ESO PRO REC1 ID": ("lflat", ""),
            "MJD-OBS": (61000.4 + i, ""),
            "INSTRUME": ("KSPEC", ""),
        }
        hdus = build_hdus(product, cards, tables)
        io.write_products([(folder / f"flat_{i:04d}.fits", hdus)])


def make_night(folder: Path, count: int) -> Path:
    """Write a history of one night with pictures of spectra beside the products."""
    rng = np.random.default_rng(3)
    make_products(folder, count)
    records = []
    for i in range(count):
        product = PixelFlat(image=Signal.of(rng.normal(1.0, 0.1, (400, 400)), 1.0))
        figure = plots.draw(product, rows(rng, 180))
        assert figure is not None
        plots.save(figure, folder / f"flat_{i:04d}.png")
        (folder / f"flat_{i:04d}.log").write_text("INFO a line of the log\n" * 40)
        records.append(replace(run(i, rows(rng, 180), folder), night="2026-01-29"))
    record_runs(folder / "qc.sqlite", records)
    return folder / "qc.sqlite"


def write_some(store: Path, name: str, count: int) -> None:
    """Write runs one by one, as a process of its own does."""
    for i in range(count):
        record_run(store, replace(run(i, [], store.parent), message=f"{name} {i}"))


def two_writers(store: Path, count: int = 200) -> int:
    """Return how many of the runs of two processes are missing."""
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=write_some, args=(store, name, count)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    import sqlite3

    with sqlite3.connect(store) as connection:
        found = {message for (message,) in connection.execute("SELECT message FROM runs")}
    connection.close()
    return 2 * count - len(found)


def timed(label: str, aim: str, action: Callable[[], object]) -> None:
    """Print wall and processor time of an action."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:<46} {wall:7.2f} s  (cpu {cpu:6.2f} s, aim {aim})")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--night", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        store = place / "years" / "qc.sqlite"
        store.parent.mkdir()
        timed("write 500 runs, 100 000 metrics", "-", lambda: fill(store, 500, 200))
        night = night_of(61200.4)
        timed("table: one night", "0.5 s", lambda: select_metrics(store, Selection(night=night)))
        one = Selection(metric="METRIC 160", mode="VIS")
        timed("table: one metric", "0.5 s", lambda: select_metrics(store, one))
        bad = Selection(flags=("warn", "fail"))
        timed("table: all warn and fail", "0.5 s", lambda: select_metrics(store, bad))
        timed("table: all 100 000", "-", lambda: select_metrics(store, Selection()))
        timed("trend: 150 fibres, 500 nights, with its plot", "2 s", lambda: trend(store))
        products = place / "products"
        products.mkdir()
        make_products(products, options.products)
        new = place / "new.sqlite"
        timed(
            f"rebuild from {options.products} products", "60 s", lambda: rebuild(new, products, {})
        )
        folder = place / "night"
        folder.mkdir()
        history, out = make_night(folder, options.night), place / "pages"
        timed(f"report of {options.night} products", "20 s", lambda: write_report(history, out))
        size = (out / "2026-01-29.html").stat().st_size / 1e6
        print(f"{'its page':<46} {size:7.2f} MB (aim 15 MB)")
        print(f"{'lost of 400 runs of two processes':<46} {two_writers(place / 'two.sqlite'):7d}")


if __name__ == "__main__":
    main()
