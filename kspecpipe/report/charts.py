"""Small drawings of values and their limits as SVG; all colours come from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from kspecpipe.qc import Flag, QCRow

_WIDTH, _HEIGHT = 220, 18
_STRIP_WIDTH, _STRIP_HEIGHT = 600, 60


def bullet(rows: Sequence[QCRow]) -> Markup:
    """Draw values as marks on a bar whose zones are the limits: good, warn, fail.

    Parameters
    ----------
    rows : sequence of QCRow
        Values of one metric; the limits are those of the first.

    Returns
    -------
    Markup
        An SVG that adds nothing to the numbers beside it, and is hidden from screen readers.
    """
    values = [row.value for row in rows if math.isfinite(row.value)]
    limits = rows[0].limits
    finite = [v for pair in (limits.warn, limits.fail) if pair for v in pair if math.isfinite(v)]
    if not values or not finite:
        return Markup("")
    lo, hi = _span([*finite, min(values), max(values)])
    parts = [_zone("z-fail", lo, hi, lo, hi)] if limits.fail else []
    inside = limits.fail or (-math.inf, math.inf)
    parts.append(_zone("z-warn", *inside, lo, hi) if limits.warn else "")
    good = _within(limits.warn or inside, inside)
    parts.append(_zone("z-ok", *good, lo, hi))
    marks = "".join(f"M{_x(value, lo, hi):.1f} 1v{_HEIGHT - 2}" for value in sorted(set(values)))
    parts.append(f'<path class="mark" d="{marks}"/>')
    return _svg(_WIDTH, _HEIGHT, parts, 'aria-hidden="true" class="bullet"')


def strip(rows: Sequence[QCRow], name: str) -> Markup:
    """Draw one bar for each fibre, coloured by its flag, with the limits as lines.

    Parameters
    ----------
    rows : sequence of QCRow
        Values of one metric for all fibres; several exposures stand side by side.
    name : str
        Name of the metric, for the label.
    """
    values = [row.value for row in rows if math.isfinite(row.value)]
    limits = rows[0].limits
    lines = [v for pair in (limits.warn, limits.fail) if pair for v in pair if math.isfinite(v)]
    inner = [v for v in lines if values and min(values) <= v <= max(values)]
    lo, hi = _span([*values, *inner, *([0.0] if values and min(values) >= 0 else [])] or [0.0])
    step = _STRIP_WIDTH / len(rows)
    bars: dict[str, list[str]] = {}
    for i, row in enumerate(rows):
        top = _y(row.value, lo, hi) if math.isfinite(row.value) else 0.0
        flag = str(row.flag)
        bars.setdefault(flag, []).append(
            f"M{i * step:.1f} {_STRIP_HEIGHT}V{top:.1f}h{max(step - 0.6, 0.4):.1f}V{_STRIP_HEIGHT}z"
        )
    parts = [f'<path class="f-{flag}" d="{"".join(path)}"/>' for flag, path in bars.items()]
    for pair, kind in ((limits.warn, "l-warn"), (limits.fail, "l-fail")):
        for value in pair or ():
            if lo <= value <= hi:
                y = _y(value, lo, hi)
                parts.append(f'<path class="{kind}" d="M0 {y:.1f}H{_STRIP_WIDTH}"/>')
    label = Markup("{}").format(strip_label(rows, name))
    return _svg(
        _STRIP_WIDTH, _STRIP_HEIGHT, parts, f'role="img" class="strip" aria-label="{label}"'
    )


def strip_label(rows: Sequence[QCRow], name: str) -> str:
    """Say in words what a strip shows: how many fibres of each flag, and which are bad."""
    parts = []
    for flag in reversed(Flag):
        ids = sorted({row.fibre for row in rows if row.flag == flag})
        if not ids:
            continue
        listed = ", ".join(map(str, ids[:12])) + (", ..." if len(ids) > 12 else "")
        bad = flag in (Flag.WARN, Flag.FAIL, Flag.UNMEASURED)
        parts.append(f"{len(ids)} {flag}" + (f" (fibre {listed})" if bad else ""))
    return f"{name}: {'; '.join(parts)}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    lo, hi = min(values), max(values)
    margin = 0.06 * (hi - lo) or max(abs(lo), 1.0) * 0.1
    return lo - margin, hi + margin


def _within(pair: tuple[float, float], outer: tuple[float, float]) -> tuple[float, float]:
    return max(pair[0], outer[0]), min(pair[1], outer[1])


def _x(value: float, lo: float, hi: float) -> float:
    return (min(max(value, lo), hi) - lo) / (hi - lo) * _WIDTH


def _y(value: float, lo: float, hi: float) -> float:
    return (1 - (value - lo) / (hi - lo)) * _STRIP_HEIGHT


def _zone(kind: str, a: float, b: float, lo: float, hi: float) -> str:
    left, right = _x(a, lo, hi), _x(b, lo, hi)
    width = max(right - left, 1.0)  # closed limits may be a single value
    return f'<rect class="{kind}" x="{left:.1f}" y="4" width="{width:.1f}" height="{_HEIGHT - 8}"/>'


def _svg(width: int, height: int, parts: Sequence[str], attributes: str) -> Markup:
    # Every part is made of numbers and of names that are ours.
    return Markup(  # noqa: S704
        f'<svg {attributes} viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        f"{''.join(parts)}</svg>"
    )
