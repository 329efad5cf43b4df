"""Throughput from twilight, lamp flat or sky lines, in the whole chain; and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.base_recipe import run_recipe
from kspecpipe.simulate import FrameCounts, NightPlan, simulate_night

TWILIGHT = FrameCounts(bias=0, dark=0, flat=0, arc=0, object=0, skyflat=1)
LOW = 256


def take_twilight(folder: Path, **plan: Any) -> Path:
    """Take a twilight flat with the instrument of the night."""
    night = simulate_night(folder, NightPlan(size="small", counts=TWILIGHT, **plan), seed=3)
    return night.tagged("SKYFLAT")[0].path


def run_object(reduced: Any, folder: Path, edit: Any, **parameters: Any) -> Any:
    """Run object on the edited lines of its SOF."""
    lines = (reduced.night.folder / "object_all.sof").read_text().splitlines()
    sof = reduced.night.folder / f"object_{folder.name}.sof"
    sof.write_text("\n".join(edit(lines)) + "\n")
    options = {"output": folder, "instrument": str(reduced.night.instrument), "plots": "none"}
    settings = {"object": {"parameters": parameters}}
    return run_recipe("object", sof, log=False, settings=settings, **options)


def product(outcome: Any, catg: str) -> fits.HDUList:
    path = next(path for path, tag in outcome.products if tag == catg)
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        return fits.HDUList([hdu.copy() for hdu in hdus])


def ratio_to_truth(reduced: Any, outcome: Any) -> np.ndarray:
    """Return throughput over truth of the live fibres, median 1."""
    truth = reduced.fibres()["FIBRES"].data
    found = product(outcome, "REDUCED")["FIBRES"].data["THROUGHPUT"]
    ratio = (found / truth["THROUGHPUT"])[truth["STATUS"] == "OK"]
    return np.asarray(ratio / np.nanmedian(ratio))


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.log"))


def metric(outcome: Any, name: str) -> list[Any]:
    return [row.value for row in outcome.qc if row.name == name]


def test_twilight_is_trusted_before_the_lamp_and_their_difference_is_told(
    reduced: Any, tmp_path: Path
) -> None:
    path = take_twilight(tmp_path / "raw")
    outcome = run_object(reduced, tmp_path, lambda lines: [f"{path} SKYFLAT", *lines])
    assert outcome.products, outcome.errors
    assert "throughput of the fibres from SKYFLAT" in log_of(tmp_path)
    lamp = ratio_to_truth(reduced, reduced.outcomes["object"])
    twilight = ratio_to_truth(reduced, outcome)
    assert not np.array_equal(lamp, twilight)
    assert np.abs(twilight - 1).max() < 0.03
    assert 0 < metric(outcome, "THROUGHPUT VS FLAT")[0] < 0.01
    assert all(0 < value < 0.1 for value in metric(outcome, "THROUGHPUT VS SKY"))


def test_without_flat_and_twilight_the_sky_lines_tell(reduced: Any, tmp_path: Path) -> None:
    def leave(lines: list[str]) -> list[str]:
        traces = next(line.rsplit(maxsplit=1)[0] for line in lines if "TRAMLINE_MAP" in line)
        own = tmp_path / "traces.fits"
        with fits.open(traces) as hdus:
            hdus["FIBRES"].data["THROUGHPUT"] = np.nan
            hdus.writeto(own, checksum=True)
        kept = [line for line in lines if "FIBRE_FLAT" not in line and "TRAMLINE_MAP" not in line]
        return [*kept, f"{own} TRAMLINE_MAP"]

    outcome = run_object(reduced, tmp_path, leave)
    assert outcome.products, outcome.errors
    assert "throughput of the fibres from sky lines" in log_of(tmp_path)
    ratio = ratio_to_truth(reduced, outcome)
    # Some targets outshine the lines.
    assert np.isfinite(ratio).sum() >= 8
    assert np.nanmedian(np.abs(ratio - 1)) < 0.03
    assert np.nanmax(np.abs(ratio - 1)) < 0.3
    flags = {row.flag.name for row in outcome.qc if row.name.startswith("THROUGHPUT VS")}
    assert flags == {"NA"}


def test_a_twilight_of_another_mode_is_refused(reduced: Any, tmp_path: Path) -> None:
    path = take_twilight(tmp_path / "raw", modes=("600_680",))
    outcome = run_object(reduced, tmp_path, lambda lines: [*lines, f"{path} SKYFLAT"])
    assert outcome.exit_code == 3
    assert not outcome.products
    text = "\n".join(outcome.errors)
    assert re.search("mode is 600_680, but 150_620 in tile_046", text), text


def test_a_flat_with_negative_throughput_gives_no_product(reduced: Any, tmp_path: Path) -> None:
    def spoil(lines: list[str]) -> list[str]:
        flat = next(line.rsplit(maxsplit=1)[0] for line in lines if line.endswith("FIBRE_FLAT"))
        own = tmp_path / "flat.fits"
        with fits.open(flat) as hdus:
            hdus["FIBRES"].data["THROUGHPUT"][[2, 6]] = -0.3
            hdus.writeto(own, checksum=True)
        return [*(line for line in lines if "FIBRE_FLAT" not in line), f"{own} FIBRE_FLAT"]

    outcome = run_object(reduced, tmp_path / "out", spoil)
    assert outcome.exit_code == 1
    text = "\n".join(outcome.errors)
    assert "flat.fits: the throughput of 2 live fibres (first: [3, 7]) is not positive" in text
    assert not list((tmp_path / "out").glob("*reduced*.fits"))


def test_a_fibre_of_low_throughput_is_flagged_in_all_its_samples(
    reduced: Any, tmp_path: Path
) -> None:
    outcome = run_object(reduced, tmp_path, lambda lines: lines, min_throughput=0.9)
    for catg in ("EXTRACTED", "REDUCED"):
        spectra = product(outcome, catg)
        table = spectra["FIBRES"].data
        low = ~(table["THROUGHPUT"] >= 0.9)
        assert 2 < low.sum() < 12
        flagged = (spectra["DQ"].data & LOW) > 0
        assert flagged[low].all()
        assert not flagged[~low].any()


def test_transmission_of_the_standards_is_stored_and_not_applied(
    reduced: Any, tmp_path: Path
) -> None:
    plain = product(reduced.outcomes["object"], "REDUCED")
    assert "TELLURIC" not in plain
    outcome = run_object(reduced, tmp_path, lambda lines: lines, telluric="standards")
    spectra = product(outcome, "REDUCED")
    assert np.array_equal(spectra[0].data, plain[0].data, equal_nan=True)
    transmission, header = spectra["TELLURIC"].data, spectra["TELLURIC"].header
    wavelength = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
    b_band = (wavelength > 6870) & (wavelength < 6895)
    assert transmission.shape == spectra[0].data.shape
    assert 0.3 < transmission[0, b_band].mean() < 0.8
    assert (transmission[:, (wavelength > 5300) & (wavelength < 5800)] == 1).all()


def test_a_transmission_table_is_scaled_to_the_airmass_of_each_fibre(
    reduced: Any, tmp_path: Path
) -> None:
    table = tmp_path / "air.txt"
    table.write_text("# Angstrom, transmission\n6000 0.8\n7000 0.8\n")
    outcome = run_object(
        reduced, tmp_path, lambda lines: [*lines, f"{table} TELLURIC"], telluric="table"
    )
    spectra = product(outcome, "REDUCED")
    header = spectra["TELLURIC"].header
    wavelength = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
    middle = np.argmin(np.abs(wavelength - 6500))
    known = np.isfinite(spectra["LSF"].data[:, middle])
    mass = spectra["FIBRES"].data["AIRMASS"][known]
    assert spectra["TELLURIC"].data[known, middle] == pytest.approx(0.8**mass, rel=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "telluric is 'table', but there is no TELLURIC file"),
        ("6000 0.8\n7000 1.8\n", "a transmission lies outside 0 to 1"),
        ("6000 0.8\nred 0.8\n", "expected wavelength .* and transmission in two columns"),
        ("7000 0.8\n6000 0.8\n", "at least 2 are expected, and rising"),
    ],
)
def test_a_transmission_that_is_none_is_refused(
    reduced: Any, tmp_path: Path, content: str | None, message: str
) -> None:
    table = tmp_path / "air.txt"
    table.write_text(content or "")
    more = [f"{table} TELLURIC"] if content else []
    outcome = run_object(reduced, tmp_path, lambda lines: [*lines, *more], telluric="table")
    assert outcome.exit_code == 3
    assert re.search(message, "\n".join(outcome.errors)), outcome.errors
