"""`kspec why` and `kspec replay` on the products of a small night."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from kspecpipe.cli import main
from kspecpipe.night.replay import compare

pytestmark = pytest.mark.usefixtures("inlined")


@pytest.fixture(scope="module")
def shared(new_camera, inline, tmp_path_factory):
    """Reduce biases of two read-out modes and darks of one, once for all tests."""
    camera = new_camera(tmp_path_factory.mktemp("night"))
    raw = camera.folder / "raw"
    raw.mkdir()
    paths = [*camera.biases(3), camera.dark(100.0), camera.dark(100.0)]
    paths += [camera.frame(SPEED="fast") for _ in range(3)]
    for path in paths:
        path.rename(raw / path.name)
    words = ["reduce", raw, "-o", camera.output, "--instrument", camera.instrument]
    with inline(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(camera.folder / "cache"))
        assert main([str(word) for word in (*words, "--plots", "none", "-q")]) == 0
    return camera


@pytest.fixture
def night(shared):
    """Return the products, which are to be looked at only."""
    return shared.output


@pytest.fixture
def own(shared, tmp_path):
    """Return a folder with a copy of frames and products, which may be changed."""
    for name in ("raw", "out"):
        shutil.copytree(shared.folder / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def kspec(shared, capsys):
    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in (*words, "--instrument", shared.instrument)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return code, printed.out + printed.err

    return run


def dark_of(folder):
    (path,) = folder.glob("*master_dark.fits")
    return path


def test_a_product_tells_what_it_took_and_what_it_passed_over(kspec, night):
    code, text = kspec("why", dark_of(night))
    assert code == 0
    assert "same night" in text
    assert "slow_master_bias.fits" in text
    assert "fast_master_bias.fits: readmode is fast, slow is needed" in text


def test_a_frame_tells_which_job_used_it(kspec, night, shared):
    frame = sorted((shared.folder / "raw").glob("dark*"))[0]
    code, text = kspec("why", frame, "-o", night)
    assert code == 0
    assert "kspec mdark, exit 0" in text


def test_a_frame_that_no_job_has_used_is_explained_by_a_plan(kspec, shared, tmp_path):
    frame = sorted((shared.folder / "raw").glob("dark*"))[0]
    code, text = kspec("why", frame, "-o", tmp_path / "elsewhere")
    assert code == 0
    assert "planned, kspec mdark" in text
    assert "slow_master_bias.fits" in text


def test_a_product_made_by_hand_is_explained_by_its_header(kspec, camera):
    code, text = kspec("why", camera.master_bias())
    assert code == 0
    assert "the user chose" in text
    assert kspec("why", camera.folder / "nowhere.fits")[0] == 3


def test_a_replay_is_identical(kspec, night, shared):
    code, text = kspec("replay", dark_of(night), "--raw", shared.folder / "raw")
    assert (code, "identical" in text) == (0, True), text


def test_inputs_are_found_by_checksum_under_other_names(kspec, own):
    for number, path in enumerate((own / "raw").glob("dark*")):
        path.rename(path.with_name(f"renamed {number}.fits"))
    code, text = kspec("replay", dark_of(own / "out"), "--raw", own / "raw")
    assert (code, "identical" in text) == (0, True), text


def test_a_product_that_was_changed_is_told_from_its_replay(kspec, own):
    path = dark_of(own / "out")
    with fits.open(path) as hdus:
        copy = fits.HDUList([hdu.copy() for hdu in hdus])
    copy[0].data = copy[0].data.copy()
    copy[0].data[3, 5] += 1
    copy.writeto(path, overwrite=True, checksum=True)
    code, text = kspec("replay", path, "--raw", own / "raw")
    assert code == 4
    assert "PRIMARY: differs by up to 1" in text
    assert "VARIANCE" not in text


def test_missing_inputs_are_all_named(kspec, night):
    code, text = kspec("replay", dark_of(night))
    assert code == 3
    assert text.count("name its folder with --raw") == 2
    assert "MASTER_BIAS" not in text


def test_what_is_no_product_cannot_be_replayed(kspec, camera):
    code, text = kspec("replay", camera.frame("raw.fits"))
    assert code == 3
    assert "no product" in text


def test_comparison_says_what_differs(tmp_path):
    pixels = np.arange(6.0).reshape(2, 3)
    extra = fits.ImageHDU(pixels, name="MORE")
    fits.HDUList([fits.PrimaryHDU(pixels), extra]).writeto(tmp_path / "a.fits")
    fits.HDUList([fits.PrimaryHDU(pixels[:1])]).writeto(tmp_path / "b.fits")
    found = list(compare(tmp_path / "a.fits", tmp_path / "b.fits"))
    assert found == ["PRIMARY: shape (2, 3), (1, 3) in the replay", "MORE: only in the product"]
