"""Name, write and find the products of a run, with their QC table and log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from kspecpipe import io
from kspecpipe.atomic import write_text
from kspecpipe.configuration.layered_settings import RecipeSettings
from kspecpipe.declare import ProductSpec
from kspecpipe.ecsv import ecsv_text
from kspecpipe.errors import InputError, KspecError, ProductError
from kspecpipe.frame import FrameInfo
from kspecpipe.framework.gathered import GatheredInputs, header_number
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.products.hdus import build_hdus
from kspecpipe.products.product import Product
from kspecpipe.provenance import Origin, exposure_qualifier, header_cards, product_stem
from kspecpipe.qc import Flag, Limits, QCRow

if TYPE_CHECKING:
    from kspecpipe.base_recipe import BaseRecipe

_QC_FLOATS = ("warn_lo", "warn_hi", "fail_lo", "fail_hi")


@dataclass(frozen=True)
class Job:
    """One run of a recipe on verified inputs."""

    recipe: BaseRecipe
    origin: Origin
    infos: Sequence[FrameInfo]
    qualifier: str
    settings: RecipeSettings
    gathered: GatheredInputs

    def stem(self, spec: ProductSpec, exposure: int | None = None) -> str:
        """Return the file name of a product without extension."""
        return file_stem(self.recipe, spec, self.infos, self.qualifier, exposure)

    def info(self, exposure: int | None) -> FrameInfo:
        """Return the frame that dates a product."""
        if exposure is None:
            return self.recipe.representative(list(self.infos))
        return self.infos[exposure]

    def shape(self, info: FrameInfo) -> str:
        """Return the shape of the normalised frame, of products that of the frame behind them."""
        if self.gathered.frames:
            return "x".join(map(str, self.gathered.frames[0].shape))
        return str(info.keywords.get("shape") or "")

    def targets(self, spec: ProductSpec) -> list[str]:
        """Return the stems of all files of a product."""
        if not spec.per_exposure:
            return [self.stem(spec)]
        return [self.stem(spec, i) for i in range(len(self.infos))]


@dataclass(frozen=True)
class Written:
    """A product on disk."""

    path: Path
    catg: str
    key: str
    md5: str = ""
    exposure: str = ""


def file_stem(
    recipe: BaseRecipe,
    spec: ProductSpec,
    infos: Sequence[FrameInfo],
    qualifier: str,
    exposure: int | None = None,
) -> str:
    """Return the file name of a product without extension.

    Parameters
    ----------
    recipe : BaseRecipe
        The recipe that makes it.
    spec : ProductSpec
        Its declaration.
    infos : sequence of FrameInfo
        The frames that date it.
    qualifier : str
        What keeps the products of this run apart from others.
    exposure : int, optional
        Number of the frame, for a product of one exposure.
    """
    parts = [spec.qualifier, qualifier[:40]]
    if exposure is not None:
        parts.append(exposure_qualifier(infos[exposure]))
    info = recipe.representative(list(infos)) if exposure is None else infos[exposure]
    mode = info.mode
    if recipe.by_readmode:
        seconds = f"{info.exptime:g}s" if info.tag == "DARK" else ""
        mode = "_".join(part for part in (info.readmode, seconds) if part)
    date = infos[exposure or 0].date_obs
    return product_stem(spec, date, mode, "_".join(part for part in parts if part))


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot take products before any work is done.

    Raises
    ------
    ProductError
        If it is a file, or may not be written to.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ProductError(f"the output {folder} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ProductError(f"the output {folder} cannot be written: no permission in {place}")


def find_existing(job: Job, options: RunOptions) -> list[Written]:
    """Return the products when all of them exist with the same content key.

    Raises
    ------
    ProductError
        If a product of other content stands in the way and may not be overwritten.
    """
    found: list[Written] = []
    missing = False
    for spec in job.recipe.promised(job.settings.parameters):
        for stem in job.targets(spec):
            path = options.output / f"{stem}.fits"
            if not path.exists():
                missing = True
                continue
            key = _key_of(path)
            if key != job.origin.key and not options.overwrite:
                raise ProductError(
                    f"{path.name} exists in {options.output} with other content (inputs, "
                    "parameters or version differ); --overwrite replaces it"
                )
            missing |= key != job.origin.key
            found.append(Written(path, spec.catg, key))
    return [] if missing or options.save_intermediate else found


def write(
    job: Job, products: Any, rows: Sequence[QCRow], options: RunOptions
) -> tuple[Written, ...]:
    """Write all products of a run, or none.

    Raises
    ------
    ProductError
        If the folder or a file cannot be written.
    """
    files = []
    written = []
    settings = _settings_table(job.settings)
    for spec, exposure, product in _each(job, products):
        info = job.info(exposure)
        own = [row for row in rows if _belongs(row, info, exposure)]
        cards = header_cards(job.origin, spec, info, own, job.shape(info))
        path = options.output / f"{job.stem(spec, exposure)}.fits"
        tables = {"QC": qc_table(own), "SETTINGS": settings}
        hdus = build_hdus(product, cards, tables)
        files.append((path, hdus))
        written.append(
            Written(
                path,
                spec.catg,
                job.origin.key,
                md5=str(hdus[0].header["DATAMD5"]),
                exposure="" if exposure is None else info.name,
            )
        )
    io.write_products(files)
    return tuple(written)


def write_tables(written: Sequence[Written], log: logging.Logger) -> None:
    """Write the QC table beside each product."""
    for item in written:
        try:
            table = io.read_table(item.path, "QC")
            if table is not None:
                write_text(item.path.with_name(f"{item.path.stem}_qc.ecsv"), ecsv_text(table))
        except (KspecError, OSError) as error:
            # As with pictures: the product stands, and holds the same table.
            log.warning("%s: no QC table beside it: %s", item.path.name, error)


def write_logs(written: Sequence[Written], lines: Sequence[str], log: logging.Logger) -> None:
    """Write the log of the run beside each product."""
    for item in written:
        write_log(item.path.with_suffix(".log"), lines, log)


def write_failure_log(folder: Path, recipe: str, lines: Sequence[str]) -> None:
    """Write why a recipe failed where its products would have gone, if that is possible."""
    try:
        write_text(folder / f"{recipe}_failed.log", "\n".join(lines) + "\n")
    except OSError:
        return  # the reason is on the terminal; a folder that cannot be written may be that reason


def write_log(path: Path, lines: Sequence[str], log: logging.Logger) -> None:
    """Write the log of a run where it was asked for."""
    try:
        write_text(path, "\n".join(lines) + "\n")
    except OSError as error:
        log.warning("%s: the log cannot be written: %s", path.name, error)


def judge_again(existing: Sequence[Written], limits: Mapping[str, Limits]) -> list[QCRow]:
    """Read the metrics of existing products and judge them by the limits of today."""
    rows: dict[tuple[str, str, int], QCRow] = {}
    for item in existing:
        table = io.read_table(item.path, "QC")
        for row in rows_of_table(table) if table is not None else []:
            found = _row_by_limits(row, limits)
            rows[found.name, found.exposure, found.fibre] = found
    return list(rows.values())


def info_from_product(path: Path, header: Mapping[str, Any]) -> FrameInfo:
    """Describe a product that is the main input of a recipe."""
    return FrameInfo(
        name=path.name,
        tag=str(header.get("ESO PRO CATG", "")),
        mode=str(header.get("INSMODE", "")),
        readmode=str(header.get("READMODE", "")),
        date_obs=str(header.get("DATE-OBS", "")),
        mjd=header_number(path, header, "MJD-OBS"),
        exptime=header_number(path, header, "EXPTIME"),
        keywords={"target": header.get("OBJECT"), "shape": header.get("ESO PRO SHAPE")},
        md5=str(header.get("DATAMD5", "")),
        layout=str(header.get("ESO PRO LAYOUT", "")),
    )


def qc_table(rows: Sequence[QCRow]) -> Table:
    """Return the QC rows as a table."""
    limits = np.array(
        [
            (row.limits.warn or (np.nan, np.nan)) + (row.limits.fail or (np.nan, np.nan))
            for row in rows
        ]
    ).reshape(-1, 4)
    table = Table()
    table["name"] = np.array([row.name for row in rows], dtype="U28")
    table["value"] = np.array([row.value for row in rows], dtype=float)
    table["unit"] = np.array([row.unit for row in rows], dtype="U16")
    table["flag"] = np.array([str(row.flag) for row in rows], dtype="U10")
    table["scope"] = np.array([row.scope for row in rows], dtype="U8")
    table["exposure"] = np.array([row.exposure for row in rows], dtype="U80")
    table["fibre"] = np.array([row.fibre for row in rows], dtype=np.int32)
    for i, name in enumerate(_QC_FLOATS):
        table[name] = limits[:, i]
    table["doc"] = np.array([row.doc for row in rows], dtype="U160")
    return table


def _key_of(path: Path) -> str:
    try:
        return str(io.read_header(path).get("ESO PRO KEY", ""))
    except InputError:
        return ""


def _each(job: Job, products: Any) -> Iterator[tuple[ProductSpec, int | None, Product]]:
    for name, spec in job.recipe.Products.specs.items():
        value = getattr(products, name)
        if value is None:
            continue
        if not spec.per_exposure:
            yield spec, None, value
            continue
        for exposure, product in enumerate(value):
            if product is not None:
                yield spec, exposure, product
    yield from job.recipe.kept


def _belongs(row: QCRow, info: FrameInfo, exposure: int | None) -> bool:
    return exposure is None or row.exposure in ("", info.name)


def _settings_table(settings: RecipeSettings) -> Table:
    specs = settings.parameters.specs
    columns = {
        "name": list(specs),
        "value": [str(getattr(settings.parameters, name)) for name in specs],
        "unit": [spec.rule.unit for spec in specs.values()],
        "source": [settings.sources[name] for name in specs],
    }
    # Without a type of its own a column of a recipe without parameters would hold numbers.
    return Table({name: np.array(texts, dtype=str) for name, texts in columns.items()})


def read_rows(path: Path) -> list[QCRow]:
    """Return the metrics of a written product; none if it has no QC table."""
    table = io.read_table(path, "QC")
    return [] if table is None else rows_of_table(table)


def rows_of_table(table: Table) -> list[QCRow]:
    """Return the QC rows of a product's table, as they were judged when it was written."""
    return [_stored_row(dict(zip(table.colnames, row, strict=True))) for row in table.iterrows()]


def _stored_row(row: Mapping[str, Any]) -> QCRow:
    a, b, c, d = (float(row[name]) for name in _QC_FLOATS)
    return QCRow(
        name=str(row["name"]),
        value=float(row["value"]),
        unit=str(row["unit"]),
        scope=str(row["scope"]),
        exposure=str(row["exposure"]),
        fibre=int(row["fibre"]),
        limits=Limits(None if np.isnan(a) else (a, b), None if np.isnan(c) else (c, d)),
        flag=Flag(str(row["flag"])),
        doc=str(row["doc"]),
    )


def _row_by_limits(stored: QCRow, limits: Mapping[str, Limits]) -> QCRow:
    # The recommended number of frames is of the recipe, not of the settings.
    own = stored.limits if stored.name.startswith("FRAMES ") else Limits()
    own = limits.get(stored.name, own)
    flag = stored.flag if stored.flag == Flag.NA else own.judge(stored.value)
    return replace(stored, limits=own, flag=flag)
