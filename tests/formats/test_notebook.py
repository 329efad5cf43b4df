"""The notebook of the documentation runs from the first cell to the last."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "raw_to_redshift.py"


def test_the_notebook_runs_and_ends_with_a_galaxy(capsys):
    jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed")
    cells = [cell for cell in jupytext.read(NOTEBOOK).cells if cell.cell_type == "code"]
    assert len(cells) >= 6
    space: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell.source, str(NOTEBOOK), "exec"), space)
    assert {outcome.status for outcome in space["outcomes"].values()} <= {"ok", "qc failed"}
    assert space["best"].snr > 3
    assert space["inside"]
    assert len(space["figure"].axes) == 1
    assert space["coadd"].exit_code == 0
    assert "Traceback" not in capsys.readouterr().out
