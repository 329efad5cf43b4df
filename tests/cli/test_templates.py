"""`kspec templates`: index, check and download, the last from a server on this machine."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kspecpipe.fluxcal import download
from kspecpipe.simulate.standards import LibraryPlan, write_template_library

PLAN = LibraryPlan((6000.0, 6500.0), (4.0,), (0.0,), 300, (2900.0, 11500.0))
CHOICE = ("--teff", 6000, 6500, "--logg", 4.0, "--feh", 0.0, "--resolution", 300)


@pytest.fixture
def library(tmp_path):
    write_template_library(tmp_path / "bosz", PLAN)
    return tmp_path / "bosz"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    write_template_library(folder, PLAN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_index_lists_what_is_there(kspec, library):
    result = kspec("templates", "index", library)
    assert result.code == 0, result.err
    assert "index_r300.csv: 2 models" in result.out
    assert len((library / "index_r300.csv").read_text().splitlines()) == 3


def test_index_keeps_the_parsed_models_so_that_no_run_waits_for_them(kspec, library):
    kspec("templates", "index", library)
    assert (library / "cache_r300.npz").exists()
    for path in library.rglob("*.txt.gz"):
        path.touch()  # changed files are parsed anew, ...
    kspec("templates", "index", library)
    kept = (library / "cache_r300.npz").stat().st_mtime_ns
    kspec("templates", "index", library)  # ... others are not
    assert (library / "cache_r300.npz").stat().st_mtime_ns == kept


def test_damaged_model_is_found_when_the_index_is_made(kspec, library):
    broken = sorted(library.rglob("*.txt.gz"))[0]
    broken.write_bytes(b"not gzip")
    result = kspec("templates", "index", library)
    assert result.code == 3
    assert broken.name in result.err


def test_whole_library_passes_the_check(kspec, library):
    kspec("templates", "index", library)
    result = kspec("templates", "check", library, "--read")
    assert result.code == 0, result.err
    assert "resolution 300, 2 of 2 models present" in result.out


def test_missing_and_short_models_are_named(kspec, library):
    kspec("templates", "index", library)
    gone, short = sorted(library.rglob("*.txt.gz"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:50])
    result = kspec("templates", "check", library)
    assert result.code == 3
    assert f"missing: r300/m+0.00/{gone.name}" in result.out
    assert f"of another size: r300/m+0.00/{short.name}" in result.out
    assert "kspec templates download" in result.err


def test_damaged_model_is_found_when_it_is_read(kspec, library):
    broken = sorted(library.rglob("*.txt.gz"))[0]
    broken.write_bytes(b"not gzip")
    assert kspec("templates", "check", library).code == 0
    result = kspec("templates", "check", library, "--read")
    assert result.code == 3
    assert broken.name in result.err


def test_folder_without_a_library_is_an_input_error(kspec, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        for action in ("index", "check"):
            result = kspec("templates", action, folder)
            assert result.code == 3
            assert len(result.err.splitlines()) == 1


def test_dry_run_lists_addresses_and_writes_nothing(kspec, tmp_path):
    result = kspec("templates", "download", tmp_path / "new", "--dry-run")
    addresses = [line for line in result.out.splitlines() if line.startswith("https://")]
    assert result.code == 0
    assert len(addresses) == 1 + 13 * 4 * (7 + 3)
    assert "521 planned" in result.out
    assert not (tmp_path / "new").exists()


def test_library_is_fetched_once_and_again_only_by_force(kspec, tmp_path, archive):
    words = ("templates", "download", tmp_path / "new", *CHOICE, "--archive", archive[0])
    first = kspec(*words)
    assert first.code == 0, first.err
    assert "3 ok, 0 skipped, 0 not found, 0 error" in first.out
    assert kspec("templates", "check", tmp_path / "new").code == 0
    assert "0 ok, 3 skipped" in kspec(*words).out
    assert "3 ok, 0 skipped" in kspec(*words, "--force").out


def test_model_that_the_archive_lacks_is_no_error(kspec, tmp_path, archive):
    sorted(archive[1].rglob("*.txt.gz"))[0].unlink()
    words = ("templates", "download", tmp_path / "new", *CHOICE, "--archive", archive[0])
    result = kspec(*words)
    assert result.code == 0
    assert "2 ok, 0 skipped, 1 not found, 0 error" in result.out
    assert kspec("templates", "check", tmp_path / "new").code == 0


def test_archive_that_does_not_answer_is_an_error_after_three_tries(kspec, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    result = kspec(
        "templates", "download", tmp_path / "new", *CHOICE, "--archive", "http://127.0.0.1:9"
    )
    assert result.code == 1
    assert "0 ok, 0 skipped, 0 not found, 1 error, 2 planned" in result.out
    assert "nothing else was tried" in result.err
    assert pauses == [2.0, 2.0]
    assert kspec("templates", "check", tmp_path / "new").code == 3


def test_archive_without_the_wavelengths_makes_no_library(kspec, tmp_path, archive):
    next(archive[1].glob("bosz2024_wave_*")).unlink()
    words = ("templates", "download", tmp_path / "new", *CHOICE, "--archive", archive[0])
    result = kspec(*words)
    assert result.code == 1
    assert "not in the archive; are its address and resolution right?" in result.err
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_model_that_is_cut_short_is_fetched_again(kspec, tmp_path, archive):
    words = ("templates", "download", tmp_path / "new", *CHOICE, "--archive", archive[0])
    kspec(*words)
    model = sorted((tmp_path / "new").rglob("*.txt.gz"))[0]
    whole = model.read_bytes()
    model.write_bytes(whole[:500])
    assert "of another size" in kspec("templates", "check", tmp_path / "new").out
    assert "1 ok, 2 skipped" in kspec(*words).out
    assert model.read_bytes() == whole
    assert kspec("templates", "check", tmp_path / "new", "--read").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("check", "x", "--dry-run"),
        ("index", "x", "--teff", 6000),
        ("download", "x", "--read"),
        ("download", "x", "--workers", 0),
        ("download", "x", "--workers", -1),
        ("download", "x", "--archive", "archive.org"),
        ("download", "x", "--teff", -6000),
        ("download", "x", "--feh", "nan"),
        ("download", "x", "--resolution", 0),
        ("fetch", "x"),
        ("check",),
    ],
)
def test_words_that_make_no_sense_are_usage_errors(kspec, words):
    assert kspec("templates", *words).code == 2


def test_file_in_place_of_the_folder_is_refused(kspec, tmp_path):
    (tmp_path / "file").touch()
    result = kspec("templates", "download", tmp_path / "file")
    assert result.code == 2
    assert "is a file" in result.err
