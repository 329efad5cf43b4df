# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of raw frames to a redshift
#
# Open this file in Jupyter with [jupytext](https://jupytext.readthedocs.io), or run it with
# `python`. It simulates a small night, reduces it recipe by recipe, averages the exposures, and
# ends with a galaxy whose lines are marked at a redshift that you choose by eye.

# %%
from pathlib import Path
from tempfile import mkdtemp

from kspecpipe import read_spectra, run_recipe
from kspecpipe.simulate import NightPlan, simulate_night

folder = Path(mkdtemp())
night = simulate_night(folder / "raw", NightPlan(size="small"), seed=3)
sorted(path.name for path in (folder / "raw").glob("*.fits"))[:5]

# %% [markdown]
# ## Reduce
#
# Each recipe takes a list of frames. Here every recipe gets the calibrations that the ones before
# it made; on the command line that is what `--products-sof` and `kspec reduce` are for.

# %%
CHAIN = {"mbias": "bias", "mdark": "dark", "mflat": "flats", "marc": "arcs", "object": "objects"}
calibrations: list[str] = []
outcomes = {}
for recipe, frames in CHAIN.items():
    sof = folder / "raw" / f"{recipe}_all.sof"
    lines = [night.sofs[frames].read_text().rstrip(), *calibrations]
    sof.write_text("\n".join(lines) + "\n")
    outcomes[recipe] = run_recipe(
        recipe,
        sof,
        instrument=str(night.instrument),
        output=folder / "products",
        plots="none",
        log=False,
    )
    calibrations += [f"{path} {tag}" for path, tag in outcomes[recipe].products]
{recipe: outcome.status for recipe, outcome in outcomes.items()}

# %% [markdown]
# ## Quality control
#
# Every recipe returns its QC table; what is not `ok` comes first in any review.

# %%
for row in outcomes["object"].qc:
    if row.flag != "ok":
        print(f"{row.name:<24} {row.value:10.4g}  {row.flag}")

# %% [markdown]
# ## Average the exposures

# %%
reduced = [path for path, tag in outcomes["object"].products if tag == "REDUCED"]
coadd = run_recipe(
    "coadd",
    reduced,
    instrument=str(night.instrument),
    output=folder / "products",
    plots="none",
    log=False,
)
coadded = coadd.products[0][0]

# %% [markdown]
# ## Look at the spectra
#
# `read_spectra` gives wavelengths, flux, uncertainty and mask of every fibre. Fibres are found by
# number, FIBRE_ID, name or place on the sky.

# %%
spectra = read_spectra(coadded)
galaxies = spectra.of_type("P")
best = max(galaxies, key=lambda one: one.snr)
best.fibre["FIBRE_ID"], best.snr

# %% [markdown]
# ## A redshift by eye
#
# Change `redshift` until the marked lines lie on those of the galaxy. The same picture comes from
# `kspec show PRODUCT --fibre K --redshift Z`.

# %%
from kspecpipe.figures.spectrum import SpectraView, draw_spectra, target_lines
from kspecpipe.formats.selection import choose

redshift = 0.05
chosen = choose(spectra, [int(best.fibre["FIBRE_ID"])], None)
figure = draw_spectra(chosen, SpectraView(redshift=redshift, sky_lines=True), "a galaxy")
inside = [
    name
    for wavelength, name, _ in target_lines(redshift)
    if best.wavelength[0] < wavelength < best.wavelength[-1]
]
figure
