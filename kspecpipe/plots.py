"""Pictures of products: functions of the written product, so that every viewer draws the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kspecpipe.detector.robust import median_of_known
from kspecpipe.errors import IdentificationError
from kspecpipe.figures.house_style import COLOURS, house_style
from kspecpipe.figures.verdict_panel import add_verdict
from kspecpipe.products.combined import Gridded, unit_of
from kspecpipe.products.images import (
    Background,
    BadPixelMap,
    MasterBias,
    MasterDark,
    ModelImage,
    PixelFlat,
    Preprocessed,
)
from kspecpipe.products.product import Product
from kspecpipe.qc import QCRow
from kspecpipe.signal import BoolArray, FloatArray
from kspecpipe.spectra import Extracted, FibreFlat, TramlineMap, WaveSolution

#: Room for labels in inches: left, right, bottom and top of the picture, and between its panels.
#: Fixed, because a layout engine draws everything twice to find it.
_LEFT, _RIGHT, _BOTTOM, _TOP, _ACROSS, _BETWEEN = 1.0, 0.3, 0.55, 0.6, 0.95, 0.75
#: Between panels on top of each other, of which only the lowest says what its axis is.
_STACKED = 0.35
#: Columns from point to point of smooth lines.
_SMOOTH = 8
#: Spectra in one panel: more cannot be told apart, and the image beside it shows them all.
_MOST = 50
#: Where the logarithmic axis of a histogram begins: a single pixel is seen.
_EMPTY_BIN = 0.7
#: Logarithmic axes have ticks at decades only: those between take a fifth of a picture's time.
_DECADES = {"subs": ()}
#: Metrics in the unit of the columns' and rows' medians: their limits are drawn there.
_LEVELS = {"MASTER_BIAS": "BIAS LEVEL", "MASTER_DARK": "DARK RATE"}


@house_style()
def draw(product: Product, rows: Sequence[QCRow] = ()) -> Figure | None:
    """Return the picture of a product, or None when there is none for its category.

    Parameters
    ----------
    product : Product
        As it was read.
    rows : sequence of QCRow
        Its metrics: they are drawn beside it on their limits, below the verdict.
    """
    painter = _PAINTERS.get(product.catg)
    if painter is None:
        return None
    figure = painter(product)
    add_verdict(figure, rows)
    return figure


def _leave_room(figure: Figure, rows: int, columns: int, *, stacked: bool) -> None:
    """Set the margins of a picture of equal panels."""
    width, height = figure.get_size_inches()
    across = (width - _LEFT - _RIGHT - (columns - 1) * _ACROSS) / columns
    between = _STACKED if stacked else _BETWEEN
    along = (height - _BOTTOM - _TOP - (rows - 1) * between) / rows
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=_BOTTOM / height,
        top=1 - _TOP / height,
        wspace=_ACROSS / across,
        hspace=between / along,
    )


@house_style()
def draw_identification(error: IdentificationError) -> Figure:
    """Draw light, and where its fibres or lines would lie by each identification."""
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 1)
    light = np.asarray(error.light)
    axes.plot(light, color="k", lw=0.8)
    top = float(np.max(light, initial=1.0))
    for i, (label, places) in enumerate(error.places.items()):
        height = np.full(len(places), (-0.04 - 0.04 * i) * top)
        axes.plot(places, height, "^", ms=5, color=COLOURS[i], label=label)
    shown = np.concatenate([[], *(np.asarray(places) for places in error.places.values())])
    axes.set(xlabel=error.labels[0], ylabel=error.labels[1])
    if shown.size:
        axes.set_xlim(shown.min() - 60, shown.max() + 60)
        axes.legend(loc="upper right")
    figure.suptitle("\n".join(wrap(str(error), 130)), fontsize=9)
    return figure


def save(figure: Figure, target: Path | BinaryIO) -> None:
    """Write a picture to a file of any type that matplotlib knows, or as PNG to a stream."""
    FigureCanvasAgg(figure)
    # Half the time for a twentieth more of space; other types know no such option.
    options: dict[str, Any] = (
        {} if isinstance(target, Path) else {"pil_kwargs": {"compress_level": 3}}
    )
    with house_style():
        figure.savefig(target, **options)


@house_style()
def warm_up() -> None:
    """Draw an empty picture: fonts and the rules of mathematics are loaded with the first one."""
    figure = Figure()
    figure.subplots().set_yscale("log")
    figure.draw_without_rendering()


def show(figure: Figure) -> None:
    """Show a picture in a window and wait until it is closed."""
    from matplotlib import pyplot

    manager = pyplot.figure().canvas.manager
    if manager is not None:
        figure.set_canvas(manager.canvas)
        manager.canvas.figure = figure
    pyplot.show()


def new_figure(
    product: Product, rows: int = 1, columns: int = 1, *, stacked: bool = False, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure with the product in its title, and its axes; stacked ones share theirs."""
    figure = Figure()
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    _leave_room(figure, rows, columns, stacked=stacked)
    header = product.header
    mode = header.get("INSMODE") or header.get("READMODE", "")
    title = (
        f"{product.catg}   {header.get('INSTRUME', '')} {mode}   {header.get('DATE-OBS', '')[:19]}"
    )
    figure.suptitle(f"{title}   {header.get('OBJECT', '')}")
    return figure, axes


