"""The example for notebooks in the documentation runs as it stands there."""

import re
import shutil
from pathlib import Path

import numpy as np

from kspecpipe import fluxcal
from kspecpipe.base_recipe import find_recipe
from kspecpipe.fluxcal.table import NUMBERS
from kspecpipe.simulate.standards import StandardStar, write_catalogue

PAGE = Path(__file__).parents[2] / "docs" / "flux-calibration.md"


def test_the_example_of_the_documentation_runs(folder, tmp_path, monkeypatch):
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    shutil.copytree(folder, tmp_path / "templates")
    star = StandardStar(6200.0, 4.3, -0.3, 15.0, ra=150.0, dec=-30.0)
    write_catalogue(tmp_path / "standard_star_atlas_refcat2.csv", [star])
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)  # noqa: S102
    assert abs(names["template"].teff - 6200) <= 250
    assert max(abs(value) for value in names["residuals"].values()) < 0.2
    dark = ~names["seen"].good
    assert dark[(names["wavelength"] > 7600) & (names["wavelength"] < 7700)].all()
    assert np.nanmax(names["lines"]) < 1.1


def test_every_public_name_is_documented():
    functions = [name for name in fluxcal.__all__ if not name.isupper()]
    assert len(functions) > 40
    assert [name for name in functions if len(getattr(fluxcal, name).__doc__) < 20] == []


def test_every_column_of_the_table_of_stars_and_every_metric_is_explained():
    page = PAGE.read_text()
    assert [name for name in NUMBERS if f"`{name}`" not in page] == []
    metrics = {spec.label for spec in find_recipe("fluxcal").Metrics.specs.values()}
    own = {name for name in metrics if not name.startswith("RESIDUAL ")}
    assert own > {"STARS USED", "ZERO POINT"}
    assert [name for name in own if name not in page] == []
