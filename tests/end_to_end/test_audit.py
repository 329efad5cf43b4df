"""``kspec audit`` of what the chain wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.audit.reduced import audit, find_files
from kspecpipe.cli.main import main


def paths(reduced: Any, catg: str) -> list[Path]:
    return [path for path, tag in reduced.outcomes["object"].products if tag == catg]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("catg", ["REDUCED", "EXTRACTED"])
def test_products_are_rebuilt_to_the_rounding_of_float32(
    reduced: Any, catg: str, number: int
) -> None:
    found = audit(find_files(paths(reduced, catg)[number], {}))
    for one in found.differences:
        assert np.isfinite(one.relative).sum() > 8
        assert np.nanmax(one.relative) <= 1e-6
        assert one.unmatched.sum() == 0
    assert found.noise is not None
    ratio = found.noise.ratio(found.noise.predicted)
    assert np.isfinite(ratio).sum() == 13
    assert 0.98 < np.nanmedian(ratio) < 1.02
    assert np.nanmax(np.abs(ratio - 1)) < 0.06


def test_command_prints_the_numbers_and_writes_the_panels(
    reduced: Any, tmp_path: Path, capsys: Any
) -> None:
    for path in [*reduced.output.glob("*reduced*.fits"), *reduced.output.glob("*extracted*.fits")]:
        shutil.copy(path, tmp_path)
    shutil.copy(next(reduced.output.glob("*tramline_map*.fits")), tmp_path)
    product = tmp_path / paths(reduced, "REDUCED")[0].name
    assert main(["audit", str(product), "--fibre", "3", "--plot"]) == 0
    out = capsys.readouterr().out
    assert "largest difference" in out
    assert "noise pixels" in out
    picture = tmp_path / f"{product.stem}_audit_003.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tampered_product_ends_with_four(reduced: Any, tmp_path: Path, capsys: Any) -> None:
    original = paths(reduced, "REDUCED")[0]
    shutil.copy(paths(reduced, "EXTRACTED")[0], tmp_path)
    product = tmp_path / original.name
    with fits.open(original) as hdus:
        brightest = int(np.argmax(np.nansum(hdus["RWSS"].data, axis=1)))
        hdus["RWSS"].data[brightest] *= 1.00001
        hdus.writeto(product, checksum=True)
    assert main(["audit", str(product)]) == 4
    assert " 1e-05" in capsys.readouterr().out
    assert main(["audit", str(product), "--fibre", str(brightest + 1)]) == 4
    another = (brightest + 1) % 14 + 1
    assert main(["audit", str(product), "--fibre", str(another)]) == 0


def test_what_is_missing_is_named(reduced: Any, tmp_path: Path, capsys: Any) -> None:
    alone = tmp_path / paths(reduced, "REDUCED")[0].name
    shutil.copy(paths(reduced, "REDUCED")[0], alone)
    assert main(["audit", str(alone)]) == 3
    assert "--with EXTRACTED=PATH" in capsys.readouterr().err
    given = f"EXTRACTED={paths(reduced, 'EXTRACTED')[0]}"
    assert main(["audit", str(alone), "--with", given]) == 0
    assert "TRAMLINE_MAP is not beside" in capsys.readouterr().out
    other = f"EXTRACTED={paths(reduced, 'EXTRACTED')[1]}"
    assert main(["audit", str(alone), "--with", other]) == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--fibre", "99"], 3, "there is no fibre 99"),
        (["--with", "BIAS=x"], 2, "TAG=PATH is expected"),
        (["--with", "EXTRACTED"], 2, "TAG=PATH is expected"),
    ],
)
def test_wrong_words_are_refused(
    reduced: Any, capsys: Any, words: list[str], code: int, message: str
) -> None:
    assert main(["audit", str(paths(reduced, "REDUCED")[0]), *words]) == code
    assert message in capsys.readouterr().err


def test_other_products_are_refused(reduced: Any, capsys: Any) -> None:
    path = reduced.outcomes["mbias"].products[0][0]
    assert main(["audit", str(path)]) == 3
    assert "takes REDUCED or EXTRACTED" in capsys.readouterr().err
