"""Good files that do not belong together, or not to this recipe."""

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.cli import main


@pytest.fixture
def frames(camera):
    """Return a function that writes one frame of a tag for each set of header cards."""

    def write(tag, *cards):
        return [camera.frame(tag=tag, **own) for own in cards]

    return write


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"GRATING": "red"}, "mode is red, but blue in"),
        ({"SPEED": "fast"}, "readmode is fast, but slow in"),
        ({"exptime": 99.0}, "exptime is 99.0, but"),
    ],
)
def test_flats_that_differ_are_not_combined(camera, frames, refuses, cards, words):
    mixed = frames("FLAT", {}, cards, {})
    refuses(3, [f"line 2: {mixed[1].name}", words], "tlm", camera.sof_of(mixed, "FLAT"))


@pytest.mark.parametrize(
    ("recipe", "tag", "other"), [("marc", "ARC", "FLAT"), ("tlm", "FLAT", "ARC")]
)
def test_a_flat_is_no_arc_and_an_arc_no_flat(camera, frames, refuses, recipe, tag, other):
    wrong = frames(other, {}, {})
    sof = camera.sof_of(wrong, tag)
    text = refuses(3, [f"tagged {tag}, but header and file name say {other}"], recipe, sof)
    assert text.count("tagged") == len(wrong)


def test_frames_that_are_all_read_out_another_way_than_the_bias_are_refused(camera, refuses):
    bias = camera.master_bias()
    dark = camera.frame(tag="DARK", exptime=300.0, SPEED="fast")
    sof = camera.sof_of([dark], "DARK", f"{bias} MASTER_BIAS")
    out = camera.folder / "dark"
    refuses(3, [bias.name, "readmode is slow, but fast"], "mdark", sof, output=out)


LIGHTFIELD = {
    "DATE-OBS": "2026-01-29T21:00:00",
    "HIERARCH PI CAMERA SENSOR INFORMATION SENSORNAME": "E2V 36-10 (CCD 36)(BX)(DD)",
    "HIERARCH PI CAMERA SHUTTERTIMING EXPOSURETIME": "20000",
    "HIERARCH PI CAMERA ADC SPEED": "0.1",
    "HIERARCH PI CAMERA ADC ANALOGGAIN": "High",
    "HIERARCH PI CAMERA ADC QUALITY": "LowNoise",
    "HIERARCH PI SPECTROMETER GRATING SELECTED": "[500nm,1200][2][0]",
    "HIERARCH PI SPECTROMETER GRATING CENTERWAVELENGTH": "700",
}


def test_a_mode_without_settings_is_a_warning_that_names_it(tmp_path, capsys):
    pixels = np.random.default_rng(1).integers(600, 620, (1300, 1340)).astype(np.uint16)
    frame = fits.PrimaryHDU(pixels)
    frame.header.update(LIGHTFIELD)
    path = tmp_path / "Flat_1200_700_20s 2026 January 29 1.fits"
    frame.writeto(path)
    assert main(["params", "tlm", str(path)]) == 0
    printed = capsys.readouterr()
    assert "the mode '1200_700' has no settings" in " ".join(printed.err.split())
    assert "stacked_clipping_sigma" in printed.out
