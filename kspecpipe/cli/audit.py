"""``kspec audit``: rebuild a product from its stored factors and check its errors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from kspecpipe import io
from kspecpipe.audit.reduced import Audit, audit, find_files
from kspecpipe.errors import ExitCode, InputError, ProductError, SettingsError
from kspecpipe.framework.terminal import short_path
from kspecpipe.signal import FloatArray

#: Largest difference relative to RWSS, and limits of predicted over given variance.
TOLERANCE = 1e-6
RATIO = (0.97, 1.03)
_PARTNERS = ("EXTRACTED", "REDUCED", "TRAMLINE_MAP", "WAVE_SOLUTION", "RESPONSE")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    del name
    parser.description = (
        "Rebuild CALIBRATED from REDUCED and RESPONSE, or REDUCED from EXTRACTED and the factors "
        "stored in it; of the latter compare the variance with that predicted from electrons, read "
        f"noise and profile. Exit code 4 if a difference exceeds {TOLERANCE:g} or the ratio of "
        f"variances leaves {RATIO[0]} to {RATIO[1]}."
    )
    parser.add_argument(
        "product", type=Path, metavar="PRODUCT", help="REDUCED, EXTRACTED or CALIBRATED"
    )
    parser.add_argument("--fibre", type=int, metavar="K", help="only the fibre with FIBRE_ID K")
    parser.add_argument("--plot", action="store_true", help="write the six panels of one fibre")
    parser.add_argument(
        "--with",
        dest="partners",
        action="append",
        default=[],
        metavar="TAG=PATH",
        help=f"a product that is not in the same folder ({', '.join(_PARTNERS)})",
    )


def run(arguments: argparse.Namespace, name: str) -> int:
    """Audit one product."""
    del name
    if io.read_header(arguments.product).get("ESO PRO CATG") == "CALIBRATED":
        return _audit_flux(arguments)
    found = audit(find_files(arguments.product, _partners(arguments.partners)))
    chosen = _chosen(found, arguments.fibre)
    sys.stdout.write("\n".join(_lines(found, chosen)) + "\n")
    if arguments.plot:
        picture = _plot(found, arguments.product, chosen)
        sys.stdout.write(f"picture: {short_path(picture)}\n")
    return int(ExitCode.OK if _passes(found, chosen) else ExitCode.QC_FAILED)


def _audit_flux(arguments: argparse.Namespace) -> int:
    """Rebuild CALIBRATED."""
    from kspecpipe.audit.calibrated import audit_flux

    found = audit_flux(arguments.product, _partners(arguments.partners))
    lines = [
        found.names[0],
        f"rebuilt from {found.names[1]} and {found.names[2]}",
        "",
        "largest relative difference (of PRIMARY and SKY: of its error, where that is larger)",
        *(f"  {name:<10} {np.nanmax(size):.2g}" for name, size in found.differences.items()),
        f"  unmatched samples: {found.unmatched}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    exact = all(np.nanmax(size) <= TOLERANCE for size in found.differences.values())
    return int(ExitCode.OK if exact and not found.unmatched else ExitCode.QC_FAILED)


def _partners(words: list[str]) -> dict[str, Path]:
    partners = {}
    for word in words:
        tag, equals, path = word.partition("=")
        if not (equals and path and tag in _PARTNERS):
            raise SettingsError(
                f"--with {word}: TAG=PATH is expected, TAG one of {', '.join(_PARTNERS)}"
            )
        partners[tag] = Path(path)
    return partners


def _chosen(found: Audit, fibre: int | None) -> list[int]:
    """Return the rows to report: one fibre, or all."""
    ids = [int(number) for number in found.files.extracted.fibres["FIBRE_ID"]]
    if fibre is None:
        return list(range(len(ids)))
    if fibre not in ids:
        raise InputError(f"there is no fibre {fibre}; FIBRE_ID runs from {min(ids)} to {max(ids)}")
    return [ids.index(fibre)]


def _largest(values: FloatArray, rows: list[int]) -> float:
    finite = values[rows][np.isfinite(values[rows])]
    return float(finite.max()) if finite.size else float("nan")


def _median(values: FloatArray, rows: list[int]) -> float:
    finite = values[rows][np.isfinite(values[rows])]
    return float(np.median(finite)) if finite.size else float("nan")


def _lines(found: Audit, rows: list[int]) -> list[str]:
    files = found.files
    lines = [
        f"{files.reduced.name}",
        f"rebuilt from {files.extracted.name} with its FLAT, THROUGHPUT and SKY",
        "",
        f"{'largest difference':<20} {'[electron]':>12} {'of RWSS':>10} {'of brightest':>13} "
        f"{'unmatched':>10}",
    ]
    for one in found.differences:
        lines.append(
            f"{one.name:<20} {_largest(one.absolute, rows):>12.3g} "
            f"{_largest(one.relative, rows):>10.2g} {_largest(one.of_brightest, rows):>13.2g} "
            f"{int(one.unmatched[rows].sum()):>10d}"
        )
    lines += [
        "(of RWSS, or of SKY or the error where these are larger; float32 rounds by 6e-8)",
        "",
        f"variance of REDUCED, rebuilt / given: {_median(found.variance_ratio, rows):.4f} "
        "(the sky model's samples taken as independent)",
    ]
    return lines + _noise_lines(found, rows)


def _noise_lines(found: Audit, rows: list[int]) -> list[str]:
    noise = found.noise
    if noise is None:
        return [
            "variance of EXTRACTED: not predicted, TRAMLINE_MAP is not beside the product "
            "(--with TRAMLINE_MAP=PATH) or the noise of the pixels is not stored"
        ]
    forms = (
        ("profile fit, 1 / sum(p^2 / V)", noise.predicted),
        ("electrons + ron^2 / sum(p^2)", noise.simple),
        ("electrons + ron^2 sigma^2 (4 pi)^1/2 (BOSS)", noise.boss),
    )
    lines = ["variance of EXTRACTED, predicted / given: median of fibres (lowest to highest)"]
    for label, variance in forms:
        ratio = noise.ratio(variance)
        lowest = -_largest(-ratio, rows)
        lines.append(
            f"  {label:<45} {_median(ratio, rows):.4f} "
            f"({lowest:.4f} to {_largest(ratio, rows):.4f})"
        )
    exact, boss = (np.nanmedian(part[rows]) for part in (noise.pixels, noise.boss_pixels))
    return [*lines, f"  noise pixels: {exact:.2f} exact, {boss:.2f} in the BOSS form"]


def _passes(found: Audit, rows: list[int]) -> bool:
    for one in found.differences:
        # NaN means that there is nothing to compare in any of the fibres.
        if _largest(one.relative, rows) > TOLERANCE or one.unmatched[rows].any():
            return False
    if found.noise is None:
        return True
    ratio = _median(found.noise.ratio(found.noise.predicted), rows)
    return not (ratio < RATIO[0] or ratio > RATIO[1])


def _plot(found: Audit, product: Path, rows: list[int]) -> Path:
    from kspecpipe import plots
    from kspecpipe.audit.figure import draw_audit

    row = rows[0] if len(rows) == 1 else _typical(found)
    number = int(found.files.extracted.fibres["FIBRE_ID"][row])
    picture = product.with_name(f"{product.stem}_audit_{number:03d}.png")
    try:
        plots.save(draw_audit(found, row), picture)
    except OSError as error:
        raise ProductError(f"{picture}: cannot be written: {error.strerror}") from None
    return picture


def _typical(found: Audit) -> int:
    """Return the program fibre of median light."""
    files = found.files
    value = np.where(files.extracted.spectra.good, files.extracted.spectra.value, np.nan)
    live = np.flatnonzero(np.isfinite(value).any(axis=1))
    program = [i for i in live if files.extracted.fibres["TYPE"][i] == "P"] or list(live)
    if not program:
        raise InputError(f"{files.extracted.name}: no fibre has spectra")
    order = sorted(program, key=lambda i: float(np.nanmedian(value[i])))
    return int(order[len(order) // 2])