def _limits(values: FloatArray, low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    lo, hi = np.percentile(finite, [low, high])
    return float(lo), float(hi if hi > lo else lo + 1)


def _show_image(figure: Figure, axis: Any, image: FloatArray, label: str) -> None:
    step = max(1, image.shape[0] // 700), max(1, image.shape[1] // 700)
    lo, hi = _limits(image[:: step[0], :: step[1]])
    shown = axis.imshow(
        image[:: step[0], :: step[1]],
        vmin=lo,
        vmax=hi,
        extent=(0, image.shape[1], 0, image.shape[0]),
    )
    axis.set(xlabel="column [pixel]", ylabel="row [pixel]")
    narrow = axis.get_position().width < 0.5
    figure.colorbar(shown, ax=axis, label=label, fraction=0.15 if narrow else 0.07, pad=0.02)


def _histogram(axis: Any, values: FloatArray, label: str) -> None:
    sample = values[np.isfinite(values)]
    sample = sample[:: max(1, sample.size // 200_000)]
    number, edges = np.histogram(sample, bins=120, range=_limits(sample, 0.1, 99.9))
    # One outline: 120 bars would take longer than all else in the picture.
    axis.stairs(number, edges, baseline=_EMPTY_BIN, fill=True, color=COLOURS[0])
    axis.set_yscale("log", **_DECADES)
    axis.set(xlabel=label, ylabel="pixels", ylim=(_EMPTY_BIN, None))


def _two_kinds(axis: Any, x: FloatArray, residual: FloatArray, used: BoolArray) -> None:
    axis.plot(x[used], residual[used], ".", ms=3, color=COLOURS[0], label="used")
    axis.plot(x[~used], residual[~used], "x", ms=3, color=COLOURS[1], label="left out")


def _paint_frame(product: MasterBias | MasterDark | PixelFlat | Preprocessed) -> Figure:
    unit = product.hdus()["image"].unit or "relative response"
    figure, axes = new_figure(product, 2, 2)
    image = product.image.value
    _show_image(figure, axes[0, 0], image, unit)
    _histogram(axes[0, 1], image, unit)
    for axis, along, name in ((axes[1, 0], 0, "column"), (axes[1, 1], 1, "row")):
        median = column_median(image if along == 0 else image.T)
        axis.plot(median, color=COLOURS[0])
        axis.set(xlabel=f"{name} [pixel]", ylabel=f"median [{unit}]")
        axis.set_gid(_LEVELS.get(product.catg))
    return figure


def _paint_image(product: Background | ModelImage) -> Figure:
    figure, axes = new_figure(product)
    _show_image(figure, axes[0, 0], product.image, product.hdus()["image"].unit)
    return figure


def _paint_bad_pixels(product: BadPixelMap) -> Figure:
    figure, axes = new_figure(product)
    axis = axes[0, 0]
    for i, (bit, name) in enumerate(((1, "bad"), (2, "hot"), (4, "unstable"), (8, "saturated"))):
        y, x = np.nonzero(product.dq & bit)
        axis.plot(x, y, ".", ms=2, color=COLOURS[i], label=f"{name}: {x.size}")
    axis.set(
        xlabel="column [pixel]",
        ylabel="row [pixel]",
        xlim=(0, product.dq.shape[1]),
        ylim=(0, product.dq.shape[0]),
    )
    axis.legend(loc="upper right")
    return figure


def _paint_traces(product: TramlineMap) -> Figure:
    figure, axes = new_figure(product, 2, 2)
    y, ids = product.traces.value, np.asarray(product.fibres["FIBRE_ID"])
    dead = np.asarray(product.fibres["STATUS"]) == "DEAD"
    if product.points is not None and len(product.points):
        axes[0, 0].plot(product.points["x"], product.points["y"], "k.", ms=1.5, label="detected")
        axes[0, 0].legend(loc="upper right")
    column = np.arange(y.shape[1])[::_SMOOTH]
    for i, row in enumerate(y):
        style = {"color": COLOURS[1], "ls": ":"} if dead[i] else {"color": COLOURS[0]}
        axes[0, 0].plot(column, row[::_SMOOTH], lw=0.7, **style)
    axes[0, 0].set(xlabel="column [pixel]", ylabel="trace [pixel] (dotted: dead)")
    if product.points is not None and len(product.points):
        points = product.points
        used = np.asarray(points["used"], dtype=bool)
        residual = np.asarray(points["residual"])
        axes[0, 1].plot(
            points["x"][used], residual[used], ".", ms=2, color=COLOURS[0], label="used"
        )
        axes[0, 1].plot(
            points["x"][~used], residual[~used], "x", ms=3, color=COLOURS[1], label="rejected"
        )
        axes[0, 1].set_ylim(*(np.array([-1, 1]) * 6 * max(1e-3, np.nanstd(residual[used]))))
        axes[0, 1].legend(loc="upper right")
    axes[0, 1].set(xlabel="column [pixel]", ylabel="measured - model [pixel]")
    image = axes[1, 0].imshow(product.width)
    axes[1, 0].set(xlabel="column [pixel]", ylabel="fibre (trace order)")
    figure.colorbar(image, ax=axes[1, 0], label="profile FWHM [pixel]")
    cards = product.profile_axes
    offset = cards.get("CRVAL1", 0) + cards.get("CDELT1", 1) * np.arange(product.profile.shape[-1])
    middle = product.profile[:, product.profile.shape[1] // 2]
    for i, profile in enumerate(middle):
        colour = COLOURS[i % len(COLOURS)]
        axes[1, 1].semilogy(offset, np.clip(profile, 1e-5, None), color=colour, **_DECADES)
    axes[1, 1].set(xlabel="row - trace [pixel]", ylabel="flux fraction per pixel, middle column")
    axes[0, 0].set_title(f"{len(ids)} fibres, {int(dead.sum())} dead")
    return figure


def _paint_flat(product: FibreFlat) -> Figure:
    figure, axes = new_figure(product, 2, 2)
    ids = np.asarray(product.fibres["FIBRE_ID"])
    throughput = np.asarray(product.fibres["THROUGHPUT"])
    passed = np.where(throughput > 0, throughput, np.nan)
    some = slice(None, None, -(-len(ids) // _MOST))
    axes[0, 0].plot((product.extracted / passed[:, None])[some].T, lw=0.5, alpha=0.7)
    fit = product.blaze_fit
    scatter = 100 * float(fit.get("ESO PRO BLAZE RMS", np.nan))
    label = f"blaze: {fit.get('ESO PRO BLAZE METHOD', 'spline')}, fits to {scatter:.1f} %"
    axes[0, 0].plot(product.blaze, "k--", lw=1.2, label=label)
    lamps = product.lamps if product.lamps is not None else ()
    for colour, row in zip(COLOURS[4:], lamps, strict=False):
        span = (row["FIRST"], row["LAST"])
        axes[0, 0].axvspan(*span, ymax=0.04, color=colour, lw=0, label=row["LAMP"])
    axes[0, 0].set(xlabel="column [pixel]", ylabel="flat / throughput [electron]")
    axes[0, 0].set_ylim(*(np.array([-0.02, 1.25]) * max(1.0, _limits(product.blaze, 0, 100)[1])))
    axes[0, 0].legend(loc="upper center", ncols=3)
    axes[0, 1].vlines(ids, 0, throughput, color=COLOURS[0], lw=250 / len(ids))
    axes[0, 1].set_gid("THROUGHPUT")  # the metric whose limits are drawn here
    axes[0, 1].axhline(1, color="k", lw=0.6)
    axes[0, 1].set(xlabel="FIBRE_ID", ylabel="throughput (median = 1)")
    axes[1, 0].plot(product.flat.value[some].T, lw=0.5)
    axes[1, 0].set(
        xlabel="column [pixel]", ylabel="fibre flat", ylim=_limits(product.flat.value, 0.5, 99.5)
    )
    image = axes[1, 1].imshow(product.flat.value, vmin=0.9, vmax=1.1)
    axes[1, 1].set(xlabel="column [pixel]", ylabel="fibre (trace order)")
    figure.colorbar(image, ax=axes[1, 1], label="fibre flat")
    return figure


def _paint_wavelengths(product: WaveSolution) -> Figure:
    figure, axes = new_figure(product, 2, 2)
    lines, middle = product.lines, product.wavelength.shape[0] // 2
    used = np.asarray(lines["used"], dtype=bool)
    if product.arc is not None:
        wave = product.wavelength.value[middle]
        arc = product.arc[middle]
        axes[0, 0].semilogy(wave, np.clip(arc, 1, None), lw=0.6, color=COLOURS[0], **_DECADES)
        axes[0, 0].vlines(
            np.unique(np.asarray(lines["wavelength"])[used]), 0, 1,
            transform=axes[0, 0].get_xaxis_transform(), color=COLOURS[1], lw=0.4, alpha=0.6,
        )  # fmt: skip
    axes[0, 0].set(xlabel="wavelength [Å]", ylabel="arc of the middle fibre [electron]")
    for flag, colour, label in ((used, COLOURS[0], "used"), (~used, COLOURS[1], "left out")):
        axes[0, 1].plot(
            lines["wavelength"][flag], lines["residual"][flag], ".", ms=3, color=colour, label=label
        )
        axes[1, 0].plot(lines["fibre"][flag], lines["residual"][flag], ".", ms=3, color=colour)
    spread = np.asarray(lines["residual"])[used]
    # Faint lines scatter by much more than those that count.
    limit = 12 * max(1e-3, float(np.nanmedian(np.abs(spread)))) if spread.size else 1.0
    for axis, label in ((axes[0, 1], "wavelength [Å]"), (axes[1, 0], "FIBRE_ID")):
        axis.set(xlabel=label, ylabel="line - model [Å]", ylim=(-limit, limit))
        axis.axhline(0, color="k", lw=0.5)
    axes[0, 1].legend(loc="upper right")
    image = axes[1, 1].imshow(product.lsf)
    axes[1, 1].set(xlabel="column [pixel]", ylabel="fibre (trace order)")
    figure.colorbar(image, ax=axes[1, 1], label="LSF FWHM [Å]")
    return figure


def column_median(values: FloatArray, empty: float = np.nan) -> FloatArray:
    """Return the median of each column without NaN; ``empty`` where there is nothing else."""
    columns = np.ascontiguousarray(values.T)
    median = median_of_known(columns, np.isfinite(columns))
    return np.where(np.isnan(median), empty, median)


def _brightest(product: Extracted | Gridded, count: int = 3) -> list[int]:
    """Return the program fibres of most light, and one sky fibre if there is one."""
    types = np.asarray(product.fibres["TYPE"])
    value = np.where(product.spectra.good, product.spectra.value, np.nan)
    level = column_median(value.T, empty=-np.inf)
    science = [int(i) for i in np.argsort(-level) if types[i] in "PC" and level[i] > -np.inf]
    sky = [int(i) for i in np.nonzero(types == "S")[0] if level[i] > -np.inf]
    return science[:count] + sky[:1]


def _paint_extracted(product: Extracted) -> Figure:
    figure, axes = new_figure(product, 2, 1)
    _show_image(figure, axes[0, 0], product.spectra.value, "electron")
    axes[0, 0].set(ylabel="fibre (trace order)")
    for colour, i in zip(COLOURS, _brightest(product), strict=False):
        label = f"{product.fibres['FIBRE_ID'][i]} {product.fibres['TYPE'][i]}"
        axes[1, 0].plot(
            product.wavelength[i], product.spectra.value[i], lw=0.6, color=colour, label=label
        )
    axes[1, 0].set(xlabel="wavelength [Å]", ylabel="electron per pixel")
    axes[1, 0].legend(title="fibre")
    return figure


def _paint_gridded(product: Gridded) -> Figure:
    figure, axes = new_figure(product, 3, 1, stacked=True, height_ratios=[1, 1, 1.3])
    axis = product.axis
    wave = axis["CRVAL1"] + axis["CDELT1"] * np.arange(product.spectra.shape[1])
    unit = unit_of(product)
    _show_image(figure, axes[0, 0], product.spectra.value, unit)
    axes[0, 0].set(ylabel="fibre (trace order)", xlabel="")
    sky = product.sky[np.isfinite(product.sky).any(axis=1)]
    if len(sky):
        axes[1, 0].plot(wave, column_median(sky), lw=0.6, color=COLOURS[6])
    axes[1, 0].set(ylabel=f"sky (median fibre)\n[{unit}]", xlim=(wave[0], wave[-1]))
    chosen = _brightest(product)
    for colour, i in zip(COLOURS, chosen, strict=False):
        label = f"{product.fibres['FIBRE_ID'][i]} {product.fibres['TYPE'][i]}"
        axes[2, 0].plot(wave, product.spectra.value[i], lw=0.6, color=colour, label=label)
    shown = product.spectra.value[chosen] if chosen else np.zeros(1)
    lo, hi = _limits(shown, 0.5, 99.7)
    axes[2, 0].set(
        xlabel="wavelength [Å]",
        ylabel=f"flux [{unit}]",
        xlim=(wave[0], wave[-1]),
        ylim=(min(lo, -0.05 * hi), 1.35 * hi),  # the legend stands above the spectra
    )
    axes[2, 0].axhline(0, color="k", lw=0.5)
    axes[2, 0].legend(title="fibre", loc="upper left", ncols=4)
    return figure


def _paint_response(product: Any) -> Figure:
    # Flux calibration is imported only by those who need it.
    from kspecpipe.figures.flux import paint_response

    return paint_response(product)


def _paint_calibrated(product: Any) -> Figure:
    from kspecpipe.figures.flux import paint_calibrated

    return paint_calibrated(product)


_PAINTERS: dict[str, Callable[[Any], Figure]] = {
    "MASTER_BIAS": _paint_frame,
    "MASTER_DARK": _paint_frame,
    "PIXEL_FLAT": _paint_frame,
    "PREPROCESSED": _paint_frame,
    "BACKGROUND": _paint_image,
    "MODEL": _paint_image,
    "BAD_PIXEL_MAP": _paint_bad_pixels,
    "TRAMLINE_MAP": _paint_traces,
    "FIBRE_FLAT": _paint_flat,
    "WAVE_SOLUTION": _paint_wavelengths,
    "EXTRACTED": _paint_extracted,
    "REDUCED": _paint_gridded,
    "RESPONSE": _paint_response,
    "CALIBRATED": _paint_calibrated,
    "COADDED": _paint_gridded,
    "SPLICED": _paint_gridded,
}
